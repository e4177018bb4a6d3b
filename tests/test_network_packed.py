"""Weights packed for inference: the same results as the plain form, and dropped whenever the weights change."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from test_network import small_model

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.network import NastModel, linear
from nast_s2x.network.cache import ChunkCache, Ring, Run
from nast_s2x.network.linear import Packable, PackedWeight

POLICY = ChunkPolicy(320, left_chunks=2)
needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> NastModel:
    monkeypatch.setattr(linear, "SMALL_WEIGHT", 0)
    return small_model(torch.float32)


def packed(model: NastModel) -> list[str]:
    return [name for name, part in model.named_modules() if isinstance(part, Packable) and part.packed is not None]


@needs_onednn
@torch.no_grad()
def test_packed_weights_give_the_logits_of_plain_ones(model: NastModel) -> None:
    fbank = torch.randn(2, 150, 80)
    plain, names = model(fbank, None, POLICY, with_asr=True), list(model.state_dict())
    model.convert_for_inference(torch.float32)
    found = packed(model)
    for name in ("decoder", "encoder.layers.0.self_attn", "encoder.layers.0.fc1", "decoder.layers.0.self_attn"):
        assert name in found
    assert "decoder.layers.0.encoder_attn.q_proj" in found  # alone: its input is not that of keys and values
    assert "decoder.layers.0.self_attn.q_proj" not in found  # part of the joined product
    whole, state = model(fbank, None, POLICY, with_asr=True), model.init_state(POLICY, 2)
    stream = [model(piece, None, POLICY, state=state, final=False) for piece in fbank.split(40, dim=1)]
    stream.append(model(fbank[:, :0], None, POLICY, state=state))
    for kind in ("text_logits", "unit_logits", "asr_logits"):
        torch.testing.assert_close(getattr(whole, kind), getattr(plain, kind), atol=1e-4, rtol=1e-4)
    for kind in ("text_logits", "unit_logits"):
        joined = torch.cat([getattr(part, kind) for part in stream], dim=1)
        torch.testing.assert_close(joined, getattr(plain, kind), atol=1e-4, rtol=1e-4)
    assert list(model.state_dict()) == names


@needs_onednn
def test_packed_weights_end_with_the_weights(model: NastModel) -> None:
    fbank, other = torch.randn(1, 80, 80), small_model(torch.float32)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    model.convert_for_inference(torch.float32)
    assert packed(model) != [] and packed(copy.deepcopy(model)) == []
    model.load_state_dict(other.state_dict())
    assert packed(model) == []
    with torch.no_grad():
        torch.testing.assert_close(
            model.pack()(fbank, None, POLICY).text_logits, other(fbank, None, POLICY).text_logits, atol=1e-4, rtol=1e-4
        )
    assert packed(pickle.loads(pickle.dumps(model))) == []
    assert packed(model.double()) == [] and packed(model.pack()) == []  # oneDNN has no float64
    # In 8 bits the layers have a form of their own; what stays in float32 is packed.
    left = ["encoder.conv_layers.out_proj", "decoder", "unit_decoder"]
    assert packed(model.convert_for_inference(torch.int8)) == left


@needs_onednn
def test_gradients_take_the_plain_form(model: NastModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("packed")

    model.convert_for_inference(torch.float32)
    monkeypatch.setattr(PackedWeight, "multiply", refuse)
    model(torch.randn(1, 80, 80), None, POLICY).unit_logits.sum().backward()
    assert model.encoder.layers[0].fc1.weight.grad.abs().sum() > 0
    with pytest.raises(AssertionError, match="packed"), torch.no_grad():
        model(torch.randn(1, 80, 80), None, POLICY)


def test_runs_of_rows() -> None:
    assert Run.of([4]) == [Run(slice(0, 1), slice(4, 5))]
    runs = Run.of([0, 1, 5, 7, 8, 9])
    assert [run.held for run in runs] == [slice(0, 2), slice(5, 6), slice(7, 10)]
    assert [run.rows for run in runs] == [slice(0, 2), slice(2, 3), slice(3, 6)]


@pytest.mark.parametrize("same", [True, False])
def test_a_cache_stores_the_rows_of_a_step_alone(same: bool) -> None:
    ring = Ring(3, 2, 1)
    cache, random = ChunkCache(ring), np.random.default_rng(0)
    chunks, kept = np.zeros(6, np.int64), {}
    for _ in range(30):
        rows = (
            [0, 1, 2, 3, 4, 5] if same else sorted(random.choice(6, int(random.integers(1, 7)), replace=False).tolist())
        )
        now = torch.from_numpy(chunks[rows])
        ring.move_to(int(now[0]) if (now == now[0]).all() else None, now, rows)
        new = torch.randn(len(rows), 2, 3, 4)
        parts = cache.parts(new, -new)
        held = torch.cat([part.keys for part in parts])
        assert torch.equal(torch.cat([part.values for part in parts]), -held)
        for place, row in enumerate(rows):
            kept[row, chunks[row] % 3] = new[place, :, :2]
            assert torch.equal(held[place, :, 6:], new[place, :, 2:])
            for (other, slot), expected in kept.items():
                if other == row:
                    assert torch.equal(held[place, :, 2 * slot : 2 * slot + 2], expected)
        chunks[rows] += 1
