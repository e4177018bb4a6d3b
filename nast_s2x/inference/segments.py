"""Cut of a recording into the pieces that a stream receives, as in SimulEval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nast_s2x.errors import ConfigError


@dataclass(frozen=True)
class Segments:
    """Lengths of the segments of a source.

    n feature frames (25 ms windows every 10 ms) need 10 n + 15 ms of audio. So segments as long as a chunk always lack
    the last 15 ms of the chunk. After a first segment of 15 ms, each segment completes its chunk; the published
    latencies were measured in this way.

    Attributes:
        segment_ms: length of a segment in milliseconds of source.
        first_ms: length of the first segment; ``None``: as the others.
    Raises:
        ConfigError: a length below 1 ms.

    Example:
        >>> recording = [(np.zeros(1600, np.float32), 16000)]  # 100 ms
        >>> [(len(samples), is_last) for samples, _, is_last in Segments(40, first_ms=15).cut(recording)]
        [(240, False), (640, False), (640, False), (80, True)]
    """

    segment_ms: int = 40
    first_ms: int | None = None

    def __post_init__(self) -> None:
        if self.segment_ms < 1:
            raise ConfigError(f"segments must be at least 1 ms long, got {self.segment_ms} ms")
        if self.first_ms is not None and self.first_ms < 1:
            raise ConfigError(f"the first segment must be at least 1 ms long, got {self.first_ms} ms")

    def cut(self, pieces: Iterable[tuple[NDArray[np.float32], int]]) -> Iterator[tuple[NDArray[np.float32], int, bool]]:
        """Cut a recording, which may come in pieces of any length.

        Args:
            pieces: samples (n,) and sample rate, the same for all.
        Yields:
            samples of a segment, a copy; the sample rate; True for the last segment, which may be shorter.
        """
        rest, rate = np.zeros(0, np.float32), 0
        length_ms = self.segment_ms if self.first_ms is None else self.first_ms
        for samples, rate in pieces:
            rest, start = np.concatenate([rest, samples]), 0
            # Of a segment that ends with the piece it is not known yet whether it is the last one.
            while len(rest) - start > (length := math.ceil(length_ms / 1000 * rate)):
                yield rest[start : start + length].copy(), rate, False
                start, length_ms = start + length, self.segment_ms
            rest = rest[start:]
        if len(rest):
            yield rest.copy(), rate, True
