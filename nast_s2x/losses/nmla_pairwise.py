"""The definition of the order-2 NMLA loss, summed over all pairs of slots: slow, with large intermediate tensors.

Reference for tests and for ``nast-s2x benchmark nmla``; use :func:`nast_s2x.losses.nmla.nmla_loss` elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nast_s2x.batches import Lengths, TargetBatch


def between_blanks(blanks: Tensor) -> Tensor:
    """Blank probabilities (B, T) -> (B, T, T): [i, j] is their product over the slots between i and j, 0 for j <= i."""
    slots = blanks.size(1)
    index = torch.arange(slots, device=blanks.device)
    inside = index[None, :] > index[:, None] + 1  # [i, j]: slot j - 1 lies after i
    previous = torch.cat([torch.ones_like(blanks[:, :1]), blanks[:, :-1]], 1)  # p_{j-1}(b)
    factors = torch.where(inside, previous[:, None, :], torch.ones_like(previous[:, None, :]))
    return factors.cumprod(2).triu(1)


def pairwise_bigrams(probs: Tensor, bigrams: Tensor, blank: int) -> Tensor:
    """Expected counts of bigrams (B, G, 2) under probs (B, T, V), 0 at padded slots -> (B, G); B x G x T x T terms."""
    slots = probs.size(1)
    columns = probs.transpose(1, 2)  # (B, V, T)
    first = columns.gather(1, bigrams[:, :, :1].expand(-1, -1, slots))  # (B, G, T)
    second = columns.gather(1, bigrams[:, :, 1:].expand(-1, -1, slots))
    between = between_blanks(probs[:, :, blank])
    terms = first[:, :, :, None] * between[:, None] * second[:, :, None, :]  # (B, G, T, T)
    repeated = bigrams[:, :, 0] == bigrams[:, :, 1]
    merged = (first[:, :, :-1] * second[:, :, 1:]).sum(2) * repeated
    return terms.sum((2, 3)) - merged


def distinct_bigrams(targets: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Distinct bigrams of each target, in order of appearance: (B, G, 2) labels and (B, G) counts, 0 = padding."""
    tables: list[dict[tuple[int, int], int]] = []
    for labels in targets:
        table: dict[tuple[int, int], int] = {}
        for pair in zip(labels, labels[1:], strict=False):
            table[pair] = table.get(pair, 0) + 1
        tables.append(table)
    size = max(1, *(len(table) for table in tables)) if tables else 1
    pairs = torch.tensor([[*table, *[(0, 0)] * (size - len(table))] for table in tables])
    counts = torch.tensor([[*table.values(), *[0] * (size - len(table))] for table in tables])
    return pairs, counts


def nmla_loss_pairwise(logits: Tensor, lengths: Lengths, targets: TargetBatch, blank: int) -> Tensor:
    """The same as :func:`nast_s2x.losses.nmla.nmla_loss`, order 2, batch normalisation, from the definition."""
    valid = lengths.mask(logits.size(1), logits.device)
    probs = logits.softmax(-1) * valid[:, :, None]
    rows = zip(targets.labels.tolist(), targets.lengths.host, strict=True)
    bigrams, counts = (part.to(logits.device) for part in distinct_bigrams([row[:size] for row, size in rows]))
    matched = torch.minimum(pairwise_bigrams(probs, bigrams, blank), counts.to(probs.dtype)).sum(1)
    before = torch.cat([torch.zeros_like(probs[:, :1]), probs[:, :-1]], 1)
    begun = probs * (1.0 - before)
    expected = begun.sum((1, 2)) - begun[:, :, blank].sum(1)
    return -2.0 * matched.mean() / (targets.labels.size(1) + expected.mean() - 2.0)
