"""Timelines of utterances as SVG: source, chunks, times at which words are written and speech is played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from nast_s2x.evaluation.report.html import escaped

WIDTH = 960
MARGIN = 12
WAVE_HEIGHT = 56
SPEECH_HEIGHT = 44
LINE_HEIGHT = 16
LETTER_WIDTH = 6.9
"""Width of a letter in px, a little more than the mean at 12 px, so that blocks of words do not touch."""
WRAP = 26
"""Maximum number of letters in a line of words."""
COLUMNS = 480
"""Number of points of a waveform over the whole width."""


@dataclass(frozen=True)
class Piece:
    """A piece of speech: when its playback starts, its duration, when it was available (all ms), its samples (n,)."""

    start_ms: float
    duration_ms: float
    available_ms: float
    samples: NDArray[np.float32]


@dataclass(frozen=True)
class Timeline:
    """Content of a timeline; times in ms from the start of the source.

    Args:
        name: unique within the page, of letters, digits and hyphens.
        title, description: for screen readers.
        source: samples (n,); ``None`` if the recording is missing.
        source_ms: length of the source.
        chunk_ms: chunk size; ``None`` offline.
        words: (time written, words), in order.
        pieces: pieces of speech; ``None`` for text output.
        gaps: (start, duration) of the silences between pieces.
        recognised: (time at which the word ends in playback, word) from a recogniser; empty without one.
        total_ms: length of the time axis.
    """

    name: str
    title: str
    description: str
    source: NDArray[np.float32] | None
    source_ms: float
    chunk_ms: float | None
    words: Sequence[tuple[float, str]]
    pieces: Sequence[Piece] | None
    gaps: Sequence[tuple[float, float]]
    recognised: Sequence[tuple[float, str]]
    total_ms: float


def wave_path(
    samples: NDArray[np.float32], left: float, right: float, middle: float, height: float, peak: float
) -> str:
    """Return the outline of a waveform as SVG path data; coordinates in px.

    Args:
        samples: (n,), n from 1.
        left, right: horizontal start and end.
        middle, height: vertical centre and height.
        peak: absolute sample value that fills the height.
    """
    columns = max(1, min(len(samples), round(COLUMNS * (right - left) / WIDTH)))
    edges = np.linspace(0, len(samples), columns + 1).astype(int)
    high = np.maximum.reduceat(samples, edges[:-1])
    low = np.minimum.reduceat(samples, edges[:-1])
    xs = np.linspace(left, right, columns)
    scale = height / 2 / max(peak, 1e-4)
    top = [f"{x:.1f} {middle - scale * max(value, 0.0) - 0.4:.1f}" for x, value in zip(xs, high)]
    bottom = [f"{x:.1f} {middle - scale * min(value, 0.0) + 0.4:.1f}" for x, value in zip(xs, low)]
    return "M" + "L".join(top + bottom[::-1]) + "Z"


def wrapped(text: str, width: int = WRAP) -> list[str]:
    """Break a text into lines of at most ``width`` letters; a longer word gets its own line.

    Example:
        >>> wrapped("one two three", 8)
        ['one two', 'three']
    """
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


@dataclass(frozen=True)
class _Block:
    """A block of words on the page: ``anchor`` is the x coordinate of its time, ``row`` its first row from the top."""

    anchor: float
    left: float
    row: int
    width: float
    lines: list[str]

    def is_beside(self, other: _Block) -> bool:
        """Return True if there is a gap between the columns of the blocks, so that they may share a row."""
        return self.left + self.width + 4 <= other.left or other.left + other.width + 4 <= self.left


def _place(words: Sequence[tuple[float, str]], total_ms: float, ending: bool = False) -> list[_Block]:
    """Place blocks of words, each in the first row where it touches no other block.

    Args:
        ending: the blocks end at their times; otherwise they begin there.
    """
    blocks: list[_Block] = []
    rows: list[list[_Block]] = []  # the blocks of each row; a block of two lines fills two rows
    for time_ms, text in words:
        lines = wrapped(text)
        width = LETTER_WIDTH * max(map(len, lines), default=0) + 10
        anchor = _x(time_ms, total_ms)
        left = max(MARGIN, min(anchor - width * ending, WIDTH - MARGIN - width))
        block = _Block(anchor, left, 0, width, lines)
        taken = [not all(block.is_beside(other) for other in row) for row in rows]
        first = next(row for row in count() if not any(taken[row : row + len(lines)]))
        blocks.append(replace(block, row=first))
        rows += [[] for _ in range(first + len(lines) - len(rows))]
        for row in rows[first : first + len(lines)]:
            row.append(blocks[-1])
    return blocks


def _x(time_ms: float, total_ms: float) -> float:
    return MARGIN + (WIDTH - 2 * MARGIN) * time_ms / total_ms


def svg(timeline: Timeline) -> str:
    """Draw the timeline as an SVG element with title and description; colours come from the page's style sheet."""
    blocks = _place(timeline.words, timeline.total_ms)
    wave_top = 40
    words_top = wave_top + WAVE_HEIGHT + 34
    rows = max((block.row + len(block.lines) for block in blocks), default=1)
    bottom = words_top + rows * LINE_HEIGHT + 12
    heading = "Words, when they were written" if blocks else "No words were written"
    parts = [*_source(timeline, wave_top), *_words(blocks, wave_top + WAVE_HEIGHT, words_top, heading)]
    if timeline.pieces is not None:
        speech_top = bottom + 26
        parts += _speech(timeline, timeline.pieces, speech_top)
        bottom = speech_top + SPEECH_HEIGHT + 22
        if timeline.recognised:
            blocks = _place(timeline.recognised, timeline.total_ms, ending=True)
            parts += _words(blocks, speech_top + SPEECH_HEIGHT, bottom + 28, "Words of the recogniser, at their ends")
            bottom += 28 + max(block.row + len(block.lines) for block in blocks) * LINE_HEIGHT + 8
    parts = _axis(timeline, bottom) + parts  # drawn first, so that its lines lie behind the rest
    playhead = f'<line class="playhead" x1="{MARGIN}" x2="{MARGIN}" y1="20" y2="{bottom}" hidden=""/>'
    return (
        f'<svg class="timeline" viewBox="0 0 {WIDTH} {bottom:.0f}" role="img" '
        f'aria-labelledby="{timeline.name}-title {timeline.name}-desc" '
        f'data-total-ms="{timeline.total_ms:.0f}" data-margin="{MARGIN}">'
        f'<title id="{timeline.name}-title">{escaped(timeline.title)}</title>'
        f'<desc id="{timeline.name}-desc">{escaped(timeline.description)}</desc>'
        f"{''.join(parts)}{playhead}</svg>"
    )


