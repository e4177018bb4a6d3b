"""Linear layers for the few rows of a streaming chunk: packed weights, and products of 8-bit integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


PACKED_TYPES = (torch.float32, torch.bfloat16)
SMALL_WEIGHT = 1 << 17
"""Elements of a float32 weight below which packing gains nothing: products of 4 to 24 rows take 17 to 47 us either way
for 128 x 512, 69 to 166 against 163 to 253 for 512 x 512, 0.21 to 0.63 ms against 0.50 to 0.98 for 512 x 2048 (one
thread)."""


@dataclass(frozen=True)
class PackedWeight:
    """A weight in the blocked order in which oneDNN multiplies, for inference on CPUs: made once, not at each product.

    Attributes:
        blocks: opaque to torch, a copy of the weight (N, K).
        bias: (N,) or ``None``.
        dtype: number type.
    """

    blocks: Tensor
    bias: Tensor | None
    dtype: torch.dtype

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None = None) -> PackedWeight | None:
        """The packed form of a weight (N, K); ``None`` where there is none, or where it is not faster."""
        if weight.device.type != "cpu" or weight.dtype not in PACKED_TYPES or not torch.backends.mkldnn.is_available():
            return None
        if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return None
        if weight.dtype == torch.float32 and weight.numel() < SMALL_WEIGHT:
            return None
        blocks = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
        return cls(blocks, None if bias is None else bias.detach(), weight.dtype)

    @classmethod
    def of_layers(cls, layers: Sequence[nn.Linear]) -> PackedWeight | None:
        """The packed form of several layers with one input, their outputs one behind the other."""
        weights, biases = [layer.weight.detach() for layer in layers], [layer.bias.detach() for layer in layers]
        return cls.of(torch.cat(weights), torch.cat(biases))

    def fits(self, x: Tensor) -> bool:
        """True where products with ``x`` (..., K) can be computed by :meth:`multiply`."""
        return x.dtype == self.dtype and x.numel() > 0 and not torch.is_grad_enabled() and x.device.type == "cpu"

    def multiply(self, x: Tensor, relu: bool = False) -> Tensor:
        """(..., K) -> (..., N), with ``relu`` no less than 0."""
        kind = "relu" if relu else "none"
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.blocks, self.bias, kind, [], "")
        return out


class Packable(nn.Module):
    """A module that keeps a packed copy of its weights for inference, which ends when the weights change.

    Changes of a weight in place are not noticed: :meth:`~nast_s2x.network.nast.NastModel.pack` again after them.
    """

    packed: PackedWeight | None = None

    def pack(self) -> None:
        """Make the packed copy, where it is faster."""
        raise NotImplementedError

    def unpack(self) -> None:
        """Drop the packed copy."""
        self.packed = None

    def _apply(self, *arguments: Any, **flags: Any) -> Any:
        self.unpack()
        return super()._apply(*arguments, **flags)

    def _load_from_state_dict(self, *arguments: Any, **flags: Any) -> None:
        self.unpack()
        super()._load_from_state_dict(*arguments, **flags)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "packed": None}  # torch can neither copy nor store it


class Linear(Packable, nn.Linear):
    """:class:`torch.nn.Linear` with bias, computed by :func:`linear`, or by ``int8`` or ``packed`` where set."""

    int8: Int8Weight | None = None

    def set_int8(self, on: bool) -> None:
        """Multiply in 8 bits from now on, or no longer; the weight itself stays."""
        self.int8 = Int8Weight.of(self.weight) if on else None

    def pack(self) -> None:
        """As :meth:`Packable.pack`; not where products are computed in 8 bits."""
        self.packed = None if self.int8 is not None else PackedWeight.of(self.weight, self.bias)

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """(..., in_features) -> (..., out_features), with ``relu`` no less than 0."""
        if self.packed is not None and self.packed.fits(x):
            return self.packed.multiply(x, relu)
        out = self.int8.multiply(x, self.bias) if self.int8 is not None else linear(x, self.weight, self.bias)
        return F.relu(out, inplace=True) if relu else out
