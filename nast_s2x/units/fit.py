"""Centroids by mini-batch k-means (scikit-learn) on a random part of the recordings of a manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nast_s2x.corpus.audio_ref import AnyPath, AudioRef
from nast_s2x.corpus.manifest import TARGET_AUDIO, Problem, read_manifest
from nast_s2x.errors import AudioError, ConfigError, ManifestError
from nast_s2x.files import locked
from nast_s2x.processes import parallel_map
from nast_s2x.progress import progress_bar
from nast_s2x.units.centroids import Centroids
from nast_s2x.units.features import BackEnd, UnitFeatures, Windows, one_thread

BATCH_FRAMES = 10_000
MAX_FRAMES = 360_000
"""Unit frames that are clustered by default, two hours."""


@dataclass
class FitReport:
    """Result of :func:`fit`: the centroids, the unit frames they were fitted on, and bad rows by line."""

    centroids: Centroids
    frames: int
    problems: list[str] = field(default_factory=list)


def fit(
    manifest: AnyPath,
    output: AnyPath,
    back_end: BackEnd,
    num_units: int,
    audio_column: str = TARGET_AUDIO,
    split: str | None = "train",
    *,
    max_frames: int = MAX_FRAMES,
    seed: int = 1,
    windows: Windows | None = None,
    jobs: int = 1,
    strict: bool = False,
    progress: bool = False,
) -> FitReport:
    """Fit centroids on recordings in a random order, until there are enough frames, and write them.

    The same recordings, settings and kind of machine give the same centroids, for any number of processes.

    Args:
        manifest: table of recordings; see :mod:`nast_s2x.corpus.manifest`.
        output: file to write, ``.safetensors``.
        back_end: features to cluster.
        num_units: number of centroids K, from 2.
        audio_column: column that names the recordings.
        split: only rows of this split, ``None`` = all.
        max_frames: unit frames to take; fewer if there are no more.
        seed: of the order and of the clusters, 0 to 2**32 - 1.
        windows: of long recordings.
        jobs: processes.
        strict: bad rows of the split, and unusable recordings among those needed, raise; nothing is written then.

    Raises:
        ManifestError: no usable recording; bad rows under ``strict``.
        ConfigError: an unusable setting; another process that writes ``output``; fewer different vectors than units.
        FileNotFoundError: no such manifest or model.
        ModuleNotFoundError: scikit-learn is not installed.
    """
    _check_settings(Path(output), num_units, max_frames, seed)
    import sklearn  # noqa: F401  # fails before hours of features, not after

    windows = windows or Windows()
    features = back_end.build()
    windows.frames(features)
    with locked(output):
        table = read_manifest(
            manifest, split=split, required=(audio_column,), target_audio=audio_column, unique_ids=False, strict=False
        )
        if strict and table.problems:
            raise ManifestError(f"{len(table.problems)} bad rows, nothing was written", map(str, table.problems))
        audio = [row.target_audio for row in table if row.target_audio is not None]
        vectors, bad = sample_vectors(audio, back_end, max_frames, seed, windows, jobs, progress)
        found = [Problem(table.lines[index], reason, str(manifest)) for index, reason in bad.items()]
        problems = [str(problem) for problem in sorted([*table.problems, *found])]
        if not len(vectors):
            first = f"; the first of them: {problems[0]}" if problems else ""
            raise ManifestError(f"{manifest}: no recording is usable{first}", problems)
        if strict and problems:
            raise ManifestError(f"{len(problems)} bad rows, nothing was written", problems)
        centroids = cluster(vectors, num_units, features, seed)
        centroids.save(output)
    return FitReport(centroids, len(vectors), problems)


def _check_settings(output: Path, num_units: int, max_frames: int, seed: int) -> None:
    if output.suffix != ".safetensors":
        raise ConfigError(f"{output}: centroids are written as .safetensors")
    _check_num_units(num_units)
    if max_frames < num_units:
        raise ConfigError(f"max_frames must be at least 1 for each of {num_units} units, not {max_frames}")
    if not 0 <= seed < 1 << 32:
        raise ConfigError(f"seed must be in 0..{(1 << 32) - 1}, not {seed}")


def _check_num_units(num_units: int) -> None:
    if num_units < 2:
        raise ConfigError(f"num_units must be at least 2, not {num_units}")


def cluster(vectors: NDArray[np.float32], num_units: int, features: UnitFeatures, seed: int = 1) -> Centroids:
    """Cluster feature vectors.

    Args:
        vectors: (n, D), a random sample of the recordings' frames.
        num_units: K.
        features: what the vectors are, for the record.
        seed: of the initial centres and the batches.

    Raises:
        ConfigError: fewer than 2 units, or fewer different vectors than units.
    """
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    _check_num_units(num_units)
    if len(np.unique(vectors[: 50 * num_units], axis=0)) < num_units and len(np.unique(vectors, axis=0)) < num_units:
        raise ConfigError(f"{len(vectors)} frames hold fewer than {num_units} different vectors: use more audio")
    clusters = MiniBatchKMeans(num_units, batch_size=BATCH_FRAMES, max_iter=100, n_init=3, random_state=seed)
    with threadpool_limits(1):  # sums, and so the hash, depend on the number of threads
        clusters.fit(vectors)
    return Centroids(clusters.cluster_centers_, features.describe())


def sample_order(count: int, seed: int) -> NDArray[np.int64]:
    """Order in which recordings are drawn by :func:`fit`: (count,), a permutation that depends on the seed alone."""
    return np.random.default_rng(seed).permutation(count)


def take_frames(vectors: Iterable[NDArray[np.float32]], max_frames: int) -> NDArray[np.float32]:
    """The first ``max_frames`` rows of a stream of (n, D) tables, which is read no further than needed."""
    parts: list[NDArray[np.float32]] = []
    total = 0
    for table in vectors:
        parts.append(table[: max_frames - total])
        total += len(parts[-1])
        if total >= max_frames:
            break
    return np.concatenate(parts) if total else np.zeros((0, 0), np.float32)


def sample_vectors(
    audio: Sequence[AudioRef],
    back_end: BackEnd,
    max_frames: int,
    seed: int = 1,
    windows: Windows | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Features of recordings in the order of :func:`sample_order`, until there are enough frames.

    Returns:
        vectors (n, D), and the reason for each unusable recording met on the way, by its index.
    """
    order = sample_order(len(audio), seed)
    bad: dict[int, str] = {}

    def tables() -> Iterator[NDArray[np.float32]]:
        drawn = (audio[index] for index in order)
        work = parallel_map(_vectors, drawn, jobs, _start, (back_end, windows or Windows()))
        bar = progress_bar(max_frames, "features", "frame", show=progress)
        with contextlib.closing(work) as results, bar:
            for index, result in zip(order, results):
                if isinstance(result, str):
                    bad[int(index)] = result
                else:
                    bar.update(min(len(result), max_frames - bar.n))
                    yield result

    try:
        with one_thread(), contextlib.closing(tables()) as stream:
            return take_frames(stream, max_frames), bad
    finally:
        _stop()


@dataclass
class _Worker:
    features: UnitFeatures
    windows: Windows


_worker: _Worker | None = None


def _start(back_end: BackEnd, windows: Windows) -> None:
    global _worker
    torch.set_num_threads(1)
    _worker = _Worker(back_end.build(), windows)


def _stop() -> None:
    """Release the network of a run in this process."""
    global _worker
    _worker = None


def _vectors(audio: AudioRef) -> NDArray[np.float32] | str:
    assert _worker is not None
    try:
        return _worker.windows.read(_worker.features, audio)
    except (AudioError, OSError) as error:
        return str(error)
