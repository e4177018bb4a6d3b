"""Losses of HiFi-GAN training (Kong et al., 2020) and of unit durations, as functions and small modules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nast_s2x.vocoder.training.mel import MelSpectrogram, magnitudes


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Least-squares loss of the discriminators, sum of E[(D(x) - 1)^2] + E[D(G(s))^2] (equation 1)."""
    return sum((1 - x.float()).square().mean() + y.float().square().mean() for x, y in zip(real, fake, strict=True))


def generator_adversarial_loss(fake: Sequence[Tensor]) -> Tensor:
    """Least-squares loss of the generator, sum over discriminators of E[(D(G(s)) - 1)^2] (equation 2)."""
    return sum((1 - y.float()).square().mean() for y in fake)


def feature_matching_loss(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """Sum over discriminators and their layers of the mean absolute difference of features (equation 4)."""
    return sum(
        (x.detach().float() - y.float()).abs().mean()
        for features_real, features_fake in zip(real, fake, strict=True)
        for x, y in zip(features_real, features_fake, strict=True)
    )


def duration_loss(predicted: Tensor, durations: Tensor, lengths: Tensor) -> Tensor:
    """Mean squared error of log(1 + frames) over all units of a batch (FastSpeech, Ren et al., 2019, section 3.3).

    Args:
        predicted: (B, N) the duration predictor's output.
        durations: (B, N) frames of each unit; what lies behind ``lengths`` counts nothing.
        lengths: (B,) units of each sequence.
    """
    valid = torch.arange(durations.shape[1], device=durations.device) < lengths[:, None]
    error = (predicted.float() - torch.log1p(durations.float())).square()
    return error[valid].mean()


class MelLoss(nn.Module):
    """Mean absolute difference of log-mel energies, averaged over resolutions (equation 3 has one resolution).

    Args:
        resolutions: (n_fft, hop, mel bins) of each.
        floor: see :class:`~nast_s2x.vocoder.training.mel.MelSpectrogram`.
    """

    def __init__(self, resolutions: Sequence[tuple[int, int, int]], floor: float = 1e-5) -> None:
        super().__init__()
        self.mels = nn.ModuleList(MelSpectrogram(n_fft, hop, bins, floor) for n_fft, hop, bins in resolutions)

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Waveforms (B, n) and (B, n) -> scalar."""
        return sum((mel(fake) - mel(real)).abs().mean() for mel in self.mels) / len(self.mels)


class StftLoss(nn.Module):
    """Multi-resolution STFT loss: log magnitudes and spectral convergence (Yamamoto et al., 2020, equations 5 to 7).

    Args:
        resolutions: (n_fft, hop) of each; the Hann window has n_fft samples.
        floor: smallest magnitude that the logarithm sees.
    """

    def __init__(self, resolutions: Sequence[tuple[int, int]], floor: float = 1e-5) -> None:
        super().__init__()
        self.resolutions, self.floor = [tuple(pair) for pair in resolutions], floor
        for index, (n_fft, _) in enumerate(self.resolutions):
            self.register_buffer(f"window{index}", torch.hann_window(n_fft), persistent=False)

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Waveforms (B, n) and (B, n) -> scalar, mean over resolutions of the sum of the two terms."""
        total = fake.new_zeros((), dtype=torch.float32)
        for index, (n_fft, hop) in enumerate(self.resolutions):
            window = getattr(self, f"window{index}")
            x, y = (magnitudes(samples, window, n_fft, hop) for samples in (real, fake))
            convergence = (x - y).norm() / x.norm().clamp_min(1e-3)
            floored = (y.clamp_min(self.floor).log() - x.clamp_min(self.floor).log()).abs().mean()
            total = total + convergence + floored
        return total / len(self.resolutions)
