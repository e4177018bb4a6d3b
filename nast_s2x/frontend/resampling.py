"""The streaming resampler, with a record of when each resampled sample came to be."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from nast_s2x.frontend.audio import StreamResampler

STEPS_PER_SECOND = 100
"""Resolution of the record: the resampler is fed at most 10 ms at a time."""


class TimedResampler:
    """Resamples a stream and knows how much of the source each of its output samples needed.

    A resampler holds samples back, and how many varies along the stream; the time of an emission must count that. With
    equal rates nothing is held back.

    Args:
        source_rate, target_rate: Hz.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        self.resampler = StreamResampler(source_rate, target_rate)
        self.source_rate = self.resampler.source_rate
        self.num_samples = 0
        self._returned = 0
        self._record: deque[tuple[int, int]] = deque()  # (samples returned, source samples that took)

    @property
    def source_ms(self) -> float:
        """Milliseconds of the source taken so far."""
        return 1000.0 * self.num_samples / self.source_rate

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next source samples (n,), return what is ready, (m,)."""
        if self.source_rate == self.resampler.target_rate:
            self.num_samples += len(samples)
            return self.resampler.push(samples)
        step = max(1, self.source_rate // STEPS_PER_SECOND)
        pieces: list[NDArray[np.float32]] = []
        start = 0
        while start < len(samples):
            # Steps end on a fixed grid of the source, so that the record hardly depends on how it is cut.
            stop = min(len(samples), start + step - self.num_samples % step)
            pieces.append(self.resampler.push(samples[start:stop]))
            self.num_samples += stop - start
            if len(pieces[-1]):
                self._returned += len(pieces[-1])
                self._record.append((self._returned, self.num_samples))
            start = stop
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def finish(self) -> NDArray[np.float32]:
        """End the stream: what was held back, (m,)."""
        return self.resampler.push(np.zeros(0, np.float32), final=True)

    def source_ms_of(self, samples: float) -> float:
        """Milliseconds of the source that were taken when ``samples`` resampled samples first existed.

        Those that only the end of the source gives (or has not given yet) have the time of the source so far. Questions
        must come in order: the record of earlier samples is dropped.
        """
        if self.source_rate == self.resampler.target_rate:
            return min(1000.0 * samples / self.source_rate, self.source_ms)
        while self._record and self._record[0][0] < samples:
            self._record.popleft()
        return 1000.0 * self._record[0][1] / self.source_rate if self._record else self.source_ms
