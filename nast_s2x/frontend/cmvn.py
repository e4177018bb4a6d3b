"""Global mean and variance normalisation: noise floor, band limit, statistics of the training set."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from nast_s2x.arrays import read_npz
from nast_s2x.errors import NastError
from nast_s2x.files import open_atomic
from nast_s2x.frontend.noise_floor import bins_below

Features = TypeVar("Features", NDArray[np.float32], torch.Tensor)

# Floor of the variance, for bins that never vary.
_MINIMUM_VARIANCE = 1e-8


class GlobalCmvn:
    """``(x - mean) / std`` for each of the feature bins, after a noise floor where there is one.

    Args:
        mean: (bins,) mean of the training features.
        std: (bins,) their standard deviation, positive.
        floor: (bins,) log energies of noise that is added to the features, see
            :func:`~nast_s2x.frontend.noise_floor.noise_floor`; None (released models) adds none.
        band_hz: highest frequency of the training recordings; bins above it are set to the floor. None: no limit.
    Raises:
        NastError: vectors of different sizes, values that are not finite, a standard deviation of 0 or less, or a band
            limit without a floor.
    """

    def __init__(
        self, mean: ArrayLike, std: ArrayLike, floor: ArrayLike | None = None, band_hz: float | None = None
    ) -> None:
        self.mean = np.array(mean, dtype=np.float32)
        self.std = np.array(std, dtype=np.float32)
        self.floor = None if floor is None else np.array(floor, dtype=np.float32)
        self.band_hz = band_hz
        vectors = [self.mean, self.std, *([] if self.floor is None else [self.floor])]
        if self.mean.ndim != 1 or any(vector.shape != self.mean.shape for vector in vectors):
            shapes = ", ".join(str(vector.shape) for vector in vectors)
            raise NastError(f"CMVN mean, std and floor must be vectors of one size, not {shapes}")
        if not (all(np.isfinite(vector).all() for vector in vectors) and (self.std > 0).all()):
            raise NastError("CMVN statistics must be finite and every std positive")
        if band_hz is not None and (self.floor is None or not band_hz > 0):
            raise NastError(f"a band limit must be positive and needs a noise floor, but is {band_hz}")

    def __call__(self, features: Features) -> Features:
        """Normalise features (..., bins), numpy or torch, into a new array of the same kind.

        Raises:
            NastError: features with another number of bins.
        """
        if features.shape[-1] != len(self.mean):
            raise NastError(f"features have {features.shape[-1]} bins, the CMVN statistics {len(self.mean)}")
        if isinstance(features, torch.Tensor):
            mean, std = (torch.from_numpy(value).to(features) for value in (self.mean, self.std))
            if self.floor is not None:
                floor = torch.from_numpy(self.floor).to(features)
                features = torch.logaddexp(features, floor)
                features[..., self.filled :] = floor[self.filled :]
            return (features - mean) / std
        if self.floor is not None:
            features = np.logaddexp(features, self.floor)
            features[..., self.filled :] = self.floor[self.filled :]
        return ((features - self.mean) / self.std).astype(np.float32, copy=False)

    @property
    def filled(self) -> int:
        """Number of bins below the band limit."""
        return len(self.mean) if self.band_hz is None else bins_below(self.band_hz)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GlobalCmvn:
        """Load a ``.npz`` with ``mean``, ``std`` and, where there is a noise floor, ``floor`` and ``band_hz``.

        Raises:
            FileNotFoundError: no such file.
            NastError: not such a file, or unusable statistics; names the file.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such CMVN file")
        try:
            arrays = read_npz(path)
            missing = [name for name in ("mean", "std") if name not in arrays]
            if missing:
                raise NastError(f"it holds no array called {missing[0]}")
            band = arrays.get("band_hz")
            if band is not None and band.size != 1:
                raise NastError(f"`band_hz` must be one number, but has shape {band.shape}")
            return cls(arrays["mean"], arrays["std"], arrays.get("floor"), None if band is None else float(band.item()))
        except (NastError, OSError) as error:
            raise NastError(f"{path}: not a CMVN file ({error})") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what :meth:`load` reads, the same bytes for the same statistics; after an error, what was at ``path``
        is unchanged."""
        arrays = {"mean": self.mean, "std": self.std, "floor": self.floor, "band_hz": self.band_hz}
        with open_atomic(path, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for name, value in arrays.items():
                if value is not None:
                    content = io.BytesIO()
                    np.save(content, np.asarray(value, dtype=np.float32), allow_pickle=False)
                    archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())  # without the time of day


class CmvnAccumulator:
    """Computes the statistics from sums of features and of their squares, in float64.

    Args:
        bins: width of a frame.
        floor: noise floor that is added to the features first, or None.
    """

    def __init__(self, bins: int = 80, floor: NDArray[np.float32] | None = None) -> None:
        self.frames = 0
        self.floor = floor
        self.sums = np.zeros((2, bins), dtype=np.float64)

    def add(self, features: NDArray[np.float32] | torch.Tensor) -> CmvnAccumulator:
        """Add features (frames, bins)."""
        values = np.asarray(features, dtype=np.float64)
        if self.floor is not None:
            values = np.logaddexp(values, self.floor)
        return self.add_sums(len(values), np.stack([values.sum(axis=0), np.square(values).sum(axis=0)]))

    def add_sums(self, frames: int, sums: ArrayLike) -> CmvnAccumulator:
        """Add the number of frames and the (2, bins) sums of another accumulator."""
        self.frames += frames
        self.sums += np.asarray(sums, dtype=np.float64)
        return self

    def result(self, band_hz: float | None = None) -> GlobalCmvn:
        """The statistics of everything added (population variance).

        Args:
            band_hz: band limit of the training recordings, see :class:`GlobalCmvn`.

        Raises:
            NastError: no frames were added.
        """
        if self.frames == 0:
            raise NastError("CMVN needs at least one frame of features")
        mean, square = self.sums / self.frames
        std = np.sqrt(np.maximum(square - mean**2, _MINIMUM_VARIANCE))
        if band_hz is not None and self.floor is not None:
            above = bins_below(band_hz)
            mean[above:], std[above:] = self.floor[above:], 1.0  # constant there: 0 after normalisation
        return GlobalCmvn(mean, std, self.floor, band_hz)
