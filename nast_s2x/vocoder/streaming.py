"""Streaming synthesis: the units of each chunk of a translation to samples.

The waveform depends on the list of chunks alone: a live stream and :func:`synthesize_chunks` give the same samples. A
vocoder with limited look-ahead continues the states of its convolutions from chunk to chunk. The released ones, whose
look-ahead (21 unit frames) would be too long, are run in windows that follow the chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from nast_s2x.errors import ConfigError, NastError, StreamError
from nast_s2x.vocoder.config import SAMPLE_RATE, UNIT_SAMPLES
from nast_s2x.vocoder.layers import VocoderState
from nast_s2x.vocoder.network import UnitVocoder

_DURATION_CONTEXT = 2
"""Units on each side that affect the predicted duration of a unit."""


@dataclass(frozen=True)
class SynthesisWindow:
    """Context and cross-fade of the windows that a stream is synthesized in.

    For a vocoder with limited look-ahead ``lookahead_frames`` is that of its configuration, and the rest is unused.

    Attributes:
        lookahead_frames: unit frames (20 ms) held back as right context of a window; 0 holds nothing back.
        left_frames: unit frames of left context.
        crossfade_samples: samples over which a window fades into the next, at most 320; used where the right context is
            shorter than the vocoder's receptive field (21 frames for the published sizes).
    """

    lookahead_frames: int = 5
    left_frames: int = 20
    crossfade_samples: int = 80

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ConfigError(f"synthesis: {field.name} cannot be negative, but is {getattr(self, field.name)}")
        if self.crossfade_samples > UNIT_SAMPLES:
            raise ConfigError(
                f"synthesis: crossfade_samples can be at most one unit frame ({UNIT_SAMPLES}), not "
                f"{self.crossfade_samples}"
            )

    @classmethod
    def of(cls, vocoder: UnitVocoder, lookahead_frames: int | None = None) -> SynthesisWindow:
        """The window of a vocoder; ``None``: with its default look-ahead.

        Raises:
            ConfigError: another look-ahead than that of a vocoder with limited look-ahead; a negative one.
        """
        fixed = vocoder.config.lookahead_frames
        if lookahead_frames is None:
            return cls() if fixed is None else cls(fixed)
        window = cls(lookahead_frames)
        window.check(vocoder)
        return window

    def check(self, vocoder: UnitVocoder) -> None:
        """Raise :class:`ConfigError` for a vocoder whose look-ahead is limited to another value."""
        fixed = vocoder.config.lookahead_frames
        if fixed is not None and self.lookahead_frames != fixed:
            raise ConfigError(
                f"synthesis: lookahead_frames must be {fixed}, which this vocoder was trained with, but is "
                f"{self.lookahead_frames}"
            )

    @property
    def lookahead_ms(self) -> float:
        """Speech held back, in milliseconds."""
        return self.lookahead_frames * UNIT_SAMPLES * 1000 / SAMPLE_RATE


class VocoderStream:
    """Synthesis of one stream of units. The object is the state of the stream; many streams can share one vocoder.

    The duration of a unit is predicted once the next two units are available, when a chunk contains no units, or at
    the end; it does not change afterwards. A chunk without units releases everything that was held back, so the end of
    a phrase is not delayed by a pause. Memory is bounded, and the cost of a chunk depends on its own units only.

    Args:
        vocoder: with a duration predictor, in eval mode.
        window: look-ahead, left context, cross-fade; the defaults of :class:`SynthesisWindow` if ``None``.

    Attributes:
        num_samples: samples returned so far.

    Raises:
        NastError: the vocoder has no duration predictor.

    Example:
        >>> stream = VocoderStream(load_vocoder("VOCODER"))  # doctest: +SKIP
        >>> for emission in emissions:  # doctest: +SKIP
        ...     play(stream.push(emission.units, emission.final))
    """

    def __init__(self, vocoder: UnitVocoder, window: SynthesisWindow | None = None) -> None:
        if vocoder.dur_predictor is None:
            raise NastError("streaming needs a vocoder with a duration predictor (dur_predictor_params)")
        self.vocoder = vocoder
        self.window = SynthesisWindow.of(vocoder) if window is None else window
        self.window.check(vocoder)
        self._state = None if vocoder.config.lookahead_frames is None else VocoderState()
        self.num_samples = 0
        self.finished = False
        self._units: list[int] = []  # the last two of fixed duration, then those without a duration
        self._num_fixed = 0  # units of fixed duration among them
        self._frames: list[int] = []  # left context, then the frames that are not emitted yet
        self._num_left = 0  # frames of left context among them
        self._overlap: NDArray[np.float32] = np.zeros(0, np.float32)  # what the last window computed past its end

    @torch.inference_mode()
    def push(self, units: Sequence[int], final: bool = False) -> NDArray[np.float32]:
        """Take the units of the next chunk and return the samples that are ready.

        Args:
            units: codes of the chunk, one call per chunk, in order. A chunk without units releases what was held back.
            final: the stream ends with this chunk.

        Returns:
            (n,) float32 in -1..1 at 16 kHz; n is a multiple of 320 and may be 0.

        Raises:
            StreamError: a push after ``final``.
            NastError: a code outside the vocoder's units; the stream is unchanged.
        """
        if self.finished:
            raise StreamError("push after final=True: this stream has ended, a new one needs a new VocoderStream")
        new = self.vocoder.config.check_units(units)
        self.finished = final
        everything = final or not new
        self._units += new
        self._fix_durations(everything)
        known = len(self._frames) - self._num_left
        count = known if everything else max(0, known - self.window.lookahead_frames)
        if not count:
            return np.zeros(0, np.float32)
        samples = self._in_window(count, final) if self._state is None else self._continued(count)
        self.num_samples += len(samples)
        return samples

    def _fix_durations(self, everything: bool) -> None:
        """Turn units with enough right context (or all) into frames."""
        settled = len(self._units) - (0 if everything else _DURATION_CONTEXT)
        if settled <= self._num_fixed:
            return
        durations = self.vocoder.durations(torch.tensor([self._units], device=self.vocoder.device))[0].tolist()
        for unit, duration in zip(self._units[self._num_fixed : settled], durations[self._num_fixed : settled]):
            self._frames += [unit] * duration
        del self._units[: max(0, settled - _DURATION_CONTEXT)]
        self._num_fixed = min(settled, _DURATION_CONTEXT)

    def _continued(self, count: int) -> NDArray[np.float32]:
        """Samples of the next ``count`` frames; those behind them are look-ahead, and missing ones are zero."""
        codes = torch.tensor([self._frames], device=self.vocoder.device)
        samples = self.vocoder(codes, num_samples=count * UNIT_SAMPLES, state=self._state)[0]
        del self._frames[:count]
        computed: NDArray[np.float32] = samples.float().cpu().numpy()
        return computed

    def _in_window(self, count: int, final: bool) -> NDArray[np.float32]:
        """Samples of the next ``count`` frames; the frames become left context."""
        stop, window = self._num_left + count, self.window
        right = len(self._frames) - stop
        # With too little right context the end of a window and its continuation have the same error: fading from the
        # continuation into the next window avoids a step between the two.
        fade = 0 if final or right >= self.vocoder.receptive_frames else window.crossfade_samples
        frames = self._frames[:stop] + (self._frames[stop:] or ([self._frames[-1]] if fade else []))
        codes = torch.tensor([frames], device=self.vocoder.device)
        wanted = count * UNIT_SAMPLES + fade
        computed = self.vocoder(codes, skip=self._num_left, num_samples=wanted)[0].float().cpu().numpy()
        samples = computed[: count * UNIT_SAMPLES].copy()
        if len(self._overlap):
            weight = np.arange(1, len(self._overlap) + 1, dtype=np.float32) / (len(self._overlap) + 1)
            samples[: len(weight)] += (1 - weight) * (self._overlap - samples[: len(weight)])
        self._overlap = computed[len(samples) :].copy()
        del self._frames[: max(0, stop - window.left_frames)]
        self._num_left = min(stop, window.left_frames)
        return samples


def synthesize_chunks(
    vocoder: UnitVocoder, chunks: Sequence[Sequence[int]], window: SynthesisWindow | None = None
) -> NDArray[np.float32]:
    """Return the waveform of a stream with these chunks, the last one final: (n,) float32.

    Arguments and errors as for :class:`VocoderStream`.
    """
    stream = VocoderStream(vocoder, window)
    last = len(chunks) - 1
    pieces = [stream.push(units, final=index == last) for index, units in enumerate(chunks)]
    return np.concatenate([*pieces, np.zeros(0, np.float32)])
