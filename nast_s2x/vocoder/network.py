"""The generator of CodeHiFiGAN: unit embeddings, duration predictor, HiFi-GAN's upsampling convolutions.

HiFi-GAN: Kong et al., 2020 (generator V1's structure). Unit input and duration predictor: Polyak et al., 2021; Lee et
al., 2022 (Direct speech-to-speech translation with discrete units). Parameter names are those of fairseq's
``CodeGenerator``, weight norm folded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nast_s2x.vocoder.config import UNIT_SAMPLES, DurationConfig, VocoderConfig
from nast_s2x.vocoder.convolution import Conv1d, ConvTranspose1d, block_reach, use_channels_last_weights

_SLOPE = 0.1
_LAST_SLOPE = 0.01  # published: the activation before the last convolution keeps PyTorch's default slope


class ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair around a residual connection."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(Conv1d(channels, channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(Conv1d(channels, channels, kernel) for _ in dilations)
        self.reach = block_reach(kernel, dilations)

    def forward(self, x: Tensor, mask: Tensor | None = None, left: int = 0, right: int = 0) -> Tensor:
        """Run the block.

        Args:
            x: (B, C, left + T + right).
            mask: (B, 1, left + T + right), False where a sequence has ended.
            left, right: samples on each side that are context only, at most :attr:`reach`; the sequence begins or ends
                there if they are fewer. No layer computes more of them than the next ones need.

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
    """Log durations of units from their embeddings; unit i sees units i-2 to i+2."""

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
    """Units -> 16 kHz waveform, 320 samples a unit frame.

    Args:
        config: sizes.

    Attributes:
        receptive_frames: unit frames on each side that can change a sample.
    """

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
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

    def for_inference(self) -> UnitVocoder:
        """Eval mode, no gradients, weights in the order that a CPU is fastest with; returns the model itself."""
        use_channels_last_weights(self)
        return self.eval().requires_grad_(False)

    def durations(self, units: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Frames of each unit of a sequence without runs.

        Args:
            units: (B, N) unit codes.
            lengths: (B,) units of each sequence; ``None`` = all N.

        Returns:
            (B, N) whole numbers: max(1, round(exp(d) - 1)); 0 behind the end of a sequence.

        Raises:
            ValueError: the vocoder has no duration predictor.
        """
        mask = _length_mask(lengths, units.shape[1])
        frames = torch.round(torch.exp(self.log_durations(units, lengths)) - 1).long().clamp_min(1)
        return frames if mask is None else frames * mask.squeeze(1).long()

    def log_durations(self, units: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The duration predictor's output, log(1 + frames): (B, N); arguments as in :meth:`durations`."""
        if self.dur_predictor is None:
            raise ValueError("this vocoder has no duration predictor (dur_predictor_params): durations must be given")
        if not units.shape[1]:
            return self.dict.weight.new_zeros(units.shape)
        return self.dur_predictor(self.dict(units).transpose(1, 2), _length_mask(lengths, units.shape[1]))

    def forward(
        self, frames: Tensor, lengths: Tensor | None = None, skip: int = 0, num_samples: int | None = None
    ) -> Tensor:
        """Waveform of unit frames.

        Args:
            frames: (B, T) unit code of each 20 ms.
            lengths: (B,) frames of each sequence; ``None`` = all T. What lies behind changes nothing.
            skip: leading frames that are context only: their samples are not returned.
            num_samples: samples wanted behind them; ``None`` = all. No layer computes more than they need.

        Returns:
            (B, num_samples) in -1..1, 320 * (T - skip) by default; zeros behind the end of a sequence.
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
        """Mean of a stage's residual blocks on ``span``, and the mask there; ``have``: first and last sample of x, and
        how many the whole sequence has."""
        count = len(self.config.resblock_kernel_sizes)
        before, behind = span[0] - have[0], have[1] - span[1]
        total: Tensor | None = None
        for block in self.resblocks[stage * count : (stage + 1) * count]:
            left, right = min(block.reach, span[0]), min(block.reach, have[2] - span[1])
            window, seen = (_cropped(part, before - left, behind - right) for part in (x, mask))
            out = block(window, seen, left, right)
            total = out if total is None else total.add_(out)
        assert total is not None
        return total.div_(count), _cropped(mask, before, behind)


def window_spans(config: VocoderConfig, start: int, stop: int, num_frames: int) -> list[tuple[int, int]]:
    """What each stage must compute for the samples ``start`` to ``stop`` of a sequence.

    Returns:
        (first, one behind the last) of the unit frames, of conv_pre's output, and of each stage's output, each at its
        own rate and inside the sequence.
    """
    block = max(
        block_reach(kernel, dilations)
        for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
    )
    size = num_frames * UNIT_SAMPLES
    spans = [_widened((start, stop), 3, size)]  # conv_post
    for rate, kernel in zip(reversed(config.upsample_rates), reversed(config.upsample_kernel_sizes), strict=True):
        first, behind = _widened(spans[0], block, size)
        size //= rate
        # Input i of a transposed convolution reaches the outputs i * rate - padding + (0 .. kernel - 1).
        padding = (kernel - rate) // 2
        first, last = -((kernel - 1 - padding - first) // rate), (behind - 1 + padding) // rate
        spans.insert(0, (max(0, first), min(size, last + 1)))
    return [_widened(spans[0], 3, size), *spans]  # conv_pre


def _receptive_frames(config: VocoderConfig) -> int:
    middle = 1000  # far from both ends
    (first, _), *_ = window_spans(config, middle * UNIT_SAMPLES, (middle + 1) * UNIT_SAMPLES, 2 * middle)
    return middle - first


def _widened(span: tuple[int, int], reach: int, size: int) -> tuple[int, int]:
    return max(0, span[0] - reach), min(size, span[1] + reach)


def _cropped(x: Tensor | None, left: int, right: int) -> Tensor | None:
    """(..., T) without so many places at its beginning and end."""
    return x if x is None or not (left or right) else x[..., left : x.shape[-1] - right]


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask.to(x.dtype)


def _length_mask(lengths: Tensor | None, size: int) -> Tensor | None:
    """(B, 1, size), True at valid places; ``None`` where all are."""
    if lengths is None:
        return None
    return (torch.arange(size, device=lengths.device) < lengths[:, None]).unsqueeze(1)


__all__ = ["UNIT_SAMPLES", "DurationPredictor", "ResidualBlock", "UnitVocoder"]
