"""Features that units are clusters of: one small interface, 50 vectors a second for every back end.

The back ends here need nothing beyond the package. Those of self-supervised models are in
:mod:`nast_s2x.units.speech_models.huggingface`.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nast_s2x.frontend.fbank import NUM_BINS, fbank
from nast_s2x.frontend.samples import SAMPLE_RATE

UNIT_SAMPLES = SAMPLE_RATE // 50
"""Samples of a unit frame: 20 ms."""


class UnitFeatures(Protocol):
    """What every back end offers.

    Attributes:
        dim: width D of a feature vector.
        context_samples: samples on each side of a unit frame that can change its vector; windows of long recordings
            overlap by at least this much. ``None`` where it has no limit.
    """

    dim: int
    context_samples: int | None

    def describe(self) -> dict[str, Any]:
        """Settings that the units depend on, as plain values: back end, layer, size, ..."""
        ...

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Samples (n,) at 16 kHz -> (unit frames, D), 20 ms each, vector u of samples from 320 u on."""
        ...


class MelSpectrogram:
    """Log-mel energies: mean of the two 10 ms filterbank frames of a unit frame.

    n samples give floor((n - 240) / 320) unit frames, 0 below 560.
    """

    name = "logmel"
    context_samples = UNIT_SAMPLES  # a window of 25 ms reaches 240 samples past its unit frame
    dim = NUM_BINS

    def describe(self) -> dict[str, Any]:
        """See :class:`UnitFeatures`."""
        return {"features": self.name, "bins": NUM_BINS}

    def frames(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The energies: samples (n,) -> (unit frames, 80); each depends on its own samples alone, bit by bit."""
        frames = fbank(samples).numpy()
        count = len(frames) // 2
        return frames[: 2 * count].reshape(count, 2, NUM_BINS).mean(axis=1)

    def project(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """From energies (unit frames, 80) to features; of a whole recording, since rounding depends on the shape."""
        return frames

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :class:`UnitFeatures`."""
        return self.project(self.frames(samples))


class Mfcc(MelSpectrogram):
    """Mel-frequency cepstra of :class:`MelSpectrogram`'s energies, the loudness (coefficient 0) scaled down.

    Args:
        coefficients: cepstral coefficients kept, from 0 on; fewer follow the voice's timbre less closely.
        loudness: weight of coefficient 0 among the others in the distance between frames.
    """

    name = "mfcc"

    def __init__(self, coefficients: int = 20, loudness: float = 0.5) -> None:
        if not 1 <= coefficients <= NUM_BINS:
            raise ValueError(f"mfcc keeps 1 to {NUM_BINS} coefficients, not {coefficients}")
        self.dim, self.loudness = coefficients, loudness
        # Orthonormal DCT-II: row k is cos(pi k (bin + 1/2) / bins).
        angle = np.outer(np.arange(coefficients), np.arange(NUM_BINS) + 0.5) * (math.pi / NUM_BINS)
        basis = np.cos(angle) * math.sqrt(2 / NUM_BINS)
        basis[0] *= loudness * math.sqrt(0.5)
        self._basis = basis.T.astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """See :class:`UnitFeatures`."""
        return {"features": self.name, "coefficients": self.dim, "loudness": self.loudness}

    def project(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :class:`MelSpectrogram`."""
        return frames @ self._basis
