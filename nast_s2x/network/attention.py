"""Attention layers; tensors are batch-first.

Masks are boolean, True = may attend, or added to the scores (:func:`additive_mask`); ``None`` = everything visible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nast_s2x.errors import ConfigError
from nast_s2x.network.cache import ChunkCache, Part
from nast_s2x.network.linear import Int8Weight, Linear, Packable, PackedWeight, for_products, linear
from nast_s2x.network.positions import Turn, rotate
from nast_s2x.network.relations import Relations

Angles = tuple[Turn, Turn] | None
"""Rotary positions of the queries (T, head size) and of the new keys (M, head size), in streams (B, 1, T, head size);
``None``: no rotary positions."""


@dataclass(frozen=True)
class Sight:
    """What some consecutive rows of a batch may attend to, in one layer.

    Attributes:
        rows: how many rows; several parts of a batch have one sight each.
        mask: (rows or 1, 1, T, Tk), see :mod:`nast_s2x.network.attention`.
        relations: of the positions of queries to the keys, where attention is relative.
        cache: of streams; stores the new keys and returns all.
    """

    rows: int
    mask: Tensor | None = None
    relations: Relations | None = None
    cache: ChunkCache | None = None

    def parts(self, key: Tensor, value: Tensor) -> list[Part]:
        """All keys and values from the new ones (rows, H, T, head size), of one or more parts of the rows."""
        return [Part(slice(0, self.rows), key, value)] if self.cache is None else self.cache.parts(key, value)


def with_caches(sights: Sequence[Sight], caches: Sequence[ChunkCache]) -> list[Sight]:
    """Sights of one layer; without caches, of whole utterances, they are the same for all layers."""
    return (
        [replace(sight, cache=cache) for sight, cache in zip(sights, caches, strict=True)] if caches else list(sights)
    )


Attend = Callable[[Tensor, Tensor, Tensor, Sight], Tensor]


def attend_in_parts(attend: Attend, query: Tensor, key: Tensor, value: Tensor, sights: Sequence[Sight]) -> Tensor:
    """``attend`` for each part of the rows of ``query``, ``key`` and ``value`` (B, H, T, head size), put together."""
    if len(sights) == 1:
        return attend(query, key, value, sights[0])
    rows = [sight.rows for sight in sights]
    parts = zip(query.split(rows), key.split(rows), value.split(rows), sights, strict=True)
    return torch.cat([attend(*part) for part in parts])


def multiply_parts(left: Tensor, right: Sequence[Tensor], parts: Sequence[Part]) -> Tensor:
    """``left`` (B, H, T, K) times the matrices (b, H, K, N) of each part of its rows: (B, H, T, N)."""
    if len(parts) == 1:
        return left @ right[0]
    out = left.new_empty(*left.shape[:-1], right[0].size(-1))
    for part, matrices in zip(parts, right, strict=True):
        torch.bmm(left[part.rows].flatten(0, 1), matrices.flatten(0, 1), out=out[part.rows].flatten(0, 1))
    return out


MASK_ALIGNMENT = 8
"""A GPU's fused attention copies masks whose rows do not begin at a multiple of this many elements."""


