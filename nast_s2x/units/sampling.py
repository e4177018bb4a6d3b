"""Feature vectors of a random part of the recordings, for fitting centroids."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nast_s2x.units.backends import BackEnd
from nast_s2x.units.features import UnitFeatures
from nast_s2x.units.fit import sample_order, take_frames
from nast_s2x.units.recordings import Listed, Windows
from nast_s2x.units.workers import ordered_map


@dataclass
class _Worker:
    features: UnitFeatures
    windows: Windows


_worker: _Worker | None = None


def _start(back_end: BackEnd, windows: Windows) -> None:
    global _worker
    _worker = _Worker(back_end.build(), windows)


def _vectors(audio: str) -> NDArray[np.float32] | str:
    assert _worker is not None
    try:
        return _worker.windows.features(_worker.features, audio)
    except (ValueError, OSError) as error:
        return str(error)


def sample_vectors(
    listed: Sequence[Listed],
    back_end: BackEnd,
    max_frames: int,
    seed: int = 1,
    windows: Windows | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> tuple[NDArray[np.float32], list[tuple[int, str]]]:
    """Features of recordings in the order of :func:`~nast_s2x.units.fit.sample_order`, until there are enough.

    Args:
        listed: the recordings.
        back_end: which features.
        max_frames: unit frames to take; fewer if there are no more.
        seed: of the order.
        windows: of long recordings.
        jobs: processes; the result does not depend on them.

    Returns:
        vectors (n, D), and line and reason of each bad recording met on the way.

    Raises:
        ValueError: no usable recording; says why.
    """
    if max_frames < 1:
        raise ValueError(f"max_frames must be at least 1, not {max_frames}")
    order = sample_order(len(listed), seed)
    problems: list[tuple[int, str]] = []

    def tables() -> Iterator[NDArray[np.float32]]:
        audio = (listed[index].audio for index in order)
        work = ordered_map(_vectors, audio, jobs, _start, (back_end, windows or Windows()))
        bar = tqdm(total=max_frames, desc="features", unit="frame", disable=not progress)
        with contextlib.closing(work) as results, bar:
            for index, result in zip(order, results):
                if isinstance(result, str):
                    problems.append((listed[index].line, result))
                else:
                    bar.update(min(len(result), max_frames - bar.n))
                    yield result

    try:
        stream = tables()
        vectors = take_frames(stream, max_frames)
        stream.close()
    except ValueError as error:
        why = f"; the first of them: {problems[0][1]}" if problems else ""
        raise ValueError(f"none of {len(listed)} recordings is usable{why}" if problems else str(error)) from error
    return vectors, sorted(problems)
