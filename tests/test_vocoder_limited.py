"""Vocoders with limited look-ahead: what a sample depends on, streams that compute every sample once."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from random_vocoder import NUM_UNITS, make_vocoder

from nast_s2x.errors import CheckpointError, ConfigError
from nast_s2x.vocoder.checkpoint import load_vocoder, save_vocoder
from nast_s2x.vocoder.config import UNIT_SAMPLES, VocoderConfig
from nast_s2x.vocoder.layers import VocoderState
from nast_s2x.vocoder.network import UnitVocoder
from nast_s2x.vocoder.offline import synthesize
from nast_s2x.vocoder.streaming import SynthesisWindow, VocoderStream, synthesize_chunks

LOOKAHEADS = [0, 2, 5, 6]


def random_frames(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(NUM_UNITS, shape, generator=torch.Generator().manual_seed(seed))


def random_chunks(sizes: list[int]) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(NUM_UNITS, size=size).tolist() for size in sizes]


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_a_sample_sees_the_limited_lookahead_and_no_more(lookahead: int) -> None:
    model = make_vocoder(lookahead=lookahead).double()
    frames = random_frames(1, 90)
    other = frames.clone()
    other[0, 50] = (other[0, 50] + 1) % NUM_UNITS
    changed = (model(frames) != model(other))[0].view(-1, UNIT_SAMPLES).any(1).nonzero()[:, 0]
    assert int(changed[0]) == 50 - lookahead
    assert 50 + 25 < int(changed[-1]) <= 50 + model.receptive_frames


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
@pytest.mark.parametrize("sizes", [[1] * 30, [30], [7, 0, 1, 12, 10], [3, 27]])
def test_a_state_continues_exactly(lookahead: int, sizes: list[int]) -> None:
    model = make_vocoder(lookahead=lookahead).double().for_inference()
    frames, state, at, pieces = random_frames(2, 30), VocoderState(), 0, []
    expected = model(frames)
    for size in sizes:
        window = frames[:, at : min(30, at + size + lookahead)]
        pieces.append(model(window, num_samples=size * UNIT_SAMPLES, state=state))
        at += size
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=0, atol=1e-12)


def test_with_gradients_it_is_the_same_network() -> None:
    model = make_vocoder(lookahead=3).requires_grad_(True)
    frames, lengths = random_frames(3, 25), torch.tensor([25, 3, 14])
    found = model(frames, lengths)
    assert found.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(model(frames, lengths), found.detach(), rtol=0, atol=1e-5)
        torch.testing.assert_close(model(frames[1:2, :3])[0], found[1, : 3 * UNIT_SAMPLES], rtol=0, atol=1e-5)


@pytest.mark.parametrize("skip, num_samples", [(0, 400), (5, None), (20, 2 * UNIT_SAMPLES), (33, 80)])
def test_windows(skip: int, num_samples: int | None) -> None:
    model, frames = make_vocoder(lookahead=4).for_inference(), random_frames(1, 60)
    stop = None if num_samples is None else skip * UNIT_SAMPLES + num_samples
    expected = model(frames)[:, skip * UNIT_SAMPLES : stop]
    found = model(frames, skip=skip, num_samples=num_samples)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sizes", [[4, 1, 1, 9, 3], [1] * 12, [30, 3], [0, 0, 1, 5]])
def test_a_stream_is_one_window(sizes: list[int]) -> None:
    vocoder = make_vocoder(lookahead=5).for_inference()
    chunks = random_chunks(sizes)
    units = list(chain(*chunks))
    found = synthesize_chunks(vocoder, chunks)
    (expected,) = synthesize(vocoder, [units])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_pause_releases_everything_and_the_stream_goes_on() -> None:
    vocoder, chunks = make_vocoder(lookahead=5).for_inference(), random_chunks([6, 0, 7, 0, 0, 2])
    stream = VocoderStream(vocoder)
    pieces = [stream.push(units, final=index == 5) for index, units in enumerate(chunks)]
    released = np.concatenate(pieces[:2])
    (alone,) = synthesize(vocoder, [chunks[0]])
    np.testing.assert_allclose(released, alone, rtol=0, atol=1e-5)
    assert not len(pieces[4]) and len(pieces[5])
    # Behind the pause the convolutions go on from the samples before it: another beginning than that of a new stream.
    (fresh,) = synthesize(vocoder, [chunks[2]])
    assert np.abs(np.concatenate(pieces[2:4])[:UNIT_SAMPLES] - fresh[:UNIT_SAMPLES]).max() > 0.01


def test_every_sample_of_every_layer_is_computed_once() -> None:
    vocoder = make_vocoder(lookahead=5).for_inference()
    counts: dict[str, int] = {}
    for name, layer in vocoder.named_modules():
        if name.startswith(("conv", "resblocks")) and not list(layer.children()):
            layer.register_forward_hook(
                lambda module, inputs, output, name=name: counts.__setitem__(
                    name, counts.get(name, 0) + output.shape[2]
                )
            )
    stream = VocoderStream(vocoder)
    for index in range(40):
        stream.push(random_chunks([4])[0], final=index == 39)
    rates, expected = np.cumprod(vocoder.config.upsample_rates), stream.num_samples // UNIT_SAMPLES
    assert counts["conv_pre"] == expected and counts["conv_post"] == expected * UNIT_SAMPLES
    for stage in range(5):
        for block in range(3 * stage, 3 * stage + 3):
            assert counts[f"resblocks.{block}.convs1.0"] == expected * rates[stage]


def test_the_state_does_not_grow() -> None:
    vocoder, state, sizes = make_vocoder(lookahead=2).for_inference(), VocoderState(), []
    for count in (1, 9, 3, 30):
        vocoder(random_frames(1, count + 2), num_samples=count * UNIT_SAMPLES, state=state)
        sizes.append(state.num_values)
    assert len(set(sizes)) == 1 and sizes[0] > 0


def test_the_window_is_that_of_the_weights() -> None:
    limited, released = make_vocoder(lookahead=3), make_vocoder()
    assert VocoderStream(limited).window.lookahead_frames == 3 == SynthesisWindow.of(limited).lookahead_frames
    assert SynthesisWindow.of(released).lookahead_frames == 5 and SynthesisWindow.of(released, 2).lookahead_frames == 2
    for window in (lambda: SynthesisWindow.of(limited, 5), lambda: VocoderStream(limited, SynthesisWindow(5))):
        with pytest.raises(ConfigError, match="lookahead_frames must be 3, which this vocoder was trained with"):
            window()


def test_a_state_needs_limited_lookahead_and_whole_frames() -> None:
    with pytest.raises(ConfigError, match="no limited look-ahead"):
        make_vocoder()(random_frames(1, 3), state=VocoderState())
    with pytest.raises(ConfigError, match="whole unit frames"):
        make_vocoder(lookahead=1)(random_frames(1, 3), num_samples=100, state=VocoderState())


def test_a_folder_keeps_the_lookahead(tmp_path: Path) -> None:
    model = make_vocoder(lookahead=4)
    loaded = load_vocoder(save_vocoder(model, tmp_path / "voice"))
    assert loaded.config == model.config and loaded.config.lookahead_frames == 4
    torch.testing.assert_close(loaded(random_frames(1, 9)), model(random_frames(1, 9)), rtol=0, atol=1e-5)
    assert "lookahead_frames" not in make_vocoder().config.to_dict()


@pytest.mark.parametrize("value", [-1, 7, 1.5, True, "5"])
def test_impossible_lookaheads(value: object) -> None:
    with pytest.raises(ConfigError, match="lookahead_frames`? must be"):
        VocoderConfig.from_dict(make_vocoder(lookahead=1).config.to_dict() | {"lookahead_frames": value})


def test_a_training_does_not_go_on_with_another_lookahead(tmp_path: Path) -> None:
    from nast_s2x.vocoder.training.trainer import _check_same_vocoder

    saved, wanted = (make_vocoder(lookahead=value).config.to_dict() for value in (4, None))
    for pair in ((saved, wanted), (wanted, saved)):
        with pytest.raises(CheckpointError, match="lookahead_frames"):
            _check_same_vocoder(*pair)


def test_kernels_of_the_published_sizes() -> None:
    """The published generator with limited look-ahead: the same parameters."""
    with torch.device("meta"):
        published, limited = UnitVocoder(VocoderConfig()), UnitVocoder(VocoderConfig(lookahead_frames=5))
    assert {name: value.shape for name, value in published.state_dict().items()} == {
        name: value.shape for name, value in limited.state_dict().items()
    }
    assert published.receptive_frames == 21 and limited.receptive_frames == 36
