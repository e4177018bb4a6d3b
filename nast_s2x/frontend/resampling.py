"""Resampling of streams, with the input time that each output sample required."""

from __future__ import annotations

from collections import deque

import numpy as np
import soxr
from numpy.typing import ArrayLike, NDArray

from nast_s2x.errors import StreamError
from nast_s2x.frontend.samples import SAMPLE_RATE, as_mono, check_sample_rate

RESAMPLING_QUALITY = "HQ"
"""soxr's recipe: 20 bits of precision; 14 ms of a stream are held back."""
STEPS_PER_SECOND = 100
"""With times, the resampler takes its input in steps of 10 ms."""


class StreamResampler:
    """Resample a stream, piece by piece; any cut of the input gives exactly the samples of the whole.

    The object is the state of one stream. With equal rates samples pass through without delay.

    Args:
        source_rate, target_rate: Hz.
        with_times: record when output samples became available, for :meth:`source_ms_of`. The input is then taken in
            steps of 10 ms, and the rest of a step is held back, so that these times do not depend on the cut either.
    Raises:
        AudioError: a rate that is not a whole number of Hz in the accepted range.

    Example:
        >>> resampler = StreamResampler(48000)
        >>> len(resampler.push(np.zeros(24000), final=True))
        8000
    """

    def __init__(self, source_rate: int, target_rate: int = SAMPLE_RATE, with_times: bool = False) -> None:
        self.source_rate, self.target_rate = check_sample_rate(source_rate), check_sample_rate(target_rate)
        self.finished = False
        self.num_samples = 0
        """Source samples taken so far."""
        self._stream: soxr.ResampleStream | None = None
        if self.source_rate != self.target_rate:
            self._stream = soxr.ResampleStream(
                self.source_rate, self.target_rate, 1, dtype="float32", quality=RESAMPLING_QUALITY
            )
        self._step = self.source_rate // STEPS_PER_SECOND if with_times else 0
        self._rest = np.zeros(0, np.float32)  # source samples of a step that is not complete
        self._fed = self._returned = 0
        self._record: deque[tuple[int, int]] = deque()  # (samples returned, source samples that they required)

    @property
    def source_ms(self) -> float:
        """Milliseconds of the source taken so far."""
        return 1000.0 * self.num_samples / self.source_rate

    def push(self, samples: ArrayLike, final: bool = False) -> NDArray[np.float32]:
        """Take the next samples (n,) or (n, channels) and return what is ready, (m,) float32 at the target rate.

        Args:
            final: the stream ends; what was held back is returned too.
        Raises:
            StreamError: a push after the final one.
            AudioError: samples that cannot be used; the stream is unchanged.
        """
        if self.finished:
            raise StreamError("this stream has ended: a push after final=True needs a new StreamResampler")
        mono = as_mono(samples)
        self.finished = final
        self.num_samples += len(mono)
        if self._stream is None:
            return mono
        return self._push_steps(mono, final) if self._step else self._stream.resample_chunk(mono, last=final)

    def _push_steps(self, mono: NDArray[np.float32], final: bool) -> NDArray[np.float32]:
        assert self._stream is not None
        waiting = np.concatenate([self._rest, mono])
        whole = len(waiting) // self._step * self._step
        pieces = [np.zeros(0, np.float32)]
        for start in range(0, whole, self._step):
            pieces.append(self._stream.resample_chunk(waiting[start : start + self._step]))
            self._fed += self._step
            if len(pieces[-1]):
                self._returned += len(pieces[-1])
                self._record.append((self._returned, self._fed))
        self._rest = waiting[whole:].copy()
        if final:
            pieces.append(self._stream.resample_chunk(self._rest, last=True))
        return np.concatenate(pieces)

    def source_ms_of(self, samples: float) -> float:
        """Milliseconds of the source that had to exist before ``samples`` output samples were available.

        For samples that only the end of the source makes available, the time of the source so far. Must be called with
        growing ``samples``: earlier entries of the record are dropped. Needs ``with_times``.
        """
        if self._stream is None:
            return min(1000.0 * samples / self.source_rate, self.source_ms)
        while self._record and self._record[0][0] < samples:
            self._record.popleft()
        return 1000.0 * self._record[0][1] / self.source_rate if self._record else self.source_ms
