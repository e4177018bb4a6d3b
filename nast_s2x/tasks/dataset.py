"""Samples and batches for fairseq: features with CMVN and SpecAugment, labels of transcript, translation and units."""

import logging
import multiprocessing
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fairseq.data import FairseqDataset
from torch import Tensor

from nast_s2x.chunking import FRAMES_PER_SECOND, SlotRates
from nast_s2x.corpus.audio_ref import load_features
from nast_s2x.corpus.data_folder import DataFolder
from nast_s2x.corpus.manifest import Example
from nast_s2x.errors import ConfigError
from nast_s2x.frontend.cmvn import GlobalCmvn
from nast_s2x.frontend.specaugment import SpecAugment
from nast_s2x.labels import PAD, TextLabels, UnitLabels

logger = logging.getLogger(__name__)

SIZE_JITTER = 0.05
"""Lengths vary by so much when training samples are sorted, so that batches differ from epoch to epoch."""


def slots_needed(labels: np.ndarray) -> int:
    """Slots that a target needs: one per label, and a blank between equal neighbours."""
    return len(labels) + int((labels[1:] == labels[:-1]).sum())


def unit_string(units: Sequence[int]) -> str:
    """Units as a string of numbers, the form in which manifests hold and BLEU compares them."""
    return " ".join(map(str, units))


@dataclass(frozen=True)
class Sample:
    """Labels of one example; ``None`` where it has no such target.

    Attributes:
        source, text, units: labels with ``<s>`` and ``</s>``; ``text`` is what the text decoder learns.
    """

    source: np.ndarray | None
    text: np.ndarray | None
    units: np.ndarray | None


def label_examples(
    examples: Sequence[Example], text_labels: TextLabels, target_text: str, unit_labels: UnitLabels | None
) -> list[Sample]:
    """Labels of every example.

    Args:
        target_text: ``target`` (the translation) or ``source`` (the transcript) for the text decoder.
        unit_labels: ``None``: target units are not used.

    Raises:
        ValueError: a unit outside 0..num_units-1; names the example.
    """
    samples = []
    for example in examples:
        source = np.array(text_labels.target(example.src_text)) if example.src_text else None
        target = np.array(text_labels.target(example.tgt_text)) if example.tgt_text else None
        units = None
        if unit_labels is not None and example.tgt_audio:
            unit = max(example.tgt_audio)
            if unit >= unit_labels.num_units:
                raise ConfigError(
                    f"example {example.id} has unit {unit}, but num_units in config.yaml is {unit_labels.num_units}"
                )
            units = np.array(unit_labels.target(example.tgt_audio))
        samples.append(Sample(source, source if target_text == "source" else target, units))
    return samples


def build_specaugment(text: str | None, config: DataFolder, transforms: Sequence[str]) -> SpecAugment | None:
    """SpecAugment from a flag such as ``1x27,1x100`` (masks x width, over frequency and over time) or ``off``.

    Without a flag, what ``config`` says, if ``transforms`` ask for it. The masks of a flag may cover the whole sentence
    at most (``time_p`` 1, as published).
    """
    if text is None:
        return config.specaugment if "specaugment" in transforms else None
    if text.strip().lower() == "off":
        return None
    match = re.fullmatch(r"\s*(\d+)x(\d+)\s*,\s*(\d+)x(\d+)\s*", text)
    if match is None:
        raise ConfigError(f"--specaugment must look like 1x27,1x100 or be off, got {text!r}")
    freq_masks, freq_width, time_masks, time_width = map(int, match.groups())
    return SpecAugment(freq_masks, freq_width, time_masks, time_width, 1.0)


