"""HiFi-GAN's discriminators: multi-period and multi-scale (Kong et al., 2020, section 2.3 and appendix A)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from nast_s2x.errors import ConfigError

_SLOPE = 0.1


class DiscriminatorOutput(NamedTuple):
    """Output of one discriminator: ``score`` (B, m), and ``features``, the output of each of its layers."""

    score: Tensor
    features: list[Tensor]


class PeriodDiscriminator(nn.Module):
    """Two-dimensional convolutions over the waveform folded to rows of ``period`` samples; columns stay separate.

    Args:
        period: samples of a row.
        channels: of the strided convolutions; a plain convolution and the output layer follow.
    """

    def __init__(self, period: int, channels: Sequence[int] = (32, 128, 512, 1024)) -> None:
        super().__init__()
        self.period = period
        widths = [1, *channels]
        layers = [
            nn.Conv2d(before, after, (5, 1), (3, 1), padding=(2, 0))
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        ]
        layers.append(nn.Conv2d(channels[-1], channels[-1], (5, 1), padding=(2, 0)))
        self.convs = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.conv_post = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, samples: Tensor) -> DiscriminatorOutput:
        """Waveform (B, n) -> score and features; the last row is filled by reflection."""
        missing = -samples.shape[1] % self.period
        x = F.pad(samples.unsqueeze(1), (0, missing), mode="reflect")
        x = x.unflatten(2, (-1, self.period))  # (B, 1, rows, period)
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), _SLOPE)
            features.append(x)
        x = self.conv_post(x)
        return DiscriminatorOutput(x.flatten(1), [*features, x])


class ScaleDiscriminator(nn.Module):
    """Strided and grouped one-dimensional convolutions with long kernels over the waveform.

    Args:
        width: channels of the first layer; the widest layer has eight times as many.
        spectral: spectral instead of weight normalisation, as in the paper's first scale.
    """

    def __init__(self, width: int = 128, spectral: bool = False) -> None:
        super().__init__()
        normalise = spectral_norm if spectral else weight_norm
        # (input, output, kernel, stride, groups)
        shapes = [
            (1, width, 15, 1, 1),
            (width, width, 41, 2, 4),
            (width, 2 * width, 41, 2, 16),
            (2 * width, 4 * width, 41, 4, 16),
            (4 * width, 8 * width, 41, 4, 16),
            (8 * width, 8 * width, 41, 1, 16),
            (8 * width, 8 * width, 5, 1, 1),
        ]
        self.convs = nn.ModuleList(
            normalise(nn.Conv1d(before, after, kernel, stride, kernel // 2, groups=groups))
            for before, after, kernel, stride, groups in shapes
        )
        self.conv_post = normalise(nn.Conv1d(8 * width, 1, 3, padding=1))

    def forward(self, samples: Tensor) -> DiscriminatorOutput:
        """Waveform (B, n) -> score and features."""
        x, features = samples.unsqueeze(1), []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), _SLOPE)
            features.append(x)
        x = self.conv_post(x)
        return DiscriminatorOutput(x.flatten(1), [*features, x])


class Discriminators(nn.Module):
    """All discriminators of a training.

    Args:
        periods: one :class:`PeriodDiscriminator` for each.
        period_channels: their channels.
        scales: number of :class:`ScaleDiscriminator`; each receives the input of the previous one at half the rate.
        scale_width: their width, a multiple of 16 (groups of the convolutions).
    """

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        period_channels: Sequence[int] = (32, 128, 512, 1024),
        scales: int = 3,
        scale_width: int = 128,
    ) -> None:
        super().__init__()
        if not periods and not scales:
            raise ConfigError("adversarial training needs at least one discriminator (discriminator periods or scales)")
        if scale_width % 16:
            raise ConfigError(f"discriminator scale_width must be a multiple of 16, not {scale_width}")
        self.periods = nn.ModuleList(PeriodDiscriminator(period, period_channels) for period in periods)
        self.scales = nn.ModuleList(ScaleDiscriminator(scale_width, spectral=not i) for i in range(scales))
        self.pool = nn.AvgPool1d(4, 2, padding=2)

    def forward(self, samples: Tensor) -> list[DiscriminatorOutput]:
        """Waveform (B, n) -> one output per discriminator."""
        outputs = [discriminator(samples) for discriminator in self.periods]
        for discriminator in self.scales:
            outputs.append(discriminator(samples))
            samples = self.pool(samples.unsqueeze(1)).squeeze(1)
        return outputs
