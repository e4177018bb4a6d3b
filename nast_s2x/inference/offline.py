"""Translation of whole utterances, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nast_s2x.chunking import ChunkGeometry
from nast_s2x.frontend.fbank import fbank
from nast_s2x.inference.bundle import System
from nast_s2x.inference.detokenizer import detokenize
from nast_s2x.labels import UnitReader, text_collapser
from nast_s2x.vocoder.network import UnitVocoder
from nast_s2x.vocoder.streaming import SynthesisWindow, synthesize, synthesize_chunks


@dataclass(frozen=True)
class Translation:
    """Translation of one utterance.

    Attributes:
        text: the words.
        tokens: text tokens (labels after collapse, without blank and specials).
        units: unit codes, runs collapsed; empty without a unit decoder.
        score: mean natural-log-probability of the best text label of each slot; 0 without slots.
        num_frames: feature frames (10 ms) of the source.
        labels, unit_labels: best label of each text and unit slot, before collapse.
        unit_chunks: the units, as the chunks of the geometry bring them.
        waveform: (n,) float32 at 16 kHz, the units spoken; ``None`` when no speech was asked for. Translations that
            differ in this alone count as equal.
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    units: list[int] = field(default_factory=list)
    score: float = 0.0
    num_frames: int = 0
    labels: list[int] = field(default_factory=list)
    unit_labels: list[int] = field(default_factory=list)
    unit_chunks: list[list[int]] = field(default_factory=list)
    waveform: NDArray[np.float32] | None = field(default=None, compare=False)


@torch.inference_mode()
def translate_batch(
    bundle: System,
    features: Sequence[Tensor | NDArray[np.float32]],
    geometry: ChunkGeometry | None = None,
    with_units: bool = True,
    normalised: bool = False,
    with_speech: bool = False,
    synthesis: SynthesisWindow | None = None,
) -> list[Translation]:
    """Translate utterances in one forward pass.

    Args:
        bundle: the trained system.
        features: of each utterance (F, bins), F from 0; log-mel as the front end gives them.
        geometry: ``None`` takes the bundle's default for whole utterances.
        with_units: return units too, if the bundle has a unit decoder.
        normalised: True if CMVN has been applied already.
        with_speech: return the sound of the units too.
        synthesis: look-ahead and context of the vocoder; ``None`` takes the usual one.
    Returns:
        one translation per utterance, in order; padding and batching do not change them.
    Raises:
        ValueError: features of a wrong shape, an utterance longer than the model's position tables, speech asked of a
            bundle without a vocoder.
    """
    vocoder = bundle.voice() if with_speech else None
    geometry = bundle.trained.choose(offline_default=True) if geometry is None else geometry
    tensors = [_as_features(item, bundle.model.config.input_dim) for item in features]
    results = [Translation() for _ in tensors]
    spoken = [index for index, item in enumerate(tensors) if len(item)]
    if not spoken:
        return results if vocoder is None else _spoken(vocoder, results, geometry, synthesis)
    ready = [
        tensors[index].to(bundle.device, bundle.dtype) if normalised else bundle.normalise(tensors[index])
        for index in spoken
    ]
    lengths = torch.tensor([len(item) for item in ready], device=bundle.device)
    fbank_batch = torch.nn.utils.rnn.pad_sequence(ready, batch_first=True)  # (B, F, bins)
    output = bundle.model(fbank_batch, lengths, geometry, with_units=with_units or with_speech)
    scores, labels = output.text_logits.log_softmax(-1).max(-1)  # (B, N) each
    unit_labels = None
    if output.unit_logits is not None:
        unit_labels = output.unit_logits.argmax(-1)  # (B, U)
    for row, index in enumerate(spoken):
        slots = int(output.text_lengths[row])
        units = unit_labels[row, : slots * geometry.unit_upsample].tolist() if unit_labels is not None else []
        score = float(scores[row, :slots].float().mean())
        results[index] = _translation(bundle, geometry, labels[row, :slots].tolist(), units, score, len(ready[row]))
    return results if vocoder is None else _spoken(vocoder, results, geometry, synthesis)


def _translation(
    bundle: System,
    geometry: ChunkGeometry,
    labels: list[int],
    unit_labels: list[int],
    score: float,
    num_frames: int,
) -> Translation:
    tokens = text_collapser(bundle).push(labels)
    chunks: list[list[int]] = []
    if unit_labels:
        reader, size = UnitReader(bundle), geometry.chunk_text_slots or len(labels)
        step = size * geometry.unit_upsample
        chunks = [reader.push(unit_labels[start : start + step]) for start in range(0, len(unit_labels), step)]
    units = [unit for chunk in chunks for unit in chunk]
    text = detokenize(bundle.tokenizer, tokens)
    return Translation(text, tokens, units, score, num_frames, labels, unit_labels, chunks)


def _spoken(
    vocoder: UnitVocoder,
    translations: Sequence[Translation],
    geometry: ChunkGeometry,
    synthesis: SynthesisWindow | None,
) -> list[Translation]:
    """The translations with their sound."""
    if geometry.offline:  # one window each: what a stream does, but several utterances at a time
        sounds = synthesize(vocoder, [translation.units for translation in translations])
    else:
        sounds = [speak_chunks(vocoder, translation.unit_chunks, geometry, synthesis) for translation in translations]
    return [replace(translation, waveform=sound) for translation, sound in zip(translations, sounds)]


def speak_chunks(
    vocoder: UnitVocoder,
    chunks: Sequence[Sequence[int]],
    geometry: ChunkGeometry,
    synthesis: SynthesisWindow | None = None,
) -> NDArray[np.float32]:
    """The sound of a translation, (n,) float32: what a stream of the same geometry says for the units of its chunks.

    The end of a stream counts as a chunk without units, so that its sound does not depend on whether the end of the
    source was known when the last chunk was complete. An offline translation is a single chunk, in one window.
    """
    return synthesize_chunks(vocoder, chunks if geometry.offline else [*chunks, []], synthesis)


def _as_features(item: Tensor | NDArray[np.float32], bins: int) -> Tensor:
    tensor = item if isinstance(item, Tensor) else torch.from_numpy(np.ascontiguousarray(item))
    if tensor.dim() != 2 or tensor.size(1) != bins:
        raise ValueError(f"features of an utterance must have shape (frames, {bins}), got {tuple(tensor.shape)}")
    return tensor


def translate_samples(
    bundle: System,
    samples: ArrayLike,
    sample_rate: int | None = None,
    geometry: ChunkGeometry | None = None,
    with_units: bool = True,
    with_speech: bool = False,
    synthesis: SynthesisWindow | None = None,
) -> Translation:
    """Translate one recording: samples (n,) or (n, channels) at ``sample_rate`` Hz (``None``: the bundle's)."""
    features = fbank(samples, bundle.sample_rate if sample_rate is None else sample_rate)
    return translate_batch(bundle, [features], geometry, with_units, with_speech=with_speech, synthesis=synthesis)[0]
