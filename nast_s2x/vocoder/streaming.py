"""Units -> waveform, chunk by chunk as a translation grows, or whole utterances in batches.

Windows follow the chunks of a translation, so the waveform depends on the list of chunks alone: what a live stream
hears is what the same chunks give offline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nast_s2x.vocoder.config import SAMPLE_RATE, UNIT_SAMPLES
from nast_s2x.vocoder.network import UnitVocoder

_DURATION_CONTEXT = 2
"""Units on each side that the duration predictor sees."""
_MAX_FRAMES = 2000
"""Unit frames that one call of the generator takes offline (40 s): bounds memory."""
_CPU_FRAMES, _GPU_FRAMES = 100, 16000
"""Unit frames of several utterances in one call: on a CPU only short ones gain by it, by a tenth at most."""
_LIKE_LENGTH = 0.9
"""Utterances shorter than this part of the longest are left to another call: padding costs what speech does."""


@dataclass(frozen=True)
class SynthesisWindow:
    """How a stream is cut into windows.

    Attributes:
        lookahead_frames: R, unit frames (20 ms) held back as right context of a window; 0 holds nothing back.
        left_frames: unit frames before a window that it is computed with.
        crossfade_samples: samples over which a window fades into the next; used where the right context is shorter
            than the vocoder's receptive field (21 frames for the published sizes). At most 320.
    """

    lookahead_frames: int = 5
    left_frames: int = 20
    crossfade_samples: int = 80

    def __post_init__(self) -> None:
        for name in ("lookahead_frames", "left_frames", "crossfade_samples"):
            if getattr(self, name) < 0:
                raise ValueError(f"synthesis: {name} cannot be negative, but is {getattr(self, name)}")
        if self.crossfade_samples > UNIT_SAMPLES:
            raise ValueError(
                f"synthesis: crossfade_samples can be at most one unit frame ({UNIT_SAMPLES}), not "
                f"{self.crossfade_samples}"
            )

    @property
    def lookahead_ms(self) -> float:
        """Sound held back, in milliseconds."""
        return self.lookahead_frames * UNIT_SAMPLES * 1000 / SAMPLE_RATE


class VocoderStream:
    """The waveform of one stream of units; the object is its state, and many streams share one vocoder.

    The duration of a unit is fixed once the two following units are known, or when a chunk brings none, or at the end;
    it never changes afterwards. A chunk without units lets out everything that was held back, so that a phrase does
    not lose its end in a pause. Memory is bounded, and a chunk costs what its own units cost.

    Args:
        vocoder: with a duration predictor, in eval mode.
        geometry: look-ahead, left context, cross-fade.

    Attributes:
        num_samples: samples returned so far.

    Raises:
        ValueError: the vocoder has no duration predictor.

    Example:
        >>> stream = VocoderStream(load_vocoder("VOCODER"))  # doctest: +SKIP
        >>> for emission in emissions:  # doctest: +SKIP
        ...     play(stream.push(emission.units, emission.final))
    """

    def __init__(self, vocoder: UnitVocoder, geometry: SynthesisWindow | None = None) -> None:
        if vocoder.dur_predictor is None:
            raise ValueError("streaming needs a vocoder with a duration predictor (dur_predictor_params)")
        self.vocoder = vocoder
        self.geometry = SynthesisWindow() if geometry is None else geometry
        self.num_samples = 0
        self.finished = False
        self._units: list[int] = []  # the last two of fixed duration, then those without one
        self._num_fixed = 0  # how many of them are of fixed duration
        self._frames: list[int] = []  # left context, then the frames that are not emitted yet
        self._num_left = 0
        self._guess: NDArray[np.float32] = np.zeros(0, np.float32)  # what the last window thought would come next

    @torch.inference_mode()
    def push(self, units: Sequence[int], final: bool = False) -> NDArray[np.float32]:
        """Take the units of the next chunk (one call for each chunk, in order); return the samples it settles.

        Args:
            units: codes that began in the chunk; empty where it brought none: what was held back comes out.
            final: the stream ends with this chunk.

        Returns:
            (n,) float32 in -1..1 at 16 kHz, n a multiple of 320, perhaps 0.

        Raises:
            ValueError: a push after ``final``; a code that the vocoder does not know (the stream stays as it was).
        """
        if self.finished:
            raise ValueError("push after final=True: this stream has ended, a new one needs a new VocoderStream")
        new = check_units(units, self.vocoder)
        self.finished = final
        everything = final or not new
        self._units += new
        self._fix_durations(everything)
        known = len(self._frames) - self._num_left
        count = known if everything else max(0, known - self.geometry.lookahead_frames)
        samples = self._window(count, final) if count else np.zeros(0, np.float32)
        self.num_samples += len(samples)
        return samples

    def _fix_durations(self, everything: bool) -> None:
        """Move units whose duration is settled to the frames."""
        settled = len(self._units) - (0 if everything else _DURATION_CONTEXT)
        if settled <= self._num_fixed:
            return
        units = torch.tensor([self._units], device=self.vocoder.dict.weight.device)
        durations = self.vocoder.durations(units)[0].tolist()
        for unit, duration in zip(self._units[self._num_fixed : settled], durations[self._num_fixed : settled]):
            self._frames += [unit] * duration
        del self._units[: max(0, settled - _DURATION_CONTEXT)]
        self._num_fixed = min(settled, _DURATION_CONTEXT)

    def _window(self, count: int, final: bool) -> NDArray[np.float32]:
        """Samples of the next ``count`` frames; they become left context."""
        stop, geometry = self._num_left + count, self.geometry
        right = len(self._frames) - stop
        # A window whose right context is too short is wrong at its end, and so is its guess of what follows, in the
        # same way: fading from the guess into the next window hides the step between the two.
        fade = 0 if final or right >= self.vocoder.receptive_frames else geometry.crossfade_samples
        frames = self._frames[:stop] + (self._frames[stop:] or ([self._frames[-1]] if fade else []))
        codes = torch.tensor([frames], device=self.vocoder.dict.weight.device)
        wanted = count * UNIT_SAMPLES + fade
        computed = self.vocoder(codes, skip=self._num_left, num_samples=wanted)[0].float().cpu().numpy()
        samples = computed[: count * UNIT_SAMPLES].copy()
        if len(self._guess):
            weight = np.arange(1, len(self._guess) + 1, dtype=np.float32) / (len(self._guess) + 1)
            samples[: len(weight)] += (1 - weight) * (self._guess - samples[: len(weight)])
        self._guess = computed[len(samples) :].copy()
        del self._frames[: max(0, stop - geometry.left_frames)]
        self._num_left = min(stop, geometry.left_frames)
        return samples


def synthesize_chunks(
    vocoder: UnitVocoder, chunks: Sequence[Sequence[int]], geometry: SynthesisWindow | None = None
) -> NDArray[np.float32]:
    """The waveform that a stream gives for the units of its chunks (the last one ends it): (n,) float32."""
    stream = VocoderStream(vocoder, geometry)
    last = len(chunks) - 1
    pieces = [stream.push(units, final=index == last) for index, units in enumerate(chunks)]
    return np.concatenate([*pieces, np.zeros(0, np.float32)])


@torch.inference_mode()
def synthesize(
    vocoder: UnitVocoder,
    batch: Sequence[Sequence[int]],
    durations: Sequence[Sequence[int]] | None = None,
    batch_size: int = 16,
) -> list[NDArray[np.float32]]:
    """Whole utterances, each in one window; utterances of like length are computed together.

    Args:
        vocoder: in eval mode.
        batch: unit codes of each utterance, runs collapsed; empty ones give empty samples.
        durations: frames of each unit; ``None`` predicts them.
        batch_size: most utterances in one call of the generator.

    Returns:
        for each utterance (320 * sum of durations,) float32 in -1..1 at 16 kHz, the same for any batch to 1e-5.

    Raises:
        ValueError: a code that the vocoder does not know; durations that do not fit the units or are below 1; no
            durations, and a vocoder that predicts none.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    units = [check_units(utterance, vocoder) for utterance in batch]
    if durations is None:
        durations = _predict(vocoder, units, batch_size)
    elif len(durations) != len(units):
        raise ValueError(f"there are {len(units)} utterances, but durations of {len(durations)}")
    frames = [expand(codes, counts) for codes, counts in zip(units, durations)]
    samples = [np.zeros(0, np.float32)] * len(frames)
    most = _CPU_FRAMES if vocoder.dict.weight.device.type == "cpu" else _GPU_FRAMES
    for group in _groups([len(codes) for codes in frames], batch_size, most):
        if len(frames[group[0]]) > _MAX_FRAMES:
            samples[group[0]] = _long_utterance(vocoder, frames[group[0]])
            continue
        codes, lengths = _padded([frames[index] for index in group], vocoder)
        waveforms = vocoder(codes, lengths).float().cpu().numpy()
        for index, waveform in zip(group, waveforms):
            samples[index] = waveform[: len(frames[index]) * UNIT_SAMPLES].copy()
    return samples


