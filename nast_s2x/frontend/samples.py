"""Samples in memory: mono, float32, in -1..1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nast_s2x.errors import AudioError

SAMPLE_RATE = 16000
"""Sample rate of the models, Hz."""
NUM_BINS = 80
"""Mel bins of a feature frame."""
WINDOW_SAMPLES = 400
"""Samples of a feature frame at 16 kHz: 25 ms."""
LOWEST_RATE, HIGHEST_RATE = 4000, 768_000
"""Sample rates that are accepted, Hz."""
LOUDEST = 1e4
"""Largest accepted absolute value of a float sample; full scale is 1, and larger values have a wrong scale."""

# Zero and full scale of the integer formats that sound cards and wav readers deliver.
_PCM = {
    np.dtype(np.uint8): (128.0, 2.0**7),
    np.dtype(np.int8): (0.0, 2.0**7),
    np.dtype(np.int16): (0.0, 2.0**15),
    np.dtype(np.int32): (0.0, 2.0**31),
}


def as_mono(samples: ArrayLike) -> NDArray[np.float32]:
    """Convert samples to mono float32.

    Args:
        samples: (n,) or (n, channels), numpy, torch on CPU or list of numbers. Floating point types are taken as they
            are; int8, int16, int32 and uint8 (zero at 128, as in WAV files) are PCM and are scaled to -1..1. Channels
            are averaged.

    Returns:
        (n,) float32, contiguous.

    Raises:
        AudioError: another type or shape, or values that are not finite or exceed :data:`LOUDEST`.
    """
    array = _as_array(samples)
    zero, scale = _PCM.get(array.dtype, (0.0, 1.0))
    array = array.astype(np.float32)
    if scale != 1.0:
        array = (array - np.float32(zero)) / np.float32(scale)
    if array.ndim == 2 and array.shape[1] > 0:
        array = array[:, 0] if array.shape[1] == 1 else array.mean(axis=1, dtype=np.float32)
    if array.ndim != 1:
        raise AudioError(f"samples must have shape (n,) or (n, channels), not {tuple(np.shape(samples))}")
    # One pass over the samples for both rules: a comparison with NaN is false.
    if not len(array) or (array.min() >= -LOUDEST and array.max() <= LOUDEST):
        return np.ascontiguousarray(array)
    if not np.isfinite(array).all():
        raise AudioError("samples must be finite numbers, but some are NaN or infinite")
    raise AudioError(f"float samples must be in -1..1, but some exceed {LOUDEST:g}: divide them by full scale")


def _as_array(samples: ArrayLike) -> NDArray[Any]:
    try:
        array = np.asarray(samples)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError(f"samples must be an array of numbers, not {type(samples).__name__} ({error})") from None
    if isinstance(samples, list | tuple) and array.dtype == np.int64:
        array = array.astype(np.float64)  # a list of whole Python numbers is not PCM
    if array.dtype.kind != "f" and array.dtype not in _PCM:
        raise AudioError(f"samples must be floating point or int8, int16, int32 or uint8, not {array.dtype}")
    return array


def check_sample_rate(rate: Any) -> int:
    """Return ``rate`` as an int.

    Raises:
        AudioError: not a whole number of Hz from 4000 to 768000.
    """
    whole = isinstance(rate, int | np.integer) or (isinstance(rate, float) and rate.is_integer())
    if isinstance(rate, bool) or not whole or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"a sample rate must be a whole number of Hz from {LOWEST_RATE} to {HIGHEST_RATE}, but is {rate!r}"
        )
    return int(rate)
