"""What a chunk is: geometry (sizes and times), layouts of sequences cut into chunks, and the one visibility rule.

Every length map, every attention mask and every emission time of the project comes from this file (Ma et al., 2024,
section 3.2: chunk-based encoding with look-ahead, and the wait of the decoders).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

FRAME_MS = 10
"""Shift between two feature frames, milliseconds."""
WINDOW_OVERHANG_MS = 15
"""A 25 ms window sees this much more than its 10 ms shift, so n frames need 10 n + 15 ms of sound."""

Length = TypeVar("Length", int, Tensor)


def _ceil_div(value: Length, divisor: int) -> Length:
    return -(-value // divisor)


@dataclass(frozen=True)
class ChunkGeometry:
    """Sizes of one chunk of the stream and the lengths that follow from them.

    Attributes:
        chunk_frames: feature frames (10 ms) of a chunk, a multiple of ``subsampling * pooling``; ``None`` is offline,
            where the whole utterance is one chunk.
        lookahead_frames: feature frames of right context that a chunk sees, a multiple of ``subsampling``; offline it
            has no meaning and is set to 0.
        subsampling: feature frames per encoder frame.
        pooling: encoder frames per pooled state (the published ``unit_size``).
        text_upsample: text slots per pooled state (the published ``src_upsample_ratio``).
        unit_upsample: unit slots per text slot (the published ``hidden_upsample_ratio``).
        wait_chunks: chunks that the decoders stay behind the encoder (the published ``wait_until``).

    Example:
        >>> ChunkGeometry(chunk_frames=32, lookahead_frames=32).emission_ms(0)
        655.0
    """

    chunk_frames: int | None
    lookahead_frames: int = 0
    subsampling: int = 4
    pooling: int = 2
    text_upsample: int = 1
    unit_upsample: int = 6
    wait_chunks: int = 0

    def __post_init__(self) -> None:
        for name in ("subsampling", "pooling", "text_upsample", "unit_upsample"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lookahead_frames", "wait_chunks"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.chunk_frames is None:
            object.__setattr__(self, "lookahead_frames", 0)
            object.__setattr__(self, "wait_chunks", 0)
            return
        step = self.subsampling * self.pooling
        if self.chunk_frames < step or self.chunk_frames % step:
            raise ValueError(
                f"chunk_frames must be a positive multiple of subsampling * pooling = {step} frames "
                f"({step * FRAME_MS} ms), got {self.chunk_frames} frames ({self.chunk_frames * FRAME_MS} ms)"
            )
        if self.lookahead_frames % self.subsampling:
            raise ValueError(
                f"lookahead_frames must be a multiple of subsampling = {self.subsampling} frames "
                f"({self.subsampling * FRAME_MS} ms), got {self.lookahead_frames}"
            )

    @property
    def offline(self) -> bool:
        """True when the whole utterance is one chunk."""
        return self.chunk_frames is None

    @property
    def name(self) -> str:
        """Chunk size in milliseconds as users write it, or ``offline``."""
        return "offline" if self.chunk_frames is None else str(self.chunk_frames * FRAME_MS)

    @property
    def chunk_ms(self) -> int | None:
        """Length of a chunk in milliseconds; ``None`` offline."""
        return None if self.chunk_frames is None else self.chunk_frames * FRAME_MS

    @property
    def lookahead_ms(self) -> int:
        """Right context in milliseconds."""
        return self.lookahead_frames * FRAME_MS

    @property
    def chunk_encoder_frames(self) -> int | None:
        """Encoder frames of a chunk; ``None`` offline."""
        return None if self.chunk_frames is None else self.chunk_frames // self.subsampling

    @property
    def lookahead_encoder_frames(self) -> int:
        """Encoder frames of right context."""
        return self.lookahead_frames // self.subsampling

    @property
    def chunk_text_slots(self) -> int | None:
        """Text slots of a chunk; ``None`` offline."""
        frames = self.chunk_encoder_frames
        return None if frames is None else frames // self.pooling * self.text_upsample

    @property
    def chunk_unit_slots(self) -> int | None:
        """Unit slots of a chunk; ``None`` offline."""
        slots = self.chunk_text_slots
        return None if slots is None else slots * self.unit_upsample

    def encoder_frames(self, frames: Length) -> Length:
        """Encoder frames that ``frames`` feature frames (int or tensor) give: ceil(frames / subsampling)."""
        return _ceil_div(frames, self.subsampling)

    def text_slots_of_encoder(self, encoder_frames: Length) -> Length:
        """Text slots of a sequence of encoder frames (int or tensor)."""
        return _ceil_div(encoder_frames, self.pooling) * self.text_upsample

    def text_slots(self, frames: Length) -> Length:
        """Text slots that ``frames`` feature frames (int or tensor) give."""
        return self.text_slots_of_encoder(self.encoder_frames(frames))

    def unit_slots(self, frames: Length) -> Length:
        """Unit slots that ``frames`` feature frames (int or tensor) give."""
        return self.text_slots(frames) * self.unit_upsample

    def seconds_of_text_slots(self, slots: int) -> float:
        """Seconds of source speech that ``slots`` text slots cover."""
        return slots / self.text_upsample * self.pooling * self.subsampling * FRAME_MS / 1000

    def ready_chunks(self, frames: int) -> int:
        """Complete chunks that the encoder may run once ``frames`` feature frames exist; offline 0 before the end."""
        if self.chunk_frames is None:
            return 0
        return max(0, (frames - self.lookahead_frames) // self.chunk_frames)

    def emission_frames(self, chunk: int) -> int:
        """Feature frames that must exist before the decoders emit ``chunk`` (counted from 0)."""
        if self.chunk_frames is None:
            raise ValueError("an offline geometry emits at the end of the source only: it has no emission_frames")
        return self.chunk_frames * (chunk + 1 + self.wait_chunks) + self.lookahead_frames

    def emission_ms(self, chunk: int) -> float:
        """Milliseconds of source that must have been heard before ``chunk`` (counted from 0) is emitted."""
        return float(self.emission_frames(chunk) * FRAME_MS + WINDOW_OVERHANG_MS)

    def replace(self, **changes: Any) -> ChunkGeometry:
        """The same geometry with some fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """All fields as a plain dictionary, for configuration files."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ChunkGeometry:
        """The inverse of :meth:`to_dict`; unknown names are a TypeError of the constructor."""
        return cls(**fields)


def parse_chunk_ms(text: str) -> int | None:
    """Feature frames of a chunk size as users write it: milliseconds, or ``offline`` (``None``).

    >>> parse_chunk_ms("320"), parse_chunk_ms("offline")
    (32, None)
    """
    word = str(text).strip().lower()
    if word == "offline":
        return None
    try:
        milliseconds = int(word)
    except ValueError:
        raise ValueError(f"a chunk size is a number of milliseconds or 'offline', got {text!r}") from None
    if milliseconds <= 0 or milliseconds % FRAME_MS:
        raise ValueError(f"a chunk size is a positive multiple of {FRAME_MS} ms, got {milliseconds} ms")
    return milliseconds // FRAME_MS


@dataclass(frozen=True)
class SequenceLayout:
    """Where each element of a sequence stands: the same for all sentences of a batch.

    Attributes:
        position: (T,) absolute index in the stream.
        chunk: (T,) chunk that the element belongs to; a look-ahead copy belongs to the chunk that uses it.
        lookahead: (T,) True for hard copies of the next frames.
        lengths: (B,) valid elements of each sentence, counted as positions; ``None`` when all are valid.
    """

    position: Tensor
    chunk: Tensor
    lookahead: Tensor
    lengths: Tensor | None = None

    @classmethod
    def plain(
        cls, start: int, stop: int, per_chunk: int | None, lengths: Tensor | None = None, device: Any = None
    ) -> SequenceLayout:
        """Positions ``start .. stop - 1`` without copies, ``per_chunk`` of them a chunk (``None``: one chunk)."""
        position = torch.arange(start, stop, device=device)
        chunk = torch.zeros_like(position) if per_chunk is None else position // per_chunk
        return cls(position, chunk, torch.zeros_like(position, dtype=torch.bool), lengths)

    @classmethod
    def copies(
        cls, first_chunk: int, last_chunk: int, per_chunk: int, width: int, available: int, device: Any = None
    ) -> SequenceLayout:
        """Look-ahead copies of chunks ``first_chunk .. last_chunk - 1``: of each the next ``width`` positions, as far
        as they exist (below ``available``)."""
        chunks = torch.arange(first_chunk, last_chunk, device=device)
        position = ((chunks + 1) * per_chunk)[:, None] + torch.arange(width, device=device)  # (chunks, width)
        exists = position < available
        chunk = chunks[:, None].expand_as(position)[exists]
        return cls(position[exists], chunk, torch.ones_like(chunk, dtype=torch.bool))

    def __len__(self) -> int:
        return self.position.numel()

    def __add__(self, other: SequenceLayout) -> SequenceLayout:
        pairs = ((self.position, other.position), (self.chunk, other.chunk), (self.lookahead, other.lookahead))
        return SequenceLayout(*(torch.cat(pair) for pair in pairs), self.lengths)


def may_attend(query: SequenceLayout, key: SequenceLayout, wait: int = 0) -> Tensor:
    """Visibility of keys to queries, (Tq, Tk) bool, True = visible.

    Keys of the query's own and of earlier chunks (and of the ``wait`` next ones) are visible; a look-ahead copy is
    visible to its own chunk alone, copies of that chunk included.
    """
    past = key.chunk <= query.chunk[:, None] + wait
    return torch.where(key.lookahead, key.chunk == query.chunk[:, None], past)


def attention_mask(query: SequenceLayout, key: SequenceLayout, wait: int = 0) -> Tensor | None:
    """:func:`may_attend` and the padding of ``key`` as a (B or 1, 1, Tq, Tk) mask; ``None``: all visible."""
    visible = may_attend(query, key, wait)[None, None]
    if key.lengths is not None:
        visible = visible & (key.position < key.lengths[:, None])[:, None, None]
    return None if bool(visible.all()) else visible
