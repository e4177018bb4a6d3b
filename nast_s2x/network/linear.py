"""Linear layers for the few rows of a streaming chunk."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW_ROWS = range(9, 49)
LARGE_WEIGHT = 1 << 18
"""Rows of input and elements of weight for which a CPU multiplies faster with the weight on the left. Measured with MKL
on two cores, 16 and 24 rows (a 320 ms chunk with its look-ahead, and its unit slots): 0.37 to 0.51 ms against 0.64 to
0.82 ms for 512 x 2048, 0.11 to 0.15 against 0.18 to 0.21 for 512 x 512."""


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight.T + bias`` for x (..., K), weight (N, K), bias (N,); returns (..., N).

    For the handful of rows of a chunk, on a CPU and without gradients, this computes ``(weight @ x.T + bias).T``, for
    which MKL has faster kernels; the result then lies column by column, which the next such product reads as it is.
    """
    rows = x.numel() // x.size(-1)
    few = rows in FEW_ROWS and weight.numel() >= LARGE_WEIGHT
    if not few or x.device.type != "cpu" or torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    columns = torch.addmm(bias[:, None], weight, x.reshape(rows, -1).t())  # (N, rows)
    return columns.t().view(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """:class:`torch.nn.Linear` by way of :func:`linear`; it has a bias."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return linear(x, self.weight, self.bias)
