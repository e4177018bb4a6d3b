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


def unit_collapser(bundle: Bundle) -> CtcCollapser:
    """Collapser of unit labels; only real units remain."""
    return CtcCollapser(bundle.model.config.unit_vocab - 1, drop=range(NUM_SPECIALS))


def unit_codes(labels: Sequence[int]) -> list[int]:
    """Unit codes of collapsed unit labels."""
    return [label - NUM_SPECIALS for label in labels]
