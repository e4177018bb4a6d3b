"""Offline synthesis: whole utterances of units to waveforms, in batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nast_s2x.errors import ConfigError, NastError
from nast_s2x.vocoder.config import UNIT_SAMPLES
from nast_s2x.vocoder.network import UnitVocoder

_MAX_FRAMES = 2000
"""Unit frames in one call of the generator (40 s); bounds memory."""
_CPU_FRAMES, _GPU_FRAMES = 100, 16000
"""Unit frames of several utterances in one call. On CPUs only short utterances gain from batching, at most a tenth."""
_SIMILAR_LENGTH = 0.9
"""Shortest length in a batch, relative to the longest: computing padding costs as much as computing speech."""


@torch.inference_mode()
def synthesize(
    vocoder: UnitVocoder,
    batch: Sequence[Sequence[int]],
    durations: Sequence[Sequence[int]] | None = None,
    batch_size: int = 16,
) -> list[NDArray[np.float32]]:
    """Synthesize whole utterances, each in one window; utterances of similar length are computed together.

    Args:
        vocoder: in eval mode.
        batch: unit codes of each utterance without repeats; an empty utterance gives no samples.
        durations: frames of each unit; ``None`` predicts them.
        batch_size: most utterances in one call of the generator.

    Returns:
        for each utterance (320 * sum of durations,) float32 in -1..1 at 16 kHz, independent of the batch to 1e-5.

    Raises:
        ConfigError: ``batch_size`` below 1.
        NastError: a code outside the vocoder's units; durations below 1 or not one per unit; no durations, and a
            vocoder without duration predictor.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
    units = [vocoder.config.check_units(utterance) for utterance in batch]
    if durations is None:
        durations = _predict(vocoder, units, batch_size)
    elif len(durations) != len(units):
        raise NastError(f"there are {len(units)} utterances, but durations of {len(durations)}")
    frames = [expand(codes, counts) for codes, counts in zip(units, durations)]
    samples = [np.zeros(0, np.float32)] * len(frames)
    most = _CPU_FRAMES if vocoder.device.type == "cpu" else _GPU_FRAMES
    for group in _groups([len(codes) for codes in frames], batch_size, most):
        if len(frames[group[0]]) > _MAX_FRAMES:
            samples[group[0]] = _long_utterance(vocoder, frames[group[0]])
            continue
        codes, lengths = _padded([frames[index] for index in group], vocoder.device)
        waveforms = vocoder(codes, lengths).float().cpu().numpy()
        for index, waveform in zip(group, waveforms):
            samples[index] = waveform[: len(frames[index]) * UNIT_SAMPLES].copy()
    return samples


def expand(units: Sequence[int], durations: Sequence[int]) -> list[int]:
    """Repeat each unit for its duration: unit frames.

    Raises:
        NastError: not one duration per unit, or one below 1.
    """
    if len(durations) != len(units):
        raise NastError(f"there are {len(units)} units, but {len(durations)} durations")
    if any(count < 1 for count in durations):
        raise NastError(f"a unit lasts at least one frame, but a duration is {min(durations)}")
    return [unit for unit, count in zip(units, durations) for _ in range(count)]


def _predict(vocoder: UnitVocoder, units: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    durations: list[list[int]] = [[] for _ in units]
    for group in _groups([len(codes) for codes in units], batch_size, _GPU_FRAMES):
        codes, lengths = _padded([units[index] for index in group], vocoder.device)
        for index, predicted in zip(group, vocoder.durations(codes, lengths).tolist()):
            durations[index] = predicted[: len(units[index])]
    return durations


def _groups(lengths: Sequence[int], batch_size: int, max_total: int) -> list[list[int]]:
    """Indices of sequences to compute together, the longest first; empty sequences are omitted."""
    groups: list[list[int]] = []
    for index in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: -lengths[i]):
        longest = lengths[groups[-1][0]] if groups else 0
        is_similar = lengths[index] >= _SIMILAR_LENGTH * longest and longest <= _MAX_FRAMES
        if groups and is_similar and len(groups[-1]) < batch_size and longest * (len(groups[-1]) + 1) <= max_total:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _padded(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Codes (B, T), and lengths (B,) unless all are T."""
    lengths = [len(sequence) for sequence in sequences]
    codes = torch.zeros(len(sequences), max(lengths), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        codes[row, : len(sequence)] = torch.as_tensor(sequence)
    are_equal = min(lengths) == max(lengths)
    return codes.to(device), None if are_equal else torch.tensor(lengths, device=device)


def _long_utterance(vocoder: UnitVocoder, frames: Sequence[int]) -> NDArray[np.float32]:
    """One utterance in windows with their whole receptive field as context: the same samples in bounded memory."""
    reach, pieces = vocoder.receptive_frames, []
    codes = torch.tensor([frames], device=vocoder.device)
    for start in range(0, len(frames), _MAX_FRAMES):
        left, stop = min(start, reach), min(start + _MAX_FRAMES, len(frames))
        wanted = (stop - start) * UNIT_SAMPLES
        computed = vocoder(codes[:, start - left : stop + reach], skip=left, num_samples=wanted)
        pieces.append(computed[0].float().cpu().numpy())
    return np.concatenate(pieces)
