"""Corpus BLEU from sums of n-gram counts, so that it can be added up over batches and processes (sacrebleu's)."""

from collections.abc import Mapping, Sequence

from sacrebleu.metrics import BLEU

ORDER = 4


def bleu_counts(prefix: str, hypotheses: Sequence[str], references: Sequence[str], tokenize: str) -> dict[str, int]:
    """n-gram counts of one batch, under names that begin with ``prefix``; zeros for an empty batch.

    Args:
        tokenize: sacrebleu's tokenizer: ``13a`` for text, ``none`` for strings of units.
    """
    if not hypotheses:
        return {f"{prefix}_{name}": 0 for name in _names()}
    score = BLEU(tokenize=tokenize).corpus_score(list(hypotheses), [list(references)])
    values = [score.sys_len, score.ref_len, *score.counts, *score.totals]
    return {f"{prefix}_{name}": int(value) for name, value in zip(_names(), values, strict=True)}


def bleu_of_counts(prefix: str, sums: Mapping[str, float]) -> float:
    """Corpus BLEU (0 to 100) of counts added up over all batches; 0 where nothing matches or nothing was counted."""
    values = [int(sums.get(f"{prefix}_{name}", 0)) for name in _names()]
    system, reference, counts, totals = values[0], values[1], values[2 : 2 + ORDER], values[2 + ORDER :]
    score = BLEU.compute_bleu(counts, totals, system, reference, smooth_method="exp")
    return float(score.score)


def _names() -> list[str]:
    orders = range(1, ORDER + 1)
    return ["sys", "ref", *(f"count{n}" for n in orders), *(f"total{n}" for n in orders)]
