"""Samples and batches for fairseq: features with CMVN and SpecAugment, labels of transcript, translation and units."""

import logging
import multiprocessing
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fairseq.data import FairseqDataset

from nast_s2x.batches import TargetBatch
from nast_s2x.chunking import FRAMES_PER_SECOND, SlotRates
from nast_s2x.corpus import Utterance
from nast_s2x.corpus.compact import AudioRefs, Strings
from nast_s2x.corpus.data_folder import DataFolder
from nast_s2x.errors import ConfigError
from nast_s2x.frontend.cmvn import GlobalCmvn
from nast_s2x.frontend.specaugment import SpecAugment
from nast_s2x.labels import PAD, TextLabels, UnitLabels
from nast_s2x.tasks.joining import JoinedRows, join_labels

logger = logging.getLogger(__name__)

SIZE_JITTER = 0.05
"""Relative random change of lengths in sorting training samples, so that batches differ from epoch to epoch."""


class _LabelCollector:
    def __init__(self) -> None:
        self.labels, self.offsets = array("i"), array("q", [0])

    def append(self, row: Sequence[int] | None) -> None:
        self.labels.extend(row or ())
        self.offsets.append(len(self.labels))


class LabelArrays:
    """Labels of many rows in one array: 4 bytes a label and 8 a row, whatever the number of rows.

    Args:
        rows: labels of each row, ``None`` for a row without a target.
    """

    def __init__(self, rows: Iterable[Sequence[int] | None]) -> None:
        collected = _LabelCollector()
        for row in rows:
            collected.append(row)
        self._take(collected)

    @classmethod
    def collected(cls, rows: "_LabelCollector") -> "LabelArrays":
        """The arrays of rows that were collected one after the other."""
        made = cls.__new__(cls)
        made._take(rows)
        return made

    def _take(self, rows: "_LabelCollector") -> None:
        self._labels = np.frombuffer(rows.labels, dtype=np.int32) if rows.labels else np.zeros(0, np.int32)
        self._offsets = np.frombuffer(rows.offsets, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray | None:
        """(L,) labels of a row, ``None`` without any."""
        start, stop = self._offsets[index], self._offsets[index + 1]
        return self._labels[start:stop] if stop > start else None

    def slots_needed(self) -> np.ndarray:
        """(rows,) slots that each row needs: one per label, and a blank between equal neighbours; 0 without labels.

        ``TargetBatch.needed`` for all rows of a corpus at once.
        """
        repeats = np.zeros(len(self._labels) + 1, dtype=np.int64)
        repeats[2:] = np.cumsum(self._labels[1:] == self._labels[:-1]) if len(self._labels) else 0
        inner = np.minimum(self._offsets[:-1] + 1, self._offsets[1:])  # behind the first label of each row
        return np.diff(self._offsets) + repeats[self._offsets[1:]] - repeats[inner]

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self._labels.nbytes + self._offsets.nbytes


@dataclass(frozen=True)
class Labels:
    """Labels of every row, with ``<s>`` and ``</s>``.

    Attributes:
        source: of the transcript.
        text: what the text decoder learns: the translation, or the transcript.
        units: of the speech units.
    """

    source: LabelArrays
    text: LabelArrays
    units: LabelArrays


@dataclass(frozen=True)
class RowArrays:
    """What training and validation need of the rows of a split: arrays, no Python object a row.

    Attributes:
        labels: of each row.
        frames: (rows,) feature frames.
        ids, audio: names and features of the rows.
        references, unit_references: target texts and unit strings; None for a training split.
    """

    labels: Labels
    frames: np.ndarray
    ids: Strings
    audio: AudioRefs
    references: Strings | None
    unit_references: Strings | None


def read_rows(
    rows: Iterable[Utterance],
    text_labels: TextLabels,
    target_text: str,
    unit_labels: UnitLabels | None,
    with_references: bool,
) -> RowArrays:
    """Collect rows one after the other.

    Args:
        target_text: ``target`` (the translation) or ``source`` (the transcript) for the text decoder.
        unit_labels: ``None``: target units are not used.
        with_references: keep the target texts and unit strings.

    Raises:
        ConfigError: a unit outside 0..num_units-1; names the row.
    """
    source, text, units = _LabelCollector(), _LabelCollector(), _LabelCollector()
    frames, ids, audio = array("q"), Strings(), AudioRefs()
    references, unit_references = Strings(), Strings()
    for row in rows:
        assert row.audio is not None  # a required column
        ids.append(row.id)
        audio.append(row.audio)
        frames.append(row.length())
        source.append(text_labels.target(row.source_text) if row.source_text else None)
        if target_text != "source":
            text.append(text_labels.target(row.target_text) if row.target_text else None)
        units.append(_unit_target(row, unit_labels))
        if with_references:
            references.append(row.source_text if target_text == "source" else row.target_text)
            unit_references.append("" if row.units is None else str(row.units))
    recognised = LabelArrays.collected(source)
    learned = recognised if target_text == "source" else LabelArrays.collected(text)
    return RowArrays(
        Labels(recognised, learned, LabelArrays.collected(units)),
        np.array(frames, dtype=np.int64),
        ids,
        audio,
        references if with_references else None,
        unit_references if with_references else None,
    )


def _unit_target(row: Utterance, unit_labels: UnitLabels | None) -> Sequence[int] | None:
    if unit_labels is None or row.units is None:
        return None
    largest = max(row.units.codes)
    if largest >= unit_labels.num_units:
        raise ConfigError(
            f"example {row.id} has unit {largest}, but num_units in config.yaml is {unit_labels.num_units}"
        )
    return unit_labels.target(row.units.codes)


def build_specaugment(text: str | None, config: DataFolder, transforms: Sequence[str]) -> SpecAugment | None:
    """SpecAugment from a flag such as ``1x27,1x100`` (masks x width, over frequency and over time) or ``off``.

    Without a flag, the masks of ``config``, if ``transforms`` name them. The time masks of a flag may be as long as the
    sentence (``time_p`` 1, as published).

    Raises:
        ConfigError: a flag of another form.
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
        rows: of its table; read once, and not kept.
        config: the data folder; features, CMVN and SpecAugment come from it.
        text_labels: text to labels.
        rates: slot rates of the model.
        train: training split: shuffled and augmented, and samples that cannot be learned are left out.
        max_frames: longest source in feature frames.
        target_text: ``target`` or ``source``.
        unit_labels: ``None``: target units are not used.
        seed: of shuffling (with the epoch) and of augmentation (with epoch and index).
        split: name of the split, for messages and for its entry in ``transforms`` of config.yaml.
        specaugment: see :func:`build_specaugment`.
        join_samples: rows of a training sample at most, see :class:`~nast_s2x.tasks.joining.JoinedRows`.
    Raises:
        ConfigError: a unit or a flag that cannot be used; no sample left to train on.
    """

    def __init__(
        self,
        rows: Iterable[Utterance],
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
        join_samples: int = 1,
    ) -> None:
        table = read_rows(rows, text_labels, target_text, unit_labels, with_references=not train)
        self.train, self.seed = train, seed
        self._epoch = multiprocessing.RawValue("q", 1)
        self.left_out: dict[str, int] = {}
        transforms = config.transforms(train, split or None)
        self.cmvn = GlobalCmvn.load(config.cmvn_path) if "global_cmvn" in transforms and config.cmvn_path else None
        self.specaugment = build_specaugment(specaugment, config, transforms) if train else None
        self.narrowband = config.narrowband if train and "narrowband" in transforms else None
        text, units = table.labels.text.slots_needed(), table.labels.units.slots_needed()
        kept = np.arange(len(table.frames))
        if train:
            kept = self._learnable(table.frames, text, units, rates, max_frames, split)
        self.table, self._kept = table, kept
        most = join_samples if train else 1
        self._joined = JoinedRows(table.frames[kept], text[kept], units[kept], most, max_frames, rates, seed)

    @property
    def frames(self) -> np.ndarray:
        """(samples,) feature frames in this epoch."""
        return self._joined.frames(self._epoch.value)

    @property
    def sizes(self) -> np.ndarray:
        """The same, by the name with which fairseq filters."""
        return self.frames

    def _learnable(
        self, frames: np.ndarray, text: np.ndarray, units: np.ndarray, rates: SlotRates, max_frames: int, split: str
    ) -> np.ndarray:
        """Indices of the rows that can be learned: not too long, and with enough slots for their targets.

        Raises:
            ConfigError: there is none.
        """
        reasons = (
            (f"longer than {max_frames / FRAMES_PER_SECOND:g} s", frames > max_frames),
            ("without target text", text == 0),
            ("with fewer text slots than labels", text > rates.length("text", frames)),
            ("with fewer unit slots than labels", units > rates.length("unit", frames)),
        )
        left_out = np.zeros(len(frames), dtype=bool)
        for reason, applies in reasons:
            count = int((applies & ~left_out).sum())
            if count:
                self.left_out[reason] = count
            left_out |= applies
        if self.left_out:
            details = ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))
            if left_out.all():
                raise ConfigError(f"{split}: none of the {len(frames)} samples can be used for training ({details})")
            logger.warning(f"{split}: {left_out.sum()} of {len(frames)} samples left out ({details})")
        return np.flatnonzero(~left_out)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rows = self._joined.rows(index, self._epoch.value)
        # One generator per sample: the same masks after resuming and for any number of workers.
        parts = [self._features(row, (self.seed, self._epoch.value, *dict.fromkeys((index, row)))) for row in rows]
        features = parts[0] if len(parts) == 1 else np.concatenate(parts)
        places = [int(self._kept[row]) for row in rows]
        return {"index": index, "places": places, "features": torch.from_numpy(np.ascontiguousarray(features))}

    def _features(self, row: int, seed: tuple[int, ...]) -> np.ndarray:
        """Features (F, bins) of a row, augmented by draws from ``seed``."""
        place = int(self._kept[row])
        features = self.table.audio[place].features()
        if self.narrowband is not None:
            features = self.narrowband(features, np.random.default_rng((*seed, 1)))
        if self.cmvn is not None:
            features = self.cmvn(features)
        if self.specaugment is not None:
            features = self.specaugment(features, np.random.default_rng(seed))
        if len(features) > self.table.frames[place] + 2:
            raise ConfigError(
                f"example {self.table.ids[place]} has {len(features)} frames of features, but its table has "
                f"{self.table.frames[place]}"
            )
        return features

    def collater(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch of samples; empty for no samples (a process without work).

        ``net_input`` has ``fbank`` (B, F, bins) and ``frames``; ``source``, ``text`` and ``units`` are target batches
        as dictionaries, None where no row has any; the rest is for logging and ``fairseq-generate``. The references of
        a training split are empty: :meth:`NastTask.valid_step` takes them from the labels.
        """
        if not samples:
            return {}
        indices = [sample["index"] for sample in samples]
        features = [sample["features"] for sample in samples]
        first = [sample["places"][0] for sample in samples]
        targets = {
            name: _target_batch([self._labels(name, sample["places"]) for sample in samples])
            for name in ("source", "text", "units")
        }
        text = targets["text"]
        return {
            "id": torch.tensor(indices),
            "nsentences": len(samples),
            "net_input": {
                "fbank": torch.nn.utils.rnn.pad_sequence(features, batch_first=True),  # (B, F, bins)
                "frames": tuple(len(item) for item in features),
            },
            **targets,
            "target": None if text is None else text["labels"][:, 1:],  # as fairseq-generate reads it: without <s>
            "references": _strings(self.table.references, first),
            "unit_references": _strings(self.table.unit_references, first),
        }

    def _labels(self, name: str, places: Sequence[int]) -> np.ndarray | None:
        return join_labels([getattr(self.table.labels, name)[place] for place in places])

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
        """Seed the augmentation of this epoch, also in worker processes that are kept between epochs."""
        self._epoch.value = epoch


def _strings(texts: Strings | None, places: Sequence[int]) -> list[str]:
    return [""] * len(places) if texts is None else [texts[place] for place in places]


def _target_batch(rows: Sequence[np.ndarray | None]) -> dict[str, Any] | None:
    """Labels of a batch as :meth:`TargetBatch.to_dict`, ``None`` without any."""
    return None if all(row is None for row in rows) else TargetBatch.pad(rows, PAD).to_dict()