def _text(x: float, y: float, text: str, css: str, anchor: str = "start") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, css: str) -> str:
    return f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" rx="3"/>'


def _axis(timeline: Timeline, bottom: float) -> list[str]:
    """Draw the time axis in seconds along the top."""
    seconds = timeline.total_ms / 1000
    step = next(step for step in (0.5, 1, 2, 5, 10, 30, 60, 300, 1e9) if seconds / step <= 14)
    parts = []
    for tick in np.arange(0, seconds + 1e-9, step):
        x = _x(1000 * tick, timeline.total_ms)
        anchor = "start" if tick == 0 else "end" if x > WIDTH - 24 else "middle"
        parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="16" y2="{bottom:.1f}"/>')
        parts.append(_text(x, 12, f"{tick:g} s", "label", anchor))
    return parts


def _source(timeline: Timeline, top: float) -> list[str]:
    """Draw the source waveform over its chunks, which are shaded in turn."""
    end = _x(timeline.source_ms, timeline.total_ms)
    height = WAVE_HEIGHT
    chunk = timeline.chunk_ms or timeline.source_ms
    parts = [_text(MARGIN, top - 8, "Source and its chunks", "row")]
    for index in range(int(np.ceil(timeline.source_ms / chunk)) if chunk else 0):
        left = _x(index * chunk, timeline.total_ms)
        right = min(_x((index + 1) * chunk, timeline.total_ms), end)
        parts.append(_rect(left, top, right - left, height, "chunk odd" if index % 2 else "chunk"))
    if timeline.source is not None and len(timeline.source):
        peak = float(np.abs(timeline.source).max())
        path = wave_path(timeline.source, MARGIN, end, top + height / 2, height - 6, peak)
        parts.append(f'<path class="source-wave" d="{path}"/>')
    return parts


def _words(blocks: Sequence[_Block], wave_bottom: float, top: float, heading: str) -> list[str]:
    """Draw blocks of words, each with a line to its time in the waveform above."""
    parts = []
    for block in blocks:
        y = top + block.row * LINE_HEIGHT
        parts.append(f'<path class="leader" d="M{block.anchor:.1f} {wave_bottom - 4:.1f}V{y + 4:.1f}"/>')
        parts.append(f'<circle class="moment" cx="{block.anchor:.1f}" cy="{wave_bottom:.1f}" r="3.5"/>')
    parts.append(_text(MARGIN, top - 10, heading, "row"))
    for block in blocks:
        y = top + block.row * LINE_HEIGHT
        parts.append(_rect(block.left, y, block.width, LINE_HEIGHT * len(block.lines) - 2, "words"))
        for number, line in enumerate(block.lines):
            parts.append(_text(block.left + 5, y + 11.5 + number * LINE_HEIGHT, line, "word"))
    return parts


def _speech(timeline: Timeline, pieces: Sequence[Piece], top: float) -> list[str]:
    """Draw the pieces of speech at their playback times, and the gaps between them."""
    heading = "Speech, as played" if pieces else "No speech"
    parts = [_text(MARGIN, top - 9, heading, "row")]
    peak = max((float(np.abs(piece.samples).max(initial=0)) for piece in pieces), default=1.0)
    for number, piece in enumerate(pieces):
        left = _x(piece.start_ms, timeline.total_ms)
        right = _x(piece.start_ms + piece.duration_ms, timeline.total_ms)
        parts.append(_rect(left, top, right - left, SPEECH_HEIGHT, "piece odd" if number % 2 else "piece"))
        if len(piece.samples):
            path = wave_path(piece.samples, left, right, top + SPEECH_HEIGHT / 2, SPEECH_HEIGHT - 8, peak)
            parts.append(f'<path class="speech-wave" d="{path}"/>')
    for start_ms, duration_ms in timeline.gaps:
        left, right = _x(start_ms, timeline.total_ms), _x(start_ms + duration_ms, timeline.total_ms)
        parts.append(_rect(left, top, right - left, SPEECH_HEIGHT, "gap"))
        if right - left > 16:
            parts.append(
                _text((left + right) / 2, top + SPEECH_HEIGHT + 14, f"{duration_ms:.0f} ms", "label", "middle")
            )
    return parts
