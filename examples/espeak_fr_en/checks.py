"""What the corpus must satisfy: word forms, no overlap, and no memory (the nearest-sentence BLEU)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .numerals import numeral_words

_WORD = 64  # bits of one block of the bit-parallel matrix
_ONE = np.uint64(1)


def word_forms(sentences: Sequence[str]) -> Counter[str]:
    """How often each English word form occurs, numerals left out."""
    counts = Counter(word for sentence in sentences for word in sentence.split())
    for word in numeral_words():
        counts.pop(word, None)
    return counts


def _codes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Texts as a matrix of character codes (texts, longest), their lengths, and the code of each character."""
    alphabet = {char: code + 1 for code, char in enumerate(sorted(set("".join(texts))))}
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    codes = np.zeros((len(texts), int(lengths.max(initial=0))), dtype=np.int64)
    for row, text in enumerate(texts):
        codes[row, : len(text)] = [alphabet[char] for char in text]
    return codes, lengths, alphabet


class EditDistance:
    """Levenshtein distances from one text to many at once, bit-parallel.

    Myers, "A fast bit-vector algorithm for approximate string matching based on dynamic programming" (1999), in blocks
    of 64 rows, vectorised over the texts; the top row counts up (a distance, not a search).
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.codes, self.lengths, self.alphabet = _codes(texts)

    def __call__(self, pattern: str) -> np.ndarray:
        """Distances (texts,) from `pattern` to every text."""
        count, longest = self.codes.shape
        if not pattern:
            return self.lengths.copy()
        blocks = -(-len(pattern) // _WORD)
        equal = np.zeros((blocks, len(self.alphabet) + 1), dtype=np.uint64)
        for row, char in enumerate(pattern):
            if char in self.alphabet:
                equal[row // _WORD, self.alphabet[char]] |= _ONE << np.uint64(row % _WORD)
        plus = np.full((blocks, count), ~np.uint64(0))
        minus = np.zeros((blocks, count), dtype=np.uint64)
        score = np.full(count, len(pattern), dtype=np.int64)
        last_row = np.uint64((len(pattern) - 1) % _WORD)
        for column in range(longest):
            carry_plus, carry_minus = np.ones(count, dtype=np.uint64), np.zeros(count, dtype=np.uint64)
            for block in range(blocks):
                top = last_row if block == blocks - 1 else np.uint64(_WORD - 1)
                matches = equal[block][self.codes[:, column]]
                plus[block], minus[block], carry_plus, carry_minus = _advance(
                    plus[block], minus[block], matches, carry_plus, carry_minus, top
                )
            step = carry_plus.astype(np.int64) - carry_minus.astype(np.int64)
            score += np.where(column < self.lengths, step, 0)
        return score


def _advance(
    plus: np.ndarray,
    minus: np.ndarray,
    matches: np.ndarray,
    carry_plus: np.ndarray,
    carry_minus: np.ndarray,
    top: np.uint64,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One column of one block: new vertical differences and the horizontal difference that leaves at bit `top`."""
    vertical = matches | minus
    matches = matches | carry_minus
    horizontal = (((matches & plus) + plus) ^ plus) | matches
    up = minus | ~(horizontal | plus)
    down = plus & horizontal
    out_plus, out_minus = (up >> top) & _ONE, (down >> top) & _ONE
    up, down = (up << _ONE) | carry_plus, (down << _ONE) | carry_minus
    return down | ~(vertical | up), up & vertical, out_plus, out_minus


def nearest(train: Sequence[str], test: Sequence[str]) -> list[int]:
    """For each test text the index of the training text at the smallest edit distance (the first of equals)."""
    distance = EditDistance(train)
    return [int(distance(text).argmin()) for text in test]


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """sacreBLEU of the sentences as they are."""
    try:
        import sacrebleu
    except ImportError as error:
        raise RuntimeError("the nearest-sentence BLEU needs sacrebleu: pip install sacrebleu") from error
    return float(sacrebleu.corpus_bleu(list(hypotheses), [list(references)]).score)
