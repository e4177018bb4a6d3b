"""Losses of HiFi-GAN training (Kong et al., 2020) and of unit durations, and the spectrograms that they compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nast_s2x.errors import AudioError
from nast_s2x.vocoder.config import SAMPLE_RATE


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Least-squares loss of the discriminators, sum of E[(D(x) - 1)^2] + E[D(G(s))^2] (equation 1)."""
    return _sum((1 - x.float()).square().mean() + y.float().square().mean() for x, y in zip(real, fake, strict=True))


def generator_adversarial_loss(fake: Sequence[Tensor]) -> Tensor:
    """Least-squares loss of the generator, sum over discriminators of E[(D(G(s)) - 1)^2] (equation 2)."""
    return _sum((1 - y.float()).square().mean() for y in fake)


def feature_matching_loss(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """Sum over discriminators and their layers of the mean absolute difference of features (equation 4)."""
    return _sum(
        (x.detach().float() - y.float()).abs().mean()
        for features_real, features_fake in zip(real, fake, strict=True)
        for x, y in zip(features_real, features_fake, strict=True)
    )


def duration_loss(predicted: Tensor, durations: Tensor, lengths: Tensor) -> Tensor:
    """Mean squared error of log(1 + frames) over all units of a batch (FastSpeech, Ren et al., 2019, section 3.3).

    Args:
        predicted: (B, N) output of the duration predictor.
        durations: (B, N) frames of each unit; values past ``lengths`` are ignored.
        lengths: (B,) units of each sequence.
    """
    valid = torch.arange(durations.shape[1], device=durations.device) < lengths[:, None]
    error = (predicted.float() - torch.log1p(durations.float())).square()
    # Not error[valid]: boolean indexing would wait for the device.
    return torch.where(valid, error, 0.0).sum() / lengths.sum()


def _sum(terms: Any) -> Tensor:
    first, *others = terms
    return sum(others, start=first)


class MelLoss(nn.Module):
    """Mean absolute difference of log-mel energies, averaged over resolutions (equation 3 has one resolution).

    Args:
        resolutions: (n_fft, hop, mel bins) of each.
        floor: see :class:`MelSpectrogram`.
    """

    def __init__(self, resolutions: Sequence[tuple[int, int, int]], floor: float = 1e-5) -> None:
        super().__init__()
        self.mels = nn.ModuleList(MelSpectrogram(n_fft, hop, bins, floor) for n_fft, hop, bins in resolutions)

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Waveforms (B, n) and (B, n) -> scalar."""
        return _sum((mel(fake) - mel(real)).abs().mean() for mel in self.mels) / len(self.mels)


class StftLoss(nn.Module):
    """Multi-resolution STFT loss: log magnitudes and spectral convergence (Yamamoto et al., 2020, equations 5 to 7).

    Args:
        resolutions: (n_fft, hop) of each; the Hann window has n_fft samples.
        floor: magnitudes below it count as this value in the logarithm.
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


class MelSpectrogram(nn.Module):
    """Log-mel energies as in HiFi-GAN's mel loss (Kong et al., 2020, section 2.3); differentiable.

    Args:
        n_fft: samples of the transform and of its Hann window.
        hop: samples between frames.
        bins: mel filters between 0 and 8000 Hz.
        floor: energies below it count as this value in the logarithm.
    """

    def __init__(self, n_fft: int = 1024, hop: int = 256, bins: int = 80, floor: float = 1e-5) -> None:
        super().__init__()
        self.n_fft, self.hop, self.floor = n_fft, hop, floor
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filters(bins, n_fft)), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Samples (B, n) -> (B, bins, n // hop)."""
        energies = self.filters @ magnitudes(samples, self.window, self.n_fft, self.hop)
        return torch.log(energies.clamp_min(self.floor))


def magnitudes(samples: Tensor, window: Tensor, n_fft: int, hop: int) -> Tensor:
    """Magnitudes of the short-time Fourier transform, padded by reflection so that n samples give n / hop frames.

    Args:
        samples: (B, n).
        window: (w,) analysis window, w <= n_fft, centred in the n_fft samples of a frame.
        n_fft: samples of a frame.
        hop: samples between frames.

    Returns:
        (B, n_fft // 2 + 1, frames) float32.

    Raises:
        AudioError: fewer samples than the padding reflects.
    """
    padding = (n_fft - hop) // 2
    if samples.shape[1] <= padding:
        raise AudioError(f"a spectrogram of n_fft {n_fft} needs more than {padding} samples, got {samples.shape[1]}")
    padded = F.pad(samples.float().unsqueeze(1), (padding, padding), mode="reflect").squeeze(1)
    spectrum = torch.stft(padded, n_fft, hop, len(window), window, center=False, return_complex=True)
    # The derivative of the square root is infinite at 0: silence would give NaN gradients.
    return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)


def mel_filters(bins: int, n_fft: int, low: float = 0.0, high: float = 8000.0) -> NDArray[np.float32]:
    """Triangular filters of equal area on Slaney's mel scale (Auditory Toolbox, 1998; the default of librosa).

    Linear to 1000 Hz (3 mels per 200 Hz), logarithmic above (27 steps per factor of 6.4).

    Returns:
        (bins, n_fft // 2 + 1) float32.
    """
    edges = _mel_to_hertz(np.linspace(_hertz_to_mel(low), _hertz_to_mel(high), bins + 2))
    frequencies = np.linspace(0, SAMPLE_RATE / 2, n_fft // 2 + 1)
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    area = 2.0 / (edges[2:] - edges[:-2])
    return (np.maximum(0, np.minimum(rising, falling)) * area[:, None]).astype(np.float32)


def _hertz_to_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def _mel_to_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * math.log(6.4) / 27))
