"""Keys and values of streams: the last chunks of each row in rings, or all of them in buffers that grow by doubling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Part(NamedTuple):
    """Keys and values (b, H, T, head size) of some consecutive rows of a step."""

    rows: slice
    keys: Tensor
    values: Tensor


class Run(NamedTuple):
    """Consecutive rows of a step, and the rows of the caches that they are."""

    rows: slice
    held: slice

    @staticmethod
    def of(rows: Sequence[int]) -> list[Run]:
        """Runs of the rows of the caches, ascending, that take part in a step.

        >>> Run.of([2, 3, 7])
        [Run(rows=slice(0, 2, None), held=slice(2, 4, None)), Run(rows=slice(2, 3, None), held=slice(7, 8, None))]
        """
        edges = [0, *(place for place in range(1, len(rows)) if rows[place] != rows[place - 1] + 1), len(rows)]
        spans = zip(edges, edges[1:])
        return [Run(slice(first, stop), slice(rows[first], rows[stop - 1] + 1)) for first, stop in spans]


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
        rows: rows of the caches that take part, ascending; ``None``: all. Then N counts these.
        runs: consecutive ones among them.
        index: (N, per_chunk + extra) positions of the newest chunk and its copies, where rows differ.
    """

    limit: int | None
    per_chunk: int
    extra: int = 0
    chunks: int = 0
    place: int = 0
    places: Tensor | None = None
    rows: Sequence[int] | None = None
    runs: Sequence[Run] = ()
    index: Tensor | None = None
    _targets: tuple[tuple[int, ...], Tensor] | None = None

    @property
    def originals(self) -> int:
        """Positions of the ring, copies not counted."""
        return self.chunks * self.per_chunk

    @property
    def size(self) -> int:
        """Positions of the ring and the copies."""
        return self.originals + self.extra

    def move_to(self, same: int | None, chunk: Tensor, rows: Sequence[int] | None = None) -> None:
        """Set the newest chunk.

        Args:
            same: its number on the host where all rows agree.
            chunk: (N,) on the device.
            rows: see :class:`Ring`.
        """
        if self.limit is None:
            assert same is not None  # rows of an unlimited past move together
            self.chunks = max(same, 0) + 1
        else:
            self.chunks = self.limit
        self.place = 0 if same is None else same % self.chunks
        self.places = self.index = self._targets = None
        self.rows, self.runs = rows, () if rows is None else Run.of(rows)
        if same is None:
            self.places = chunk.remainder(self.chunks)
        if same is None or rows is not None:
            inside = torch.arange(self.per_chunk, device=chunk.device)
            first = chunk.remainder(self.chunks)[:, None] * self.per_chunk
            copies = torch.arange(self.originals, self.size, device=chunk.device).expand(len(chunk), -1)
            self.index = torch.cat([first + inside, copies], dim=1)

    def targets(self, buffer: Tensor) -> Tensor:
        """(N * H * (per_chunk + extra),) where new entries go in ``buffer`` (rows, H, positions, head size), its first
        three axes seen as one; the same for all layers."""
        shape = tuple(buffer.shape[1:3])
        if self._targets is None or self._targets[0] != shape:
            assert self.index is not None
            heads, capacity = shape
            held = list(range(len(self.index))) if self.rows is None else list(self.rows)
            row = torch.tensor(held).to(self.index.device, non_blocking=True)
            head = row[:, None] * heads + torch.arange(heads, device=row.device)  # (N, H)
            self._targets = shape, (head[..., None] * capacity + self.index[:, None]).flatten()
        return self._targets[1]


class ChunkCache:
    """Projected keys and values (B, H, positions, head size) of one attention layer."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store those of the newest chunk and its copies (B, H, per_chunk + extra, head size) of all rows.

        Returns:
            views of the ring and the copies; entries of chunks that do not exist are to be masked.
        """
        (part,) = self.parts(keys, values)
        return part.keys, part.values

    def parts(self, keys: Tensor, values: Tensor) -> list[Part]:
        """As :meth:`extend`, of the rows that take part: views for each run of consecutive ones."""
        ring = self.ring
        rows = keys.size(0) if ring.rows is None else ring.rows[-1] + 1
        if self.keys is None or self.values is None or ring.size > self.keys.size(2) or rows > self.keys.size(0):
            self._grow(keys, rows, ring.size)
        assert self.keys is not None and self.values is not None
        for buffer, new in ((self.keys, keys), (self.values, values)):
            self._store(buffer, new)
        held = self.keys[:, :, : ring.size], self.values[:, :, : ring.size]
        if ring.rows is None:
            return [Part(slice(0, rows), *held)]
        return [Part(run.rows, *(buffer[run.held] for buffer in held)) for run in ring.runs]

    def _store(self, buffer: Tensor, new: Tensor) -> None:
        ring = self.ring
        if ring.index is not None:
            entries = new.reshape(-1, new.size(3))
            buffer.view(-1, new.size(3)).index_copy_(0, ring.targets(buffer), entries)
            return
        start = ring.place * ring.per_chunk
        buffer[:, :, start : start + ring.per_chunk] = new[:, :, : ring.per_chunk]
        if ring.extra:
            buffer[:, :, ring.originals : ring.size] = new[:, :, ring.per_chunk :]

    def _grow(self, like: Tensor, rows: int, positions: int) -> None:
        """Allocate so many rows and positions, zeros where nothing is stored; of rows, and of positions of an unlimited
        past, twice as many as before.

        Zeros, because the weight of a masked entry is 0, and 0 times a number that is not finite is none.
        """
        old = (0, 0) if self.keys is None else (self.keys.size(0), self.keys.size(2))
        if self.ring.limit is None and positions > old[1]:
            positions = max(positions, 2 * old[1], 64)
        if self.ring.rows is not None and rows > old[0]:
            rows = max(rows, 2 * old[0])
        for name in ("keys", "values"):
            buffer = like.new_zeros(max(rows, old[0]), like.size(1), max(positions, old[1]), like.size(3))
            before = getattr(self, name)
            if before is not None:
                buffer[: old[0], :, : old[1]] = before
            setattr(self, name, buffer)
