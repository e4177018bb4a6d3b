"""From the labels of slots to tokens and unit codes, for offline and streaming translation alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nast_s2x.ctc import CtcCollapser
from nast_s2x.data.dictionary import LabelDictionary

if TYPE_CHECKING:
    from nast_s2x.inference.bundle import Bundle

NUM_SPECIALS = 4
"""Unit code c has label c + 4; the labels below are ``<s> <pad> </s> <unk>``."""


def text_collapser(bundle: Bundle) -> CtcCollapser:
    """Collapser of text labels; an unknown piece stays, since it stands for a word that the model wanted to say."""
    labels = LabelDictionary
    return CtcCollapser(bundle.dictionary.blank, drop=(labels.bos, labels.pad, labels.eos))


class UnitReader:
    """Unit codes from the unit labels of a stream, chunk by chunk: CTC collapse, then :class:`RepeatFilter`."""

    def __init__(self, bundle: Bundle) -> None:
        self._collapser = CtcCollapser(bundle.model.config.unit_vocab - 1, drop=range(NUM_SPECIALS))
        self._repeats = RepeatFilter(bundle.drop_repeats)

    def push(self, labels: Sequence[int]) -> list[int]:
        """Labels of the slots of one chunk -> the unit codes that began in it."""
        return self._repeats.push([label - NUM_SPECIALS for label in self._collapser.push(labels)])


class RepeatFilter:
    """Drops a run of units that says again what was said just before it: ``a b c a b c`` becomes ``a b c``.

    A unit decoder that is unsure between two places of a word says it in both. What was let through stays: only runs
    that lie in one push as a whole are dropped, so a stream and offline translation by chunks agree.

    Args:
        longest: units of the longest run looked for, from 2 on; 0 (published) drops nothing.

    Example:
        >>> filter = RepeatFilter(8)
        >>> filter.push([4, 7, 9, 7, 9, 2]), filter.push([9, 2, 1])
        ([4, 7, 9, 2], [1])
    """

    def __init__(self, longest: int) -> None:
        if longest < 0 or longest == 1:
            raise ValueError(f"runs of repeated units have 2 units or more (0 drops none), got {longest}")
        self.longest = longest
        self._past: list[int] = []

    def push(self, units: Sequence[int]) -> list[int]:
        """The units of the next chunk without repeated runs."""
        heard, begin = list(self._past), len(self._past)
        for unit in units:
            heard.append(unit)
            for size in range(min(self.longest, len(heard) - begin, len(heard) // 2), 1, -1):
                if heard[-size:] == heard[-2 * size : -size]:
                    del heard[-size:]
                    break
        self._past = heard[-self.longest :] if self.longest else []
        return heard[begin:]
