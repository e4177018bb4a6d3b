"""Centroids by k-means (scikit-learn's mini-batch form) on a random part of the recordings."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nast_s2x.units.centroids import Centroids
from nast_s2x.units.features import UnitFeatures

BATCH_FRAMES = 10_000


def sample_order(count: int, seed: int) -> NDArray[np.int64]:
    """Order in which recordings are drawn for :func:`fit`: (count,), a permutation that depends on the seed alone."""
    return np.random.default_rng(seed).permutation(count)


def take_frames(vectors: Iterable[NDArray[np.float32]], max_frames: int) -> NDArray[np.float32]:
    """The first ``max_frames`` rows of a stream of (n, D) tables; the stream is read no further than needed."""
    parts: list[NDArray[np.float32]] = []
    total = 0
    for table in vectors:
        parts.append(table[: max_frames - total])
        total += len(parts[-1])
        if total >= max_frames:
            break
    if not total:
        raise ValueError("there is no audio to fit units on: every recording is shorter than a unit frame")
    return np.concatenate(parts)


def fit(vectors: NDArray[np.float32], num_units: int, features: UnitFeatures, seed: int = 1) -> Centroids:
    """Cluster feature vectors.

    Args:
        vectors: (n, D), a random sample of the recordings' frames.
        num_units: K.
        features: the back end the vectors came from, for the record.
        seed: of the initial centres and the batches.

    Raises:
        ValueError: fewer different vectors than units.
    """
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    if num_units < 2:
        raise ValueError(f"units are at least 2, not {num_units}")
    if len(np.unique(vectors[: 50 * num_units], axis=0)) < num_units and len(np.unique(vectors, axis=0)) < num_units:
        raise ValueError(f"{len(vectors)} frames hold fewer than {num_units} different vectors: use more audio")
    clusters = MiniBatchKMeans(num_units, batch_size=BATCH_FRAMES, max_iter=100, n_init=3, random_state=seed)
    with threadpool_limits(1):  # sums depend on the number of threads, and so would the hash
        clusters.fit(vectors)
    return Centroids(clusters.cluster_centers_, features.describe())
