"""Chunk policies of a model's training, and the choice of the policy to run it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nast_s2x.chunking import OFFLINE, ChunkPolicy, SlotRates
from nast_s2x.errors import ConfigError

DEFAULT_CHUNK_MS = 320
"""Chunk size taken when none is given and the model was trained with it."""


def streaming_default(trained: Sequence[ChunkPolicy]) -> ChunkPolicy:
    """320 ms if trained for, else the smallest chunk, else offline."""
    sizes = sorted(policy.chunk_ms for policy in trained if policy.chunk_ms is not None)
    chunk_ms = DEFAULT_CHUNK_MS if DEFAULT_CHUNK_MS in sizes else min(sizes, default=None)
    return next(policy for policy in trained if policy.chunk_ms == chunk_ms)


def offline_default(trained: Sequence[ChunkPolicy]) -> ChunkPolicy:
    """Offline if trained for, else the largest chunk."""
    return max(trained, key=lambda policy: float("inf") if policy.chunk_ms is None else policy.chunk_ms)


def choose_policy(
    trained: Sequence[ChunkPolicy],
    chunk_ms: int | str | None = None,
    lookahead_ms: int | None = None,
    wait_chunks: int | None = None,
    left_ms: int | str | None = None,
    prefer_offline: bool = False,
) -> ChunkPolicy:
    """Return the policy for the values given; those that are ``None`` follow the training.

    Args:
        trained: policies of the training, at least one.
        chunk_ms: milliseconds, or ``"offline"``; ``None`` takes :func:`streaming_default`.
        lookahead_ms: right context; ``None``: as in the training. For a chunk size that was not trained: as long as
            the chunk, unless the trained sizes had one fixed look-ahead.
        wait_chunks: chunks by which the decoders follow the encoder.
        left_ms: past audio that stays visible at least, or ``unlimited``. ``None``: as in the training; of several
            left contexts the longest limited one, so that a stream of any length takes constant time and memory.
        prefer_offline: ``chunk_ms=None`` takes :func:`offline_default` instead.
    Raises:
        ConfigError: a value that a policy cannot have, or several chunk sizes.
    """
    default = offline_default(trained) if prefer_offline else streaming_default(trained)
    name = default.name if chunk_ms is None else str(chunk_ms).strip().lower()
    same = max((policy for policy in trained if policy.name == name), key=_limited_left, default=None)
    like = same or max((policy for policy in trained if not policy.is_offline), key=_limited_left, default=default)
    if lookahead_ms is None:
        lookahead_ms = _trained_lookahead(trained) if same is None else same.lookahead_ms
    if left_ms is None and like.left_chunks is not None and like.chunk_ms is not None:
        left_ms = like.left_chunks * like.chunk_ms
    wait = like.wait_chunks if wait_chunks is None else wait_chunks
    policies = ChunkPolicy.parse(name, lookahead_ms, wait, left_ms)
    if len(policies) != 1:
        raise ConfigError(f"`chunk_ms` must be one chunk size here, but is {chunk_ms}")
    return policies[0]


def _limited_left(policy: ChunkPolicy) -> int:
    """Milliseconds of left context, -1 where it is unlimited."""
    return -1 if policy.left_chunks is None else policy.left_chunks * (policy.chunk_ms or 0)


def _trained_lookahead(trained: Sequence[ChunkPolicy]) -> int | None:
    """Look-ahead of all chunk sizes of the training; ``None`` where it was as long as the chunk, or not the same."""
    chunked = [policy for policy in trained if not policy.is_offline]
    lookaheads = {policy.lookahead_ms for policy in chunked}
    if len(lookaheads) != 1 or all(policy.lookahead_ms == policy.chunk_ms for policy in chunked):
        return None
    return lookaheads.pop()


def training_note(trained: Sequence[ChunkPolicy], policy: ChunkPolicy) -> str | None:
    """A note for users when ``policy`` is not one of the training's; ``None`` when it is."""
    if policy in trained:
        return None
    known = ", ".join(str(other) for other in trained)
    return f"the model was trained for {known}, not for {policy}: expect lower quality"


def policies_of_version_1(values: Mapping[str, Any]) -> tuple[SlotRates, tuple[ChunkPolicy, ...]]:
    """Rates and policies of the entry ``geometries`` of a bundle of version 1.

    Raises:
        ConfigError: an entry is missing or has an invalid value; names it.
    """
    for name in ("chunk_ms", "wait_chunks"):
        if name not in values:
            raise ConfigError(f"`{name}` is missing")
    sizes = values["chunk_ms"]
    if not isinstance(sizes, list | tuple) or not sizes:
        raise ConfigError(f"`chunk_ms` must be a list of chunk sizes, but is {sizes!r}")
    names = ("subsampling", "pooling", "text_upsample", "unit_upsample")
    rates = SlotRates.from_dict({name: values[name] for name in names if name in values})
    lookahead = values.get("lookahead_ms")
    lookahead = None if lookahead == "chunk" else lookahead
    policies = tuple(
        ChunkPolicy.parse(OFFLINE if size is None else size, lookahead, values["wait_chunks"])[0] for size in sizes
    )
    return rates, policies
