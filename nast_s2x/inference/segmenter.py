"""Where a source is cut into segments: at pauses, and before the limit of a model whose positions end."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

PAUSE_FRAMES = 50
"""Quiet frames (10 ms) that end a segment of half the limit; the nearer the limit, the fewer."""
SHORTEST_SEGMENT = 100
"""Frames of the shortest segment where pauses of a given length end segments."""
SHORTEST_PAUSE = 10
"""Quiet frames that count as a pause in :attr:`Cut.pause`."""
QUIET = 0.25
"""A frame is quiet in the lowest part of the range of recent levels; this is the part's share of the range."""
STEADY, STEADY_FRAMES = 1.2, 10
"""A frame in the lower half of the range is quiet too if the levels of the last frames lie this close together (natural
logarithm): steady noise that is louder than the noise before it."""
CONTRAST = 1.5
"""Range of recent levels (natural logarithm of energy) from which on there is speech; below it all frames are quiet."""
_RECENT = 300  # frames of recent levels
_RENEWED = 10  # frames after which their range is computed again


def levels_of(features: Tensor) -> NDArray[np.float32]:
    """Mean log-mel energy of feature frames, (n, bins) before normalisation -> (n,)."""
    levels: NDArray[np.float32] = features.float().mean(dim=1).cpu().numpy()
    return levels


@dataclass(frozen=True)
class Cut:
    """The end of a segment: behind feature frame ``frame`` - 1 of the source, in a pause or not."""

    frame: int
    pause: bool


class Segmenter:
    """Cuts a source into segments of at most ``limit`` feature frames.

    Without ``pause``, segments shorter than half of the limit are never cut. From there on a pause ends a segment, the
    shorter the nearer the limit is; at the limit the segment ends in any case. With ``pause``, a pause of so many
    frames ends a segment of 1 s already. Cuts depend on the frames alone, not on how they arrive.

    Args:
        limit: longest segment, in feature frames; ``None``: no limit.
        pause: quiet frames that end a segment; ``None``: :data:`PAUSE_FRAMES`, from half of the limit on.
    """

    def __init__(self, limit: int | None, pause: int | None = None) -> None:
        self._limit = limit
        self._half = 0 if limit is None else limit // 2
        self._pause = PAUSE_FRAMES if pause is None else pause
        self._shortest = self._half if pause is None else min(SHORTEST_SEGMENT, limit or SHORTEST_SEGMENT)
        self._frames = 0  # of the whole source
        self._length = 0  # of this segment
        self._quiet = 0  # frames since the last one that was not quiet
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._last: deque[float] = deque(maxlen=STEADY_FRAMES)
        self._low, self._high = 0.0, 0.0

    def push(self, levels: NDArray[np.float32]) -> list[Cut]:
        """Take the next frames; returns the cuts among them.

        Args:
            levels: (n,) mean log-mel energy of each frame.
        """
        cuts = [self._next(float(level)) for level in levels]
        return [cut for cut in cuts if cut is not None]

    def _next(self, level: float) -> Cut | None:
        if self._frames % _RENEWED == 0 and self._recent:
            self._low, self._high = np.percentile(self._recent, [10, 90])
        self._recent.append(level)
        self._last.append(level)
        self._frames, self._length = self._frames + 1, self._length + 1
        self._quiet = self._quiet + 1 if self._is_quiet(level) else 0
        if self._length < self._shortest:
            return None
        if self._length != self._limit and (not self._quiet or self._quiet < self._enough()):
            return None
        self._length = 0
        return Cut(self._frames, self._quiet >= SHORTEST_PAUSE)

    def _is_quiet(self, level: float) -> bool:
        contrast = self._high - self._low
        if contrast < CONTRAST or level <= self._low + QUIET * contrast:
            return True
        last = self._last
        is_steady = len(last) == STEADY_FRAMES and max(last) - min(last) < STEADY
        return is_steady and level <= self._low + contrast / 2

    def _enough(self) -> float:
        """Quiet frames that end the segment now: fewer from half of the limit on, none at the limit."""
        if self._limit is None or self._length <= self._half:
            return self._pause
        return self._pause * (self._limit - self._length) / (self._limit - self._half)
