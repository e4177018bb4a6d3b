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

_SLOPE = 0.1
_LAST_SLOPE = 0.01  # published: the activation before the last convolution keeps PyTorch's default slope


class ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair around a residual connection."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=d * (kernel - 1) // 2) for d in dilations
        )
        self.convs2 = nn.ModuleList(nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2) for _ in dilations)
        self.reach = sum((d + 1) * (kernel - 1) // 2 for d in dilations)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, C, T) -> (B, C, T); ``mask`` (B, 1, T) is False where a sequence has ended."""
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            inner = dilated(_masked(F.leaky_relu(x, _SLOPE), mask))
            x = x + plain(_masked(F.leaky_relu(inner, _SLOPE), mask))
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
    """

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.upsample_initial_channel
        self.dict = nn.Embedding(config.num_embeddings, config.embedding_dim)
        self.dur_predictor = DurationPredictor(config.dur_predictor_params) if config.dur_predictor_params else None
        self.conv_pre = nn.Conv1d(config.embedding_dim, channels, 7, padding=3)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            self.ups.append(nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2))
            channels //= 2
            for size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                self.resblocks.append(ResidualBlock(channels, size, dilations))
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3)
        self._context = _stage_contexts(config)

    @property
    def receptive_frames(self) -> int:
        """Unit frames on each side that can change a sample: whole frames, rounded up."""
        return self._context[0] + 3  # conv_pre reaches 3 frames

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

    def forward(self, frames: Tensor, lengths: Tensor | None = None, skip: int = 0) -> Tensor:
        """Waveform of unit frames.

        Args:
            frames: (B, T) unit code of each 20 ms.
            lengths: (B,) frames of each sequence; ``None`` = all T. What lies behind changes nothing.
            skip: leading frames that are context only: their samples are not returned, and layers compute no more
                of them than the samples behind need.

        Returns:
            (B, 320 * (T - skip)) in -1..1; zeros behind the end of a sequence.
        """
        mask = _length_mask(lengths, frames.shape[1])
        if frames.shape[1] <= skip:
            return self.conv_pre.weight.new_zeros(frames.shape[0], 0)
        x = self.conv_pre(_masked(self.dict(frames).transpose(1, 2), mask))
        start, kernels = skip, len(self.config.resblock_kernel_sizes)
        for stage, (rate, up) in enumerate(zip(self.config.upsample_rates, self.ups, strict=True)):
            surplus = max(0, start - self._context[stage])
            x, start = x[:, :, surplus:], (start - surplus) * rate
            mask = None if mask is None else mask[:, :, surplus:]
            x = up(_masked(F.leaky_relu(x, _SLOPE), mask))
            mask = None if mask is None else mask.repeat_interleave(rate, dim=2)
            blocks = self.resblocks[stage * kernels : (stage + 1) * kernels]
            x = torch.stack([block(x, mask) for block in blocks]).mean(0) if kernels > 1 else blocks[0](x, mask)
        x = torch.tanh(self.conv_post(_masked(F.leaky_relu(x, _LAST_SLOPE), mask)))
        return _masked(x, mask)[:, 0, start:]


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask.to(x.dtype)


def _length_mask(lengths: Tensor | None, size: int) -> Tensor | None:
    """(B, 1, size), True at valid places; ``None`` where all are."""
    if lengths is None:
        return None
    return (torch.arange(size, device=lengths.device) < lengths[:, None]).unsqueeze(1)


def _stage_contexts(config: VocoderConfig) -> list[int]:
    """Samples on each side of the wanted ones that each stage's input must hold, at that input's rate."""
    block = max(
        sum((d + 1) * (kernel - 1) // 2 for d in dilations)
        for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
    )
    contexts: list[int] = []
    context = 3  # conv_post
    for rate, kernel in zip(reversed(config.upsample_rates), reversed(config.upsample_kernel_sizes), strict=True):
        # Input i of a transposed convolution reaches output i * rate - (kernel - rate) / 2 + (0 .. kernel - 1).
        context = (context + block + (kernel + rate) // 2 - 1) // rate
        contexts.insert(0, context)
    return contexts


__all__ = ["UNIT_SAMPLES", "DurationPredictor", "ResidualBlock", "UnitVocoder"]
