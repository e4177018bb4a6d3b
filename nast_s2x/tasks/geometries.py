"""Chunk geometries of a training run: parsed from flags, drawn per update."""

import random
from collections.abc import Sequence

from nast_s2x.chunking import ChunkGeometry, parse_chunk_ms


def parse_geometries(
    chunk_ms: str,
    lookahead_ms: int | None = None,
    wait_chunks: int = 0,
    pooling: int = 2,
    text_upsample: int = 1,
    unit_upsample: int = 6,
) -> tuple[ChunkGeometry, ...]:
    """Geometries of a list such as ``"320,640,offline"``, the smallest first, each once.

    Args:
        lookahead_ms: right context of every chunk size; ``None``: as long as the chunk.

    Raises:
        ValueError: an empty list, or a size that is not a number of milliseconds, not a multiple, or not positive.
    """
    words = [word for word in chunk_ms.split(",") if word.strip()]
    if not words:
        raise ValueError(f"--chunk-ms needs at least one chunk size, got {chunk_ms!r}")
    sizes = sorted({parse_chunk_ms(word) for word in words}, key=lambda size: float("inf") if size is None else size)
    if lookahead_ms is not None and lookahead_ms % 10:
        raise ValueError(f"--lookahead-ms must be a multiple of 10, got {lookahead_ms}")
    return tuple(
        ChunkGeometry(
            chunk_frames=size,
            lookahead_frames=(size or 0) if lookahead_ms is None else lookahead_ms // 10,
            pooling=pooling,
            text_upsample=text_upsample,
            unit_upsample=unit_upsample,
            wait_chunks=wait_chunks,
        )
        for size in sizes
    )


def draw_geometry(geometries: Sequence[ChunkGeometry], seed: int, update: int) -> ChunkGeometry:
    """The geometry of one update: uniform, and the same on every process and after every resumption."""
    # A string seed is hashed by the generator itself, independently of Python's per-process hash salt.
    return random.Random(f"geometry-{seed}-{update}").choice(geometries)


def extremes(geometries: Sequence[ChunkGeometry]) -> tuple[ChunkGeometry, ...]:
    """The smallest and the largest chunk, once if they are the same: the two that validation looks at."""
    return (geometries[0],) if len(geometries) == 1 else (geometries[0], geometries[-1])
