"""Padded batches whose lengths are known on the host, so that no shape or mask is read back from a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Lengths:
    """Lengths of the rows of a padded batch.

    Attributes:
        host: one Python int per row, from 0.

    Example:
        >>> Lengths((3, 1)).mask(4)
        tensor([[ True,  True,  True, False],
                [ True, False, False, False]])
    """

    host: tuple[int, ...]
    _tensors: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, values: Iterable[int]) -> Lengths:
        """Lengths from any integers on the host."""
        return cls(tuple(int(value) for value in values))

    def __len__(self) -> int:
        return len(self.host)

    @property
    def longest(self) -> int:
        """The largest length, 0 for an empty batch."""
        return max(self.host, default=0)

    @property
    def total(self) -> int:
        """Sum of the lengths."""
        return sum(self.host)

    def on(self, device: torch.device | str) -> Tensor:
        """(B,) int64 on ``device``, copied there once, without waiting for the device."""
        device = torch.device(device)
        if device not in self._tensors:
            values = torch.tensor(self.host, dtype=torch.long)
            if device.type == "cuda":
                values = values.pin_memory().to(device, non_blocking=True)
            self._tensors[device] = values.to(device)
        return self._tensors[device]

    def mask(self, size: int | None = None, device: torch.device | str = "cpu") -> Tensor:
        """(B, size) bool, True = valid; ``size`` is the longest length by default."""
        size = self.longest if size is None else size
        return torch.arange(size, device=device) < self.on(device)[:, None]

    def map(self, function: Callable[[int], int]) -> Lengths:
        """Lengths with ``function`` (int -> int) applied to each."""
        return Lengths(tuple(function(value) for value in self.host))


Glancer = Callable[[Tensor, Lengths], tuple[Tensor, Tensor]]
"""logits (B, N, V), valid slots -> labels (B, N) to show and mask (B, N), True = show the label at this slot."""


@dataclass(frozen=True)
class SpeechBatch:
    """Features of several recordings.

    Attributes:
        fbank: (B, F, bins), zero past the end of a row.
        frames: valid feature frames of each row.
    """

    fbank: Tensor
    frames: Lengths


@dataclass(frozen=True)
class TargetBatch:
    """Labels of a batch for one loss; rows without a target have length 0.

    Everything that decides a shape or a branch in a loss or an alignment is available on the host.

    Attributes:
        labels: (B, L) int64, padded.
        lengths: valid labels of each row.
        needed: slots that each row needs at least: its labels, and a blank between equal neighbours.
        bigrams: (B, max(L - 1, 0)) int64: how often the pair of labels l and l + 1 occurs in the row, at its first
            occurrence; 0 at later ones and for pairs that touch padding.
    """

    labels: Tensor
    lengths: Lengths
    needed: Lengths
    bigrams: Tensor

    @classmethod
    def of(cls, labels: Tensor, lengths: Lengths, pad: int = 1) -> TargetBatch:
        """The batch of padded labels (B, L) on the host.

        Args:
            lengths: valid labels of each row; entries past them are ignored.
            pad: the padding label; pairs with it are not counted as bigrams.
        Raises:
            ValueError: lengths that do not fit the labels.
        """
        if labels.dim() != 2 or len(lengths) != labels.size(0) or lengths.longest > labels.size(1):
            raise ValueError(f"lengths {lengths.host} do not belong to labels of shape {tuple(labels.shape)}")
        table = labels.numpy()
        valid = np.arange(table.shape[1]) < np.array(lengths.host, dtype=np.int64)[:, None]
        pairs = valid[:, 1:] & valid[:, :-1]
        repeats = ((table[:, 1:] == table[:, :-1]) & pairs).sum(1)
        needed = Lengths.of(np.array(lengths.host, dtype=np.int64) + repeats)
        return cls(labels, lengths, needed, torch.from_numpy(_bigram_counts(table, pairs & _unpadded(table, pad))))

    @classmethod
    def pad(cls, rows: Sequence[np.ndarray | Sequence[int] | None], pad: int = 1) -> TargetBatch:
        """The batch of rows of labels, ``None`` for a row without a target."""
        lengths = Lengths.of(0 if row is None else len(row) for row in rows)
        table = np.full((len(rows), lengths.longest), pad, dtype=np.int64)
        for row, line in zip(rows, table, strict=True):
            if row is not None:
                line[: len(row)] = row
        return cls.of(torch.from_numpy(table), lengths, pad)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TargetBatch:
        """The inverse of :meth:`to_dict`; the tensors may have been moved to another device."""
        lengths, needed = Lengths(tuple(values["lengths"])), Lengths(tuple(values["needed"]))
        return cls(values["labels"], lengths, needed, values["bigrams"])

    def to_dict(self) -> dict[str, Any]:
        """Tensors and tuples of int, which fairseq can move to a device."""
        host = {"lengths": self.lengths.host, "needed": self.needed.host}
        return {"labels": self.labels, "bigrams": self.bigrams, **host}

    def to(self, device: torch.device | str) -> TargetBatch:
        """The batch on another device."""
        labels, bigrams = self.labels.to(device, non_blocking=True), self.bigrams.to(device, non_blocking=True)
        return TargetBatch(labels, self.lengths, self.needed, bigrams)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def count(self) -> int:
        """Number of rows that have a target."""
        return sum(length > 0 for length in self.lengths.host)

    @property
    def given(self) -> Lengths:
        """Per row: 1 with a target, 0 without."""
        return self.lengths.map(lambda length: min(length, 1))

    def fits(self, slots: Lengths) -> tuple[bool, ...]:
        """Per row: True if its labels can be aligned to ``slots`` slots."""
        return tuple(size >= needed for size, needed in zip(slots.host, self.needed.host, strict=True))


def _unpadded(table: np.ndarray, pad: int) -> np.ndarray:
    return np.asarray((table[:, 1:] != pad) & (table[:, :-1] != pad))


def _bigram_counts(table: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """labels (B, L), valid pairs (B, L - 1) -> (B, L - 1), see :class:`TargetBatch`."""
    counts = np.zeros(pairs.shape, dtype=np.int64)
    if pairs.any():
        base = int(table.max()) + 1
        row = np.arange(len(table))[:, None]
        codes = ((row * base + table[:, :-1]) * base + table[:, 1:])[pairs]
        _, first, number = np.unique(codes, return_index=True, return_counts=True)
        found = np.zeros(len(codes), dtype=np.int64)
        found[first] = number
        counts[pairs] = found
    return counts


@dataclass(frozen=True)
class TrainingBatch:
    """Input of one training step.

    Attributes:
        speech: features of the source speech.
        source, text, units: labels of the transcripts (for the recognition loss), of the text decoder and of the unit
            decoder; ``None`` where no row has any.
    """

    speech: SpeechBatch
    source: TargetBatch | None
    text: TargetBatch | None
    units: TargetBatch | None
