"""Mel energies, losses and discriminators of the vocoder's training against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nast_s2x.vocoder.training.discriminators import Discriminators, PeriodDiscriminator, ScaleDiscriminator
from nast_s2x.vocoder.training.losses import (
    MelLoss,
    MelSpectrogram,
    StftLoss,
    discriminator_loss,
    duration_loss,
    feature_matching_loss,
    generator_adversarial_loss,
    magnitudes,
    mel_filters,
)


def brute_force_magnitudes(samples: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    """|sum_n w(n) x(n) exp(-2 pi i k n / n_fft)| frame by frame, in float64."""
    padding = (n_fft - hop) // 2
    padded = np.pad(samples.astype(np.float64), padding, mode="reflect")
    n = np.arange(n_fft)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / n_fft)
    basis = np.exp(-2j * np.pi * np.outer(np.arange(n_fft // 2 + 1), n) / n_fft)
    starts = range(0, len(padded) - n_fft + 1, hop)
    return np.stack([np.abs(basis @ (window * padded[start : start + n_fft])) for start in starts], axis=1)


def test_magnitudes_and_mel_against_brute_force() -> None:
    samples = np.random.default_rng(0).normal(0, 0.3, (2, 640)).astype(np.float32)
    mel = MelSpectrogram(n_fft=256, hop=64, bins=12)
    wanted = np.stack([brute_force_magnitudes(row, 256, 64) for row in samples])
    result = magnitudes(torch.from_numpy(samples), mel.window, 256, 64)
    assert result.shape == (2, 129, 10)  # n / hop frames
    np.testing.assert_allclose(result, wanted, atol=2e-4)
    energies = np.log(np.maximum(mel_filters(12, 256) @ wanted, 1e-5))
    np.testing.assert_allclose(mel(torch.from_numpy(samples)), energies, atol=2e-4)


def test_mel_filters_have_slaneys_edges_and_equal_area() -> None:
    # Linear up to 1000 Hz, mel 15; 8000 Hz is mel 15 + 27 ln 8 / ln 6.4.
    highest = 15 + 27 * math.log(8) / math.log(6.4)
    filters = mel_filters(10, 1 << 14, high=1000.0)  # mel 0 to 15 in 11 steps: linear, 1000 / 11 Hz
    frequencies = np.linspace(0, 8000, (1 << 13) + 1)
    for index, row in enumerate(filters):
        inside = frequencies[row > 0]
        assert inside.min() == pytest.approx(index * 1000 / 11, abs=1.5)
        assert inside.max() == pytest.approx((index + 2) * 1000 / 11, abs=1.5)
    np.testing.assert_allclose(filters.sum(axis=1) * 8000 / (1 << 13), 1.0, atol=1e-3)  # triangles of area 1
    last = mel_filters(80, 1 << 14)[-1]
    centre = 1000 * math.exp((highest * 80 / 81 - 15) * math.log(6.4) / 27)
    assert frequencies[last.argmax()] == pytest.approx(centre, abs=1.5)


def test_mel_of_silence_has_a_gradient() -> None:
    silence = torch.zeros(1, 2048, requires_grad=True)
    MelLoss([(512, 128, 20)])(silence, torch.zeros(1, 2048)).backward()
    StftLoss([(512, 128)])(silence, torch.zeros(1, 2048)).backward()
    assert torch.isfinite(silence.grad).all()


def test_spectrogram_refuses_too_few_samples() -> None:
    with pytest.raises(ValueError, match="n_fft 1024 needs more than 384 samples, got 320"):
        MelSpectrogram()(torch.zeros(1, 320))


def test_spectral_losses_of_a_scaled_waveform() -> None:
    real = torch.from_numpy(np.random.default_rng(1).normal(0, 0.3, (1, 4096)).astype(np.float32))
    # Half the amplitude: every log energy differs by ln 2, and the magnitudes by half their norm.
    mel = MelLoss([(1024, 256, 20), (512, 128, 10)])(real / 2, real)
    stft = StftLoss([(1024, 256), (512, 128)])(real / 2, real)
    assert mel.item() == pytest.approx(math.log(2), abs=1e-4)
    assert stft.item() == pytest.approx(math.log(2) + 0.5, abs=1e-3)


def test_magnitudes_below_the_floor_do_not_count() -> None:
    loss = MelLoss([(512, 128, 20)], floor=0.5)
    assert loss(torch.zeros(1, 2048), torch.full((1, 2048), 1e-3)).item() == 0


def test_adversarial_losses_by_hand() -> None:
    real = [torch.tensor([[1.0, 0.5]]), torch.tensor([[2.0]])]
    fake = [torch.tensor([[0.0, 0.5]]), torch.tensor([[-1.0]])]
    # ((0 + 0.25) / 2 + (0 + 0.25) / 2) + (1 + 1)
    assert discriminator_loss(real, fake).item() == pytest.approx(2.25)
    # (1 + 0.25) / 2 + 4
    assert generator_adversarial_loss(fake).item() == pytest.approx(4.625)


def test_feature_matching_by_hand_moves_only_the_generated_features() -> None:
    real = [[torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([0.0])], [torch.tensor([3.0])]]
    fake = [[torch.tensor([0.0, 4.0], requires_grad=True), torch.tensor([0.5])], [torch.tensor([1.0])]]
    loss = feature_matching_loss(real, fake)
    assert loss.item() == pytest.approx(1.5 + 0.5 + 2.0)
    loss.backward()
    assert real[0][0].grad is None and fake[0][0].grad.tolist() == [-0.5, 0.5]


def test_duration_loss_by_hand_ignores_padding() -> None:
    predicted = torch.tensor([[math.log(2), math.log(4) + 1], [math.log(3), 99.0]])
    durations, lengths = torch.tensor([[1, 3], [5, 0]]), torch.tensor([2, 1])
    # Errors 0, 1 and ln 6 - ln 3.
    assert duration_loss(predicted, durations, lengths).item() == pytest.approx((1 + math.log(2) ** 2) / 3)


def test_period_discriminator_keeps_columns_apart() -> None:
    torch.manual_seed(0)
    discriminator = PeriodDiscriminator(3, channels=(4, 8)).eval()
    samples = torch.randn(2, 62)  # the last row of 21 is filled by one reflected sample
    output = discriminator(samples)
    # Rows 21 -> 7 -> 3 by strides of 3; features of two strided, one plain and the output layer.
    assert [tuple(f.shape) for f in output.features] == [(2, 4, 7, 3), (2, 8, 3, 3), (2, 8, 3, 3), (2, 1, 3, 3)]
    assert output.score.shape == (2, 9)
    samples[:, 1::3] += 1.0
    changed = (discriminator(samples).features[2] != output.features[2]).any(dim=(0, 1, 2))
    assert changed.tolist() == [False, True, False]
    filled = torch.cat([samples, samples[:, -2:-1]], dim=1)
    torch.testing.assert_close(discriminator(samples).score, discriminator(filled).score)


def test_scale_discriminator_shapes() -> None:
    output = ScaleDiscriminator(16)(torch.randn(2, 640))
    assert [f.shape[1:] for f in output.features] == [
        (16, 640), (16, 320), (32, 160), (64, 40), (128, 10), (128, 10), (128, 10), (1, 10)
    ]  # fmt: skip
    assert output.score.shape == (2, 10)


def test_each_scale_receives_half_the_rate() -> None:
    received: list[Tensor] = []
    discriminators = Discriminators(periods=(2,), period_channels=(4,), scales=3, scale_width=16)
    for scale in discriminators.scales:
        scale.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    assert len(discriminators(torch.ones(1, 64))) == 4
    assert [x.shape[1] for x in received] == [64, 33, 17]
    # The average of four samples, two apart; two of the first four are padding.
    assert received[1][0, :3].tolist() == [0.5, 1.0, 1.0]


def test_published_discriminators_have_the_papers_sizes() -> None:
    discriminators = Discriminators()
    assert [d.period for d in discriminators.periods] == [2, 3, 5, 7, 11]
    assert discriminators.periods[0].convs[4].weight.shape == (1024, 1024, 5, 1)
    assert [scale.convs[5].weight.shape for scale in discriminators.scales] == [(1024, 64, 41)] * 3


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"periods": (), "scales": 0}, "at least one discriminator"), ({"scale_width": 24}, "multiple of 16, not 24")],
)
def test_impossible_discriminators_are_refused(sizes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Discriminators(**sizes)
