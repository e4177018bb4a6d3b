"""Centroids: the cluster centres that define a set of units, and the unit sequence of feature vectors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nast_s2x.arrays import read_npy, read_npz
from nast_s2x.errors import CheckpointError, ConfigError
from nast_s2x.files import parse_json, write_atomic
from nast_s2x.units.features import BackEnd, UnitFeatures, model_path

_KEYS = ("centroids", "cluster_centers_", "centers")
_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class Centroids:
    """K cluster centres.

    Attributes:
        centers: (K, D) float32.
        features: :meth:`~nast_s2x.units.features.UnitFeatures.describe` of the clustered features; empty for centroids
            of other programs.

    Raises:
        ConfigError: not a table (K, D) of finite real numbers.
    """

    centers: NDArray[np.float32]
    features: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if np.asarray(self.centers).dtype.kind not in "fiu":
            raise ConfigError(f"centroids must be real numbers, not of type {np.asarray(self.centers).dtype}")
        centers = np.ascontiguousarray(self.centers, dtype=np.float32)
        if centers.ndim != 2 or not centers.size:
            raise ConfigError(f"centroids must be a table (units, features), not of shape {centers.shape}")
        if not np.isfinite(centers).all():
            raise ConfigError("centroids hold NaN or infinite values")
        object.__setattr__(self, "centers", centers)

    @property
    def num_units(self) -> int:
        """K."""
        return len(self.centers)

    @property
    def hash(self) -> str:
        """Name of the set of units: 16 hexadecimal digits of the SHA-256 of the centres (little-endian float32, row by
        row)."""
        return hashlib.sha256(self.centers.astype("<f4").tobytes()).hexdigest()[:16]

    def nearest(self, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """Index of the centre nearest to each vector (Euclidean, the lowest index of equals): (n, D) -> (n,).

        Raises:
            ConfigError: vectors of another width.
        """
        parts = [distances.argmin(axis=1) for distances in self._distances(vectors)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def smoothed(self, vectors: NDArray[np.float32], change_cost: float) -> NDArray[np.int64]:
        """The unit sequence of least total cost: squared distances plus ``change_cost`` for every change of unit.

        With 0 this is :meth:`nearest`. Short-lived units are removed first, which gives shorter sequences that depend
        more on the words. Exact (Viterbi), O(n K) besides the distances.

        Args:
            vectors: (n, D), a whole recording: every unit may depend on all of it.
            change_cost: in units of the squared distance; ``0.2`` of the mean distance changes little, twice the mean
                distance halves the number of units.

        Returns:
            (n,) unit codes.

        Raises:
            ConfigError: vectors of another width; a cost that is negative or not finite.
        """
        check_change_cost(change_cost)
        if change_cost == 0 or len(vectors) < 2:
            return self.nearest(vectors)
        # For each frame: the cheapest unit of the previous frame, and for each unit one bit, set if staying in it costs
        # no more than changing to it from that cheapest unit.
        cheapest = np.empty(len(vectors), np.int64)
        stays: list[NDArray[np.uint8]] = []
        cost = np.zeros(self.num_units)
        for distances in self._distances(vectors):
            flags = np.empty(distances.shape, bool)
            for row, distance in enumerate(distances):
                best = int(cost.argmin())
                cheapest[len(stays) + row] = best
                change = cost[best] + change_cost
                np.less_equal(cost, change, out=flags[row])
                cost = np.minimum(cost, change) + distance
            stays += list(np.packbits(flags, axis=1))
        units = np.empty(len(vectors), np.int64)
        units[-1] = cost.argmin()
        for index in range(len(vectors) - 1, 0, -1):
            unit = units[index]
            stayed = stays[index][unit >> 3] >> (7 - (unit & 7)) & 1
            units[index - 1] = unit if stayed else cheapest[index]
        return units

    def _distances(self, vectors: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
        """Squared distances to the centres minus the squared length of the vector, in blocks of (rows, K)."""
        self._check_width(vectors)
        centers = self.centers.astype(np.float64)
        norms = (centers**2).sum(axis=1)
        rows = max(1, _BLOCK_ELEMENTS // len(centers))
        for start in range(0, len(vectors), rows):
            yield norms - 2.0 * (vectors[start : start + rows].astype(np.float64) @ centers.T)

    def _check_width(self, vectors: NDArray[np.float32]) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.centers.shape[1]:
            raise ConfigError(
                f"features of shape {vectors.shape} do not fit centroids of width {self.centers.shape[1]}: they are of "
                "another kind, model or layer"
            )

    def save(self, path: str | Path) -> None:
        """Write a ``.safetensors`` file with the features' description in its header, atomically."""
        metadata = {"features": json.dumps(dict(self.features))}
        write_atomic(path, save({"centroids": self.centers}, metadata=metadata))

    @classmethod
    def load(cls, path: str | Path) -> Centroids:
        """Read ``.safetensors``, ``.npz`` or ``.npy``; pickles are refused (see `nast-s2x units convert-kmeans`).

        Raises:
            FileNotFoundError: no such file.
            CheckpointError: another kind of file, a damaged one, or one without a table of centroids.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file of centroids")
        if path.suffix not in _READERS:
            raise CheckpointError(
                f"{path}: centroids must be a file {', '.join(_READERS)}; convert a scikit-learn pickle with "
                "`nast-s2x units convert-kmeans --trust-pickle`"
            )
        try:
            return _READERS[path.suffix](path)
        except _READ_ERRORS as error:
            raise CheckpointError(f"{path}: {error}") from error


def _from_safetensors(path: Path) -> Centroids:
    with safe_open(path, framework="numpy") as file:
        name = _pick(list(file.keys()))
        metadata = file.metadata() or {}
        features = parse_json(metadata.get("features", "{}"))
        if not isinstance(features, dict):
            raise CheckpointError(
                f"the description of its features must be a JSON object, not {type(features).__name__}"
            )
        return Centroids(file.get_tensor(name), features)


def _from_npz(path: Path) -> Centroids:
    arrays = read_npz(path)
    return Centroids(arrays[_pick(list(arrays))])


def _from_npy(path: Path) -> Centroids:
    with open(path, "rb") as file:
        return Centroids(read_npy(file))


def _pick(names: list[str]) -> str:
    known = [name for name in _KEYS if name in names]
    if known or len(names) == 1:
        return (known or names)[0]
    raise CheckpointError(f"holds {', '.join(names) or 'nothing'}; centroids are called {' or '.join(_KEYS)}")


# TypeError: a number type that numpy does not have, such as bfloat16.
_READ_ERRORS = (ValueError, TypeError, OSError, SafetensorError)
_READERS = {".safetensors": _from_safetensors, ".npz": _from_npz, ".npy": _from_npy}


def check_change_cost(change_cost: float) -> None:
    """Raise :class:`ConfigError` unless the cost of a change of unit is finite and at least 0."""
    if not 0 <= change_cost < float("inf"):
        raise ConfigError(f"the cost of a change of unit must be finite and at least 0, not {change_cost}")


def back_end_of(
    centroids: Centroids,
    name: str | None = None,
    model: str | os.PathLike[str] | None = None,
    layer: int | None = None,
    device: str = "cpu",
) -> BackEnd:
    """The back end that centroids were made with. What is not recorded must be given; what is given must agree.

    Args:
        centroids: with or without a record of their features.
        name, model, layer, device: as in :class:`~nast_s2x.units.features.BackEnd`; ``None`` = not given.

    Raises:
        ConfigError: names what is missing or contradicts the centroids.
    """
    recorded = dict(centroids.features)
    if not recorded and name is None:
        raise ConfigError("these centroids do not record the features they were made with: pass --features")
    for key, given in (("features", name), ("layer", layer)):
        if recorded and given is not None and given != recorded.get(key):
            raise ConfigError(f"the centroids are of {key} {recorded.get(key)}, not {given}")
    return BackEnd(
        name=str(recorded.get("features", name)),
        model=model_path(model),
        layer=recorded.get("layer", layer),
        device=device,
        coefficients=recorded.get("coefficients", BackEnd.coefficients),
        loudness=recorded.get("loudness", BackEnd.loudness),
    )


def check_fits(centroids: Centroids, features: UnitFeatures) -> None:
    """Raise :class:`ConfigError` unless the features are those of the centroids: the same width, weights, layer, ..."""
    width = centroids.centers.shape[1]
    if features.dim != width:
        raise ConfigError(f"the centroids are {width} wide, the features {features.dim}: another kind, model or layer")
    described = features.describe()
    for key, value in centroids.features.items():
        if described.get(key) != value:
            raise ConfigError(f"the centroids were made with {key} {value}, these features have {described.get(key)}")