def check_units(units: Sequence[int], vocoder: UnitVocoder) -> list[int]:
    """The codes as plain numbers.

    Raises:
        ValueError: a code outside the vocoder's 0..K-1; names it and K.
    """
    codes, number = [int(unit) for unit in units], vocoder.config.num_embeddings
    for code in codes:
        if not 0 <= code < number:
            raise ValueError(f"unit {code} is outside 0..{number - 1}: this vocoder knows {number} units")
    return codes


def expand(units: Sequence[int], durations: Sequence[int]) -> list[int]:
    """Unit frames: each unit repeated for its duration.

    Raises:
        ValueError: not one duration for each unit, or one below 1.
    """
    if len(durations) != len(units):
        raise ValueError(f"there are {len(units)} units, but {len(durations)} durations")
    if any(count < 1 for count in durations):
        raise ValueError(f"a unit lasts at least one frame, but a duration is {min(durations)}")
    return [unit for unit, count in zip(units, durations) for _ in range(count)]


def _predict(vocoder: UnitVocoder, units: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    durations: list[list[int]] = [[] for _ in units]
    for group in _groups([len(codes) for codes in units], batch_size, _GPU_FRAMES):
        codes, lengths = _padded([units[index] for index in group], vocoder)
        for index, predicted in zip(group, vocoder.durations(codes, lengths).tolist()):
            durations[index] = predicted[: len(units[index])]
    return durations


def _groups(lengths: Sequence[int], batch_size: int, max_total: int) -> list[list[int]]:
    """Indices of sequences to compute together, the longest first; empty ones are left out."""
    groups: list[list[int]] = []
    for index in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: -lengths[i]):
        longest = lengths[groups[-1][0]] if groups else 0
        alike = lengths[index] >= _LIKE_LENGTH * longest and longest <= _MAX_FRAMES
        if groups and alike and len(groups[-1]) < batch_size and longest * (len(groups[-1]) + 1) <= max_total:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _padded(sequences: Sequence[Sequence[int]], vocoder: UnitVocoder) -> tuple[Tensor, Tensor | None]:
    """Codes (B, T), and lengths (B,) unless all are T."""
    device, lengths = vocoder.dict.weight.device, [len(sequence) for sequence in sequences]
    codes = torch.zeros(len(sequences), max(lengths), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        codes[row, : len(sequence)] = torch.as_tensor(sequence)
    alike = min(lengths) == max(lengths)
    return codes.to(device), None if alike else torch.tensor(lengths, device=device)


def _long_utterance(vocoder: UnitVocoder, frames: Sequence[int]) -> NDArray[np.float32]:
    """One utterance in windows that see their whole receptive field: the same samples in bounded memory."""
    reach, pieces = vocoder.receptive_frames, []
    codes = torch.tensor([frames], device=vocoder.dict.weight.device)
    for start in range(0, len(frames), _MAX_FRAMES):
        left, stop = min(start, reach), min(start + _MAX_FRAMES, len(frames))
        wanted = (stop - start) * UNIT_SAMPLES
        computed = vocoder(codes[:, start - left : stop + reach], skip=left, num_samples=wanted)
        pieces.append(computed[0].float().cpu().numpy())
    return np.concatenate(pieces)
