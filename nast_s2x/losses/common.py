"""What the losses share: precision, masks and checks of their arguments."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def valid_positions(lengths: Tensor, size: int) -> Tensor:
    """(B,) lengths -> (B, size) bool, True = valid."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def check_loss_inputs(logits: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, blank: int) -> None:
    """Raise ValueError unless logits (B, T, V), lengths (B,), targets (B, L), target_lengths (B,) belong together."""
    if logits.dim() != 3:
        raise ValueError(f"logits must have shape (B, T, V), got {tuple(logits.shape)}")
    batch, _, labels = logits.shape
    if batch == 0:
        raise ValueError("logits must hold at least one sentence, got a batch of 0")
    if targets.dim() != 2 or targets.size(0) != batch:
        raise ValueError(f"targets must have shape ({batch}, L), got {tuple(targets.shape)}")
    for name, values in (("lengths", lengths), ("target_lengths", target_lengths)):
        if values.shape != (batch,):
            raise ValueError(f"{name} must have shape ({batch},), got {tuple(values.shape)}")
    if not 0 <= blank < labels:
        raise ValueError(f"blank must be a label of the {labels} in logits, got {blank}")