def additive_mask(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """A boolean mask (..., Tq, Tk) as numbers to add to scores: 0, or half of the lowest number where it is False.

    Made once for all layers. The number type is that of products with ``like``: autocast's where that is on. Half of
    the lowest number, because in float16 its sum with a score must not become -inf.
    """
    if mask is None or mask.dtype != torch.bool:
        return mask
    dtype = for_products(like.new_empty(0)).dtype
    width = -(-mask.size(-1) // MASK_ALIGNMENT) * MASK_ALIGNMENT
    numbers = torch.zeros(*mask.shape[:-1], width, dtype=dtype, device=mask.device)[..., : mask.size(-1)]
    return numbers.masked_fill_(~mask, torch.finfo(dtype).min / 2)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, H, T, D / H)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, D / H) -> (B, T, D)."""
    return x.transpose(1, 2).flatten(-2)


class RelativeSelfAttention(Packable):
    """Self-attention with clipped relative positions on keys and values (Shaw et al., 2018, equations 3 and 4).

    No (T, T, head size) tensor exists: queries are scored against the ``2 * clip + 1`` relation rows and the scores
    read for each pair; attention weights are summed by relation and then multiplied with the value rows.
    """

    int8: Int8Weight | None = None

    def __init__(self, dim: int, heads: int, clip: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"the width must be a multiple of the number of heads, got width {dim}, {heads} heads")
        self.heads, self.clip, self.dropout = heads, clip, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)
        self.relative_keys_embedding = nn.Embedding(2 * clip + 1, dim // heads)
        self.relative_values_embedding = nn.Embedding(2 * clip + 1, dim // heads)
        # Over the whole (3 D, D) matrix this is each square projection at a gain of 1 / sqrt(2).
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)
        for table in (self.relative_keys_embedding, self.relative_values_embedding):
            nn.init.xavier_uniform_(table.weight)

    def forward(self, x: Tensor, sights: Sequence[Sight], queries: int | None = None) -> Tensor:
        """Attend from ``x`` (B, T, D) to ``x``, in streams also to the past; returns (B, T, D).

        Args:
            queries: positions of ``x`` that attend, the first ones; ``None``: all.
        """
        query, key, value = (split_heads(part, self.heads) for part in self._project(x))
        query = query if queries is None else query[:, :, :queries]
        query = (query * query.size(-1) ** -0.5).contiguous()  # one copy for two products
        return self.out_proj(merge_heads(attend_in_parts(self._attend, query, key, value, sights)))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, sight: Sight) -> Tensor:
        parts = sight.parts(key, value)
        assert sight.relations is not None
        relations = sight.relations.first(query.size(2))
        by_relation = query @ self.relative_keys_embedding.weight.t()  # (B, H, T, relations)
        scores = multiply_parts(query, [part.keys.transpose(-1, -2) for part in parts], parts)
        scores = scores + relations.spread(by_relation)
        if sight.mask is not None:
            scores = scores + additive_mask(sight.mask[:, :, : query.size(2)], scores)
        # Softmax and sums over positions in float32 or better: the two clipped relations sum many small weights.
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        weights = F.dropout(weights, self.dropout, self.training)
        summed = relations.sum(weights)
        attended = multiply_parts(weights.to(value.dtype), [part.values for part in parts], parts)
        return attended + summed.to(value.dtype) @ self.relative_values_embedding.weight

    def set_int8(self, on: bool) -> None:
        """As :meth:`Linear.set_int8`, for the projection to queries, keys and values."""
        self.int8 = Int8Weight.of(self.in_proj_weight) if on else None

    def pack(self) -> None:
        """As :meth:`Linear.pack`, for the projection to queries, keys and values."""
        self.packed = None if self.int8 is not None else PackedWeight.of(self.in_proj_weight, self.in_proj_bias)

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.packed is not None and self.packed.fits(x):
            return self.packed.multiply(x).chunk(3, dim=-1)
        if self.int8 is not None:
            return self.int8.multiply(x, self.in_proj_bias).chunk(3, dim=-1)
        return linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)


class Attention(Packable):
    """Multi-head attention with separate projections, for the decoders' self- and cross-attention.

    Args:
        key_dim: width of the memory in cross-attention; ``None``: self-attention.
    """

    def __init__(self, dim: int, heads: int, dropout: float, key_dim: int | None = None) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"the width must be a multiple of the number of heads, got width {dim}, {heads} heads")
        self.heads, self.dropout = heads, dropout
        self.q_proj = Linear(dim, dim)
        self.k_proj = Linear(key_dim or dim, dim)
        self.v_proj = Linear(key_dim or dim, dim)
        self.out_proj = Linear(dim, dim)
        self._joined = (self.k_proj, self.v_proj) if key_dim else (self.q_proj, self.k_proj, self.v_proj)

    def pack(self) -> None:
        """As :meth:`Linear.pack`, for all projections of one input in one product."""
        self.packed = None if self.k_proj.int8 is not None else PackedWeight.of_layers(self._joined)
        if self.packed is not None:
            for layer in self._joined:
                layer.unpack()

    def _project(self, x: Tensor, memory: Tensor) -> list[Tensor]:
        """Queries of ``x`` and keys and values of ``memory``, (B, H, T, head size) each."""
        if self.packed is not None and self.packed.fits(memory):
            parts = self.packed.multiply(memory).chunk(len(self._joined), dim=-1)
            parts = parts if len(parts) == 3 else (self.q_proj(x), *parts)
        else:
            # Contiguous: torch's fused attention refuses what `linear` may return and falls back to a slow form.
            parts = (self.q_proj(x).contiguous(), self.k_proj(memory), self.v_proj(memory))
        return [split_heads(part, self.heads) for part in parts]

    def forward(self, x: Tensor, memory: Tensor, sights: Sequence[Sight], angles: Angles = None) -> Tensor:
        """Attend from ``x`` (B, T, D) to ``memory`` (B, M, key width), in streams also to the past: (B, T, D)."""
        same = memory is x
        x = for_products(x)
        memory = x if same else for_products(memory)
        query, key, value = self._project(x, memory)
        if angles is not None:
            query, key = rotate(query, angles[0]), rotate(key, angles[1])
        return self.out_proj(merge_heads(attend_in_parts(self._attend, query, key, value, sights)))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, sight: Sight) -> Tensor:
        parts = sight.parts(key, value)
        dropout = self.dropout if self.training else 0.0
        made = []
        for rows, keys, values in parts:
            own, mask = (query, sight.mask) if len(parts) == 1 else (query[rows], _of_rows(sight.mask, rows))
            plain = _plain_is_faster(own, keys)
            function = _plain_attention if plain else F.scaled_dot_product_attention
            made.append(function(own, keys, values, mask, dropout))
        return made[0] if len(made) == 1 else torch.cat(made)


def _of_rows(mask: Tensor | None, rows: slice) -> Tensor | None:
    return None if mask is None else mask[rows]


PLAIN_SCORES = 1 << 21
"""Scores (sentences x heads x queries x keys) up to which a CPU computes attention faster in plain operations, for more
queries than a chunk has. Measured for 8 heads of size 64, two threads: 750 x 250 in 2.4 against 4.4 ms in bfloat16 and
3.2 against 4.3 in float32, 125 x 250 in 0.5 against 0.8 and 0.6 against 0.8; but 750 x 750 in 11 against 10 and 21
against 10, 24 x 250 in 0.24 against 0.17 and 0.16 against 0.18. On a CPU with avx512_bf16, one thread, bfloat16 is
faster for few queries too: 24 x 792 in 0.56 against 0.80 ms, 24 x 256 in 0.17 against 0.28, 4 x 132 in 0.03 against
0.05."""
MANY_QUERIES = 64


def _plain_is_faster(query: Tensor, key: Tensor) -> bool:
    if query.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    if torch.is_grad_enabled():
        return query.dtype == torch.bfloat16
    few = query.size(-2) < MANY_QUERIES and query.dtype != torch.bfloat16
    return not few and query.shape[:-1].numel() * key.size(-2) <= PLAIN_SCORES


def _plain_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Attention (B, H, T, head size) in plain operations.

    In bfloat16 on CPUs the backward pass of torch's fused form alone takes 3 to 10 times as long: 39 and 55 ms against
    13 and 5 for 24 x 4 heads of size 32, 210 slots, 210 and 70 keys, one thread.
    """
    scores = (query * query.size(-1) ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores + additive_mask(mask, scores)
    return F.dropout(scores.softmax(-1), dropout) @ value
