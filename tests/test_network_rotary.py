"""Rotary positions of the unit decoder, and attention in bfloat16."""

import math

import pytest
import torch
from test_network import POLICIES, check_streaming, small_model
from torch.nn import functional as F

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.network import attention
from nast_s2x.network.positions import rotary_angles, rotate

ROTARY = small_model(unit_rotary=True, max_unit_positions=6, unit_layers=2)
RELATIVE = small_model(relative_positions=True, max_text_positions=1, max_unit_positions=6)


def test_angles_by_hand() -> None:
    angles = rotary_angles(torch.tensor([0.0, 2.0, 0.5]), 4)
    assert angles.shape == (3, 4)
    torch.testing.assert_close(angles[1], torch.tensor([2.0, 0.02, 2.0, 0.02]))
    assert angles[2, 0] == 0.5
    # The pair (1, 0) of the first frequency, turned by a quarter: (0, 1).
    quarter = rotate(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([[math.pi / 2, 0.0, math.pi / 2, 0.0]]))
    torch.testing.assert_close(quarter, torch.tensor([[0.0, 0.0, 1.0, 0.0]]), atol=1e-6, rtol=0)


def test_products_depend_on_the_distance_alone() -> None:
    query, key = torch.randn(2, 1, 16, dtype=torch.float64)

    def product(at: float, to: float) -> float:
        ends = [rotate(x, rotary_angles(torch.tensor([where]), 16)) for x, where in ((query, at), (key, to))]
        return float((ends[0] * ends[1]).sum())

    assert product(3, 5.5) == pytest.approx(product(903, 905.5), abs=1e-4)
    assert abs(product(3, 5.5) - product(3, 4.5)) > 1e-2
    half = rotate(query.to(torch.bfloat16), rotary_angles(torch.tensor([7.0]), 16))
    assert half.dtype == torch.bfloat16 and rotate(query, rotary_angles(torch.tensor([7]), 16)).dtype == torch.float64


def test_an_encoder_frame_stands_in_the_middle_of_its_slots() -> None:
    # pooling 2, 1 text slot, 6 unit slots: 3 unit slots a frame, frame 4 covers slots 12, 13 and 14.
    unit = ROTARY.geometry(ChunkPolicy(None))
    (query, own), (_, frames) = ROTARY.unit_decoder._angles(torch.arange(13, 14), torch.arange(4, 5), unit)
    torch.testing.assert_close(frames, query)
    assert query is own


@torch.no_grad()
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_streaming_equals_offline(policy: ChunkPolicy) -> None:
    check_streaming(ROTARY, policy)


@torch.no_grad()
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_streaming_equals_offline_without_absolute_positions(policy: ChunkPolicy) -> None:
    check_streaming(RELATIVE, policy)


@torch.no_grad()
def test_without_absolute_positions_the_place_in_the_stream_does_not_matter() -> None:
    """With limited left context, the same features give the same logits wherever they stand."""
    policy, fbank = ChunkPolicy(320, 160, left_chunks=1), torch.randn(1, 32 * 20, 80, dtype=torch.float64)
    alone = RELATIVE(fbank, None, policy)
    later = RELATIVE(torch.cat([torch.randn(1, 32 * 7, 80, dtype=torch.float64), fbank], dim=1), None, policy)
    layers = len(RELATIVE.encoder.layers) + len(RELATIVE.decoder.layers) + len(RELATIVE.unit_decoder.layers)
    first = 4 * (layers + 1)  # text slot from which on no layer reaches back to the beginning of `fbank`
    assert first < alone.text_logits.size(1) - 8
    torch.testing.assert_close(later.text_logits[:, 28 + first :], alone.text_logits[:, first:])
    torch.testing.assert_close(later.unit_logits[:, 6 * (28 + first) :], alone.unit_logits[:, 6 * first :])
    assert not torch.allclose(alone.text_logits[:, -4:], alone.text_logits[:, -8:-4])


@torch.no_grad()
def test_learned_positions_repeat_and_set_no_limit() -> None:
    model = small_model(unit_rotary=True, max_unit_positions=6, max_text_positions=1024)
    table = model.unit_decoder.embed_positions.weight
    slots = torch.zeros(1, 20, 16, dtype=torch.float64)
    embedded = model.unit_decoder._with_positions(slots, torch.arange(3, 23))[0]
    expected = torch.stack([table[2 + slot % 6] for slot in range(3, 23)])
    torch.testing.assert_close(embedded, expected)
    assert model(torch.randn(1, 400, 80, dtype=torch.float64), None, ChunkPolicy(None)).unit_logits.size(1) == 300


def test_features_are_turned_in_pairs() -> None:
    with pytest.raises(ValueError, match="even head size, but decoder_dim 18 / decoder_heads 6 is odd"):
        small_model(unit_rotary=True, encoder_dim=18, decoder_dim=18, encoder_heads=6, decoder_heads=6)


@torch.no_grad()
def test_without_rotary_positions_nothing_is_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("rotated")

    monkeypatch.setattr(attention, "rotate", refuse)
    fbank = torch.randn(1, 40, 80, dtype=torch.float64)
    assert small_model()(fbank, None, ChunkPolicy(None)).unit_logits is not None
    with pytest.raises(AssertionError, match="rotated"):
        ROTARY(fbank, None, ChunkPolicy(None))


@pytest.mark.parametrize("masked", [True, False])
def test_plain_attention_is_the_fused_one(masked: bool) -> None:
    query, key, value = (torch.randn(2, 2, n, 8, dtype=torch.float64, requires_grad=True) for n in (5, 7, 7))
    mask = torch.rand(2, 1, 5, 7) < 0.7 if masked else None
    if mask is not None:
        mask[..., 0] = True
    weight = torch.randn(2, 2, 5, 8, dtype=torch.float64)
    results = []
    for function in (F.scaled_dot_product_attention, attention._plain_attention):
        out = function(query, key, value, mask, 0.0)
        results.append((out, *torch.autograd.grad((out * weight).sum(), (query, key, value))))
    for fused, plain in zip(*results, strict=True):
        torch.testing.assert_close(plain, fused)


def test_bfloat16_training_on_a_cpu_takes_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain = attention._plain_attention
    monkeypatch.setattr(attention, "_plain_attention", lambda *given: calls.append(1) or plain(*given))
    model = small_model(torch.float32, unit_rotary=True, max_unit_positions=6)
    fbank = torch.randn(2, 60, 80)
    exact = model(fbank, None, ChunkPolicy(None)).unit_logits
    assert not calls
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(fbank, None, ChunkPolicy(None)).unit_logits
    assert len(calls) == 2 * 2 + 1 * 2  # self- and cross-attention of 2 text and 1 unit layers
    with torch.no_grad():  # 8 text and 48 unit slots are few
        assert torch.equal(model(fbank, None, ChunkPolicy(None)).unit_logits, exact)
        assert len(calls) == 6
        model(torch.randn(1, 100, 80), None, ChunkPolicy(None))  # 78 unit slots are not
    assert len(calls) == 8
    assert F.cosine_similarity(rough.float().flatten(), exact.flatten(), dim=0) > 0.99
    rough.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
