"""Global cepstral mean and variance normalisation: statistics of the training set, applied to every frame."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from nast_s2x.errors import NastError
from nast_s2x.files import open_atomic

Features = TypeVar("Features", NDArray[np.float32], torch.Tensor)

# Floor of the variance, for bins that never vary.
_MINIMUM_VARIANCE = 1e-8


class GlobalCmvn:
    """``(x - mean) / std`` for each of the feature bins.

    Args:
        mean: (bins,) mean of the training features.
        std: (bins,) their standard deviation, positive.
    Raises:
        NastError: vectors of different sizes, values that are not finite, or a standard deviation of 0 or less.
    """

    def __init__(self, mean: ArrayLike, std: ArrayLike) -> None:
        self.mean = np.asarray(mean, dtype=np.float32)
        self.std = np.asarray(std, dtype=np.float32)
        if self.mean.ndim != 1 or self.mean.shape != self.std.shape:
            raise NastError(f"CMVN mean and std must be vectors of one size, not {self.mean.shape}, {self.std.shape}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0).all()):
            raise NastError("CMVN statistics must be finite and every std positive")

    def __call__(self, features: Features) -> Features:
        """Normalise features (..., bins), numpy or torch, into a new array of the same kind.

        Raises:
            NastError: features with another number of bins.
        """
        if features.shape[-1] != len(self.mean):
            raise NastError(f"features have {features.shape[-1]} bins, the CMVN statistics {len(self.mean)}")
        if isinstance(features, torch.Tensor):
            mean, std = (torch.from_numpy(value).to(features) for value in (self.mean, self.std))
            return (features - mean) / std
        return ((features - self.mean) / self.std).astype(np.float32, copy=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GlobalCmvn:
        """Load a ``.npz`` with ``mean`` and ``std``.

        Raises:
            FileNotFoundError: no such file.
            NastError: not such a file, or unusable statistics; names the file.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such CMVN file")
        try:
            data = np.load(path, allow_pickle=False)
            if isinstance(data, np.ndarray):
                raise NastError("it holds one array, not `mean` and `std`")
            with data:
                return cls(data["mean"], data["std"])
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise NastError(f"{path}: not a CMVN file ({error})") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.npz`` with ``mean`` and ``std``; after an error, what was at ``path`` is unchanged."""
        with open_atomic(path, "wb") as file:
            np.savez(file, mean=self.mean, std=self.std)


class CmvnAccumulator:
    """Computes the statistics from sums of features and of their squares, in float64."""

    def __init__(self, bins: int = 80) -> None:
        self.frames = 0
        self.sums = np.zeros((2, bins), dtype=np.float64)

    def add(self, features: NDArray[np.float32] | torch.Tensor) -> CmvnAccumulator:
        """Add features (frames, bins)."""
        values = np.asarray(features, dtype=np.float64)
        return self.add_sums(len(values), np.stack([values.sum(axis=0), np.square(values).sum(axis=0)]))

    def add_sums(self, frames: int, sums: ArrayLike) -> CmvnAccumulator:
        """Add the number of frames and the (2, bins) sums of another accumulator."""
        self.frames += frames
        self.sums += np.asarray(sums, dtype=np.float64)
        return self

    def result(self) -> GlobalCmvn:
        """The statistics of everything added (population variance).

        Raises:
            NastError: no frames were added.
        """
        if self.frames == 0:
            raise NastError("CMVN needs at least one frame of features")
        mean, square = self.sums / self.frames
        return GlobalCmvn(mean, np.sqrt(np.maximum(square - mean**2, _MINIMUM_VARIANCE)))
