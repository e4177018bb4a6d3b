"""Centroids: the definition of a set of units, with everything that made them, and the nearest one of a vector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

_KEYS = ("centroids", "cluster_centers_", "centers")
_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class Centroids:
    """K cluster centres.

    Attributes:
        centers: (K, D) float32.
        features: what :meth:`~nast_s2x.units.features.UnitFeatures.describe` said of the features; empty for foreign
            centroids, which do not say.
    """

    centers: NDArray[np.float32]
    features: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        centers = np.ascontiguousarray(self.centers, dtype=np.float32)
        if centers.ndim != 2 or not centers.size:
            raise ValueError(f"centroids must be a table (units, features), not of shape {centers.shape}")
        if not np.isfinite(centers).all():
            raise ValueError("centroids hold values that are not finite")
        object.__setattr__(self, "centers", centers)

    @property
    def num_units(self) -> int:
        """K."""
        return len(self.centers)

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the centres (little-endian float32, row by row): units of two sets
        of centroids never mean the same."""
        return hashlib.sha256(self.centers.astype("<f4").tobytes()).hexdigest()[:16]

    def nearest(self, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """Index of the nearest centre (Euclidean, the lowest index of equals) of each vector: (n, D) -> (n,).

        Raises:
            ValueError: vectors of another width.
        """
        self._check_width(vectors)
        centers = self.centers.astype(np.float64)
        norms = (centers**2).sum(axis=1)
        rows = max(1, _BLOCK_ELEMENTS // len(centers))
        parts = [
            (norms - 2.0 * (vectors[start : start + rows].astype(np.float64) @ centers.T)).argmin(axis=1)
            for start in range(0, len(vectors), rows)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def smoothed(self, vectors: NDArray[np.float32], change_cost: float) -> NDArray[np.int64]:
        """The unit sequence of least total cost: squared distances plus ``change_cost`` for every change of unit.

        With 0 this is :meth:`nearest`. Units that flicker for a frame between two others go first: fewer units, of
        which more follow from the words that are said. Exact (Viterbi), O(n K).

        Args:
            vectors: (n, D), a whole recording: every unit may depend on all of it.
            change_cost: in units of the squared distance; ``0.2`` of the mean distance changes little, twice the mean
                distance halves the number of units.

        Returns:
            (n,) unit codes.
        """
        if change_cost < 0 or not np.isfinite(change_cost):
            raise ValueError(f"the cost of a change must be a number from 0, got {change_cost}")
        if change_cost == 0 or len(vectors) < 2:
            return self.nearest(vectors)
        self._check_width(vectors)
        codes = np.arange(self.num_units)
        came_from = np.empty((len(vectors), self.num_units), np.int32)
        cost = np.zeros(self.num_units)
        for index, vector in enumerate(vectors.astype(np.float64)):
            cheapest = int(cost.argmin())
            stays = cost <= cost[cheapest] + change_cost
            came_from[index] = np.where(stays, codes, cheapest)
            cost = np.minimum(cost, cost[cheapest] + change_cost) + ((self.centers - vector) ** 2).sum(axis=1)
        units = np.empty(len(vectors), np.int64)
        units[-1] = cost.argmin()
        for index in range(len(vectors) - 1, 0, -1):
            units[index - 1] = came_from[index, units[index]]
        return units

    def _check_width(self, vectors: NDArray[np.float32]) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.centers.shape[1]:
            raise ValueError(
                f"features of shape {vectors.shape} do not fit centroids of width {self.centers.shape[1]}: they are of "
                "another back end or layer"
            )

    def save(self, path: str | Path) -> None:
        """Write a ``.safetensors`` file with the features' description in its header."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"centroids": self.centers}, path, metadata={"features": json.dumps(dict(self.features))})
        path.chmod(0o644)  # safetensors leaves it to its owner alone

    @classmethod
    def load(cls, path: str | Path) -> Centroids:
        """Read ``.safetensors``, ``.npz`` or ``.npy``; pickles are never opened here (`nast-s2x units convert-kmeans`).

        Raises:
            FileNotFoundError: no such file.
            ValueError: another kind of file, or one without a table of centroids.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file of centroids")
        if path.suffix not in _READERS:
            raise ValueError(
                f"{path}: centroids are read from {', '.join(_READERS)}; a scikit-learn pickle becomes one by "
                "`nast-s2x units convert-kmeans --trust-pickle`"
            )
        try:
            return _READERS[path.suffix](path)
        except (ValueError, SafetensorError, OSError) as error:
            raise ValueError(f"{path}: {error}") from error


def _from_safetensors(path: Path) -> Centroids:
    with safe_open(path, framework="numpy") as file:
        name = _pick(list(file.keys()))
        metadata = file.metadata() or {}
        return Centroids(file.get_tensor(name), json.loads(metadata.get("features", "{}")))


def _from_npz(path: Path) -> Centroids:
    with np.load(path, allow_pickle=False) as file:
        return Centroids(file[_pick(list(file.keys()))])


def _from_npy(path: Path) -> Centroids:
    return Centroids(np.load(path, allow_pickle=False))


def _pick(names: list[str]) -> str:
    known = [name for name in _KEYS if name in names]
    if known or len(names) == 1:
        return (known or names)[0]
    raise ValueError(f"holds {', '.join(names) or 'nothing'}; centroids are called {' or '.join(_KEYS)}")


_READERS = {".safetensors": _from_safetensors, ".npz": _from_npz, ".npy": _from_npy}
