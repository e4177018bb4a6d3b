"""SpecAugment (Park et al., 2019): masks over frequency bands and time spans, in training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nast_s2x.errors import ConfigError


@dataclass(frozen=True)
class SpecAugment:
    """Mask features to 0, which is their mean after CMVN; no time warping.

    Attributes:
        freq_masks: number of frequency masks.
        freq_width: widest frequency mask, in bins.
        time_masks: number of time masks.
        time_width: longest time mask, in frames.
        time_p: longest time mask as a share of the utterance.
    Raises:
        ConfigError: a negative number or width, or a share outside 0..1.
    """

    freq_masks: int = 1
    freq_width: int = 27
    time_masks: int = 1
    time_width: int = 100
    time_p: float = 1.0

    def __post_init__(self) -> None:
        for name in ("freq_masks", "freq_width", "time_masks", "time_width"):
            if getattr(self, name) < 0:
                raise ConfigError(f"SpecAugment {name} must not be negative: {getattr(self, name)}")
        if not 0 <= self.time_p <= 1:
            raise ConfigError(f"SpecAugment time_p must be in 0..1, not {self.time_p}")

    def __call__(self, features: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return a masked copy of features (F, bins); the same generator state gives the same masks."""
        masked = features.copy()
        frames, bins = masked.shape
        for _ in range(self.freq_masks):
            start, stop = _draw(rng, min(self.freq_width, bins), bins)
            masked[:, start:stop] = 0.0
        for _ in range(self.time_masks):
            start, stop = _draw(rng, min(self.time_width, int(frames * self.time_p)), frames)
            masked[start:stop] = 0.0
        return masked


def _draw(rng: np.random.Generator, widest: int, size: int) -> tuple[int, int]:
    width = int(rng.integers(0, widest, endpoint=True))
    start = int(rng.integers(0, size - width, endpoint=True))
    return start, start + width
