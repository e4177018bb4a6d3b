"""Positions: sinusoids and rotary angles (the learned tables are the decoders')."""

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


def rotary_angles(position: Tensor, size: int) -> Tensor:
    """Angles of rotary positions (Su et al., 2021, equation 15): (..., T) positions -> (..., T, size), float32 or
    better.

    Feature i of the first half and feature i of the second half are a pair, turned by position * 10000^(-2i / size).
    Positions may be fractions. Whole turns are left out from 4096 positions on, so that in float32 the angles of a
    stream of many hours are as exact as those of its first minutes.
    """
    exact = torch.promote_types(position.dtype, torch.float32) if position.is_floating_point() else torch.float32
    half = torch.arange(0, size, 2, device=position.device, dtype=torch.float32) / size
    frequency = (10000.0**-half).to(exact)
    blocks = position.div(_BLOCK, rounding_mode="floor")
    inside = (position - blocks * _BLOCK)[..., None].to(exact)
    angle = inside * frequency + blocks[..., None].to(exact) * _turn_of_a_block(size, frequency)
    return torch.cat([angle, angle], dim=-1)


_BLOCK = 4096
"""Positions after which :func:`rotary_angles` leaves out whole turns."""


def _turn_of_a_block(size: int, like: Tensor) -> Tensor:
    """Angles by which ``_BLOCK`` positions turn, less whole turns, (size / 2,)."""
    angles = [math.remainder(_BLOCK * 10000.0 ** -(pair / size), 2 * math.pi) for pair in range(0, size, 2)]
    return torch.tensor(angles, dtype=like.dtype).to(like.device, non_blocking=True)


Turn = tuple[Tensor, Tensor]
"""Cosines and sines of :func:`rotary_angles`."""


def rotate(x: Tensor, angles: Tensor | Turn) -> Tensor:
    """Turn queries or keys (..., T, size) by :func:`rotary_angles` (..., T, size), so that their products depend on the
    distance between their positions; computed in float32 or better, returned in the number type of ``x``.

    Args:
        angles: or their cosines and sines, made once for several layers.
    """
    cos, sin = (angles.cos(), angles.sin()) if isinstance(angles, Tensor) else angles
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    first, second = exact.chunk(2, dim=-1)
    return (exact * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)
