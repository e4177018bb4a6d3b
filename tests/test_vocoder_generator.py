"""The unit vocoder's generator: batches, context, durations."""

from __future__ import annotations

import pytest
import torch
from random_vocoder import NUM_UNITS, make_vocoder

from nast_s2x.vocoder.config import UNIT_SAMPLES
from nast_s2x.vocoder.layers import Conv1d


def random_frames(*shape: int) -> torch.Tensor:
    return torch.randint(NUM_UNITS, shape, generator=torch.Generator().manual_seed(1))


def test_a_batch_equals_its_sequences_one_by_one() -> None:
    model, lengths = make_vocoder(), torch.tensor([31, 7, 1, 20, 0])
    frames = random_frames(5, 31)
    batch = model(frames, lengths)
    assert batch.shape == (5, 31 * UNIT_SAMPLES)
    for row, length in enumerate(lengths.tolist()):
        alone = model(frames[row : row + 1, :length])[0]
        torch.testing.assert_close(batch[row, : length * UNIT_SAMPLES], alone, rtol=0, atol=1e-5)
        assert not batch[row, length * UNIT_SAMPLES :].any()


def test_frames_past_the_end_of_a_sequence_have_no_effect() -> None:
    model, lengths = make_vocoder(), torch.tensor([12, 5])
    frames = random_frames(2, 12)
    other = frames.clone()
    other[1, 5:] = (other[1, 5:] + 1) % NUM_UNITS
    assert torch.equal(model(frames, lengths), model(other, lengths))
    assert torch.equal(model.durations(frames, lengths), model.durations(other, lengths))


def test_durations_of_a_batch() -> None:
    model, lengths = make_vocoder(), torch.tensor([15, 4, 1])
    units = random_frames(3, 15)
    batch = model.durations(units, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(batch[row, :length], model.durations(units[row : row + 1, :length])[0])
        assert not batch[row, length:].any()
    assert batch[0].min() >= 1 and batch[0].max() > 1


def test_a_unit_reaches_no_further_than_the_receptive_field() -> None:
    model = make_vocoder().double()
    frames = random_frames(1, 71)
    other = frames.clone()
    other[0, 35] = (other[0, 35] + 1) % NUM_UNITS
    changed = (model(frames) != model(other))[0].view(-1, UNIT_SAMPLES).any(1).nonzero()[:, 0]
    reach = max(35 - int(changed[0]), int(changed[-1]) - 35)
    # The effect of the outermost frames is below the resolution of float64.
    assert 19 <= reach <= model.receptive_frames == 21


@pytest.mark.parametrize("skip", [0, 1, 5, 20, 22, 39])
@pytest.mark.parametrize("num_samples", [None, 1, 400, 2 * UNIT_SAMPLES + 80, 100 * UNIT_SAMPLES])
def test_context_counts_in_full_and_is_not_returned(skip: int, num_samples: int | None) -> None:
    model, frames, lengths = make_vocoder().for_inference(), random_frames(2, 40), torch.tensor([40, 33])
    stop = None if num_samples is None else skip * UNIT_SAMPLES + num_samples
    for sizes in (None, lengths):
        expected = model(frames, sizes)[:, skip * UNIT_SAMPLES : stop]
        found = model(frames, sizes, skip=skip, num_samples=num_samples)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_window_is_computed_no_further_than_needed() -> None:
    model, seen = make_vocoder(), {}
    for name in ("conv_pre", "ups.0", "ups.4", "resblocks.12.convs2.2", "conv_post"):
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.__setitem__(name, output.shape[2])
        )
    model(random_frames(1, 200), skip=100, num_samples=4 * UNIT_SAMPLES)
    assert seen["conv_pre"] == 4 + 2 * 18 and seen["ups.0"] == 5 * seen["conv_pre"]
    assert seen["conv_post"] == 4 * UNIT_SAMPLES and seen["resblocks.12.convs2.2"] == 4 * UNIT_SAMPLES + 2 * 3
    assert seen["ups.4"] == 4 * UNIT_SAMPLES + 4 * 32


def test_one_network_with_and_without_gradients() -> None:
    """Training and synthesis use different convolution kernels."""
    plain, fast = make_vocoder(num_units=30), make_vocoder(num_units=30).for_inference()
    frames, lengths = random_frames(3, 25), torch.tensor([25, 3, 14])
    plain.requires_grad_(True)
    for sizes in (None, lengths):
        expected = plain(frames, sizes)
        assert expected.requires_grad
        torch.testing.assert_close(fast(frames, sizes), expected.detach(), rtol=0, atol=1e-5)
    expected.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for n, p in plain.named_parameters() if not n.startswith("dur_predictor"))


def test_the_memory_layout_does_not_change_the_weights() -> None:
    plain, fast = make_vocoder(), make_vocoder().for_inference()
    for (name, value), other in zip(plain.state_dict().items(), fast.state_dict().values()):
        assert torch.equal(value, other), name
    assert not fast.conv_pre.weight.is_contiguous()


@pytest.mark.parametrize("channels, kernel, dilation", [(8, 3, 1), (8, 7, 3), (130, 5, 2), (128, 1, 1)])
@pytest.mark.parametrize("batch", [1, 3])
def test_windows_of_a_convolution(channels: int, kernel: int, dilation: int, batch: int) -> None:
    torch.manual_seed(0)
    layer = Conv1d(channels, 12, kernel, dilation)
    reach = layer.before
    assert reach == layer.after
    for left, right in ((0, 0), (reach, reach), (reach // 2, 0), (0, reach)):
        window = torch.randn(batch, channels, left + 10 + right)
        padded = torch.nn.functional.pad(window, (reach - left, reach - right))
        expected = torch.nn.functional.conv1d(padded, layer.weight, layer.bias, dilation=dilation).detach()
        assert expected.shape == (batch, 12, 10)
        torch.testing.assert_close(layer(window, left, right).detach(), expected, rtol=0, atol=1e-5)
        with torch.no_grad():
            torch.testing.assert_close(layer(window, left, right), expected, rtol=0, atol=1e-5)


def test_empty_input_gives_empty_output() -> None:
    model = make_vocoder()
    assert model(torch.zeros(1, 0, dtype=torch.long)).shape == (1, 0)
    assert model(random_frames(2, 3), skip=3).shape == (2, 0)
    assert model.durations(torch.zeros(2, 0, dtype=torch.long)).shape == (2, 0)


def test_durations_need_a_predictor() -> None:
    with pytest.raises(ValueError, match="no duration predictor"):
        make_vocoder(durations=False).durations(random_frames(1, 3))


def test_half_precision_with_lengths() -> None:
    model, frames, lengths = make_vocoder(), random_frames(2, 9), torch.tensor([9, 4])
    expected = model(frames, lengths)
    found = model.to(torch.bfloat16)(frames, lengths)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.2)
