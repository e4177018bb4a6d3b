"""Layers of the generator: convolutions, residual blocks, duration predictor.

A convolution has a kernel around its output sample, or one that ends there (limited look-ahead). With a
:class:`VocoderState` it takes the next samples of a sequence and finds those before them in the state.

On CPUs and without gradients the convolutions work in channels-last order: in the memory of (B, C, T) the C values of
a sample are adjacent, and so are those of the weights (:func:`use_channels_last_weights`), so that a window of the
sequence needs no copy. Measured on one core against PyTorch's ``conv1d``, kernel 11: 256 channels, 195 samples: 2.9
against 4.9 ms; 128 channels, 520 samples: 1.5 against 2.9; 64 channels, 1800 samples: 1.2 against 2.3; 32 channels,
3500 samples: 0.8 against 1.2. A training step is slower in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nast_s2x.vocoder.config import DurationConfig

SLOPE = 0.1
_MANY_CHANNELS = 128
"""Input channels from which one matrix product per kernel position is faster than a library convolution."""


class VocoderState:
    """What a stream keeps of the generator: the last input samples of each convolution.

    The object is filled by :meth:`~nast_s2x.vocoder.network.UnitVocoder.forward`; a new stream is a new object.
    """

    def __init__(self) -> None:
        self._past: dict[nn.Module, Tensor] = {}

    def extend(self, layer: nn.Module, x: Tensor, size: int, right: int = 0) -> Tensor:
        """(B, C, T + right), the next T samples of a layer's input and some after them -> (B, C, size + T + right).

        The ``size`` samples before them are put in front: zeros at the beginning of a sequence.
        """
        if not size:
            return x
        rows = x.transpose(1, 2)  # in this order the samples of channels-last memory stay adjacent
        past = self._past.get(layer)
        if past is None:
            past = rows.new_zeros(rows.shape[0], size, rows.shape[2])
        rows = torch.cat([past, rows], dim=1)
        end = rows.shape[1] - right
        self._past[layer] = rows[:, end - size : end].clone()
        return rows.transpose(1, 2)

    @property
    def num_values(self) -> int:
        """Numbers that are kept."""
        return sum(past.numel() for past in self._past.values())


class Conv1d(nn.Conv1d):
    """:class:`torch.nn.Conv1d` with as many outputs as inputs that also computes windows of a sequence.

    Args:
        inputs, outputs, kernel, dilation: as in PyTorch.
        after: following samples that affect an output sample; by default half of the kernel, which must then be odd.

    Attributes:
        before, after: samples before and after an output sample that affect it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1, after: int | None = None) -> None:
        whole = dilation * (kernel - 1)
        self.after = whole // 2 if after is None else after
        self.before = whole - self.after
        padding = self.after if self.after == self.before else 0
        super().__init__(inputs, outputs, kernel, dilation=dilation, padding=padding)

    def forward(self, x: Tensor, left: int = 0, right: int = 0, state: VocoderState | None = None) -> Tensor:
        """(B, C, left + T + right) -> (B, C', T).

        ``left`` and ``right`` samples, at most :attr:`before` and :attr:`after`, are context; what is missing of these
        is zero, or before the samples what the state has.
        """
        if state is not None:
            x, left = state.extend(self, x, self.before, right), self.before
        zeros = self.before - left, self.after - right
        if _is_channels_last(x):
            return self._channels_last(x, zeros)
        if zeros == (self.padding[0], self.padding[0]):
            return super().forward(x)
        return F.conv1d(F.pad(x, zeros), self.weight, self.bias, dilation=self.dilation)

    def _channels_last(self, x: Tensor, zeros: tuple[int, int]) -> Tensor:
        weight = self.weight  # read once: with weight norm it is computed at each access
        if self.in_channels >= _MANY_CHANNELS:
            return self._products(x, weight, zeros)
        padding = zeros[0] if zeros[0] == zeros[1] else 0
        if zeros[0] != zeros[1]:
            x = F.pad(x.transpose(1, 2), (0, 0, *zeros)).transpose(1, 2)
        x, weight = _to_channels_last(x).unsqueeze(2), weight.unsqueeze(2)
        return F.conv2d(x, weight, self.bias, padding=(0, padding), dilation=(1, self.dilation[0])).squeeze(2)

    def _products(self, x: Tensor, weight: Tensor, zeros: tuple[int, int]) -> Tensor:
        """One matrix product per kernel position, summed in place."""
        rows = F.pad(x.transpose(1, 2), (0, 0, *zeros)) if any(zeros) else x.transpose(1, 2)
        size = rows.shape[1] - self.before - self.after
        out = rows.new_empty(rows.shape[0], size, self.out_channels)
        for sequence, result in zip(rows, out):
            shifted = [sequence[place * self.dilation[0] :][:size] for place in range(self.kernel_size[0])]
            torch.addmm(self.bias, shifted[0], weight[:, :, 0].t(), out=result)
            for place, part in enumerate(shifted[1:], start=1):
                result.addmm_(part, weight[:, :, place].t())
        return out.transpose(1, 2)


