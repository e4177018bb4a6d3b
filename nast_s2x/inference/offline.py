"""Translation of whole utterances, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nast_s2x.batches import Lengths
from nast_s2x.chunking import ChunkPolicy
from nast_s2x.errors import AudioError
from nast_s2x.frontend.audio import read_samples
from nast_s2x.frontend.fbank import fbank
from nast_s2x.inference.detokenizer import detokenize, join_sentences
from nast_s2x.inference.segmenter import levels_of
from nast_s2x.network import NastOutput
from nast_s2x.vocoder.network import UnitVocoder
from nast_s2x.vocoder.offline import synthesize
from nast_s2x.vocoder.streaming import SynthesisWindow, synthesize_chunks

if TYPE_CHECKING:
    from nast_s2x.inference.system import System

SEGMENTS = 8
"""Segments of long recordings in one forward pass."""


@dataclass(frozen=True)
class Translation:
    """Translation of one utterance.

    Attributes:
        text: the translation.
        tokens: text tokens (labels after collapse, without blank and specials).
        units: unit codes, runs collapsed; empty without a unit decoder.
        score: mean log-probability (natural) of the best label of each text slot; 0 without slots.
        num_frames: feature frames (10 ms) of the source.
        labels, unit_labels: best label of each text and unit slot, before collapse.
        unit_chunks: the units of each chunk.
        source_text: words of the source, from the recognition head; empty if not asked for.
        waveform: (n,) float32 at 16 kHz; ``None`` without speech. Translations that differ in this alone count as
            equal.
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    units: list[int] = field(default_factory=list)
    score: float = 0.0
    num_frames: int = 0
    labels: list[int] = field(default_factory=list)
    unit_labels: list[int] = field(default_factory=list)
    unit_chunks: list[list[int]] = field(default_factory=list)
    source_text: str = ""
    waveform: NDArray[np.float32] | None = field(default=None, compare=False)


@torch.inference_mode()
def translate_batch(
    system: System,
    features: Sequence[Tensor | NDArray[np.float32]],
    policy: ChunkPolicy | None = None,
    with_units: bool = True,
    normalized: bool = False,
    with_speech: bool = False,
    synthesis: SynthesisWindow | None = None,
    with_transcript: bool = False,
) -> list[Translation]:
    """Translate utterances in one forward pass, those that a stream would cut in several.

    Args:
        system: the trained system.
        features: of each utterance (F, bins), F from 0; log-mel features of the front end.
        policy: ``None`` takes the default for whole utterances.
        with_units: return units too, if the model has a unit decoder.
        normalized: True if CMVN has been applied already; such utterances are not cut into segments.
        with_speech: return the waveform of the units too.
        synthesis: look-ahead and context of the vocoder.
        with_transcript: return the words of the source too, from the recognition head.
    Returns:
        one translation per utterance, in order; padding and batching do not change them.
    Raises:
        AudioError: features of a wrong shape.
        ConfigError: normalized features longer than the model's position tables, speech without a vocoder, a
            transcript of a recognition head that was not trained.
    """
    vocoder = system.require_vocoder() if with_speech else None
    if with_transcript:
        system.require_recognition()
    policy = system.policy(prefer_offline=True) if policy is None else policy
    tensors = [_as_features(item, system.model.config.input_dim) for item in features]
    units = with_units or with_speech
    parts = [[item] if normalized else _segments(system, item, units) for item in tensors]
    run = partial(_forward, system, policy, normalized, units, with_transcript)
    if len(parts) == sum(map(len, parts)):
        results = run(tensors)
    else:
        flat = [part for own in parts for part in own]
        # A long recording has hundreds of segments: some at a time, so that memory does not grow with its length.
        done = (item for start in range(0, len(flat), SEGMENTS) for item in run(flat[start : start + SEGMENTS]))
        results = [_joined([next(done) for _ in own]) for own in parts]
    return results if vocoder is None else _with_waveforms(vocoder, results, policy, synthesis)


def _segments(system: System, features: Tensor, with_units: bool) -> list[Tensor]:
    """The parts of an utterance (F, bins) that are translated each by itself: those of a stream."""
    segmenter = system.segmenter(with_units)
    if segmenter is None or not len(features):
        return [features]
    ends = [cut.frame for cut in segmenter.push(levels_of(features))]
    edges = [0, *ends, *([len(features)] if not ends or ends[-1] < len(features) else [])]
    return [features[start:stop] for start, stop in zip(edges, edges[1:])]


def _forward(
    system: System,
    policy: ChunkPolicy,
    normalized: bool,
    with_units: bool,
    with_transcript: bool,
    features: Sequence[Tensor],
) -> list[Translation]:
    """One forward pass; an utterance without a frame has an empty translation."""
    results = [Translation() for _ in features]
    filled = [index for index, item in enumerate(features) if len(item)]
    if filled:
        ready = [
            features[index].to(system.device, system.dtype) if normalized else system.normalize(features[index])
            for index in filled
        ]
        frames = Lengths(tuple(len(item) for item in ready))
        fbank_batch = torch.nn.utils.rnn.pad_sequence(ready, batch_first=True)  # (B, F, bins)
        output = system.model(fbank_batch, frames, policy, with_asr=with_transcript, with_units=with_units)
        for index, translation in zip(filled, _translations(system, policy, output, frames)):
            results[index] = translation
    return results


