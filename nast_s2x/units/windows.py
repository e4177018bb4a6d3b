"""Features of long recordings, window by window, without a seam and in bounded memory."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.units.features import UNIT_SAMPLES, UnitFeatures

WINDOW_SECONDS = 30.0
OVERLAP_SECONDS = 2.0


def window_frames(features: UnitFeatures, window_seconds: float, overlap_seconds: float) -> tuple[int, int]:
    """Frames of a window's centre, and of the overlap on each side; see :func:`windowed`.

    Raises:
        ValueError: a window that holds nothing but its overlaps.
    """
    if not (math.isfinite(window_seconds) and math.isfinite(overlap_seconds)):
        raise ValueError(f"lengths of windows must be numbers of seconds, not {window_seconds} and {overlap_seconds}")
    if features.context_samples is None:
        overlap = round(overlap_seconds * SAMPLE_RATE / UNIT_SAMPLES)
    else:
        overlap = -(-features.context_samples // UNIT_SAMPLES)
    step = round(window_seconds * SAMPLE_RATE / UNIT_SAMPLES) - 2 * overlap
    if overlap < 1 or step < 1:
        raise ValueError(
            f"windows of {window_seconds} s leave nothing between overlaps of {overlap} frames of 20 ms (at least 1)"
        )
    return step, overlap


def windowed(
    features: UnitFeatures,
    samples: NDArray[np.float32],
    window_seconds: float = WINDOW_SECONDS,
    overlap_seconds: float = OVERLAP_SECONDS,
) -> NDArray[np.float32]:
    """Features of a recording of any length.

    A recording of up to a window is computed at once. A longer one is cut into windows of equal length; each also sees
    its neighbours' samples on both sides and only the frames of its centre are kept. Where a frame depends on nearby
    samples alone (``context_samples``) that is exactly what the whole recording gives; elsewhere (transformers, which
    see everything) it is what a window of this length gives, with at least the overlap seen on both sides.

    Args:
        features: the back end.
        samples: (n,) at 16 kHz.
        window_seconds: the longest stretch that the back end computes at once, overlaps included.
        overlap_seconds: seen and not kept on each side; back ends with a known context take that instead.

    Returns:
        (unit frames, D), as many as the whole recording gives.

    Raises:
        ValueError: a window that holds nothing but its overlaps.
    """
    step, overlap = window_frames(features, window_seconds, overlap_seconds)
    local = getattr(features, "frames", features)
    project = getattr(features, "project", None)
    # Zero mean and unit variance belong to the recording, not to a window.
    samples = features.normalized(samples) if hasattr(features, "normalized") else samples
    tables = [local(samples[start:stop])[first:last] for start, stop, first, last in _cuts(len(samples), step, overlap)]
    table = np.concatenate(tables)
    return table if project is None else project(table)


def _cuts(num_samples: int, step: int, overlap: int) -> list[tuple[int, int | None, int, int | None]]:
    """Windows of a recording: (first sample, last + 1, first frame kept, last + 1), ``None`` = to the end."""
    total = num_samples // UNIT_SAMPLES
    if total <= step + 2 * overlap:
        return [(0, None, 0, None)]
    count = -(-total // step)
    borders = [total * i // count for i in range(count + 1)]
    cuts: list[tuple[int, int | None, int, int | None]] = []
    for begin, end in zip(borders, borders[1:]):
        start = max(0, begin - overlap)
        stop, last = (end + overlap) * UNIT_SAMPLES, end - start
        is_last = end == total
        cuts.append((start * UNIT_SAMPLES, None if is_last else stop, begin - start, None if is_last else last))
    return cuts
