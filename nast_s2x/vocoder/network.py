"""CodeHiFiGAN's generator: unit embeddings, duration predictor, HiFi-GAN's upsampling convolutions.

HiFi-GAN: Kong et al., 2020 (structure of generator V1). Unit input and duration predictor: Polyak et al., 2021; Lee et
al., 2022 (Direct speech-to-speech translation with discrete units). Parameter names are those of fairseq's
``CodeGenerator`` with weight norm folded. Limited look-ahead, an option of ours: the first convolution sees a number
of following unit frames, and all others none, so that a stream computes each sample of each layer once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nast_s2x.errors import ConfigError, NastError
from nast_s2x.vocoder.config import FIRST_KERNEL, UNIT_SAMPLES, VocoderConfig
from nast_s2x.vocoder.layers import (
    SLOPE,
    Conv1d,
    ConvTranspose1d,
    DurationPredictor,
    ResidualBlock,
    VocoderState,
    block_reach,
    cropped,
    length_mask,
    masked,
    transposed_padding,
    use_channels_last_weights,
)

_LAST_SLOPE = 0.01  # of the activation before the last convolution; the published network uses PyTorch's default there
_LAST_KERNEL = 7


class UnitVocoder(nn.Module):
    """Units -> 16 kHz waveform, 320 samples per unit frame.

    Args:
        config: sizes.

    Attributes:
        receptive_frames: unit frames before a sample that can affect it; as many behind it, unless the look-ahead is
            limited.
    """

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self._is_for_inference = False
        channels = config.upsample_initial_channel
        self.dict = nn.Embedding(config.num_embeddings, config.embedding_dim)
        self.dur_predictor = DurationPredictor(config.dur_predictor_params) if config.dur_predictor_params else None
        is_causal = config.lookahead_frames is not None
        self.conv_pre = Conv1d(config.embedding_dim, channels, FIRST_KERNEL, after=config.lookahead_frames)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            self.ups.append(ConvTranspose1d(channels, channels // 2, kernel, rate, is_causal))
            channels //= 2
            for size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                self.resblocks.append(ResidualBlock(channels, size, dilations, is_causal))
        self.conv_post = Conv1d(channels, 1, _LAST_KERNEL, after=0 if is_causal else None)
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
        mask = length_mask(lengths, units.shape[1])
        frames = torch.round(torch.exp(self.log_durations(units, lengths)) - 1).long().clamp_min(1)
        return frames if mask is None else frames * mask.squeeze(1).long()

    def log_durations(self, units: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Output of the duration predictor, log(1 + frames), (B, N); arguments and errors as in :meth:`durations`."""
        if self.dur_predictor is None:
            raise NastError("this vocoder has no duration predictor (dur_predictor_params): durations must be given")
        if not units.shape[1]:
            return self.dict.weight.new_zeros(units.shape)
        return self.dur_predictor(self.dict(units).transpose(1, 2), length_mask(lengths, units.shape[1]))

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor | None = None,
        skip: int = 0,
        num_samples: int | None = None,
        state: VocoderState | None = None,
    ) -> Tensor:
        """Compute the waveform of unit frames.

        Args:
            frames: (B, T) unit code of each 20 ms.
            lengths: (B,) frames of each sequence; ``None`` = all T. Frames past the end have no effect.
            skip: leading frames that are context only; their samples are not returned.
            num_samples: samples to return after them; ``None`` = all. No layer computes more than these need.
            state: the frames continue those of the calls before with this state; the frames behind ``num_samples``
                (whole frames) are look-ahead, and come again in the next call. Limited look-ahead only; without
                ``skip`` and ``lengths``.

        Returns:
            (B, num_samples) in -1..1, 320 * (T - skip) by default; zeros past the end of a sequence.

        Raises:
            ConfigError: a state for a vocoder without limited look-ahead.
        """
        if state is not None:
            self._check_state(lengths, skip, num_samples)
        size = frames.shape[1]
        start, end = skip * UNIT_SAMPLES, size * UNIT_SAMPLES
        stop = end if num_samples is None else min(end, start + num_samples)
        if stop <= start:
            return self.conv_pre.weight.new_zeros(frames.shape[0], 0)
        spans = window_spans(self.config, start, stop, size)
        (first, last), mask = spans[0], length_mask(lengths, size)
        x, mask = self.dict(frames[:, first:last]).transpose(1, 2), cropped(mask, first, size - last)
        span = spans[1]
        x = self.conv_pre(masked(x, mask), span[0] - first, last - span[1], state)
        mask = cropped(mask, span[0] - first, last - span[1])
        for stage, rate in enumerate(self.config.upsample_rates):
            x = self.ups[stage](masked(F.leaky_relu_(x, SLOPE), mask), state)
            mask = None if mask is None else mask.repeat_interleave(rate, dim=2)
            size *= rate
            x, mask = self._blocks(stage, x, mask, (span[0] * rate, span[1] * rate, size), spans[stage + 2], state)
            span = spans[stage + 2]
        x = F.leaky_relu_(x, _LAST_SLOPE)
        x = torch.tanh(self.conv_post(masked(x, mask), start - span[0], span[1] - stop, state))
        return masked(x, cropped(mask, start - span[0], span[1] - stop))[:, 0]

    def _check_state(self, lengths: Tensor | None, skip: int, num_samples: int | None) -> None:
        if self.config.lookahead_frames is None:
            raise ConfigError("this vocoder has no limited look-ahead (lookahead_frames): it cannot continue a state")
        if lengths is not None or skip or (num_samples or 0) % UNIT_SAMPLES:
            raise ConfigError("with a state there are whole unit frames, no lengths and no skipped frames")

    def _blocks(
        self,
        stage: int,
        x: Tensor,
        mask: Tensor | None,
        have: tuple[int, int, int],
        span: tuple[int, int],
        state: VocoderState | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the mean of a stage's residual blocks on ``span``, and the mask there.

        Args:
            have: first and end position of x, and length of the whole sequence.
        """
        count = len(self.config.resblock_kernel_sizes)
        before, behind = span[0] - have[0], have[1] - span[1]
        total: Tensor | None = None
        for block in self.resblocks[stage * count : (stage + 1) * count]:
            left, right = min(block.before, span[0]), min(block.after, have[2] - span[1])
            window, valid = (cropped(part, before - left, behind - right) for part in (x, mask))
            out = block(window, valid, left, right, state)
            total = out if total is None else total.add_(out)
        assert total is not None
        return total.div_(count), cropped(mask, before, behind)


def window_spans(config: VocoderConfig, start: int, stop: int, num_frames: int) -> list[tuple[int, int]]:
    """Compute which part of each stage's output the samples ``start`` to ``stop`` of a sequence need.

    Returns:
        (first, end) of the unit frames, of conv_pre's output, and of each stage's output, each at its own rate and
        inside the sequence.
    """
    is_causal = config.lookahead_frames is not None
    reaches = [
        block_reach(kernel, dilations, is_causal)
        for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
    ]
    block = max(before for before, _ in reaches), max(after for _, after in reaches)
    size = num_frames * UNIT_SAMPLES
    spans = [_widened((start, stop), _conv_reach(_LAST_KERNEL, 0 if is_causal else None), size)]
    for rate, kernel in zip(reversed(config.upsample_rates), reversed(config.upsample_kernel_sizes), strict=True):
        first, behind = _widened(spans[0], block, size)
        size //= rate
        # Input i of a transposed convolution affects the outputs i * rate - padding + (0 .. kernel - 1).
        padding = transposed_padding(kernel, rate, is_causal)
        first, last = -((kernel - 1 - padding - first) // rate), (behind - 1 + padding) // rate
        spans.insert(0, (max(0, first), min(size, last + 1)))
    return [_widened(spans[0], _conv_reach(FIRST_KERNEL, config.lookahead_frames), size), *spans]


def _receptive_frames(config: VocoderConfig) -> int:
    middle = 1000  # far from both ends
    (first, _), *_ = window_spans(config, middle * UNIT_SAMPLES, (middle + 1) * UNIT_SAMPLES, 2 * middle)
    return middle - first


def _conv_reach(kernel: int, after: int | None) -> tuple[int, int]:
    after = (kernel - 1) // 2 if after is None else after
    return kernel - 1 - after, after


def _widened(span: tuple[int, int], reach: tuple[int, int], size: int) -> tuple[int, int]:
    return max(0, span[0] - reach[0]), min(size, span[1] + reach[1])