def _joined(parts: Sequence[Translation]) -> Translation:
    """One translation of consecutive segments. Between two, a chunk without units ends what the vocoder held back."""
    if len(parts) == 1:
        return parts[0]
    slots = sum(len(part.labels) for part in parts)
    has_units = any(part.unit_labels for part in parts)
    chunks: list[list[int]] = []
    for index, part in enumerate(parts):
        chunks += [[], *part.unit_chunks] if index and has_units else part.unit_chunks
    return Translation(
        text=join_sentences(part.text for part in parts),
        tokens=[token for part in parts for token in part.tokens],
        units=[unit for part in parts for unit in part.units],
        score=sum(part.score * len(part.labels) for part in parts) / max(1, slots),
        num_frames=sum(part.num_frames for part in parts),
        labels=[label for part in parts for label in part.labels],
        unit_labels=[label for part in parts for label in part.unit_labels],
        unit_chunks=chunks,
        source_text=join_sentences(part.source_text for part in parts),
    )


def _translations(system: System, policy: ChunkPolicy, output: NastOutput, frames: Lengths) -> Iterator[Translation]:
    """The translation of each row of a batch."""
    scores, labels = output.text_logits.log_softmax(-1).max(-1)  # (B, N) each
    unit_labels = None if output.unit_logits is None else output.unit_logits.argmax(-1)  # (B, U)
    source_labels = None if output.asr_logits is None else output.asr_logits.argmax(-1)  # (B, S)
    for row, slots in enumerate(output.text_lengths.host):
        units: list[int] = []
        if unit_labels is not None and output.unit_lengths is not None:
            units = unit_labels[row, : output.unit_lengths.host[row]].tolist()
        best = labels[row, :slots].tolist()
        tokens = system.text.collapser().push(best)
        chunks = _unit_chunks(system, policy, units)
        source: list[int] = []
        if source_labels is not None:
            source = source_labels[row, : output.encoder_lengths.host[row]].tolist()
        yield Translation(
            text=detokenize(system.text, tokens),
            tokens=tokens,
            units=[unit for chunk in chunks for unit in chunk],
            score=float(scores[row, :slots].float().mean()),
            num_frames=frames.host[row],
            labels=best,
            unit_labels=units,
            unit_chunks=chunks,
            source_text=detokenize(system.text, system.text.collapser().push(source)),
        )


def _unit_chunks(system: System, policy: ChunkPolicy, labels: list[int]) -> list[list[int]]:
    """Unit codes of each chunk, as a stream of the same policy returns them."""
    if system.units is None or not labels:
        return []
    collapser, size = system.units.collapser(), system.model.geometry(policy).per_chunk("unit") or len(labels)
    return [collapser.push(labels[start : start + size]) for start in range(0, len(labels), size)]


def _with_waveforms(
    vocoder: UnitVocoder,
    translations: Sequence[Translation],
    policy: ChunkPolicy,
    synthesis: SynthesisWindow | None,
) -> list[Translation]:
    """The translations with the waveforms of their units."""
    if policy.is_offline and all(len(item.unit_chunks) <= 1 for item in translations):
        # One window each, as in a stream, but several utterances at a time.
        waveforms = synthesize(vocoder, [translation.units for translation in translations])
    else:
        waveforms = [waveform_of(vocoder, item.unit_chunks, policy, synthesis) for item in translations]
    return [replace(translation, waveform=waveform) for translation, waveform in zip(translations, waveforms)]


def waveform_of(
    vocoder: UnitVocoder,
    chunks: Sequence[Sequence[int]],
    policy: ChunkPolicy,
    synthesis: SynthesisWindow | None = None,
) -> NDArray[np.float32]:
    """The waveform of a translation, (n,) float32: that of a stream of the same policy for the units of its chunks.

    The end of a stream counts as a chunk without units, so that the waveform is the same whether or not the source
    ended with the push that completed the last chunk. An offline translation is a single chunk, in one window.
    """
    return synthesize_chunks(vocoder, chunks if policy.is_offline else [*chunks, []], synthesis)


def _as_features(item: Tensor | NDArray[np.float32], bins: int) -> Tensor:
    tensor = item if isinstance(item, Tensor) else torch.from_numpy(np.ascontiguousarray(item))
    if tensor.dim() != 2 or tensor.size(1) != bins:
        raise AudioError(f"features of an utterance must have shape (frames, {bins}), got {tuple(tensor.shape)}")
    return tensor


def translate_samples(
    system: System,
    samples: ArrayLike,
    sample_rate: int | None = None,
    policy: ChunkPolicy | None = None,
    with_units: bool = True,
    with_speech: bool = False,
    synthesis: SynthesisWindow | None = None,
    with_transcript: bool = False,
) -> Translation:
    """Translate one recording: samples (n,) or (n, channels) at ``sample_rate`` Hz (``None``: 16000)."""
    features = fbank(samples, system.sample_rate if sample_rate is None else sample_rate)
    options = {"with_speech": with_speech, "with_transcript": with_transcript}
    return translate_batch(system, [features], policy, with_units, synthesis=synthesis, **options)[0]


def translate_file(
    system: System,
    path: str | Path,
    policy: ChunkPolicy | None = None,
    with_units: bool = True,
    with_speech: bool = False,
    synthesis: SynthesisWindow | None = None,
    with_transcript: bool = False,
) -> Translation:
    """Translate one sound file of any format and rate.

    Raises:
        AudioError: the file is missing or cannot be read.
    """
    samples, rate = read_samples(path)
    return translate_samples(system, samples, rate, policy, with_units, with_speech, synthesis, with_transcript)
