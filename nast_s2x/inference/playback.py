"""Playback schedule of streamed speech: start times, gaps, stereo mix, captions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nast_s2x.errors import ConfigError
from nast_s2x.frontend.resampling import StreamResampler
from nast_s2x.frontend.samples import SAMPLE_RATE, as_mono
from nast_s2x.writing import width

CAPTION_LETTERS = 80
"""Longest line of a caption, in characters, wide ones counted twice; the next text begins a new line."""
CAPTION_HOLD_MS = 3000.0
"""Longest time that a caption is shown after its last words."""


@dataclass
class Playback:
    """Schedule of pieces of speech that are played in order, each as soon as possible.

    A piece starts as soon as it is available and the one before it has ended. The first one starts ``buffer_ms`` later,
    which avoids gaps before later pieces. A gap is silence between two pieces. Pieces without samples change nothing.
    Times are kept in whole samples, rounded up.

    Args:
        buffer_ms: start delay in milliseconds, from 0.
        sample_rate: of the pieces, Hz.

    Attributes:
        pieces: (start in ms, samples (n,)) of each piece.
        gaps: (start in ms, duration in ms) of each silence between pieces.

    Raises:
        ValueError: a negative or infinite ``buffer_ms``, a ``sample_rate`` that is not positive.

    Example:
        >>> playback = Playback()
        >>> playback.add(1000, np.zeros(8000))  # 500 ms of speech, available after 1000 ms
        1000.0
        >>> playback.add(1600, np.zeros(1600))  # 100 ms too late
        1600.0
        >>> playback.gaps
        [(1500.0, 100.0)]
    """

    buffer_ms: float = 0.0
    sample_rate: int = SAMPLE_RATE
    _placed: list[tuple[int, NDArray[np.float32]]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isfinite(self.buffer_ms) or self.buffer_ms < 0:
            raise ConfigError(f"the playback buffer must be a time of 0 ms or more, got {self.buffer_ms} ms")
        if self.sample_rate <= 0:
            raise ConfigError(f"a sample rate must be positive, got {self.sample_rate}")

    def add(self, available_ms: float, samples: ArrayLike) -> float | None:
        """Take the next piece.

        Args:
            available_ms: when the piece became available, in ms from the start of the source.
            samples: (n,), n from 0.
        Returns:
            start of its playback, in ms; ``None`` for a piece without samples.
        Raises:
            ValueError: a time that is negative or not finite; samples that are not finite.
        """
        if not isfinite(available_ms) or available_ms < 0:
            raise ConfigError(f"a piece becomes available at a time of 0 ms or more, got {available_ms} ms")
        piece = as_mono(samples)
        if not len(piece):
            return None
        delay = 0.0 if self._placed else self.buffer_ms
        # A thousandth of a sample of tolerance: rounding of floating-point times must not add a whole sample.
        start = max(ceil((available_ms + delay) * self.sample_rate / 1000 - 1e-3), self._end)
        self._placed.append((start, piece))
        return self._ms(start)

    @property
    def pieces(self) -> list[tuple[float, NDArray[np.float32]]]:
        """(start in ms, samples) of each piece that has samples."""
        return [(self._ms(start), piece) for start, piece in self._placed]

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """(start in ms, duration in ms) of each silence between two pieces."""
        gaps = []
        for (start, piece), (following, _) in zip(self._placed, self._placed[1:]):
            end = start + len(piece)
            if following > end:
                gaps.append((self._ms(end), self._ms(following - end)))
        return gaps

    @property
    def start_ms(self) -> float | None:
        """Start of the first sound in ms; ``None`` before there is one."""
        return self._ms(self._placed[0][0]) if self._placed else None

    @property
    def end_ms(self) -> float | None:
        """End of the last sound so far in ms; ``None`` before there is one."""
        return self._ms(self._end) if self._placed else None

    def statistics(self) -> dict[str, Any]:
        """``gaps`` (number), ``gap_mean_ms`` (0 without gaps), ``gap_sum_ms``, ``start_ms``, ``end_ms``."""
        durations = [duration for _, duration in self.gaps]
        return {
            "gaps": len(durations),
            "gap_mean_ms": sum(durations) / len(durations) if durations else 0.0,
            "gap_sum_ms": float(sum(durations)),
            "start_ms": self.start_ms,
            "end_ms": self.end_ms,
        }

    def speech(self) -> NDArray[np.float32]:
        """All pieces joined without the gaps, (n,)."""
        return np.concatenate([np.zeros(0, np.float32), *(piece for _, piece in self._placed)])

    def mix(self, sample_rate: int | None = None) -> NDArray[np.float32]:
        """The playback from the start of the source on: pieces at their times, silence elsewhere, (n,).

        Args:
            sample_rate: Hz; ``None`` = that of the pieces.
        """
        track = np.zeros(self._end, np.float32)
        for start, piece in self._placed:
            track[start : start + len(piece)] = piece
        return track if sample_rate is None else StreamResampler(self.sample_rate, sample_rate).push(track, final=True)

    @property
    def _end(self) -> int:
        return self._placed[-1][0] + len(self._placed[-1][1]) if self._placed else 0

    def _ms(self, samples: int) -> float:
        return 1000.0 * samples / self.sample_rate


def stereo(source: ArrayLike, playback: Playback) -> NDArray[np.float32]:
    """Stereo track of source and translation.

    Args:
        source: samples (n,) at the playback's rate.
    Returns:
        (m, 2): left the source, right the translation as it is played; m is the length of the longer one.
    """
    left, right = as_mono(source), playback.mix()
    mixed = np.zeros((max(len(left), len(right)), 2), np.float32)
    mixed[: len(left), 0] = left
    mixed[: len(right), 1] = right
    return mixed


def captions(texts: Iterable[tuple[float, str]]) -> str:
    """Captions in SubRip format (.srt). Each emission with text gives a caption: the text of its line so far.

    A line ends when the next text would make it longer than :data:`CAPTION_LETTERS`, or after :data:`CAPTION_HOLD_MS`
    without text. A caption is shown until the next one, at most for :data:`CAPTION_HOLD_MS`.

    Args:
        texts: (time in ms, :attr:`~nast_s2x.inference.emission.Emission.delta`) of the emissions, in order of time;
            empty texts are left out.
    """
    cues: list[tuple[float, str]] = []  # (start, line so far)
    for time_ms, delta in _joined(texts):
        line, last = (cues[-1][1], cues[-1][0]) if cues else ("", 0.0)
        new_line = not cues or width(line + delta) > CAPTION_LETTERS or time_ms - last >= CAPTION_HOLD_MS
        cues.append((time_ms, delta.strip() if new_line else line + delta))
    ends = [start for start, _ in cues[1:]] + [float("inf")]
    blocks = [
        f"{number}\n{_timestamp(start)} --> {_timestamp(min(end, start + CAPTION_HOLD_MS))}\n{line}\n"
        for number, ((start, line), end) in enumerate(zip(cues, ends), 1)
    ]
    return "\n".join(blocks)


def _joined(texts: Iterable[tuple[float, str]]) -> Sequence[tuple[float, str]]:
    """Join the texts of one millisecond, so that no caption has length 0."""
    joined: list[tuple[float, str]] = []
    for time_ms, delta in texts:
        if not delta:
            continue
        if joined and round(joined[-1][0]) == round(time_ms):
            joined[-1] = (joined[-1][0], joined[-1][1] + delta)
        else:
            joined.append((time_ms, delta))
    return joined


def _timestamp(ms: float) -> str:
    """Milliseconds as ``HH:MM:SS,mmm``."""
    seconds, rest = divmod(round(ms), 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d},{rest:03d}"
