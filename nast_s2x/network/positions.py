"""Positions: sinusoids of the encoder, learned tables of the decoders, relations of relative attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

POSITION_OFFSET = 2
"""Element t has index t + 2: index 0 is unused and index 1 stands for padding, as in the released checkpoints."""


def sinusoidal_positions(index: Tensor, dim: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Sinusoids ``[sin | cos]`` of ``index`` (any shape) with frequencies exp(-i ln(10000) / (dim/2 - 1)).

    Computed in float32 or better whatever ``dtype`` is, then cast; returns (*index.shape, dim).
    """
    half = dim // 2
    exact = torch.promote_types(dtype, torch.float32)
    scale = math.log(10000) / max(half - 1, 1)
    frequency = torch.exp(torch.arange(half, device=index.device, dtype=torch.float32) * -scale).to(exact)
    angle = index[..., None].to(exact) * frequency
    table = torch.cat([angle.sin(), angle.cos()], dim=-1)
    return nn.functional.pad(table, (0, dim - 2 * half)).to(dtype)


def relation_index(query: Tensor, key: Tensor, clip: int) -> Tensor:
    """Row of the relation tables for each pair (Tq, Tk): clamp(key - query, -clip, clip) + clip (Shaw et al., 2018)."""
    return (key[None, :] - query[:, None]).clamp_(-clip, clip) + clip
