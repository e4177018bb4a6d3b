"""Scores of transcripts against references: word error rate and BLEU, case and punctuation aside."""

from __future__ import annotations

import re
from collections.abc import Sequence


def plain_words(text: str) -> list[str]:
    """Lower-case words; punctuation is dropped, apostrophes inside words stay.

    >>> plain_words("He doesn't know: why?")
    ['he', "doesn't", 'know', 'why']
    """
    return re.findall(r"\w+(?:['’]\w+)*", text.lower())


def edit_distance(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    """Fewest substitutions, deletions and insertions between two sequences (Levenshtein, 1966)."""
    row = list(range(len(reference) + 1))  # distances of the empty hypothesis to each prefix of the reference
    for i, word in enumerate(hypothesis, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(reference, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def word_error_rate(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Edits of words in percent of the reference words, over all sentences together; may exceed 100.

    Raises:
        ValueError: lists of different lengths, or references without a word.
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"word_error_rate: {len(hypotheses)} hypotheses do not match {len(references)} references")
    pairs = [(plain_words(first), plain_words(second)) for first, second in zip(hypotheses, references, strict=True)]
    words = sum(len(reference) for _, reference in pairs)
    if not words:
        raise ValueError("word_error_rate: the references hold no words")
    return 100.0 * sum(edit_distance(hypothesis, reference) for hypothesis, reference in pairs) / words


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """sacrebleu's corpus BLEU (0 to 100) of plain words."""
    return _bleu([" ".join(plain_words(text)) for text in hypotheses], [" ".join(plain_words(t)) for t in references])


def unit_bleu(hypotheses: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> float:
    """sacrebleu's corpus BLEU (0 to 100) of unit sequences."""
    return _bleu([" ".join(map(str, units)) for units in hypotheses], [" ".join(map(str, u)) for u in references])


def _bleu(hypotheses: list[str], references: list[str]) -> float:
    from sacrebleu.metrics import BLEU

    return float(BLEU(tokenize="none").corpus_score(hypotheses, [references]).score)