class ConvTranspose1d(nn.ConvTranspose1d):
    """:class:`torch.nn.ConvTranspose1d` that makes ``rate`` samples of each: (B, C, T) -> (B, C', rate * T).

    Args:
        inputs, outputs, kernel: as in PyTorch.
        rate: samples made of one.
        is_causal: a sample affects its own outputs and later ones only; else as many before as behind them.

    Attributes:
        before: samples before a sample that affect its outputs, for causal ones.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, rate: int, is_causal: bool = False) -> None:
        super().__init__(inputs, outputs, kernel, rate, padding=transposed_padding(kernel, rate, is_causal))
        self.before = -((rate - kernel) // rate) if is_causal else 0

    def forward(self, x: Tensor, state: VocoderState | None = None) -> Tensor:
        """(B, C, T) -> (B, C', rate * T)."""
        first, size = 0, x.shape[2] * self.stride[0]
        if state is not None:
            x, first = state.extend(self, x, self.before), self.before * self.stride[0]
        if not _is_channels_last(x):
            return super().forward(x)[..., first : first + size]
        stride, padding = (1, self.stride[0]), (0, self.padding[0])
        x, weight = _to_channels_last(x).unsqueeze(2), self.weight.unsqueeze(2)
        return F.conv_transpose2d(x, weight, self.bias, stride, padding).squeeze(2)[..., first : first + size]


def transposed_padding(kernel: int, rate: int, is_causal: bool) -> int:
    """Outputs of a sample that lie before ``rate`` times its index; kernel - rate less these lie behind its own."""
    return 0 if is_causal else (kernel - rate) // 2


class ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair with a residual connection.

    Args:
        channels, kernel: of all convolutions.
        dilations: of the dilated ones.
        is_causal: the kernels end at their output sample.

    Attributes:
        before, after: samples before and after an output sample that affect it.
    """

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int], is_causal: bool = False) -> None:
        super().__init__()
        after = 0 if is_causal else None
        self.convs1 = nn.ModuleList(Conv1d(channels, channels, kernel, dilation, after) for dilation in dilations)
        self.convs2 = nn.ModuleList(Conv1d(channels, channels, kernel, 1, after) for _ in dilations)
        self.before, self.after = block_reach(kernel, dilations, is_causal)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        left: int = 0,
        right: int = 0,
        state: VocoderState | None = None,
    ) -> Tensor:
        """Run the block.

        Args:
            x: (B, C, left + T + right).
            mask: (B, 1, left + T + right), False past the end of a sequence.
            left, right: context samples, at most :attr:`before` and :attr:`after`; with fewer the sequence begins or
                ends there. No layer computes more of them than the following layers need.
            state: has what came before the samples; ``left`` is 0 then.

        Returns:
            (B, C, T).
        """
        before, after = self.before, self.after
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            inner, residual, margins = F.leaky_relu(x, SLOPE), x, (left, right)
            for conv in (dilated, plain):
                before, after = before - conv.before, after - conv.after
                kept = min(left, before), min(right, after)
                inner = conv(masked(inner, mask), left - kept[0], right - kept[1], state)
                mask = cropped(mask, left - kept[0], right - kept[1])
                left, right = kept
                if conv is dilated:
                    inner = F.leaky_relu_(inner, SLOPE)
            x = inner.add_(cropped(residual, margins[0] - left, margins[1] - right))
        return x


def block_reach(kernel: int, dilations: Sequence[int], is_causal: bool) -> tuple[int, int]:
    """Samples before and after an output sample that affect it, in a block of these sizes."""
    whole = sum((dilation + 1) * (kernel - 1) for dilation in dilations)
    return (whole, 0) if is_causal else (whole // 2, whole // 2)


class DurationPredictor(nn.Module):
    """Log durations of units from their embeddings; the output for unit i depends on units i-2 to i+2."""

    def __init__(self, config: DurationConfig) -> None:
        super().__init__()
        hidden, kernel = config.var_pred_hidden_dim, config.var_pred_kernel_size
        padding = (kernel - 1) // 2
        self.conv1 = nn.Sequential(nn.Conv1d(config.encoder_embed_dim, hidden, kernel, padding=padding), nn.ReLU())
        self.ln1 = nn.LayerNorm(hidden)
        self.conv2 = nn.Sequential(nn.Conv1d(hidden, hidden, kernel, padding=padding), nn.ReLU())
        self.ln2 = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(config.var_pred_dropout)
        self.proj = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embeddings (B, C, N) -> log(1 + duration) (B, N); ``mask`` (B, 1, N) as in :class:`ResidualBlock`."""
        x = self.dropout(self.ln1(self.conv1(masked(x, mask)).transpose(1, 2)))
        x = self.dropout(self.ln2(self.conv2(masked(x.transpose(1, 2), mask)).transpose(1, 2)))
        return self.proj(x).squeeze(2)


def use_channels_last_weights(module: nn.Module) -> None:
    """Store the convolution weights of a module as its device computes fastest: channels-last on CPUs, else contiguous.

    Names, shapes and values are unchanged.
    """
    for layer in module.modules():
        if isinstance(layer, (Conv1d, ConvTranspose1d)):
            weight: Any = layer.weight
            weight.data = _to_channels_last(weight.data) if weight.device.type == "cpu" else weight.data.contiguous()


def cropped(x: Tensor | None, left: int, right: int) -> Tensor | None:
    """(..., T) without ``left`` positions at its beginning and ``right`` at its end."""
    return x if x is None or not (left or right) else x[..., left : x.shape[-1] - right]


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """``x`` with zeros where ``mask`` is False."""
    return x if mask is None else x * mask.to(x.dtype)


def length_mask(lengths: Tensor | None, size: int) -> Tensor | None:
    """(B, 1, size), True at valid positions; ``None`` where all are valid."""
    if lengths is None:
        return None
    return (torch.arange(size, device=lengths.device) < lengths[:, None]).unsqueeze(1)


def _is_channels_last(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.is_grad_enabled()


def _to_channels_last(x: Tensor) -> Tensor:
    """(A, B, T) with the B values of each position adjacent in memory."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)
