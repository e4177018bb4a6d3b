"""Keys and values of a stream, append-only, in buffers that grow by doubling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class KeyValueCache:
    """Projected keys and values of the final positions of one attention layer.

    Buffers are (B, H, capacity, head size) and double when full, so that appending costs constant time a position;
    concatenating per chunk would copy the whole past at every chunk.
    """

    keys: Tensor | None = None
    values: Tensor | None = None
    length: int = 0

    def extend(self, keys: Tensor, values: Tensor, keep: int | None = None) -> tuple[Tensor, Tensor]:
        """Append (B, H, n, head size) and return views of the past and the new ones together.

        Only the first ``keep`` new positions stay (default all). Those behind them, look-ahead copies, are returned
        once and overwritten by the next call.
        """
        stop = self.length + keys.size(2)
        if self.keys is None or self.values is None or stop > self.keys.size(2):
            self._grow(keys, stop)
        assert self.keys is not None and self.values is not None
        self.keys[:, :, self.length : stop] = keys
        self.values[:, :, self.length : stop] = values
        self.length += keys.size(2) if keep is None else keep
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    def _grow(self, like: Tensor, needed: int) -> None:
        capacity = 64 if self.keys is None else self.keys.size(2)
        while capacity < needed:
            capacity *= 2
        shape = (like.size(0), like.size(1), capacity, like.size(3))
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = torch.empty(shape, dtype=like.dtype, device=like.device)
            if old is not None:
                new[:, :, : self.length] = old[:, :, : self.length]
            setattr(self, name, new)
