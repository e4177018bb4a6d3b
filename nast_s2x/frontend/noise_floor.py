"""A noise floor and a band limit on log-mel features, which make empty bands and digital silence harmless.

A recording of 8 kHz has almost nothing above 4 kHz. The same sound in a 16-bit file of 16 kHz has rounding noise there,
whose log-mel energies differ by several standard deviations, and a network that was trained on one fails on the other.
White noise of a fixed level, added to the energies in expectation, hides both. It is a function of each frame alone, so
streams and whole utterances stay equal, and nothing random is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nast_s2x.errors import ConfigError
from nast_s2x.frontend.samples import NUM_BINS, SAMPLE_RATE, WINDOW_SAMPLES

NOISE_FLOOR_DB = -80.0
"""Level of the noise in dB below full scale: 20 dB above the rounding noise of 16-bit samples."""
EMPTY = float(np.log(np.finfo(np.float32).eps))
"""Log-mel energy of silence, -15.94."""
_SHARE = 0.9
"""Resampled recordings fall off from here to their Nyquist frequency, as a share of it; these bins are left out."""
_LOWEST = 20.0  # Hz, of the filter bank
_FFT = 512


def noise_floor(level_db: float) -> NDArray[np.float32]:
    """Log-mel energies of white noise, (80,) float32, in expectation.

    The energy of a bin is the sum over FFT bins of filter x |1 - 0.97 exp(-i w)|^2 x sum of the squared window x
    variance, with samples on the scale of 16-bit integers as in :mod:`nast_s2x.frontend.fbank`.

    Args:
        level_db: root mean square of the noise in dB, 0 is full scale.

    Raises:
        ConfigError: a level that is not in -120..-20.
    """
    if not -120.0 <= level_db <= -20.0:
        raise ConfigError(f"the noise floor must be in -120..-20 dB, but is {level_db:g}")
    place = np.arange(WINDOW_SAMPLES) * 2 * np.pi / (WINDOW_SAMPLES - 1)
    window = (0.5 - 0.5 * np.cos(place)) ** 0.85  # povey window
    angle = 2 * np.pi * np.arange(_FFT // 2) / _FFT
    emphasis = np.abs(1 - 0.97 * np.exp(-1j * angle)) ** 2
    variance = (32768.0 * 10 ** (level_db / 20)) ** 2
    energies = _filters() @ (emphasis * (window**2).sum() * variance)
    floor: NDArray[np.float32] = np.log(energies).astype(np.float32)
    return floor


def bins_below(frequency: float) -> int:
    """Number of bins that a recording of twice this sample rate fills: upper edge below 0.9 x ``frequency`` (Hz)."""
    edges = _edges()[2:]
    return int((edges <= _SHARE * frequency).sum()) if frequency < SAMPLE_RATE / 2 else NUM_BINS


@dataclass(frozen=True)
class Narrowband:
    """Training augmentation: a share of the utterances loses everything above a frequency, as in telephone speech.

    Attributes:
        hz: highest frequency that stays.
        share: of the utterances, 0..1.
    Raises:
        ConfigError: a frequency that is not positive, or another share.
    """

    hz: float = 4000.0
    share: float = 0.3

    def __post_init__(self) -> None:
        if not (self.hz > 0 and 0 <= self.share <= 1):
            raise ConfigError(f"narrowband: hz must be positive and share in 0..1, not {self.hz:g} and {self.share:g}")

    def __call__(self, features: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Features (F, 80) without normalisation, limited or as they are; the generator decides."""
        if rng.random() >= self.share:
            return features
        limited = features.copy()
        limited[:, bins_below(self.hz) :] = EMPTY
        return limited


def _edges() -> NDArray[np.float64]:
    """Frequencies of the 82 corners of the triangular filters, Hz."""
    low, high = (1127.0 * np.log1p(value / 700.0) for value in (_LOWEST, SAMPLE_RATE / 2))
    return 700.0 * np.expm1(np.linspace(low, high, NUM_BINS + 2) / 1127.0)


@cache
def _filters() -> NDArray[np.float64]:
    """Triangular filters on the mel scale, (80, 256)."""
    mel = 1127.0 * np.log1p(np.arange(_FFT // 2) * SAMPLE_RATE / _FFT / 700.0)
    corners = 1127.0 * np.log1p(_edges() / 700.0)
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (mel - left) / (centre - left), (right - mel) / (right - centre)
    return np.clip(np.minimum(rising, falling), 0.0, None)
