"""Long recordings: the words of a translation divided among the reference segments.

The alignment maximises the summed similarity of aligned words, in order; words may stay unaligned at no cost. Two words
are as similar as their sets of characters (Jaccard index); a punctuation mark is never aligned with a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

_BLOCK = 256
"""Rows between two that are kept. The rows of a block are computed again for the way back, so that memory grows far
slower than the square of the number of words."""


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[int | None]:
    """Index of the reference word of each word of the hypothesis, ``None`` for words that stay unaligned.

    Of several best alignments the way back from the end takes an aligned pair first, then skips a reference word, then
    a word of the hypothesis. Compares in lower case.
    """
    similarity = _Similarity(reference, hypothesis)
    columns = len(hypothesis)
    kept = [np.zeros(columns + 1)]  # rows 0, _BLOCK, 2 * _BLOCK ... of the best sums
    row = kept[0]
    for index in range(len(reference)):
        row = _next_row(row, similarity.row(index))
        if (index + 1) % _BLOCK == 0:
            kept.append(row)
    aligned: list[int | None] = [None] * columns
    i, j = len(reference), columns
    while i and j:
        first = (i - 1) // _BLOCK * _BLOCK
        rows = [kept[first // _BLOCK]]
        for index in range(first, i):
            rows.append(_next_row(rows[-1], similarity.row(index)))
        while i > first and j:
            here, above = rows[i - first], rows[i - first - 1]
            if here[j] == above[j - 1] + similarity.row(i - 1)[j - 1]:
                i, j = i - 1, j - 1
                aligned[j] = i
            elif here[j] == above[j]:
                i -= 1
            else:
                j -= 1
    return aligned


def resegment(segments: Sequence[str], hypothesis: Sequence[str]) -> list[list[int]]:
    """Indices of the words of ``hypothesis`` that belong to each reference segment.

    An unaligned word goes to the segment of the aligned word before or behind it that is more similar to it, to the
    earlier one on ties.

    Args:
        segments: text of each reference segment, words separated by spaces.
        hypothesis: words of the translation of the whole recording.
    """
    reference = [word for segment in segments for word in segment.split()]
    ends = np.array(list(accumulate(len(segment.split()) for segment in segments)))
    aligned = align(reference, hypothesis)
    parts: list[list[int]] = [[] for _ in segments]
    behind = _next_aligned(aligned)
    before: int | None = None
    for index, place in enumerate(aligned):
        if place is None:
            place = _nearer(hypothesis[index], reference, before, behind[index])
        else:
            before = place
        if parts:
            parts[0 if place is None else int(np.searchsorted(ends, place, side="right"))].append(index)
    return parts


def _next_row(row: NDArray[np.float64], similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Best sums with one more reference word: (words + 1,)."""
    best = row.copy()
    np.maximum(best[1:], row[:-1] + similarity, out=best[1:])
    return np.maximum.accumulate(best)


def _next_aligned(aligned: Sequence[int | None]) -> list[int | None]:
    found: list[int | None] = []
    last: int | None = None
    for place in reversed(aligned):
        last = last if place is None else place
        found.append(last)
    return found[::-1]


def _nearer(word: str, reference: Sequence[str], before: int | None, behind: int | None) -> int | None:
    if before is None or behind is None:
        return behind if before is None else before
    pair = [_jaccard(word.lower(), reference[place].lower()) for place in (before, behind)]
    return behind if pair[1] > pair[0] else before


class _Similarity:
    """Similarities of each pair of distinct words, computed once for each pair that occurs."""

    def __init__(self, reference: Sequence[str], hypothesis: Sequence[str]) -> None:
        self._reference, self._rows = _distinct(reference)
        self._words, columns = _distinct(hypothesis)
        self._columns = np.array(columns, dtype=np.int64)
        self._known: dict[int, NDArray[np.float64]] = {}

    def row(self, index: int) -> NDArray[np.float64]:
        """(words of the hypothesis,) similarities to reference word ``index``."""
        number = self._rows[index]
        if number not in self._known:
            word = self._reference[number]
            self._known[number] = np.array([_jaccard(word, other) for other in self._words], dtype=np.float64)
        return self._known[number][self._columns]


def _distinct(words: Sequence[str]) -> tuple[list[str], list[int]]:
    """The distinct words in lower case, and the number of each word among them."""
    numbers: dict[str, int] = {}
    places = [numbers.setdefault(word.lower(), len(numbers)) for word in words]
    return list(numbers), places


def _jaccard(first: str, second: str) -> float:
    """Similarity of two words in lower case; minus infinity for a punctuation mark and a word."""
    if _is_punctuation(first) != _is_punctuation(second):
        return -np.inf
    ours, theirs = set(first), set(second)
    return len(ours & theirs) / max(1, len(ours | theirs))


def _is_punctuation(word: str) -> bool:
    return not any(character.isalnum() for character in word)
