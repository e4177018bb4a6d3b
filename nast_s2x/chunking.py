"""Chunks: slot rates, chunk policies, the geometry of both, sequence layouts and the attention mask rule.

Every length, every attention mask and every emission time of the project comes from this file (Ma et al., 2024, section
3.2: chunk-based encoding with look-ahead, and the wait of the decoders).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from nast_s2x.batches import Lengths
from nast_s2x.errors import ConfigError, check_whole_number
from nast_s2x.typed import check_fields, limited, read_fields

FRAME_MS = 10
"""Shift between two feature frames, milliseconds."""
FRAMES_PER_SECOND = 1000 // FRAME_MS
WINDOW_OVERHANG_MS = 15
"""A 25 ms window reaches this far beyond its 10 ms shift: n frames need 10 n + 15 ms of audio."""
OFFLINE = "offline"
UNLIMITED = "unlimited"
"""Left context of the whole past, as users write it."""
DEFAULT_TRAINING_CHUNKS = "320,640,1280,offline"
"""Chunk sizes of a training that names none."""

MOST_RATE = 100
"""Largest slot rate: more positions than that for one are no model."""

Axis = Literal["encoder", "text", "unit"]
"""Encoder frames, text slots or unit slots."""

Count = TypeVar("Count", int, np.ndarray)


@dataclass(frozen=True)
class SlotRates:
    """How many positions each stage has. Part of the model: other rates need other weights.

    Attributes:
        subsampling: feature frames (10 ms) per encoder frame, fixed by the convolution.
        pooling: encoder frames per pooled state (published: ``unit_size``).
        text_upsample: text slots per pooled state (published: ``src_upsample_ratio``).
        unit_upsample: unit slots per text slot (published: ``hidden_upsample_ratio``).

    Example:
        >>> SlotRates().length("unit", frames=100)
        78
    """

    subsampling: int = limited(4, most=MOST_RATE)
    pooling: int = limited(2, most=MOST_RATE)
    text_upsample: int = limited(1, most=MOST_RATE)
    unit_upsample: int = limited(6, most=MOST_RATE)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def frames_per_state(self) -> int:
        """Feature frames per pooled state."""
        return self.subsampling * self.pooling

    def length(self, axis: Axis, frames: Count) -> Count:
        """Positions on ``axis`` for ``frames`` feature frames, a number or an array of them."""
        encoder = -(-frames // self.subsampling)
        if axis == "encoder":
            return encoder
        text = -(-encoder // self.pooling) * self.text_upsample
        return text if axis == "text" else text * self.unit_upsample

    def step_ms(self, axis: Axis) -> float:
        """Milliseconds of source audio per position on ``axis``."""
        if axis == "encoder":
            return float(self.subsampling * FRAME_MS)
        text = self.frames_per_state * FRAME_MS / self.text_upsample
        return text if axis == "text" else text / self.unit_upsample

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SlotRates:
        """The inverse of ``dataclasses.asdict``.

        Raises:
            ConfigError: an unknown name or a value that is not a positive whole number.
        """
        return read_fields(cls, values, "a table of slot rates")


@dataclass(frozen=True)
class ChunkPolicy:
    """How an utterance is cut into chunks: an argument of each call.

    Attributes:
        chunk_ms: milliseconds of source audio per chunk; ``None`` is offline, the utterance is one chunk.
        lookahead_ms: right context of a chunk; ``None`` is replaced by the chunk's length, offline by 0.
        wait_chunks: chunks by which the decoders follow the encoder (published: ``wait_until``).
        left_chunks: past chunks that stay visible to a chunk; ``None``: all.

    Example:
        >>> ChunkPolicy(320).lookahead_ms, str(ChunkPolicy(None))
        (320, 'offline')
    """

    chunk_ms: int | None
    lookahead_ms: int | None = limited(None, least=0)
    wait_chunks: int = limited(0, least=0)
    left_chunks: int | None = limited(None, least=0)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.chunk_ms is None:
            for name, value in (("lookahead_ms", 0), ("wait_chunks", 0), ("left_chunks", None)):
                object.__setattr__(self, name, value)
            return
        if self.lookahead_ms is None:
            object.__setattr__(self, "lookahead_ms", self.chunk_ms)
        for name in ("chunk_ms", "lookahead_ms"):
            if getattr(self, name) % FRAME_MS:
                raise ConfigError(f"`{name}` must be a multiple of {FRAME_MS}, but is {getattr(self, name)}")

    @property
    def is_offline(self) -> bool:
        """True when the whole utterance is one chunk."""
        return self.chunk_ms is None

    @property
    def name(self) -> str:
        """Chunk size in milliseconds as users write it, or ``offline``."""
        return OFFLINE if self.chunk_ms is None else str(self.chunk_ms)

    def __str__(self) -> str:
        if self.is_offline:
            return OFFLINE
        wait = f", wait {self.wait_chunks}" if self.wait_chunks else ""
        left = "" if self.left_chunks is None else f", left context {self.left_chunks} chunks"
        return f"{self.chunk_ms} ms chunks with {self.lookahead_ms} ms look-ahead{wait}{left}"

    def to_dict(self) -> dict[str, Any]:
        """All fields, for configuration files."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ChunkPolicy:
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: an unknown name or a value that a policy cannot have.
        """
        return read_fields(cls, values, "a chunk policy")

    @classmethod
    def parse(
        cls,
        chunk_ms: str | int,
        lookahead_ms: int | None = None,
        wait_chunks: int = 0,
        left_ms: int | str | None = None,
    ) -> tuple[ChunkPolicy, ...]:
        """Policies of a list such as ``"320,640,offline"``: the smallest chunk first, each once.

        Args:
            chunk_ms: chunk sizes in milliseconds, or ``offline``, separated by commas or spaces.
            lookahead_ms: right context of every chunk size; ``None``: as long as the chunk.
            wait_chunks: of every chunk size.
            left_ms: past audio that stays visible at least, rounded up to whole chunks; ``None`` or ``unlimited``: all.
                A list such as ``"unlimited,10000"`` gives each chunk size with each of them, in this order.
        Raises:
            ConfigError: an empty list, or a value that a policy cannot have.
        """
        words = str(chunk_ms).replace(",", " ").split()
        if not words:
            raise ConfigError(f"`chunk_ms` needs at least one chunk size, but is {chunk_ms!r}")
        lefts = _parse_left(left_ms)
        sizes = sorted({_parse_size(word) for word in words}, key=lambda size: math.inf if size is None else size)
        policies = [
            cls(size, lookahead_ms, wait_chunks, None if size is None or left is None else -(-left // size))
            for size in sizes
            for left in lefts
        ]
        return tuple(dict.fromkeys(policies))


def _parse_left(left_ms: int | str | None) -> list[int | None]:
    if not isinstance(left_ms, str):
        if left_ms is not None:
            check_whole_number("left_ms", left_ms, 0)
        return [left_ms]
    lefts: list[int | None] = []
    for word in left_ms.replace(",", " ").split():
        if word != UNLIMITED and not (word.isascii() and word.isdecimal()):
            raise ConfigError(f"`left_ms` must be whole numbers of milliseconds or `{UNLIMITED}`, but is {left_ms!r}")
        lefts.append(None if word == UNLIMITED else int(word))
    if not lefts:
        raise ConfigError(f"`left_ms` needs at least one value, but is {left_ms!r}")
    return lefts


def _parse_size(word: str) -> int | None:
    if word.lower() == OFFLINE:
        return None
    try:
        size = int(word)
    except ValueError:
        raise ConfigError(f"a chunk size is a number of milliseconds or `{OFFLINE}`, but is {word!r}") from None
    if size <= 0 or size % FRAME_MS:
        raise ConfigError(f"`chunk_ms` must be a positive multiple of {FRAME_MS}, but is {size}")
    return size


@dataclass(frozen=True)
class ChunkGeometry:
    """Lengths and times of a policy for a model's rates; made by :meth:`NastModel.geometry`.

    Raises:
        ConfigError: the policy's sizes are not multiples of the model's steps.

    Example:
        >>> ChunkGeometry(SlotRates(), ChunkPolicy(320)).emission_ms(0)
        655.0
    """

    rates: SlotRates
    policy: ChunkPolicy

    def __post_init__(self) -> None:
        if self.policy.chunk_ms is None:
            return
        for name, frames in (("chunk_ms", self.rates.frames_per_state), ("lookahead_ms", self.rates.subsampling)):
            value = getattr(self.policy, name)
            if value % (frames * FRAME_MS):
                raise ConfigError(f"`{name}` must be a multiple of {frames * FRAME_MS} for this model, but is {value}")

    @property
    def chunk_frames(self) -> int | None:
        """Feature frames of a chunk; ``None`` offline."""
        return None if self.policy.chunk_ms is None else self.policy.chunk_ms // FRAME_MS

    @property
    def lookahead_frames(self) -> int:
        """Feature frames of right context."""
        return (self.policy.lookahead_ms or 0) // FRAME_MS

    @property
    def lookahead_encoder_frames(self) -> int:
        """Encoder frames of right context."""
        return self.lookahead_frames // self.rates.subsampling

    def length(self, axis: Axis, frames: int) -> int:
        """Positions on ``axis`` for ``frames`` feature frames; depends on the rates only."""
        return self.rates.length(axis, frames)

    def per_chunk(self, axis: Axis) -> int | None:
        """Positions on ``axis`` of a chunk; ``None`` offline."""
        return None if self.chunk_frames is None else self.rates.length(axis, self.chunk_frames)

    def step_ms(self, axis: Axis) -> float:
        """Milliseconds of source audio per position on ``axis``."""
        return self.rates.step_ms(axis)

    def ready_chunks(self, frames: int) -> int:
        """Complete chunks that the encoder can compute from ``frames`` feature frames; offline 0 before the end."""
        if self.chunk_frames is None:
            return 0
        return max(0, (frames - self.lookahead_frames) // self.chunk_frames)

    def emission_frames(self, chunk: int) -> int:
        """Feature frames that must exist before the decoders emit ``chunk`` (from 0)."""
        if self.chunk_frames is None:
            raise ConfigError("an offline policy emits at the end of the source only: it has no `emission_frames`")
        return self.chunk_frames * (chunk + 1 + self.policy.wait_chunks) + self.lookahead_frames

    def emission_ms(self, chunk: int) -> float:
        """Milliseconds of source audio that must exist before ``chunk`` (from 0) is emitted."""
        return float(self.emission_frames(chunk) * FRAME_MS + WINDOW_OVERHANG_MS)


Span = tuple[int, int]
"""First and last chunk of some positions."""


@dataclass(frozen=True)
class SequenceLayout:
    """Where each element of a sequence stands, (T,), or (B, T) where rows stand at different places.

    Attributes:
        position: index in the stream.
        chunk: chunk of the element; a look-ahead copy belongs to the chunk that uses it.
        lookahead: True for hard copies of later frames.
        valid: (B, T), False for padding; ``None``: all valid.
        span, copy_span: chunks of the originals and of the copies as host numbers, ``None`` without any. With them
            :func:`attention_mask` decides without reading from the device.
    """

    position: Tensor
    chunk: Tensor
    lookahead: Tensor
    valid: Tensor | None = None
    span: Span | None = None
    copy_span: Span | None = None

    @classmethod
    def plain(
        cls,
        start: int,
        stop: int,
        per_chunk: int | None,
        lengths: Lengths | None = None,
        device: torch.device | None = None,
    ) -> SequenceLayout:
        """Positions ``start .. stop - 1`` without copies, ``per_chunk`` of them in a chunk (``None``: one chunk)."""
        position = torch.arange(start, stop, device=device)
        chunk = torch.zeros_like(position) if per_chunk is None else position // per_chunk
        span = (0, 0) if per_chunk is None else (start // per_chunk, (stop - 1) // per_chunk)
        valid = _valid(position, lengths, stop)
        return cls(position, chunk, torch.zeros_like(position, dtype=torch.bool), valid, span if stop > start else None)

    @classmethod
    def copies(
        cls,
        chunks: Span,
        per_chunk: int,
        width: int,
        available: int,
        lengths: Lengths | None = None,
        device: torch.device | None = None,
    ) -> SequenceLayout:
        """Look-ahead copies of chunks: for each chunk the next ``width`` positions that exist.

        Args:
            chunks: (first, stop), the chunks ``first .. stop - 1``.
            per_chunk: positions of a chunk.
            available: number of positions that exist.
        """
        number = np.arange(*chunks)
        position = (number[:, None] + 1) * per_chunk + np.arange(width)  # (chunks, width)
        exists = position < available
        # On the host, because the number of copies decides a shape.
        chunk = torch.from_numpy(np.broadcast_to(number[:, None], position.shape)[exists]).to(device)
        place = torch.from_numpy(position[exists]).to(device)
        span = (int(number[0]), int(number[exists.any(1)][-1])) if exists.any() else None
        valid = _valid(place, lengths, available)
        return cls(place, chunk, torch.ones_like(chunk, dtype=torch.bool), valid, None, span)

    def __len__(self) -> int:
        return self.position.size(-1)

    def __add__(self, other: SequenceLayout) -> SequenceLayout:
        """Originals followed by copies."""
        if self.copy_span is not None or other.span is not None:
            raise ValueError("a layout of copies is added to a layout without copies")
        valid = self.valid if self.valid is not None else other.valid
        if valid is not None:
            all_valid = (valid.new_ones(valid.size(0), len(layout)) for layout in (self, other))
            masks = zip((self.valid, other.valid), all_valid, strict=True)
            valid = torch.cat([ones if mask is None else mask for mask, ones in masks], dim=-1)
        pairs = ((self.position, other.position), (self.chunk, other.chunk), (self.lookahead, other.lookahead))
        position, chunk, lookahead = (torch.cat(pair, dim=-1) for pair in pairs)
        return SequenceLayout(position, chunk, lookahead, valid, self.span, other.copy_span)


def _valid(position: Tensor, lengths: Lengths | None, stop: int) -> Tensor | None:
    if lengths is None or all(length >= stop for length in lengths.host):
        return None
    return position < lengths.on(position.device)[:, None]


def may_attend(query: SequenceLayout, key: SequenceLayout, wait: int = 0, left: int | None = None) -> Tensor:
    """Visibility of keys to queries by chunk, (..., Tq, Tk) bool, True = may attend. Padding is not considered.

    A query may attend to the keys of its own chunk, of the ``left`` chunks before it (``None``: all) and of the
    ``wait`` chunks after it. A look-ahead copy is visible to its own chunk only, copies included (Ma et al., 2024,
    section 3.2).
    """
    age = query.chunk[..., :, None] - key.chunk[..., None, :]
    visible = age >= -wait if left is None else (age >= -wait) & (age <= left)
    return torch.where(key.lookahead[..., None, :], age == 0, visible)


def attention_mask(query: SequenceLayout, key: SequenceLayout, wait: int = 0, left: int | None = None) -> Tensor | None:
    """:func:`may_attend` and the padding of ``key`` as a (B or 1, 1, Tq, Tk) mask; ``None``: everything is visible."""
    if key.valid is None and _all_visible(query, key, wait, left):
        return None
    visible = may_attend(query, key, wait, left)
    visible = visible[None, None] if visible.dim() == 2 else visible[:, None]
    return visible if key.valid is None else visible & key.valid[:, None, None]


def _all_visible(query: SequenceLayout, key: SequenceLayout, wait: int, left: int | None) -> bool:
    """True when the chunks alone, known on the host, show that no pair is hidden."""
    spans: Sequence[Span] = [span for span in (query.span, query.copy_span) if span is not None]
    if not spans:
        return False
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)
    if key.copy_span is not None and not first == last == key.copy_span[0] == key.copy_span[1]:
        return False
    if key.span is None:
        return key.copy_span is not None
    return key.span[1] <= first + wait and (left is None or key.span[0] >= last - left)
