"""Convolutional subsampling of feature frames by four, and mean pooling of encoder frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nast_s2x.network.linear import Linear

WINDOW = 7
"""Feature frames under one encoder frame: 4t - 6 .. 4t."""
STRIDE = 4
LEFT_FRAMES = WINDOW - 1
"""Zero frames in front of the stream: all padding is on the left, so the convolution has no look-ahead."""


class ConvSubsampler(nn.Module):
    """Two 3x3 convolutions with stride 2 in time, then a projection: (B, F, bins) -> (B, ceil(F / 4), D).

    Encoder frame t needs feature frames up to 4t. In a stream, ``left`` holds the frames that the next windows still
    need, zeros at the start.
    """

    def __init__(self, bins: int, channels: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, channels, 3, stride=(2, 1), padding=(0, 1)),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=(2, 1), padding=(0, 1)),
            nn.ReLU(),
        )
        self.out_proj = Linear(channels * bins, dim)

    def forward(self, fbank: Tensor, left: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """New feature frames (B, F, bins) -> encoder inputs (B, S, D) and the ``left`` frames of the next call."""
        if left is None:
            left = fbank.new_zeros(fbank.size(0), LEFT_FRAMES, fbank.size(2))
        frames = torch.cat([left, fbank], dim=1)
        count = max(0, (frames.size(1) - WINDOW) // STRIDE + 1)
        rest = frames[:, STRIDE * count :]
        if count == 0:  # nothing complete: the convolution refuses fewer frames than its window
            return fbank.new_zeros(fbank.size(0), 0, self.out_proj.out_features), rest
        x = self.conv(frames.unsqueeze(1))  # (B, channels, S, bins)
        return self.out_proj(x.transpose(1, 2).flatten(2)), rest  # channel-major: (B, S, channels * bins)


def pool_frames(x: Tensor, pooling: int, valid: Tensor | None = None) -> Tensor:
    """Mean of each group of ``pooling`` frames over the valid ones: (B, S, D) -> (B, ceil(S / pooling), D).

    ``valid`` (B or 1, S), ``None``: all; a group without any is zero, with a zero gradient.
    """
    weight = x.new_ones(1, x.size(1)) if valid is None else valid.to(x.dtype)
    missing = -x.size(1) % pooling
    total = F.pad(x * weight[..., None], (0, 0, 0, missing)).unflatten(1, (-1, pooling)).sum(2)
    count = F.pad(weight, (0, missing)).unflatten(1, (-1, pooling)).sum(2)
    return total / count.clamp(min=1)[..., None]
