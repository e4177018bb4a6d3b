"""Quality of translations: BLEU and chrF (sacreBLEU, with its signatures), BLEU of units, word error rate.

sacreBLEU is loaded by the functions that need it; it is part of the extra ``evaluate``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nast_s2x.errors import NastError
from nast_s2x.metrics.text import Unit, normalise


@dataclass(frozen=True)
class Score:
    """Value of a metric, with sacreBLEU's signature.

    Attributes:
        value: 0 to 100, higher is better.
        signature: version and settings of sacreBLEU.
    """

    value: float
    signature: str


BLEU_ORDER = 4
"""Longest n-gram of BLEU."""
_TOKENIZERS = {"ASR_BLEU": "none", "unit_BLEU": "none"}
"""Normalised transcripts and units are tokenized already."""


def metric(figure: str, tokenizer: str = "13a") -> Any:
    """sacreBLEU's metric for a figure of ``scores.json``: BLEU (with ``tokenizer``), ASR_BLEU, unit_BLEU or chrF."""
    from sacrebleu.metrics import BLEU, CHRF

    if figure == "chrF":
        return CHRF()
    return BLEU(
        tokenize=_TOKENIZERS.get(figure, tokenizer), force=True
    )  # force: no warning about texts that look tokenized


def bleu(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str = "13a") -> Score:
    """Corpus BLEU (Papineni et al., 2002) of unchanged texts, sacreBLEU's defaults (mixed case).

    Args:
        tokenizer: sacreBLEU's, by language: :func:`~nast_s2x.metrics.text.rules_of`.
    Raises:
        ValueError: lists of different lengths, or empty lists; the same for the other scores of this module.
    """
    return _corpus("BLEU", hypotheses, references, tokenizer)


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Corpus chrF (Popović, 2015) of unchanged texts, sacreBLEU's defaults (chrF2)."""
    return _corpus("chrF", hypotheses, references)


def asr_bleu(transcripts: Sequence[str], references: Sequence[str], unit: Unit = "word") -> Score:
    """Corpus BLEU of a recogniser's transcripts, both sides after :func:`~nast_s2x.metrics.text.normalise`."""
    heard, expected = ([normalise(text, unit) for text in texts] for texts in (transcripts, references))
    return _corpus("ASR_BLEU", heard, expected)


def asr_chrf(transcripts: Sequence[str], references: Sequence[str], unit: Unit = "word") -> Score:
    """Corpus chrF of a recogniser's transcripts, both sides normalised as for :func:`asr_bleu`."""
    return chrf(*([normalise(text, unit) for text in texts] for texts in (transcripts, references)))


def unit_bleu(hypotheses: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> Score:
    """Corpus BLEU of sequences of speech units; each unit is one token."""
    made, expected = ([" ".join(map(str, row)) for row in rows] for rows in (hypotheses, references))
    return _corpus("unit_BLEU", made, expected)


def sentence_bleu(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str = "13a") -> list[float]:
    """BLEU of each unchanged text, with effective order: n-grams longer than a short text do not count."""
    return _sentence_bleu(hypotheses, references, tokenizer)


def sentence_asr_bleu(transcripts: Sequence[str], references: Sequence[str], unit: Unit = "word") -> list[float]:
    """:func:`sentence_bleu` of a recogniser's transcripts, both sides normalised."""
    heard, expected = ([normalise(text, unit) for text in texts] for texts in (transcripts, references))
    return _sentence_bleu(heard, expected, "none")


def edit_distance(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    """Fewest substitutions, deletions and insertions between two sequences (Levenshtein, 1966).

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(reference) + 1))  # distances of the empty hypothesis to each prefix of the reference
    for i, word in enumerate(hypothesis, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(reference, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def word_error_rate(hypotheses: Sequence[str], references: Sequence[str], unit: Unit = "word") -> float:
    """Edits of words (or characters) in percent of those of the reference, over all normalised sentences together.

    It may exceed 100.

    Raises:
        ValueError: lists of different lengths, or references without words.
    """
    _check("word_error_rate", hypotheses, references)
    pairs = [
        (normalise(text, unit).split(), normalise(other, unit).split()) for text, other in zip(hypotheses, references)
    ]
    words = sum(len(reference) for _, reference in pairs)
    if not words:
        raise NastError("word_error_rate: the references contain no words")
    return 100.0 * sum(edit_distance(hypothesis, reference) for hypothesis, reference in pairs) / words


def _corpus(figure: str, hypotheses: Sequence[str], references: Sequence[str], tokenizer: str = "13a") -> Score:
    _check(figure, hypotheses, references)
    scorer = metric(figure, tokenizer)
    value = scorer.corpus_score(list(hypotheses), [list(references)]).score
    return Score(float(value), str(scorer.get_signature()))


def _sentence_bleu(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str) -> list[float]:
    from sacrebleu.metrics import BLEU

    _check("BLEU", hypotheses, references)
    scorer = BLEU(tokenize=tokenizer, effective_order=True)
    return [float(scorer.sentence_score(text, [other]).score) for text, other in zip(hypotheses, references)]


def _check(name: str, hypotheses: Sequence[object], references: Sequence[object]) -> None:
    if len(hypotheses) != len(references):
        raise NastError(f"{name}: {len(hypotheses)} hypotheses do not match {len(references)} references")
    if not hypotheses:
        raise NastError(f"{name}: at least one hypothesis is needed, but there is none")


def bleu_counts(prefix: str, hypotheses: Sequence[str], references: Sequence[str], tokenize: str) -> dict[str, int]:
    """n-gram counts of one batch, under names that begin with ``prefix``; zeros for an empty batch.

    Args:
        tokenize: sacreBLEU's tokenizer: that of the language for text, ``none`` for strings of units.
    """
    from sacrebleu.metrics import BLEU

    if not hypotheses:
        return {f"{prefix}_{name}": 0 for name in _count_names()}
    score = BLEU(tokenize=tokenize, force=True).corpus_score(list(hypotheses), [list(references)])
    values = [score.sys_len, score.ref_len, *score.counts, *score.totals]
    return {f"{prefix}_{name}": int(value) for name, value in zip(_count_names(), values, strict=True)}


def bleu_of_counts(prefix: str, sums: Mapping[str, float]) -> float:
    """Corpus BLEU (0 to 100) of the sums of :func:`bleu_counts` over all batches; 0 without matches or counts."""
    from sacrebleu.metrics import BLEU

    values = [int(sums.get(f"{prefix}_{name}", 0)) for name in _count_names()]
    system, reference, counts, totals = values[0], values[1], values[2 : 2 + BLEU_ORDER], values[2 + BLEU_ORDER :]
    score = BLEU.compute_bleu(counts, totals, system, reference, smooth_method="exp")
    return float(score.score)


def _count_names() -> list[str]:
    orders = range(1, BLEU_ORDER + 1)
    return ["sys", "ref", *(f"count{n}" for n in orders), *(f"total{n}" for n in orders)]
