"""Long recordings: the units of a translation divided among the reference segments, and the latency of each segment.

A unit is a word, or a character (:mod:`nast_s2x.metrics.text`). Two divisions are made:

* :func:`resegment`, the rule of OmniSTEval 0.1.10 (Polák et al., 2025, "Better Late Than Never", arXiv:2509.17349): the
  alignment maximises the summed similarity of aligned units, in order; units may stay unaligned at no cost. Two words
  are as similar as their sets of characters (Jaccard index), two characters are equal or not; a punctuation mark is
  never aligned with a word.
* :func:`resegment_by_edits`, least word errors (Matusov et al., 2005, "Evaluating Machine Translation Output with
  Automatic Sentence Segmentation"), for StreamLAAL.

All times are in ms.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from nast_s2x.metrics.latency import length_adaptive_average_lagging
from nast_s2x.metrics.text import Unit, units_of

_BLOCK = 256
"""Rows between two that are kept. The rows of a block are computed again for the way back, so that memory grows far
slower than the square of the number of units."""
_PUNCTUATION = frozenset(".!?,;:-()。！？，；：—ー（）")
"""The marks that OmniSTEval keeps apart from words."""


@dataclass(frozen=True)
class Place:
    """Place of a unit of the translation in the reference.

    Attributes:
        index: the reference unit that it is aligned with; of an unaligned unit, the number of reference units before.
        is_aligned: False for a unit that stays unaligned.
    """

    index: int
    is_aligned: bool


def align(reference: Sequence[str], hypothesis: Sequence[str], unit: Unit = "word") -> list[Place]:
    """Place of each unit of the hypothesis in the most similar alignment.

    Of several best alignments the way back from the end takes an aligned pair first, then skips a reference unit, then
    one of the hypothesis. Compares in lower case, after NFKC.
    """
    comparison = _SharedCharacters if unit == "word" else _Equality
    return _best_path(_Similarity(reference, hypothesis, comparison), cost=0.0)


def align_by_edits(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Place]:
    """Place of each unit of the hypothesis in the alignment with the fewest insertions, deletions and substitutions.

    Ties and letters as in :func:`align`; a substituted unit is aligned.
    """
    return _best_path(_Similarity(reference, hypothesis, _Substitution), cost=1.0)


def resegment(segments: Sequence[str], hypothesis: Sequence[str], unit: Unit = "word") -> list[list[int]]:
    """Indices of the units of ``hypothesis`` that belong to each reference segment, by :func:`align`.

    An unaligned unit goes to the segment of the reference unit before or behind it that is more similar to it, to the
    earlier one on ties; where one goes behind, those that follow it at the same place go there too. OmniSTEval loses
    punctuation marks before the first aligned unit; here they go to the first segment that has a unit.

    Args:
        segments: text of each reference segment.
        hypothesis: units of the translation of the whole recording.
    """
    reference = [part for segment in segments for part in units_of(segment.lower(), unit)]
    chosen: list[int | None] = []
    behind: int | None = None  # the place at which units go to the reference unit behind it
    for text, place in zip(hypothesis, align(reference, hypothesis, unit)):
        index = place.index
        if not place.is_aligned:
            if index != behind and _is_nearer_behind(text, reference, index, unit):
                behind = index
            index = index if index == behind or not index else index - 1
        chosen.append(index if reference else None)
    return _parts(segments, chosen, unit)


def resegment_by_edits(segments: Sequence[str], hypothesis: Sequence[str], unit: Unit = "word") -> list[list[int]]:
    """Indices of the units of ``hypothesis`` that belong to each reference segment, by :func:`align_by_edits`.

    An inserted unit goes to the segment of the reference unit before it.
    """
    reference = [part for segment in segments for part in units_of(segment.lower(), unit)]
    places = align_by_edits(reference, hypothesis)
    chosen = [place.index if place.is_aligned else max(0, place.index - 1) for place in places]
    return _parts(segments, chosen if reference else [None] * len(chosen), unit)


def yaal(times: Sequence[float], source_ms: float, reference_length: int, end_ms: float | None = None) -> float | None:
    """YAAL (Polák et al., 2025): mean lag of the units before the end of the segment, or LongYAAL of the recording.

    YAAL = mean over i with d_i < E of (d_i - (i - 1) / g), g = max(n, r) / T; n units were written, the reference has
    r, T is the length of the segment and E its end.

    Args:
        times: (n,) delays or elapsed times from the start of the segment, not decreasing; negative before it.
        source_ms: T.
        reference_length: r.
        end_ms: E, for LongYAAL the end of the recording, from the start of the segment; ``None``: T, as in YAAL.
    Returns:
        ``None`` without a unit before E.

    Example:
        >>> yaal([320, 640, 960], 500, 2, end_ms=1000)  # g = 3 / 500
        473.3333333333333
    """
    if source_ms <= 0:
        return None
    step = source_ms / max(1, len(times), reference_length)
    lags = []
    for place, time in enumerate(times):
        if time >= (source_ms if end_ms is None else end_ms):
            break
        lags.append(time - place * step)
    return sum(lags) / len(lags) if lags else None


def laal(times: Sequence[float], source_ms: float, reference_length: int) -> float | None:
    """LAAL of a segment (arguments as for :func:`yaal`); ``None`` for an empty one.

    Its mean over the segments is LongLAAL by :func:`resegment`, StreamLAAL (Papi et al., 2024, "StreamAtt") by
    :func:`resegment_by_edits`.
    """
    if not times or source_ms <= 0:
        return None
    return length_adaptive_average_lagging(times, source_ms, max(1, reference_length))


def real_time_elapsed(delays: Sequence[float], elapsed: Sequence[float]) -> list[float]:
    """Elapsed times of SimulEval, which add all computing so far to a delay, as times of a stream in real time.

    The computing between two units counts from the delay of the former, and time does not go back; OmniSTEval's
    ``--fix_simuleval_emission_ca``.
    """
    found: list[float] = []
    for place, time in enumerate(elapsed):
        if place:
            time = max(found[-1], time - elapsed[place - 1] + delays[place - 1])
        found.append(time)
    return found


def _parts(segments: Sequence[str], chosen: Sequence[int | None], unit: Unit) -> list[list[int]]:
    """Units by segment, from the reference unit that each belongs to; ``None``: the first segment."""
    ends = np.array(list(accumulate(len(units_of(segment.lower(), unit)) for segment in segments)))
    parts: list[list[int]] = [[] for _ in segments]
    for index, place in enumerate(chosen):
        if parts:
            parts[0 if place is None else int(np.searchsorted(ends, place, side="right"))].append(index)
    return parts


def _best_path(similarity: _Similarity, cost: float) -> list[Place]:
    """Places on the path with the greatest sum of similarities less ``cost`` for each unit that is skipped."""
    rows, columns = similarity.shape
    row: NDArray[np.float64] = -cost * np.arange(columns + 1, dtype=np.float64)
    kept = [row]  # rows 0, _BLOCK, 2 * _BLOCK ... of the best sums
    for index in range(rows):
        row = _next_row(row, similarity.row(index), cost)
        if (index + 1) % _BLOCK == 0:
            kept.append(row)
    places: list[Place] = [Place(0, False)] * columns
    i, j = rows, columns
    while i and j:
        first = (i - 1) // _BLOCK * _BLOCK
        block = [kept[first // _BLOCK]]
        for index in range(first, i):
            block.append(_next_row(block[-1], similarity.row(index), cost))
        while i > first and j:
            here, above = block[i - first], block[i - first - 1]
            if here[j] == above[j - 1] + similarity.of(i - 1, j - 1):
                i, j = i - 1, j - 1
                places[j] = Place(i, True)
            elif here[j] == above[j] - cost:
                i -= 1
            else:
                j -= 1
                places[j] = Place(i, False)
    return places


def _next_row(row: NDArray[np.float64], similarity: NDArray[np.float64], cost: float) -> NDArray[np.float64]:
    """Best sums with one more reference unit: (units of the hypothesis + 1,). Overwrites ``similarity``."""
    best = row - cost if cost else row.copy()
    similarity += row[:-1]
    np.maximum(best[1:], similarity, out=best[1:])
    if not cost:
        return np.asarray(np.maximum.accumulate(best, out=best))
    slope = cost * np.arange(len(best))  # each unit skipped to the right costs the same
    return np.asarray(np.maximum.accumulate(best + slope) - slope)


def _is_nearer_behind(text: str, reference: Sequence[str], index: int, unit: Unit) -> bool:
    """True where a unit between reference units ``index - 1`` and ``index`` is more similar to the latter."""
    if index == 0 or index == len(reference):
        return index == 0
    comparison = _SharedCharacters if unit == "word" else _Equality
    similarity = _Similarity(reference[index - 1 : index + 1], [text], comparison)
    return similarity.of(1, 0) > similarity.of(0, 0)


class _Similarity:
    """Similarities of each reference unit with all units of the hypothesis, computed once for each distinct unit."""

    def __init__(self, reference: Sequence[str], hypothesis: Sequence[str], comparison: _Comparisons) -> None:
        self._reference, self._rows = _distinct(reference)
        words, columns = _distinct(hypothesis)
        self._columns = np.array(columns, dtype=np.int64)
        self._compare = comparison(words)
        self._known: dict[int, NDArray[np.float64]] = {}
        self.shape = (len(reference), len(hypothesis))

    def row(self, index: int) -> NDArray[np.float64]:
        """(units of the hypothesis,) similarities to reference unit ``index``."""
        return np.take(self._compared(index), self._columns)

    def of(self, row: int, column: int) -> float:
        """Similarity of one reference unit and one unit of the hypothesis."""
        return float(self._compared(row)[self._columns[column]])

    def _compared(self, index: int) -> NDArray[np.float64]:
        number = self._rows[index]
        if number not in self._known:
            self._known[number] = self._compare(self._reference[number])
        return self._known[number]


class _SharedCharacters:
    """Jaccard index of the sets of characters of two words; minus infinity for a punctuation mark and a word."""

    def __init__(self, words: Sequence[str]) -> None:
        sets = [set(word) for word in words]
        self._letters = {letter: number for number, letter in enumerate(sorted(set().union(*sets)))}
        self._has = np.zeros((len(self._letters), len(words)), np.int32)
        for number, letters in enumerate(sets):
            self._has[[self._letters[letter] for letter in letters], number] = 1
        self._sizes = np.array([len(letters) for letters in sets], np.int32)
        self._marks = _are_marks(words)

    def __call__(self, word: str) -> NDArray[np.float64]:
        """Similarities (words,) of ``word`` to the words."""
        letters = set(word)
        shared = self._has[[self._letters[letter] for letter in letters if letter in self._letters]].sum(0)
        similar = shared / np.maximum(1, len(letters) + self._sizes - shared)
        return np.where(self._marks == (word in _PUNCTUATION), similar, -np.inf)


class _Equality:
    """1 for equal units, 0 for different ones; minus infinity for a punctuation mark and another character."""

    def __init__(self, words: Sequence[str]) -> None:
        self._numbers = {word: number for number, word in enumerate(words)}
        self._marks = _are_marks(words)

    def __call__(self, word: str) -> NDArray[np.float64]:
        """Similarities (units,) of ``word`` to the units."""
        equal = np.arange(len(self._numbers)) == self._numbers.get(word, -1)
        return np.where(self._marks == (word in _PUNCTUATION), equal.astype(np.float64), -np.inf)


class _Substitution(_Equality):
    """0 for equal units, -1 for different ones."""

    def __call__(self, word: str) -> NDArray[np.float64]:
        """Less the cost of putting ``word`` in the place of each unit, (units,)."""
        return np.asarray((np.arange(len(self._numbers)) == self._numbers.get(word, -1)) - 1.0)


_Comparisons = type[_SharedCharacters] | type[_Equality]


def _are_marks(words: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([word in _PUNCTUATION for word in words], np.bool_)


def _distinct(words: Sequence[str]) -> tuple[list[str], list[int]]:
    """The distinct words in lower case, and the number of each word among them."""
    numbers: dict[str, int] = {}
    plain = (unicodedata.normalize("NFKC", word).lower() for word in words)
    places = [numbers.setdefault(word, len(numbers)) for word in plain]
    return list(numbers), places
