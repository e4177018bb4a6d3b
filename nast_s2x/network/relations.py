"""Relations of relative attention (Shaw et al., 2018): the row of the relation tables for each pair of positions.

Two operations are each other's adjoint: scores of relations are read for each pair, and weights of pairs are summed by
relation. On a GPU the sum is one Triton program for each query. A scatter would add many pairs to the two clipped
relations with colliding atomics, which takes most of the time of the layer's backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nast_s2x.chunking import SequenceLayout, may_attend


@dataclass(frozen=True)
class Relations:
    """Relations of queries to keys.

    Attributes:
        rows: (Tq, Tk), clamp(key position - query position, -clip, clip) + clip; (B, Tq, Tk) in streams.
        number: relations, ``2 * clip + 1``.
        places: (Tq, number), the visible key of each relation, -1 where there is none; of the clipped relations at both
            ends, which have many keys, any one or -1. None where sums are made by a scatter.
    """

    rows: Tensor
    number: int
    places: Tensor | None = None

    @classmethod
    def of(cls, query: SequenceLayout, key: SequenceLayout, clip: int, left: int | None = None) -> Relations:
        """Relations between two layouts.

        Args:
            clip: distance at which relations are clipped.
            left: past chunks that stay visible, as for :func:`~nast_s2x.chunking.may_attend`.
        """
        rows, number = _rows(query.position, key.position, clip), 2 * clip + 1
        if not (rows.is_cuda and torch.is_grad_enabled()):
            return cls(rows, number)
        return cls(rows, number, visible_places(rows, may_attend(query, key, left=left), number))

    def at(self, place: int | Tensor) -> Relations:
        """One table of :func:`ring_relations`, or (N, Tq, Tk) for the places (N,) of several rows."""
        return replace(self, rows=self.rows[place])

    def first(self, queries: int) -> Relations:
        """Relations of the first queries."""
        if queries == self.rows.size(-2):
            return self
        return replace(
            self, rows=self.rows[..., :queries, :], places=None if self.places is None else self.places[:queries]
        )

    def spread(self, scores: Tensor) -> Tensor:
        """Scores of relations (B, H, Tq, number) -> scores of pairs (B, H, Tq, Tk)."""
        pairs: Tensor = _applied[0](scores, self)
        return pairs

    def sum(self, weights: Tensor) -> Tensor:
        """Weights of pairs (B, H, Tq, Tk), 0 for keys that are not visible -> sums by relation (B, H, Tq, number)."""
        sums: Tensor = _applied[1](weights, self)
        return sums


def _rows(query: Tensor, key: Tensor, clip: int) -> Tensor:
    return (key[..., None, :] - query[..., :, None]).clamp_(-clip, clip) + clip


@lru_cache(maxsize=32)  # the same for all streams of a policy
def ring_relations(chunks: int, per_chunk: int, copies: int, clip: int, device: torch.device) -> Relations:
    """Relations of a chunk and its copies to a ring (:class:`~nast_s2x.network.cache.Ring`).

    They depend on the place of the chunk in the ring alone: rows are (chunks, Tq, Tk), one table for each place.
    """
    places = torch.arange(chunks, device=device)
    query = torch.arange(per_chunk + copies, device=device).expand(chunks, -1)
    before = (places[:, None] - places).remainder(chunks)  # chunks between each place and the newest chunk
    originals = (query[:1, :per_chunk] - before[..., None] * per_chunk).flatten(1)
    key = torch.cat([originals, query[:, per_chunk:]], dim=1)
    return Relations(_rows(query, key, clip), 2 * clip + 1)


def visible_places(rows: Tensor, visible: Tensor, number: int) -> Tensor:
    """Key of each relation, see :class:`Relations`.

    Visible keys of one query have distinct positions: a chunk sees originals up to its end and its own copies, which
    lie behind it. So a relation that is not clipped has one visible key at most, and nothing collides.

    Args:
        rows, visible: (Tq, Tk).
    """
    places = rows.new_full((rows.size(0), number + 1), -1)
    keys = torch.arange(rows.size(1), device=rows.device).expand_as(rows)
    places.scatter_(1, torch.where(visible, rows, number), keys)  # the last column takes what is not visible
    return places[:, :number].contiguous()


def _expanded(rows: Tensor, like: Tensor) -> Tensor:
    return (rows if rows.dim() == 2 else rows[:, None]).expand(*like.shape[:3], -1)  # a view


def _sums(weights: Tensor, relations: Relations) -> Tensor:
    if relations.places is not None:
        from nast_s2x.network.relations_triton import sum_by_relation

        return sum_by_relation(weights, relations.rows, relations.places)
    sums = weights.new_zeros(*weights.shape[:3], relations.number)
    return sums.scatter_add(-1, _expanded(relations.rows, weights), weights)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, relations: Relations) -> Tensor:
        ctx.relations = relations
        return scores.gather(-1, _expanded(relations.rows, scores))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _sums(grad, ctx.relations), None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, relations: Relations) -> Tensor:
        ctx.relations = relations
        return _sums(weights, relations)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.gather(-1, _expanded(ctx.relations.rows, grad)), None


_applied: list[Callable[[Tensor, Relations], Any]] = [_Spread.apply, _Sum.apply]


def keep_out_of_graphs() -> None:
    """Leave both operations, which torch.compile cannot trace, as they are in layers that are compiled."""
    if _applied == [_Spread.apply, _Sum.apply]:
        _applied[:] = [torch.compiler.disable(_Spread.apply), torch.compiler.disable(_Sum.apply)]
