"""Sums of attention weights by relation, one Triton program for each query (GPUs)."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor


@cache
def _kernel() -> Any:
    """The program, compiled at its first call; triton is imported here alone."""
    import triton
    import triton.language as tl

    @triton.jit
    def add(weights, rows, places, sums, queries, keys, number, KEYS: tl.constexpr, NUMBER: tl.constexpr):
        line = tl.program_id(0).to(tl.int64)
        query = line % queries
        key = tl.arange(0, KEYS)
        row = tl.load(rows + query * keys + key, mask=key < keys, other=-1)
        weight = tl.load(weights + line * keys + key, mask=key < keys, other=0.0).to(tl.float32)
        lowest = tl.sum(tl.where(row == 0, weight, 0.0), 0)
        highest = tl.sum(tl.where(row == number - 1, weight, 0.0), 0)
        relation = tl.arange(0, NUMBER)
        place = tl.load(places + query * number + relation, mask=relation < number, other=-1)
        found = tl.load(weights + line * keys + place, mask=place >= 0, other=0.0).to(tl.float32)
        result = tl.where(relation == 0, lowest, tl.where(relation == number - 1, highest, found))
        tl.store(sums + line * number + relation, result, mask=relation < number)

    return add


def sum_by_relation(weights: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    """Weights (B, H, Tq, Tk) -> sums (B, H, Tq, relations) in the same number type, added in float32.

    Args:
        rows, places: see :class:`~nast_s2x.network.relations.Relations`; clip is at least 1.
    """
    queries, keys = rows.shape
    number = places.size(1)
    sums = weights.new_empty(*weights.shape[:3], number)
    lines = weights.shape[:3].numel()
    if lines and keys:
        _kernel()[(lines,)](
            weights.contiguous(), rows.contiguous(), places, sums, queries, keys, number,
            KEYS=_power_of_two(keys), NUMBER=_power_of_two(number),
        )  # fmt: skip
        return sums
    return sums.zero_()


def _power_of_two(size: int) -> int:
    return max(2, 1 << (size - 1).bit_length())
