"""Training samples of several rows, one after the other: longer sources than the rows of a corpus."""

from __future__ import annotations

import numpy as np

from nast_s2x.chunking import Axis, SlotRates


class JoinedRows:
    """Which rows each training sample of an epoch is made of; the same in every process.

    Sample i begins with row i. How many rows it has is drawn evenly from 1 to ``most``, and the other rows are drawn
    from all of them. Rows that would make it too long, or leave too few slots for its labels, are not added, and rows
    with and without units do not mix.

    Args:
        frames: (rows,) feature frames of each row.
        text, units: (rows,) slots that the labels of each row need.
        most: rows of a sample at most; 1: every row alone.
        max_frames: longest sample.
        rates: slot rates of the model.
        seed: of the draws, with the epoch.
    """

    def __init__(
        self,
        frames: np.ndarray,
        text: np.ndarray,
        units: np.ndarray,
        most: int,
        max_frames: int,
        rates: SlotRates,
        seed: int,
    ) -> None:
        self.most, self._seed, self._epoch = most, seed, -1
        self._alone = frames
        self._needs: dict[Axis, np.ndarray] = {"text": text, "unit": units}
        self._max_frames, self._rates = max_frames, rates
        self._frames = frames
        self._partners = np.full((len(frames), 0), -1)

    def frames(self, epoch: int) -> np.ndarray:
        """(rows,) feature frames of each sample in ``epoch``."""
        self._draw(epoch)
        return self._frames

    def rows(self, index: int, epoch: int) -> list[int]:
        """Rows of sample ``index`` in ``epoch``, in their order."""
        self._draw(epoch)
        return [index, *(int(row) for row in self._partners[index] if row >= 0)]

    def _draw(self, epoch: int) -> None:
        if self.most == 1 or epoch == self._epoch:
            return
        count, generator = len(self._alone), np.random.default_rng((self._seed, epoch))
        wanted = generator.integers(1, self.most + 1, count)
        partners = np.full((count, self.most - 1), -1, dtype=np.int64)
        frames, needs = self._alone, dict(self._needs)
        for place in range(self.most - 1):
            drawn = generator.integers(0, count, count)
            longer = frames + self._alone[drawn]
            # One more slot: the labels at the seam may be equal, and then need a blank between them.
            joined = {axis: needs[axis] + self._needs[axis][drawn] + 1 for axis in needs}
            fits = (wanted > place + 1) & (longer <= self._max_frames)
            fits &= (self._needs["unit"] > 0) == (self._needs["unit"][drawn] > 0)
            for axis, need in joined.items():
                fits &= need <= self._rates.length(axis, longer)
            partners[:, place] = np.where(fits, drawn, -1)
            frames = np.where(fits, longer, frames)
            needs = {axis: np.where(fits, joined[axis], needs[axis]) for axis in needs}
        self._partners, self._frames, self._epoch = partners, frames, epoch


def join_labels(rows: list[np.ndarray | None]) -> np.ndarray | None:
    """Labels (L,) with ``<s>`` and ``</s>`` of several rows as those of one; ``None`` if one of them has none."""
    present = [row for row in rows if row is not None]
    if len(present) < len(rows):
        return None
    if len(present) == 1:
        return present[0]
    ends = len(present) - 1
    return np.concatenate([row[(n > 0) : len(row) - (n < ends)] for n, row in enumerate(present)])