class NastDataset(FairseqDataset):
    """One split of a data folder.

    Args:
        examples: rows of its manifest.
        config: the data folder; features, CMVN and SpecAugment come from it.
        text_labels: text to labels.
        rates: slot rates of the model.
        train: training split: shuffled and augmented, and samples that cannot be learned are left out.
        max_frames: longest source in feature frames.
        target_text: ``target`` or ``source``.
        unit_labels: ``None``: target units are not used.
        seed: of shuffling (with the epoch) and of augmentation (with epoch and index).
        split: name of the split, for messages and for its own transforms in config.yaml.
        specaugment: see :func:`build_specaugment`.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        config: DataFolder,
        text_labels: TextLabels,
        rates: SlotRates,
        *,
        train: bool,
        max_frames: int,
        target_text: str = "target",
        unit_labels: UnitLabels | None = None,
        seed: int = 1,
        split: str = "",
        specaugment: str | None = None,
    ) -> None:
        self.examples = list(examples)
        self.labels = label_examples(self.examples, text_labels, target_text, unit_labels)
        self.folder = config.audio_root
        self.target_text = target_text
        self.train, self.seed = train, seed
        self._epoch = multiprocessing.RawValue("q", 1)
        self.left_out: dict[str, int] = {}
        transforms = config.transforms(train, split or None)
        self.cmvn = GlobalCmvn.load(config.cmvn_path) if "global_cmvn" in transforms and config.cmvn_path else None
        self.specaugment = build_specaugment(specaugment, config, transforms) if train else None
        if train:
            self._leave_out(rates, max_frames, split)
        self.frames = np.array([example.n_frames for example in self.examples], dtype=np.int64)
        self.sizes = self.frames  # the name by which fairseq filters

    def _leave_out(self, rates: SlotRates, max_frames: int, split: str) -> None:
        """Drop samples that cannot be learned: too long, or with fewer slots than their target needs."""
        kept: list[int] = []
        for index, (example, labels) in enumerate(zip(self.examples, self.labels, strict=True)):
            reason = None
            if example.n_frames > max_frames:
                reason = f"longer than {max_frames / FRAMES_PER_SECOND:g} s"
            elif labels.text is None:
                reason = "without target text"
            elif slots_needed(labels.text) > rates.length("text", example.n_frames):
                reason = "with fewer text slots than labels"
            elif labels.units is not None and slots_needed(labels.units) > rates.length("unit", example.n_frames):
                reason = "with fewer unit slots than labels"
            if reason is None:
                kept.append(index)
            else:
                self.left_out[reason] = self.left_out.get(reason, 0) + 1
        if self.left_out:
            details = ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))
            total = sum(self.left_out.values())
            logger.warning(f"{split}: {total} of {len(self.examples)} samples left out ({details})")
        self.examples = [self.examples[index] for index in kept]
        self.labels = [self.labels[index] for index in kept]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.examples[index]
        features = load_features(example.audio, self.folder)
        if self.cmvn is not None:
            features = self.cmvn(features)
        if self.specaugment is not None:
            # A generator of its own: the same masks after resuming and for any number of workers.
            features = self.specaugment(features, np.random.default_rng((self.seed, self._epoch.value, index)))
        if len(features) > example.n_frames + 2:
            raise ConfigError(
                f"example {example.id} has {len(features)} frames of features, but its manifest says {example.n_frames}"
            )
        return {"index": index, "features": torch.from_numpy(np.ascontiguousarray(features))}

    def collater(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch; see the values below. No samples (a process without work) give an empty dictionary."""
        if not samples:
            return {}
        indices = [sample["index"] for sample in samples]
        features = [sample["features"] for sample in samples]
        labels = [self.labels[index] for index in indices]
        examples = [self.examples[index] for index in indices]
        source, source_lengths = _pad_labels([item.source for item in labels])
        text, text_lengths = _pad_labels([item.text for item in labels])
        units, units_lengths = _pad_labels([item.units for item in labels])
        wanted = "src_text" if self.target_text == "source" else "tgt_text"
        return {
            "id": torch.tensor(indices),
            "nsentences": len(samples),
            "net_input": {
                "fbank": torch.nn.utils.rnn.pad_sequence(features, batch_first=True),  # (B, F, bins)
                "frames": tuple(len(item) for item in features),
            },
            "source": source,
            "source_lengths": source_lengths,
            "text": text,
            "text_lengths": text_lengths,
            "units": units,
            "units_lengths": units_lengths,
            "target": None if text is None else text[:, 1:],  # as fairseq-generate reads it: without <s>
            "references": [getattr(example, wanted) for example in examples],
            "unit_references": [unit_string(example.tgt_audio or ()) for example in examples],
        }

    def num_tokens(self, index: int) -> int:
        """Feature frames: what ``--max-tokens`` counts."""
        return int(self.frames[index])

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """Feature frames of several samples."""
        return self.frames[indices]

    def size(self, index: int) -> int:
        """Feature frames: what ``max_positions`` limits."""
        return int(self.frames[index])

    def ordered_indices(self) -> np.ndarray:
        """Samples by length, the longest first; in training shuffled among samples of similar length."""
        if not self.train:
            return np.argsort(-self.frames, kind="stable")
        # fairseq seeds numpy with (seed, epoch) around this call.
        jitter = np.random.uniform(1 - SIZE_JITTER, 1 + SIZE_JITTER, len(self))
        return np.argsort(-self.frames * jitter, kind="stable")

    def batch_by_size(
        self,
        indices: np.ndarray,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[np.ndarray]:
        """Cut ``indices`` into batches, all of them.

        fairseq drops a last batch that is no multiple of ``--required-batch-size-multiple`` (8 by default), and with it
        sentences of a validation or test set; it is kept here.
        """
        batches = list(super().batch_by_size(indices, max_tokens, max_sentences, required_batch_size_multiple))
        done = sum(map(len, batches))
        return batches if done == len(indices) else [*batches, indices[done:]]

    def set_epoch(self, epoch: int) -> None:
        """Seed the augmentation of this epoch, also in worker processes that live longer than one epoch."""
        self._epoch.value = epoch


def _pad_labels(rows: Sequence[np.ndarray | None]) -> tuple[Tensor | None, Tensor | None]:
    """Rows of labels, some missing, to (B, L) padded labels and (B,) lengths; (None, None) without any row."""
    if all(row is None for row in rows):
        return None, None
    tensors = [torch.empty(0, dtype=torch.long) if row is None else torch.from_numpy(row) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=PAD)
    return padded, torch.tensor([len(row) for row in tensors])
