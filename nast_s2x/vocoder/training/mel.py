"""Spectrograms of waveforms on any device, differentiable: short-time Fourier magnitudes and mel energies."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nast_s2x.vocoder.config import SAMPLE_RATE


def magnitudes(samples: Tensor, window: Tensor, n_fft: int, hop: int) -> Tensor:
    """Magnitudes of the short-time Fourier transform, padded by reflection so that n samples give n / hop frames.

    Args:
        samples: (B, n).
        window: (w,) analysis window, w <= n_fft; centred in the n_fft samples of a frame.
        n_fft: samples of a frame.
        hop: samples between frames.

    Returns:
        (B, n_fft // 2 + 1, frames) float32.

    Raises:
        ValueError: fewer samples than the padding reflects.
    """
    padding = (n_fft - hop) // 2
    if samples.shape[1] <= padding:
        raise ValueError(f"a spectrogram of n_fft {n_fft} needs more than {padding} samples, got {samples.shape[1]}")
    padded = F.pad(samples.float().unsqueeze(1), (padding, padding), mode="reflect").squeeze(1)
    spectrum = torch.stft(padded, n_fft, hop, len(window), window, center=False, return_complex=True)
    # The square root has no finite slope at 0: silence would give NaN gradients.
    return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)


def mel_filters(bins: int, n_fft: int, low: float = 0.0, high: float = 8000.0) -> NDArray[np.float32]:
    """Triangular filters of equal area on Slaney's mel scale (Auditory Toolbox, 1998; the default of librosa).

    Linear to 1000 Hz (3 mels per 200 Hz), logarithmic above (27 steps to a factor of 6.4).

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


class MelSpectrogram(nn.Module):
    """Logarithm of mel energies as HiFi-GAN's loss takes them (Kong et al., 2020, section 2.3).

    Args:
        n_fft: samples of the transform and of its Hann window.
        hop: samples between frames.
        bins: mel filters between 0 and 8000 Hz.
        floor: smallest magnitude that the logarithm sees.
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
