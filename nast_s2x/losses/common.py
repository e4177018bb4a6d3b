"""Shared by the losses: precision, means over rows, checks of arguments."""

from __future__ import annotations

import torch
from torch import Tensor

from nast_s2x.batches import Lengths, TargetBatch


def at_least_float32(tensor: Tensor) -> Tensor:
    """Convert half precision to float32; float32 and float64 are unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def mean_of_given(values: Tensor, targets: TargetBatch) -> Tensor:
    """Mean of (B,) values over the rows that have a target; 0 without any."""
    if targets.count == len(targets):
        return values.mean()
    given = targets.given.on(values.device).to(values.dtype)
    return (values * given).sum() / max(targets.count, 1)


def check_loss_inputs(logits: Tensor, lengths: Lengths, targets: TargetBatch, blank: int) -> None:
    """Raise ValueError unless lengths, targets and blank fit logits of shape (B, T, V)."""
    if logits.dim() != 3:
        raise ValueError(f"logits must have shape (B, T, V), got {tuple(logits.shape)}")
    batch, slots, labels = logits.shape
    if batch == 0:
        raise ValueError("logits must hold at least one sentence, got a batch of 0")
    if len(lengths) != batch or lengths.longest > slots:
        raise ValueError(
            f"lengths must be one per row and at most {slots}, got {lengths.host} for logits of shape "
            f"{tuple(logits.shape)}"
        )
    if len(targets) != batch:
        raise ValueError(f"targets must have {batch} rows, got {len(targets)}")
    if not 0 <= blank < labels:
        raise ValueError(f"blank must be a label of the {labels} in logits, got {blank}")
