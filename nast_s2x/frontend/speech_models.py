"""Input of self-supervised speech models (wav2vec 2.0, HuBERT): normalised samples, samples per frame."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

VARIANCE_FLOOR = 1e-7
"""Added to the variance before its root is taken, as the library transformers does."""
FAIRSEQ_VARIANCE_FLOOR = 1e-5
"""The same in fairseq, which normalises samples by ``layer_norm``."""


def normalize_samples(samples: NDArray[np.float32], variance_floor: float = VARIANCE_FLOOR) -> NDArray[np.float32]:
    """Shift and scale samples (n,) to zero mean and unit variance over the whole recording, in float64."""
    if not len(samples):
        return samples
    mean, variance = samples.mean(dtype=np.float64), samples.var(dtype=np.float64)
    return np.asarray((samples - mean) / np.sqrt(variance + variance_floor), dtype=np.float32)


def frame_samples(convolutions: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Receptive field and stride of a stack of convolutions, in samples.

    Args:
        convolutions: (kernel, stride) of each layer, from the input on; without padding.

    Example:
        >>> frame_samples([(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)])
        (400, 320)
    """
    samples, total = 1, 1
    for kernel, stride in reversed(list(convolutions)):
        samples = (samples - 1) * stride + kernel
        total *= stride
    return samples, total
