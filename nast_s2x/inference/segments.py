"""Cut of a recording into the pieces that a stream receives, as in SimulEval."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

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
        >>> list(Segments(40, first_ms=15).cut(1600, 16000))  # 100 ms
        [(0, 240), (240, 880), (880, 1520), (1520, 1600)]
    """

    segment_ms: int = 40
    first_ms: int | None = None

    def __post_init__(self) -> None:
        if self.segment_ms < 1:
            raise ConfigError(f"segments must be at least 1 ms long, got {self.segment_ms} ms")
        if self.first_ms is not None and self.first_ms < 1:
            raise ConfigError(f"the first segment must be at least 1 ms long, got {self.first_ms} ms")

    def cut(self, num_samples: int, sample_rate: int) -> Iterator[tuple[int, int]]:
        """Yield (first sample, sample after the last one) of each segment; the last segment may be shorter."""
        start = 0
        while start < num_samples:
            length_ms = self.first_ms if start == 0 and self.first_ms is not None else self.segment_ms
            stop = min(start + math.ceil(length_ms / 1000 * sample_rate), num_samples)
            yield start, stop
            start = stop
