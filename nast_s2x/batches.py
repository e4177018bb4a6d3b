"""Padded batches whose lengths are known on the host, so that no shape or mask is read back from a device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

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
    def all_equal(self) -> bool:
        """True when no row is padded."""
        return len(set(self.host)) <= 1

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

    def map(self, function: Any) -> Lengths:
        """Lengths with ``function`` (int -> int) applied to each."""
        return Lengths(tuple(function(value) for value in self.host))


@dataclass(frozen=True)
class SpeechBatch:
    """Features of several recordings.

    Attributes:
        fbank: (B, F, bins), zero past the end of a row.
        frames: valid feature frames of each row.
    """

    fbank: Tensor
    frames: Lengths
