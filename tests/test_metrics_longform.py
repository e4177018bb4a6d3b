"""Division of a long translation among reference segments, against a plain quadratic form."""

from __future__ import annotations

import numpy as np
import pytest

from nast_s2x.metrics import longform
from nast_s2x.metrics.longform import _jaccard, align, resegment


def quadratic(reference: list[str], hypothesis: list[str]) -> list[int | None]:
    table = np.zeros((len(reference) + 1, len(hypothesis) + 1))
    for i, word in enumerate(reference):
        for j, other in enumerate(hypothesis):
            table[i + 1, j + 1] = max(
                table[i, j] + _jaccard(word.lower(), other.lower()), table[i, j + 1], table[i + 1, j]
            )
    i, j, aligned = len(reference), len(hypothesis), [None] * len(hypothesis)
    while i and j:
        pair = _jaccard(reference[i - 1].lower(), hypothesis[j - 1].lower())
        if table[i, j] == table[i - 1, j - 1] + pair:
            i, j = i - 1, j - 1
            aligned[j] = i
        elif table[i, j] == table[i - 1, j]:
            i -= 1
        else:
            j -= 1
    return aligned


@pytest.mark.parametrize("block", [1, 3, 256])
def test_the_alignment_is_that_of_the_quadratic_form(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longform, "_BLOCK", block)
    random = np.random.default_rng(0)
    words = ["the", "They", "cat", "act", ".", ",", "!", "a", "house", "mouse", "Haus", "9"]
    for _ in range(60):
        reference, hypothesis = (random.choice(words, random.integers(0, 14)).tolist() for _ in range(2))
        assert align(reference, hypothesis) == quadratic(reference, hypothesis)


def test_segments_by_hand() -> None:
    segments = ["the cat sleeps here .", "", "two dogs eat"]
    words = ["uh", "the", "cat", "sleeping", ".", "dogs", "eat", "it"]
    assert resegment(segments, words) == [[0, 1, 2, 3, 4], [], [5, 6, 7]]
    # "sheep" is unaligned between "sleeps" and "two": nearer to the former. "tow" equals "two" in characters.
    assert resegment(["it sleeps", "two dogs"], ["it", "sleeps", "sheep", "tow", "dogs"]) == [[0, 1, 2], [3, 4]]
    assert resegment(["a b"], []) == [[]] and resegment([], ["x"]) == [] and resegment(["", ""], ["x"]) == [[0], []]


def test_every_word_is_in_one_segment_and_the_order_stays() -> None:
    random = np.random.default_rng(1)
    words = [f"w{number}" for number in random.integers(0, 300, 900)]
    segments = [" ".join(words[start : start + 9]) for start in range(0, 900, 9)]
    noisy = [word if random.random() < 0.8 else "x" for word in words for _ in range(int(random.integers(0, 3)))]
    parts = resegment(segments, noisy)
    assert [index for part in parts for index in part] == list(range(len(noisy)))
    right = sum(noisy[index] in segments[number].split() for number, part in enumerate(parts) for index in part)
    assert right > 0.7 * len(noisy)


def test_memory_is_not_quadratic() -> None:
    import tracemalloc

    def peak(count: int) -> int:
        random = np.random.default_rng(2)
        words = [f"w{number}" for number in random.integers(0, 50, count)]
        tracemalloc.start()
        align(words, words)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(4000) < 3 * peak(2000)
