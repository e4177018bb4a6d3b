"""Steps of streams: where each of N rows stands, and which positions one step computes for all of them.

A step moves a row on by one chunk. Its shapes are the same at every step: ``chunk_frames`` new feature frames, the
encoder frames of one chunk and their look-ahead copies, the text slots and unit slots of one chunk. What does not
exist, in the first chunks and at the end of a source, is masked.

Steps are placed so that chunk c of the encoder is computed when its look-ahead is complete: the first steps of a row,
before chunk 0, only take in the look-ahead, and the very first one may take fewer frames than a chunk has. The decoders
are ``wait_chunks`` behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nast_s2x.chunking import Axis, ChunkGeometry, SequenceLayout, attention_mask
from nast_s2x.network.cache import Ring

ENDLESS = 1 << 40
"""Feature frames of a source that goes on."""


def joined_rows(parts: Iterable[Tensor]) -> Tensor:
    """The rows of all parts (N, ...) in one tensor."""
    listed = list(parts)
    return listed[0] if len(listed) == 1 else torch.cat(listed)


class Rows:
    """Where each of N streams of one policy stands, in numbers of the host.

    Attributes:
        chunk: (N,) the encoder's chunk in the next step of each row, negative while look-ahead is taken in.
        frames: (N,) feature frames of each source, :data:`ENDLESS` while it goes on.
    """

    def __init__(self, geometry: ChunkGeometry, count: int) -> None:
        self.geometry = geometry
        assert geometry.chunk_frames is not None
        self._chunk_frames: int = geometry.chunk_frames
        self._first_chunk = -ceil(geometry.lookahead_frames / self._chunk_frames)
        self.chunk = np.zeros(count, np.int64)
        self.frames = np.zeros(count, np.int64)
        for row in range(count):
            self.restart(row)

    def restart(self, row: int) -> None:
        """Begin a new stream in ``row``."""
        self.chunk[row], self.frames[row] = self._first_chunk, ENDLESS

    def wanted(self, row: int) -> int:
        """Feature frames that the next step of ``row`` takes in, the last ones of its ``chunk_frames``."""
        if self.chunk[row] == self._first_chunk < 0:
            return self.geometry.lookahead_frames + (self._first_chunk + 1) * self._chunk_frames
        return self._chunk_frames

    def is_done(self, row: int) -> bool:
        """True when both decoders have computed everything up to the end of the source."""
        return bool((self.chunk[row] - self.geometry.policy.wait_chunks) * self._chunk_frames >= self.frames[row])

    def step(self, moving: NDArray[np.bool_] | None = None) -> Step:
        """The next step; ``moving``: (N,) rows that take part, ``None``: all. The others stay where they are."""
        every = np.ones(len(self.chunk), np.bool_) if moving is None else moving
        made = Step(self.geometry, self.chunk.copy(), self.frames.copy(), every)
        self.chunk += every
        return made

    def step_of(self, rows: Sequence[int]) -> Step:
        """The next step of some ``rows``, ascending; its tensors hold these alone. The others stay where they are.

        The past of the streams must be limited.
        """
        index = np.asarray(rows, np.int64)
        made = Step(self.geometry, self.chunk[index], self.frames[index], np.ones(len(index), np.bool_), tuple(rows))
        self.chunk[index] += 1
        return made


@dataclass(frozen=True)
class Step:
    """One step of N rows.

    Attributes:
        chunk: (N,) chunk of the encoder.
        frames: (N,) feature frames of each source.
        moving: (N,) rows that take part.
        held: rows of the state that these N are, ascending; ``None``: all.
    """

    geometry: ChunkGeometry
    chunk: NDArray[np.int64]
    frames: NDArray[np.int64]
    moving: NDArray[np.bool_]
    held: tuple[int, ...] | None = None

    @property
    def rows(self) -> int:
        """N."""
        return len(self.chunk)

    @cached_property
    def left(self) -> int | None:
        """Past chunks that stay visible."""
        return self.geometry.policy.left_chunks

    @cached_property
    def wait(self) -> int:
        """Chunks by which the decoders are behind the encoder."""
        return self.geometry.policy.wait_chunks

    def chunk_of(self, axis: Axis) -> NDArray[np.int64]:
        """(N,) chunk that is computed on ``axis``."""
        return self.chunk if axis == "encoder" else self.chunk - self.wait

    def per_chunk(self, axis: Axis) -> int:
        """Positions on ``axis`` of a chunk."""
        size = self.geometry.per_chunk(axis)
        assert size is not None
        return size

    def new(self, axis: Axis) -> NDArray[np.int64]:
        """(N,) positions on ``axis`` of this step that exist; 0 for rows that stay."""
        size, chunk = self.per_chunk(axis), self.chunk_of(axis)
        exist = np.clip(self.geometry.rates.length(axis, self.frames) - chunk * size, 0, size)
        return np.where(self.moving & (chunk >= 0), exist, 0)

    @property
    def same(self) -> int | None:
        """The encoder's chunk where it is the same in all rows, else ``None``."""
        first = int(self.chunk[0])
        return first if (self.chunk == first).all() else None

    def take(self, state: Tensor) -> Tensor:
        """The rows of this step (N, T, D) of what a state holds."""
        return state if self.held is None else state[self._held_on(state.device)]

    def keep(self, new: Tensor, old: Tensor | None) -> Tensor:
        """What a state holds after the step: ``new`` (N, T, D) for the rows that take part, ``old`` for the others."""
        if self.held is not None:
            assert old is not None
            return old.index_copy_(0, self._held_on(old.device), new)
        if old is None or self.moving.all():
            return new
        return torch.where(torch.from_numpy(self.moving).to(new.device)[:, None, None], new, old)

    def place(self, ring: Ring, axis: Axis, device: torch.device) -> None:
        """Move the ring of ``axis`` to the chunk of this step."""
        behind = self.wait if axis != "encoder" else 0
        same = self.same
        ring.move_to(None if same is None else same - behind, self._on(device)[0] - behind, self.held)

    def positions(self, axis: Axis, device: torch.device, first: int = 0, count: int | None = None) -> Tensor:
        """(N, count) positions on ``axis`` from the ``first`` of this step's chunk; by default those of the chunk."""
        size = self.per_chunk(axis)
        inside = torch.arange(first, first + (size if count is None else count), device=device)
        chunk = self._on(device)[0] - (0 if axis == "encoder" else self.wait)
        return chunk[:, None] * size + inside

    def queries(self, axis: Axis, device: torch.device, copies: int = 0) -> SequenceLayout:
        """Layout (N, T) of the positions that are computed, ``copies`` look-ahead copies behind the chunk's own."""
        position = self.positions(axis, device, 0, self.per_chunk(axis) + copies)
        chunk = position[:, :1].div(self.per_chunk(axis), rounding_mode="floor").expand_as(position)
        return SequenceLayout(position, chunk, torch.zeros_like(position, dtype=torch.bool))

    def keys(self, ring: Ring, axis: Axis, behind: int, device: torch.device) -> SequenceLayout:
        """Layout (N, T) of what :meth:`ChunkCache.extend` returns.

        Args:
            axis: of the keys.
            behind: chunks by which the newest chunk of the ring is behind the encoder's.
        """
        newest, ends, size = self._on(device)[0] - behind, self._ends(axis, device), ring.per_chunk
        places = torch.arange(ring.chunks, device=device)
        held = newest[:, None] - (newest[:, None] - places).remainder(ring.chunks)  # (N, places) chunk of each place
        position = (held[..., None] * size + torch.arange(size, device=device)).flatten(1)
        valid = (position >= 0) & (position < ends)
        chunk = held.repeat_interleave(size, dim=1)
        originals = SequenceLayout(position, chunk, torch.zeros_like(valid), valid)
        if not ring.extra:
            return originals
        position = (newest[:, None] + 1) * size + torch.arange(ring.extra, device=device)
        chunk, valid = newest[:, None].expand_as(position), (position < ends) & (newest[:, None] >= 0)
        return originals + SequenceLayout(position, chunk, torch.ones_like(valid), valid)

    def mask(self, axis: Axis, ring: Ring, keys: Axis, device: torch.device) -> Tensor | None:
        """Visible keys of this step's positions on ``axis``, (N, 1, Tq, Tk).

        ``None`` where the numbers of the host show that all of them are visible.

        Args:
            ring: of the keys, moved to this step.
            keys: their axis. The decoders' own slots are ``wait`` chunks behind the encoder's frames.
        """
        behind = 0 if keys == "encoder" else self.wait
        newest, ends = self.chunk - behind, self.geometry.rates.length(keys, self.frames)
        full = newest >= (ring.chunks - 1 if self.left is not None else 0)
        if (full & ((newest + 1) * ring.per_chunk + ring.extra <= ends)).all():
            return None
        query, key = self.queries(axis, device, ring.extra), self.keys(ring, keys, behind, device)
        return attention_mask(query, key, 0 if axis == keys else self.wait, self.left)

    def is_full(self, axis: Axis) -> bool:
        """True when all positions of this step exist in all rows."""
        return bool((self.new(axis) == self.per_chunk(axis)).all())

    def valid(self, axis: Axis, device: torch.device) -> Tensor:
        """(N, T) positions of this step's chunk that exist."""
        position = self.positions(axis, device)
        return (position >= 0) & (position < self._ends(axis, device))

    def _ends(self, axis: Axis, device: torch.device) -> Tensor:
        """(N, 1) positions on ``axis`` of each source."""
        places: dict[Axis, int] = {"encoder": 1, "text": 2, "unit": 3}
        return self._on(device)[places[axis]][:, None]

    def _on(self, device: torch.device) -> Tensor:
        """(4, N) on ``device``: chunks, and the ends of each source on the three axes; copied there once."""
        if device not in self._copies:
            axes: tuple[Axis, ...] = ("encoder", "text", "unit")
            ends = [self.geometry.rates.length(axis, self.frames) for axis in axes]
            host = torch.from_numpy(np.stack([self.chunk, *ends]))
            host = host.pin_memory() if device.type == "cuda" else host
            self._copies[device] = host.to(device, non_blocking=True)
        return self._copies[device]

    def _held_on(self, device: torch.device) -> Tensor:
        return torch.tensor(self.held).to(device, non_blocking=True)

    @cached_property
    def _copies(self) -> dict[torch.device, Tensor]:
        return {}
