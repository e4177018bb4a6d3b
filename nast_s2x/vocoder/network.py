"""CodeHiFiGAN's generator: unit embeddings, duration predictor, HiFi-GAN's upsampling convolutions.

HiFi-GAN: Kong et al., 2020 (structure of generator V1). Unit input and duration predictor: Polyak et al., 2021; Lee et
al., 2022 (Direct speech-to-speech translation with discrete units). Parameter names are those of fairseq's
``CodeGenerator`` with weight norm folded.

On CPUs and without gradients the convolutions work in channels-last order: in the memory of (B, C, T) the C values of
a sample are adjacent, and so are those of the weights (:func:`use_channels_last_weights`), so that a window of the
sequence needs no copy. Measured on one core against PyTorch's ``conv1d``, kernel 11: 256 channels, 195 samples: 2.9
against 4.9 ms; 128 channels, 520 samples: 1.5 against 2.9; 64 channels, 1800 samples: 1.2 against 2.3; 32 channels,
3500 samples: 0.8 against 1.2. A training step is slower in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nast_s2x.errors import NastError
from nast_s2x.vocoder.config import UNIT_SAMPLES, DurationConfig, VocoderConfig

_SLOPE = 0.1
_LAST_SLOPE = 0.01  # of the activation before the last convolution; the published network uses PyTorch's default there
_MANY_CHANNELS = 128
"""Input channels from which one matrix product per kernel position is faster than a library convolution."""


class Conv1d(nn.Conv1d):
    """:class:`torch.nn.Conv1d` with an odd kernel and zero padding that also computes windows of a sequence.

    Attributes:
        reach: samples on each side that affect an output sample.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1) -> None:
        self.reach = dilation * (kernel - 1) // 2
        super().__init__(inputs, outputs, kernel, dilation=dilation, padding=self.reach)

    def forward(self, x: Tensor, left: int = 0, right: int = 0) -> Tensor:
        """(B, C, left + T + right) -> (B, C', T).

        ``left`` and ``right`` samples, at most :attr:`reach`, are context; what is missing of :attr:`reach` is zero.
        """
        zeros = self.reach - left, self.reach - right
        if _is_channels_last(x):
            return self._channels_last(x, zeros)
        if zeros == (self.reach, self.reach):
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
        size = rows.shape[1] - 2 * self.reach
        out = rows.new_empty(rows.shape[0], size, self.out_channels)
        for sequence, result in zip(rows, out):
            shifted = [sequence[place * self.dilation[0] :][:size] for place in range(self.kernel_size[0])]
            torch.addmm(self.bias, shifted[0], weight[:, :, 0].t(), out=result)
            for place, part in enumerate(shifted[1:], start=1):
                result.addmm_(part, weight[:, :, place].t())
        return out.transpose(1, 2)


class ConvTranspose1d(nn.ConvTranspose1d):
    """:class:`torch.nn.ConvTranspose1d` that makes ``rate`` samples of each: (B, C, T) -> (B, C', rate * T)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, rate: int) -> None:
        super().__init__(inputs, outputs, kernel, rate, padding=(kernel - rate) // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C', rate * T)."""
        if not _is_channels_last(x):
            return super().forward(x)
        stride, padding = (1, self.stride[0]), (0, self.padding[0])
        x, weight = _to_channels_last(x).unsqueeze(2), self.weight.unsqueeze(2)
        return F.conv_transpose2d(x, weight, self.bias, stride, padding).squeeze(2)


class ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair with a residual connection.

    Attributes:
        reach: samples on each side that affect an output sample.
    """

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(Conv1d(channels, channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(Conv1d(channels, channels, kernel) for _ in dilations)
        self.reach = _block_reach(kernel, dilations)

    def forward(self, x: Tensor, mask: Tensor | None = None, left: int = 0, right: int = 0) -> Tensor:
        """Run the block.

        Args:
            x: (B, C, left + T + right).
            mask: (B, 1, left + T + right), False past the end of a sequence.
            left, right: context samples on each side, at most :attr:`reach`; with fewer the sequence begins or ends
                there. No layer computes more of them than the following layers need.

        Returns:
            (B, C, T).
        """
        rest = self.reach
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            inner, residual, margins = F.leaky_relu(x, _SLOPE), x, (left, right)
            for conv in (dilated, plain):
                rest -= conv.reach
                kept = min(left, rest), min(right, rest)
                inner = conv(_masked(inner, mask), left - kept[0], right - kept[1])
                mask = _cropped(mask, left - kept[0], right - kept[1])
                left, right = kept
                if conv is dilated:
                    inner = F.leaky_relu_(inner, _SLOPE)
            x = inner.add_(_cropped(residual, margins[0] - left, margins[1] - right))
        return x


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
        x = self.dropout(self.ln1(self.conv1(_masked(x, mask)).transpose(1, 2)))
        x = self.dropout(self.ln2(self.conv2(_masked(x.transpose(1, 2), mask)).transpose(1, 2)))
        return self.proj(x).squeeze(2)


class UnitVocoder(nn.Module):
    """Units -> 16 kHz waveform, 320 samples per unit frame.

    Args:
        config: sizes.

    Attributes:
        receptive_frames: unit frames on each side that can affect a sample.
    """

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self._is_for_inference = False
        channels = config.upsample_initial_channel
        self.dict = nn.Embedding(config.num_embeddings, config.embedding_dim)
        self.dur_predictor = DurationPredictor(config.dur_predictor_params) if config.dur_predictor_params else None
        self.conv_pre = Conv1d(config.embedding_dim, channels, 7)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            self.ups.append(ConvTranspose1d(channels, channels // 2, kernel, rate))
            channels //= 2
            for size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                self.resblocks.append(ResidualBlock(channels, size, dilations))
        self.conv_post = Conv1d(channels, 1, 7)
        self.receptive_frames = _receptive_frames(config)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.dict.weight.device

    def for_inference(self) -> UnitVocoder:
        """Switch to eval mode without gradients and to the fastest weight layout of the device; returns the model.

        The layout follows later moves to other devices.
        """
        self._is_for_inference = True
        use_channels_last_weights(self)
        return self.eval().requires_grad_(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> UnitVocoder:
        """Called by ``to``, ``cuda``, ``cpu``, ...: choose the layout on the device that was moved to."""
        super()._apply(fn, recurse)
        if self._is_for_inference:
            use_channels_last_weights(self)
        return self

    def durations(self, units: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Predict the frames of each unit of a sequence without repeated units.

        Args:
            units: (B, N) unit codes.
            lengths: (B,) units of each sequence; ``None`` = all N.

        Returns:
            (B, N) int64: max(1, round(exp(d) - 1)); 0 past the end of a sequence.

        Raises:
            NastError: the vocoder has no duration predictor.
        """
        mask = _length_mask(lengths, units.shape[1])
        frames = torch.round(torch.exp(self.log_durations(units, lengths)) - 1).long().clamp_min(1)
        return frames if mask is None else frames * mask.squeeze(1).long()

    def log_durations(self, units: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Output of the duration predictor, log(1 + frames), (B, N); arguments and errors as in :meth:`durations`."""
        if self.dur_predictor is None:
            raise NastError("this vocoder has no duration predictor (dur_predictor_params): durations must be given")
        if not units.shape[1]:
            return self.dict.weight.new_zeros(units.shape)
        return self.dur_predictor(self.dict(units).transpose(1, 2), _length_mask(lengths, units.shape[1]))

    def forward(
        self, frames: Tensor, lengths: Tensor | None = None, skip: int = 0, num_samples: int | None = None
    ) -> Tensor:
        """Compute the waveform of unit frames.

        Args:
            frames: (B, T) unit code of each 20 ms.
            lengths: (B,) frames of each sequence; ``None`` = all T. Frames past the end have no effect.
            skip: leading frames that are context only; their samples are not returned.
            num_samples: samples to return after them; ``None`` = all. No layer computes more than these need.

        Returns:
            (B, num_samples) in -1..1, 320 * (T - skip) by default; zeros past the end of a sequence.
        """
        size = frames.shape[1]
        start, end = skip * UNIT_SAMPLES, size * UNIT_SAMPLES
        stop = end if num_samples is None else min(end, start + num_samples)
        if stop <= start:
            return self.conv_pre.weight.new_zeros(frames.shape[0], 0)
        spans = window_spans(self.config, start, stop, size)
        (first, last), mask = spans[0], _length_mask(lengths, size)
        x, mask = self.dict(frames[:, first:last]).transpose(1, 2), _cropped(mask, first, size - last)
        span = spans[1]
        x = self.conv_pre(_masked(x, mask), span[0] - first, last - span[1])
        mask = _cropped(mask, span[0] - first, last - span[1])
        for stage, rate in enumerate(self.config.upsample_rates):
            x = self.ups[stage](_masked(F.leaky_relu_(x, _SLOPE), mask))
            mask = None if mask is None else mask.repeat_interleave(rate, dim=2)
            size *= rate
            x, mask = self._blocks(stage, x, mask, (span[0] * rate, span[1] * rate, size), spans[stage + 2])
            span = spans[stage + 2]
        x = F.leaky_relu_(x, _LAST_SLOPE)
        x = torch.tanh(self.conv_post(_masked(x, mask), start - span[0], span[1] - stop))
        return _masked(x, _cropped(mask, start - span[0], span[1] - stop))[:, 0]

    def _blocks(
        self, stage: int, x: Tensor, mask: Tensor | None, have: tuple[int, int, int], span: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None]:
        """Return the mean of a stage's residual blocks on ``span``, and the mask there.

        Args:
            have: first and end position of x, and length of the whole sequence.
        """
        count = len(self.config.resblock_kernel_sizes)
        before, behind = span[0] - have[0], have[1] - span[1]
        total: Tensor | None = None
        for block in self.resblocks[stage * count : (stage + 1) * count]:
            left, right = min(block.reach, span[0]), min(block.reach, have[2] - span[1])
            window, valid = (_cropped(part, before - left, behind - right) for part in (x, mask))
            out = block(window, valid, left, right)
            total = out if total is None else total.add_(out)
        assert total is not None
        return total.div_(count), _cropped(mask, before, behind)


def use_channels_last_weights(module: nn.Module) -> None:
    """Store the convolution weights of a module as its device computes fastest: channels-last on CPUs, else contiguous.

    Names, shapes and values are unchanged.
    """
    for layer in module.modules():
        if isinstance(layer, (Conv1d, ConvTranspose1d)):
            weight: Any = layer.weight
            weight.data = _to_channels_last(weight.data) if weight.device.type == "cpu" else weight.data.contiguous()


def window_spans(config: VocoderConfig, start: int, stop: int, num_frames: int) -> list[tuple[int, int]]:
    """Compute which part of each stage's output the samples ``start`` to ``stop`` of a sequence need.

    Returns:
        (first, end) of the unit frames, of conv_pre's output, and of each stage's output, each at its own rate and
        inside the sequence.
    """
    block = max(
        _block_reach(kernel, dilations)
        for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
    )
    size = num_frames * UNIT_SAMPLES
    spans = [_widened((start, stop), 3, size)]  # conv_post
    for rate, kernel in zip(reversed(config.upsample_rates), reversed(config.upsample_kernel_sizes), strict=True):
        first, behind = _widened(spans[0], block, size)
        size //= rate
        # Input i of a transposed convolution affects the outputs i * rate - padding + (0 .. kernel - 1).
        padding = (kernel - rate) // 2
        first, last = -((kernel - 1 - padding - first) // rate), (behind - 1 + padding) // rate
        spans.insert(0, (max(0, first), min(size, last + 1)))
    return [_widened(spans[0], 3, size), *spans]  # conv_pre


def _block_reach(kernel: int, dilations: Sequence[int]) -> int:
    return sum((dilation + 1) * (kernel - 1) // 2 for dilation in dilations)


def _receptive_frames(config: VocoderConfig) -> int:
    middle = 1000  # far from both ends
    (first, _), *_ = window_spans(config, middle * UNIT_SAMPLES, (middle + 1) * UNIT_SAMPLES, 2 * middle)
    return middle - first


def _widened(span: tuple[int, int], reach: int, size: int) -> tuple[int, int]:
    return max(0, span[0] - reach), min(size, span[1] + reach)


def _cropped(x: Tensor | None, left: int, right: int) -> Tensor | None:
    """(..., T) without ``left`` positions at its beginning and ``right`` at its end."""
    return x if x is None or not (left or right) else x[..., left : x.shape[-1] - right]


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask.to(x.dtype)


def _length_mask(lengths: Tensor | None, size: int) -> Tensor | None:
    """(B, 1, size), True at valid positions; ``None`` where all are valid."""
    if lengths is None:
        return None
    return (torch.arange(size, device=lengths.device) < lengths[:, None]).unsqueeze(1)


def _is_channels_last(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.is_grad_enabled()


def _to_channels_last(x: Tensor) -> Tensor:
    """(A, B, T) with the B values of each position adjacent in memory."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)
