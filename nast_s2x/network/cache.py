"""Keys and values of streams: the last chunks of each row in rings, or all of them in buffers that grow by doubling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Ring:
    """Where the chunks of N rows lie in the caches of one kind of position; shared by all layers.

    Chunk c lies at place ``c % chunks``, so that the newest chunk overwrites one that no row can see any more. Behind
    the ring lie ``extra`` positions of the newest chunk alone, its look-ahead copies.

    Attributes:
        limit: chunks that stay, the newest included; ``None``: all of them. Then all rows stand at the same chunk.
        per_chunk: positions of a chunk.
        extra: look-ahead copies.
        chunks: places of the ring now.
        place: of the newest chunk, where it is the same in all rows.
        places: (N,) the same where rows differ.
        index: (N, 1, per_chunk, 1) positions of the newest chunk, where rows differ.
    """

    limit: int | None
    per_chunk: int
    extra: int = 0
    chunks: int = 0
    place: int = 0
    places: Tensor | None = None
    index: Tensor | None = None

    @property
    def originals(self) -> int:
        """Positions of the ring, copies not counted."""
        return self.chunks * self.per_chunk

    def move_to(self, same: int | None, chunk: Tensor) -> None:
        """Set the newest chunk, (N,) on the device; ``same``: its number on the host where all rows agree."""
        if self.limit is None:
            assert same is not None  # rows of an unlimited past move together
            self.chunks = max(same, 0) + 1
        else:
            self.chunks = self.limit
        self.place = 0 if same is None else same % self.chunks
        self.places = self.index = None
        if same is None:
            inside = torch.arange(self.per_chunk, device=chunk.device)
            self.places = chunk.remainder(self.chunks)
            self.index = (self.places[:, None] * self.per_chunk + inside)[:, None, :, None]


class ChunkCache:
    """Projected keys and values (B, H, positions, head size) of one attention layer."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store those of the newest chunk and its copies (B, H, per_chunk + extra, head size).

        Returns:
            views of the ring and the copies; entries of chunks that do not exist are to be masked.
        """
        size = self.ring.originals + self.ring.extra
        if self.keys is None or self.values is None or size > self.keys.size(2):
            self._grow(keys, size)
        assert self.keys is not None and self.values is not None
        for buffer, new in ((self.keys, keys), (self.values, values)):
            self._store(buffer, new)
        return self.keys[:, :, :size], self.values[:, :, :size]

    def _store(self, buffer: Tensor, new: Tensor) -> None:
        ring = self.ring
        originals = new[:, :, : ring.per_chunk]
        if ring.index is not None:
            buffer.scatter_(2, ring.index.expand_as(originals), originals)
        else:
            start = ring.place * ring.per_chunk
            buffer[:, :, start : start + ring.per_chunk] = originals
        if ring.extra:
            buffer[:, :, ring.originals : ring.originals + ring.extra] = new[:, :, ring.per_chunk :]

    def _grow(self, like: Tensor, needed: int) -> None:
        """Allocate ``needed`` positions; of an unlimited past twice as many as before, zeros where nothing is stored.

        Zeros, because the weight of a masked entry is 0, and 0 times a number that is not finite is none.
        """
        old = 0 if self.keys is None else self.keys.size(2)
        capacity = needed if self.ring.limit is not None else max(needed, 2 * old, 64)
        for name in ("keys", "values"):
            buffer = like.new_zeros(like.size(0), like.size(1), capacity, like.size(3))
            before = getattr(self, name)
            if before is not None:
                buffer[:, :, :old] = before
            setattr(self, name, buffer)
