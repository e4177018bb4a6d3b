"""Recordings named by a column of a manifest: their samples, and their features."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nast_s2x.corpus.audio_ref import split_segment
from nast_s2x.corpus.manifest import Row, read_table
from nast_s2x.frontend.audio import load_audio
from nast_s2x.units.features import UnitFeatures
from nast_s2x.units.windows import OVERLAP_SECONDS, WINDOW_SECONDS, window_frames, windowed


@dataclass(frozen=True)
class Windows:
    """Lengths of the windows of :func:`~nast_s2x.units.windows.windowed`, in seconds."""

    seconds: float = WINDOW_SECONDS
    overlap: float = OVERLAP_SECONDS

    def check(self, features: UnitFeatures) -> None:
        """Raise ``ValueError`` where a window leaves nothing between its overlaps."""
        window_frames(features, self.seconds, self.overlap)

    def features(self, features: UnitFeatures, audio: str) -> NDArray[np.float32]:
        """Features of a recording, ``FILE`` or ``FILE:START:SAMPLES`` (at its own rate): (unit frames, D), 1 or more.

        Raises:
            ValueError: unreadable, not finite, or shorter than a unit frame; names the file.
        """
        path, segment = _place(audio)
        start, count = segment or (0, -1)
        samples = load_audio(path, start=start, frames=count)
        table = windowed(features, samples, self.seconds, self.overlap)
        if not len(table):
            raise ValueError(f"{audio}: shorter than a unit frame ({len(samples)} samples at 16 kHz)")
        if not np.isfinite(table).all():
            raise ValueError(f"{audio}: features are not finite")
        return table


def _place(audio: str) -> tuple[str, tuple[int, int] | None]:
    """Path and segment; a file whose own name looks like a path with a segment is that file."""
    return (audio, None) if os.path.isfile(audio) else split_segment(audio)


def stamp(audio: str) -> str:
    """Text that changes when the file behind a recording does; also where there is none."""
    try:
        status = os.stat(_place(audio)[0])
    except OSError:
        return f"{audio}\t-"
    return f"{audio}\t{status.st_size}\t{status.st_mtime_ns}"


@dataclass(frozen=True)
class Listed:
    """A row of a manifest and its recording, with an absolute path."""

    row: Row
    audio: str

    @property
    def line(self) -> int:
        """Line of the manifest."""
        return self.row.line


def read_recordings(
    manifest: str | os.PathLike[str], column: str, split: str | None = None
) -> tuple[list[Listed], list[str]]:
    """The rows of a manifest that name a recording, and the bad ones as ``FILE:LINE: reason``. No audio is opened.

    Args:
        manifest: tab-separated table; paths are relative to its folder.
        column: the one that names the recordings.
        split: only rows whose ``split`` this is; ``None`` = all. A manifest without that column is one split.

    Raises:
        FileNotFoundError, ValueError: no such manifest, no such column, or no row of that split.
    """
    manifest = Path(manifest)
    listed: list[Listed] = []
    problems: list[str] = []
    splits: set[str] = set()
    for row in read_table(manifest, required=(column,)):
        if row.problem:
            problems.append(f"{manifest}:{row.line}: {row.problem}")
            continue
        splits.add(row.cells.get("split", split or ""))
        if split is not None and row.cells.get("split", split) != split:
            continue
        audio = row.cells[column].strip()
        if audio:
            listed.append(Listed(row, os.path.normpath(manifest.resolve().parent / audio)))
        else:
            problems.append(f"{manifest}:{row.line}: empty {column}")
    if not listed:
        there = f" of split {split} (there are {', '.join(sorted(splits))})" if split and splits - {split} else ""
        raise ValueError(f"{manifest}: no row{there} names a recording in column {column}")
    return listed, problems


def runs(labels: Sequence[int] | NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Collapse runs: labels (n,) -> units (m,), of which none equals its neighbour, and frames of each (m,).

    Example:
        >>> runs([7, 7, 3, 7])
        (array([7, 3, 7]), array([2, 1, 1]))
    """
    labels = np.asarray(labels, dtype=np.int64)
    if not len(labels):
        return labels, labels
    borders = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    return labels[borders], np.diff(np.r_[borders, len(labels)])
