"""Losses, alignments and glancing with lengths as tensors instead of :class:`Lengths`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nast_s2x import ctc, losses
from nast_s2x.batches import Lengths, TargetBatch


def lengths_of(values: Tensor) -> Lengths:
    return Lengths.of(values.tolist())


def targets_of(labels: Tensor, lengths: Tensor) -> TargetBatch:
    return TargetBatch.of(labels.cpu(), lengths_of(lengths)).to(labels.device)


def ctc_loss(logits: Tensor, lengths: Tensor, labels: Tensor, sizes: Tensor, *arguments: Any, **flags: Any) -> Tensor:
    return losses.ctc_loss(logits, lengths_of(lengths), targets_of(labels, sizes), *arguments, **flags)


def nmla_loss(logits: Tensor, lengths: Tensor, labels: Tensor, sizes: Tensor, *arguments: Any, **flags: Any) -> Tensor:
    return losses.nmla_loss(logits, lengths_of(lengths), targets_of(labels, sizes), *arguments, **flags)


def viterbi_align(log_probs: Tensor, lengths: Tensor, labels: Tensor, sizes: Tensor, blank: int) -> Tensor:
    return ctc.viterbi_align(log_probs, lengths_of(lengths), labels, lengths_of(sizes), blank)


def make_glancer(labels: Tensor, sizes: Tensor, *arguments: Any, **flags: Any) -> Any:
    glance = losses.make_glancer(targets_of(labels, sizes), *arguments, **flags)
    return lambda logits, lengths: glance(logits, lengths_of(lengths))


def glance_probability(predictions: Tensor, labels: Tensor, lengths: Tensor, ratio: float) -> Tensor:
    return losses.glance_probability(predictions, labels, lengths_of(lengths), ratio)


def is_feasible(labels: Tensor, sizes: Tensor, slots: Tensor) -> Tensor:
    return torch.tensor(targets_of(labels, sizes).fits(lengths_of(slots)))


def bigram_counts(labels: Tensor, valid: Tensor) -> Tensor:
    """Bigram counts (B, L - 1) of labels (B, L) where ``valid`` (B, L) is True; the others become padding."""
    return TargetBatch.of(labels.masked_fill(~valid, 1), lengths_of(torch.full((len(labels),), labels.size(1)))).bigrams


def valid_positions(lengths: Tensor, size: int) -> Tensor:
    return lengths_of(lengths).mask(size)
