"""Linear layers for the few rows of a streaming chunk, and with products of 8-bit integers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TINY = 1e-12
"""Least scale of 8-bit numbers, for rows of zeros."""
FEW_ROWS = range(9, 49)
LARGE_WEIGHT = 1 << 18
"""Rows of input and elements of weight for which a CPU multiplies faster with the weight on the left. Measured with MKL
on two cores, 16 and 24 rows (a 320 ms chunk with its look-ahead, and its unit slots): 0.37 to 0.51 ms against 0.64 to
0.82 ms for 512 x 2048, 0.11 to 0.15 against 0.18 to 0.21 for 512 x 512."""


def for_products(x: Tensor) -> Tensor:
    """``x`` in the number type of autocast, where that is on: cast once for several products, not once for each."""
    kind = x.device.type
    if kind not in ("cpu", "cuda") or x.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return x
    return x.to(torch.get_autocast_dtype(kind))


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight.T + bias`` for x (..., K), weight (N, K), bias (N,); returns (..., N).

    For the few rows of a chunk, on a CPU and without gradients, this computes ``(weight @ x.T + bias).T``, for which
    MKL has faster kernels; the result is stored column by column, and the next such product uses it without a copy.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    rows = x.numel() // x.size(-1)
    if rows not in FEW_ROWS or weight.numel() < LARGE_WEIGHT:
        return F.linear(x, weight, bias)
    columns = torch.addmm(bias[:, None], weight, x.reshape(rows, -1).t())  # (N, rows)
    return columns.t().view(*x.shape[:-1], -1)


@dataclass(frozen=True)
class Int8Weight:
    """A weight in 8 bits, for inference on CPUs, where products of 8-bit integers are several times as fast.

    Each output has its own scale, and each row of the input has one that is computed from the row alone. Sums of
    integers are exact, so neither batching nor the cut of a stream changes a product.

    Attributes:
        columns: (K, N) int8.
        scale: (N,) float32; ``columns * scale`` is the weight, transposed.
    """

    columns: Tensor
    scale: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Int8Weight:
        """Round a weight (N, K) to 127 steps each way."""
        scale = weight.detach().abs().amax(1).clamp(min=TINY) / 127
        return cls((weight.detach() / scale[:, None]).round().to(torch.int8).t(), scale)

    def multiply(self, x: Tensor, bias: Tensor) -> Tensor:
        """:func:`linear` of ``x`` (..., K) with the rounded weight; returns (..., N) in the number type of ``x``."""
        rows = x.reshape(-1, x.size(-1))
        scale = rows.abs().amax(-1, keepdim=True).clamp_(min=TINY).mul_(1 / 127)
        product = torch._int_mm((rows / scale).round_().to(torch.int8), self.columns)  # (rows, N) int32
        out = product.to(x.dtype).mul_(scale).mul_(self.scale).add_(bias)
        return out.view(*x.shape[:-1], len(self.scale))  # not -1, which torch cannot infer without rows


class Linear(nn.Linear):
    """:class:`torch.nn.Linear` with bias, computed by :func:`linear`, or by ``int8`` where that is set."""

    int8: Int8Weight | None = None

    def set_int8(self, on: bool) -> None:
        """Multiply in 8 bits from now on, or no longer; the weight itself stays."""
        self.int8 = Int8Weight.of(self.weight) if on else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        if self.int8 is not None:
            return self.int8.multiply(x, self.bias)
        return linear(x, self.weight, self.bias)
