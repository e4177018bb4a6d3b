"""Which chunk sizes a model was trained for, and the geometry to run it with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nast_s2x.chunking import FRAME_MS, ChunkGeometry, parse_chunk_ms

#: Chunk size taken when none is asked for and the model was trained with it.
USUAL_CHUNK_MS = 320


@dataclass(frozen=True)
class TrainedGeometries:
    """The geometries of a model's training; any other can be asked for, and is then marked as unknown to the model.

    Attributes:
        chunk_ms: chunk sizes in milliseconds, ``None`` for offline, in the order of training's list.
        lookahead_ms: right context in milliseconds; ``None`` = always as long as the chunk.
        wait_chunks: chunks the decoders stay behind the encoder.
        structure: an offline geometry that holds subsampling, pooling and upsampling, which are part of the model.
    """

    chunk_ms: tuple[int | None, ...]
    lookahead_ms: int | None = None
    wait_chunks: int = 0
    structure: ChunkGeometry = ChunkGeometry(chunk_frames=None)

    def __post_init__(self) -> None:
        if not self.chunk_ms:
            raise ValueError("a model is trained for at least one chunk size, the list of chunk sizes is empty")
        for chunk in self.chunk_ms:
            self._build(chunk, self.lookahead_ms, self.wait_chunks)

    @property
    def geometries(self) -> tuple[ChunkGeometry, ...]:
        """All geometries of the training."""
        return tuple(self._build(chunk, self.lookahead_ms, self.wait_chunks) for chunk in self.chunk_ms)

    @property
    def streaming_default(self) -> ChunkGeometry:
        """320 ms if trained for, else the smallest chunk, else offline."""
        sizes = sorted(chunk for chunk in self.chunk_ms if chunk is not None)
        chunk = USUAL_CHUNK_MS if USUAL_CHUNK_MS in sizes else (sizes or [None])[0]
        return self._build(chunk, self.lookahead_ms, self.wait_chunks)

    @property
    def offline_default(self) -> ChunkGeometry:
        """Offline if trained for, else the largest chunk."""
        largest = None if None in self.chunk_ms else max(chunk for chunk in self.chunk_ms if chunk is not None)
        return self._build(largest, self.lookahead_ms, self.wait_chunks)

    def choose(
        self,
        chunk_ms: int | str | None = None,
        lookahead_ms: int | None = None,
        wait_chunks: int | None = None,
        offline_default: bool = False,
    ) -> ChunkGeometry:
        """The geometry for the values asked for; what is not given follows the training.

        Args:
            chunk_ms: milliseconds, or ``"offline"``; ``None`` takes the default.
            lookahead_ms: right context; ``None`` takes the training's rule.
            wait_chunks: ``None`` takes the training's.
            offline_default: which default ``chunk_ms=None`` means.
        Raises:
            ValueError: a size that the model's structure cannot have.
        """
        if chunk_ms is None:
            chunk = (self.offline_default if offline_default else self.streaming_default).chunk_ms
        else:
            frames = parse_chunk_ms(str(chunk_ms))
            chunk = None if frames is None else frames * FRAME_MS
        lookahead = self.lookahead_ms if lookahead_ms is None else lookahead_ms
        return self._build(chunk, lookahead, self.wait_chunks if wait_chunks is None else wait_chunks)

    def knows(self, geometry: ChunkGeometry) -> bool:
        """True when ``geometry`` is one that the model was trained with."""
        return geometry in self.geometries

    def note(self, geometry: ChunkGeometry) -> str | None:
        """A sentence for users when ``geometry`` is not one of the training's; ``None`` when it is."""
        if self.knows(geometry):
            return None
        return (
            f"the model was trained for {', '.join(describe(known) for known in self.geometries)}, "
            f"not for {describe(geometry)}: expect lower quality"
        )

    def _build(self, chunk_ms: int | None, lookahead_ms: int | None, wait_chunks: int) -> ChunkGeometry:
        lookahead = (chunk_ms or 0) if lookahead_ms is None else lookahead_ms
        for name, value in (("chunk_ms", chunk_ms or 0), ("lookahead_ms", lookahead)):
            if value % FRAME_MS:
                raise ValueError(f"{name} must be a multiple of {FRAME_MS} ms, got {value}")
        return self.structure.replace(
            chunk_frames=None if chunk_ms is None else chunk_ms // FRAME_MS,
            lookahead_frames=lookahead // FRAME_MS,
            wait_chunks=wait_chunks,
        )

    def to_dict(self) -> dict[str, Any]:
        """For a bundle's ``config.json``: ``chunk_ms`` with ``"offline"``, ``lookahead_ms`` with ``"chunk"``."""
        return {
            "chunk_ms": ["offline" if chunk is None else chunk for chunk in self.chunk_ms],
            "lookahead_ms": "chunk" if self.lookahead_ms is None else self.lookahead_ms,
            "wait_chunks": self.wait_chunks,
            "subsampling": self.structure.subsampling,
            "pooling": self.structure.pooling,
            "text_upsample": self.structure.text_upsample,
            "unit_upsample": self.structure.unit_upsample,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainedGeometries:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: an entry is missing or is not what it should be; names it.
        """
        for name in ("chunk_ms", "wait_chunks"):
            if name not in values:
                raise ValueError(f"{name} is missing")
        if not isinstance(values["chunk_ms"], (list, tuple)):
            raise ValueError(f"chunk_ms must be a list of chunk sizes, got {values['chunk_ms']!r}")
        names = ("subsampling", "pooling", "text_upsample", "unit_upsample")
        structure = ChunkGeometry(chunk_frames=None, **{name: int(values[name]) for name in names if name in values})
        chunks = tuple(_milliseconds(chunk) for chunk in values["chunk_ms"])
        lookahead = values.get("lookahead_ms", "chunk")
        return cls(
            chunks, None if lookahead in (None, "chunk") else int(lookahead), int(values["wait_chunks"]), structure
        )

    @classmethod
    def from_geometry(cls, geometry: ChunkGeometry) -> TrainedGeometries:
        """Of a model that was trained for one geometry."""
        same = geometry.offline or geometry.lookahead_frames == geometry.chunk_frames
        structure = geometry.replace(chunk_frames=None)
        lookahead = None if same else geometry.lookahead_ms
        return cls((geometry.chunk_ms,), lookahead, geometry.wait_chunks, structure)

    @classmethod
    def from_flags(cls, values: Mapping[str, Any]) -> TrainedGeometries:
        """From the training flags that a checkpoint of this project keeps (``--chunk-ms 160,320,offline`` ...)."""
        chunks = [word for word in re.split(r"[,\s]+", str(values["chunk_ms"])) if word]
        return cls.from_dict(
            {
                **{name: values[name] for name in ("pooling", "text_upsample", "unit_upsample") if name in values},
                "chunk_ms": list(dict.fromkeys(chunks)),
                "lookahead_ms": values.get("lookahead_ms"),
                "wait_chunks": values.get("wait_chunks") or 0,
            }
        )


def _milliseconds(chunk: Any) -> int | None:
    frames = parse_chunk_ms(str(chunk))
    return None if frames is None else frames * FRAME_MS


def describe(geometry: ChunkGeometry) -> str:
    """A geometry in words: ``offline``, ``320 ms chunks with 320 ms look-ahead``."""
    if geometry.offline:
        return "offline"
    wait = f", waiting {geometry.wait_chunks}" if geometry.wait_chunks else ""
    return f"{geometry.chunk_ms} ms chunks with {geometry.lookahead_ms} ms look-ahead{wait}"
