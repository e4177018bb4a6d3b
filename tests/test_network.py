"""The network: streaming equals offline, nothing after the look-ahead matters, padding never matters."""

import itertools

import pytest
import torch

from nast_s2x.batches import Lengths
from nast_s2x.checkpoints.published import load_published_state
from nast_s2x.chunking import ChunkPolicy, SequenceLayout, SlotRates
from nast_s2x.errors import ConfigError
from nast_s2x.network import NastConfig, NastModel, positions_for_seconds, preset
from nast_s2x.network.attention import RelativeSelfAttention, Sight
from nast_s2x.network.cache import ChunkCache, Ring
from nast_s2x.network.linear import Linear
from nast_s2x.network.positions import sinusoidal_positions
from nast_s2x.network.relations import Relations
from nast_s2x.network.subsampling import ConvSubsampler, pool_frames


def small_model(dtype: torch.dtype = torch.float64, **overrides: object) -> NastModel:
    torch.manual_seed(7)
    sizes = {
        "conv_channels": 4,
        "encoder_dim": 16,
        "encoder_layers": 2,
        "encoder_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_dim": 16,
        "decoder_layers": 2,
        "decoder_heads": 2,
        "decoder_ffn_dim": 32,
        "unit_layers": 1,
        "max_relative_position": 5,
    }
    model = NastModel(NastConfig(text_vocab=11, unit_vocab=13, **{**sizes, **overrides}))
    for parameter in model.parameters():  # BERT-style weights are too small to tell anything apart
        torch.nn.init.normal_(parameter, std=0.25)
    return model.to(dtype).eval()


MODEL = small_model()
POLICIES = (
    [
        ChunkPolicy(chunk * 10, lookahead * 10, wait_chunks=wait)
        for chunk, lookahead, wait in itertools.product((16, 32), (0, 8, 32, 52), (0, 1, 2))
    ]
    + [ChunkPolicy(None)]
    + [
        ChunkPolicy(chunk, lookahead, wait, left)
        for chunk, lookahead, wait, left in itertools.product((160, 320), (0, 80, 320), (0, 1), (0, 1, 2))
    ]
)


def stream(model: NastModel, fbank: torch.Tensor, policy: ChunkPolicy, cuts: list[int]) -> tuple:
    state = model.init_state(policy, fbank.size(0))
    text, unit, slots = [], [], 0
    edges = [0, *cuts, fbank.size(1)]
    for start, stop in itertools.pairwise(edges):
        output = model(fbank[:, start:stop], None, policy, state=state, final=False)
        assert output.first_text_slot == slots
        slots += output.text_logits.size(1)
        allowed = model.geometry(policy).ready_chunks(stop) - policy.wait_chunks
        assert slots == (0 if policy.is_offline else max(0, allowed) * model.geometry(policy).per_chunk("text"))
        text.append(output.text_logits)
        unit.append(output.unit_logits)
    output = model(fbank[:, :0], None, policy, state=state, final=True)
    return torch.cat([*text, output.text_logits], 1), torch.cat([*unit, output.unit_logits], 1), state


def check_streaming(model: NastModel, policy: ChunkPolicy) -> None:
    """Streams of many lengths, cut at random, give what the whole utterance gives; ``model`` is a small_model."""
    generator = torch.Generator().manual_seed(3)
    for frames in (0, 1, 3, 31, 32, 33, 65, 150, 203):
        fbank = torch.randn(2, frames, 80, generator=generator, dtype=torch.float64)
        whole = model(fbank, None, policy)
        number = int(torch.randint(0, 6, (1,), generator=generator))
        cuts = sorted(torch.randint(0, frames + 1, (number,), generator=generator).tolist())
        text, unit, _ = stream(model, fbank, policy, cuts)
        assert text.shape == whole.text_logits.shape == (2, model.geometry(policy).length("text", frames), 11)
        assert unit.shape == whole.unit_logits.shape == (2, model.geometry(policy).length("unit", frames), 13)
        torch.testing.assert_close(text, whole.text_logits, atol=1e-10, rtol=0)
        torch.testing.assert_close(unit, whole.unit_logits, atol=1e-10, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_streaming_equals_offline(policy: ChunkPolicy) -> None:
    check_streaming(MODEL, policy)


@torch.no_grad()
def test_frame_by_frame_in_float32() -> None:
    model, policy = small_model(torch.float32), ChunkPolicy(320, 160)
    fbank = torch.randn(1, 170, 80)
    text, unit, _ = stream(model, fbank, policy, list(range(1, 170)))
    whole = model(fbank, None, policy)
    torch.testing.assert_close(text.log_softmax(-1), whole.text_logits.log_softmax(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(unit.log_softmax(-1), whole.unit_logits.log_softmax(-1), atol=1e-4, rtol=0)


@torch.no_grad()
def test_interleaved_streams_do_not_meet() -> None:
    policy = ChunkPolicy(160)
    first, second = (torch.randn(1, 96, 80, dtype=torch.float64) for _ in range(2))
    states = [MODEL.init_state(policy) for _ in range(2)]
    got = [[], []]
    for start in range(0, 96, 8):
        for number, fbank in enumerate((first, second)):
            final = start == 88
            output = MODEL(fbank[:, start : start + 8], None, policy, state=states[number], final=final)
            got[number].append(output.text_logits)
    for fbank, logits in zip((first, second), got, strict=True):
        torch.testing.assert_close(torch.cat(logits, 1), MODEL(fbank, None, policy).text_logits, atol=1e-10, rtol=0)


@pytest.mark.parametrize("policy", [ChunkPolicy(320, 160), ChunkPolicy(160, 320, wait_chunks=1)], ids=str)
def test_causality_by_gradient(policy: ChunkPolicy) -> None:
    fbank = torch.randn(1, 160, 80, dtype=torch.float64, requires_grad=True)
    output = MODEL(fbank, None, policy)
    for chunk in range(3):
        last = (chunk + 1) * MODEL.geometry(policy).per_chunk("text")
        for logits, ratio in ((output.text_logits, 1), (output.unit_logits, MODEL.config.rates.unit_upsample)):
            (gradient,) = torch.autograd.grad(logits[:, : last * ratio].sum(), fbank, retain_graph=True)
            heard = gradient[0].abs().sum(-1).nonzero().max() + 1
            # The last window needs only the first frame of four.
            assert MODEL.geometry(policy).emission_frames(chunk) - 3 == heard


@torch.no_grad()
@pytest.mark.parametrize(
    "policy", [ChunkPolicy(None), ChunkPolicy(320, 160), ChunkPolicy(160, 400, wait_chunks=1)], ids=str
)
def test_padding_and_batching_do_not_matter(policy: ChunkPolicy) -> None:
    lengths = Lengths((140, 33, 1, 97))
    fbank = torch.randn(4, 140, 80, dtype=torch.float64)  # past the lengths: noise, not zeros
    batch = MODEL(fbank, lengths, policy, with_asr=True)
    for number, frames in enumerate(lengths.host):
        alone = MODEL(fbank[number : number + 1, :frames], None, policy, with_asr=True)
        for name in ("encoder_out", "text_logits", "unit_logits", "asr_logits"):
            one = getattr(alone, name)
            padded = getattr(batch, name)[number : number + 1, : one.size(1)]
            torch.testing.assert_close(padded, one, atol=1e-10, rtol=0)
    assert list(batch.text_lengths.host) == [MODEL.geometry(policy).length("text", frames) for frames in lengths.host]


def test_an_empty_sentence_in_a_batch_leaves_no_nan() -> None:
    fbank = torch.randn(2, 64, 80, dtype=torch.float64)
    output = MODEL(fbank, Lengths((64, 0)), ChunkPolicy(320), with_asr=True)
    total = output.text_logits.sum() + output.unit_logits.sum() + output.asr_logits.sum()
    gradients = torch.autograd.grad(total, [p for p in MODEL.parameters() if p.requires_grad])
    assert torch.isfinite(total) and all(torch.isfinite(gradient).all() for gradient in gradients)


@torch.no_grad()
def test_other_rates_stream_as_well() -> None:
    model = small_model(rates=SlotRates(pooling=3, text_upsample=2, unit_upsample=2))
    check_streaming(model, ChunkPolicy(240))
    check_streaming(model, ChunkPolicy(240, 240, wait_chunks=1, left_chunks=1))


def test_a_policy_that_does_not_fit_the_rates_is_refused() -> None:
    with pytest.raises(ConfigError, match="`chunk_ms` must be a multiple of 80 for this model, but is 200"):
        MODEL.geometry(ChunkPolicy(200))
    with pytest.raises(ConfigError, match="`lookahead_ms` must be a multiple of 40 for this model, but is 30"):
        MODEL(torch.zeros(1, 8, 80), None, ChunkPolicy(320, 30))
    with pytest.raises(ConfigError, match="`subsampling` must be 4, but is 2"):
        small_model(rates=SlotRates(subsampling=2))


@torch.no_grad()
def test_left_context_hides_older_chunks() -> None:
    # With one layer, a chunk sees what its mask shows: frames of older chunks must not matter at all.
    model = small_model(encoder_layers=1, decoder_layers=1, unit_layers=1)
    fbank = torch.randn(1, 160, 80, dtype=torch.float64)
    changed = fbank.clone()
    changed[:, :20] += 1.0  # in chunk 0 of 32 frames, away from what the convolution shows to chunk 1
    for left, same in ((0, True), (1, True), (3, True), (4, False), (None, False)):
        policy = ChunkPolicy(320, 0, left_chunks=left)
        before, after = (model(item, None, policy).encoder_out for item in (fbank, changed))
        assert torch.equal(before[:, 32:], after[:, 32:]) == same, left


@torch.no_grad()
def test_work_per_chunk_is_constant_but_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = RelativeSelfAttention._project
    monkeypatch.setattr(RelativeSelfAttention, "_project", lambda self, x: seen.append(x.size(1)) or original(self, x))
    policy = ChunkPolicy(320)
    stream(MODEL, torch.randn(1, 640, 80, dtype=torch.float64), policy, list(range(32, 640, 32)))
    assert max(seen) == 16 and sum(seen) <= MODEL.config.encoder_layers * 2 * 160  # 8 frames and 8 copies a chunk


def test_a_cache_of_the_whole_past_grows_by_doubling_and_drops_lookahead_keys() -> None:
    ring = Ring(None, 7, 3)
    cache, parts = ChunkCache(ring), [torch.randn(2, 1, 10, 4) for _ in range(30)]
    for chunk, part in enumerate(parts):
        ring.move_to(chunk, torch.full((2,), chunk))
        keys, values = cache.extend(part, -part)
    kept = torch.cat([part[:, :, :7] for part in parts[:-1]] + [parts[-1]], dim=2)
    assert torch.equal(keys, kept) and torch.equal(values, -kept) and cache.keys.size(2) == 256


@pytest.mark.parametrize("together", [True, False])
def test_a_ring_keeps_the_last_chunks_of_each_row(together: bool) -> None:
    ring = Ring(3, 2, 1)
    cache, ahead = ChunkCache(ring), 0 if together else 4
    parts = [torch.randn(2, 1, 3, 4) for _ in range(20)]
    for step, part in enumerate(parts):
        chunks = torch.tensor([step, step + ahead])
        ring.move_to(step if together else None, chunks)
        keys, _ = cache.extend(part, part)
        assert keys.size(2) == cache.keys.size(2) == 7  # three chunks of two, and one copy
    for row, last in ((0, 19), (1, 19 + ahead)):
        for back in range(3):
            place = (last - back) % 3 * 2
            assert torch.equal(keys[row, :, place : place + 2], parts[19 - back][row, :, :2])
        assert torch.equal(keys[row, :, 6:], parts[19][row, :, 2:])


def test_relative_attention_against_the_definition() -> None:
    torch.manual_seed(1)
    layer = RelativeSelfAttention(8, 2, 3, 0.0).double()
    x, position = torch.randn(1, 9, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 5, 6, 3, 4])
    layout = SequenceLayout(position, torch.zeros_like(position), torch.zeros(9, dtype=torch.bool))
    got = layer(x, [Sight(1, None, Relations.of(layout, layout, 3))])
    q, k, v = (t.reshape(9, 2, 4) for t in layer._project(x[0]))
    out = torch.zeros(9, 2, 4, dtype=torch.float64)
    for head, i in itertools.product(range(2), range(9)):
        rows = [int((position[j] - position[i]).clamp(-3, 3)) + 3 for j in range(9)]
        key = k[:, head] + layer.relative_keys_embedding.weight[rows]
        weights = (key @ q[i, head] / 2).softmax(0)
        out[i, head] = weights @ (v[:, head] + layer.relative_values_embedding.weight[rows])
    torch.testing.assert_close(got[0], layer.out_proj(out.reshape(9, 8)), atol=1e-12, rtol=0)


def test_subsampling_lengths_and_pooling() -> None:
    conv = ConvSubsampler(80, 2, 5)
    for frames in range(12):
        assert conv(torch.zeros(1, frames, 80))[0].size(1) == -(-frames // 4)
    x = torch.tensor([[[1.0], [3.0], [5.0]]], requires_grad=True)
    assert pool_frames(x, 2).flatten().tolist() == [2.0, 5.0]
    pooled = pool_frames(x, 2, torch.tensor([[True, False, False]]))
    assert pooled.flatten().tolist() == [1.0, 0.0]
    assert torch.autograd.grad(pooled.sum(), x)[0].flatten().tolist() == [1.0, 0.0, 0.0]


@torch.no_grad()
def test_linear_of_few_rows_is_the_same_product() -> None:
    layer = Linear(512, 1024)
    for shape in ((1, 1, 512), (1, 9, 512), (2, 12, 512), (1, 48, 512), (1, 49, 512), (16, 512), (0, 512)):
        x = torch.randn(shape)
        expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
        got = layer(x)
        assert got.shape == expected.shape
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_stream_in_int8_may_end_without_new_frames() -> None:
    model, policy = small_model(torch.float32).convert_for_inference(torch.int8), ChunkPolicy(160, 0, wait_chunks=1)
    # Both chunks leave the encoder at once, and the last one waits in the decoders.
    fbank = torch.randn(1, 32, 80, generator=torch.Generator().manual_seed(0))
    text, unit, _ = stream(model, fbank, policy, [])
    whole = model(fbank, None, policy)
    torch.testing.assert_close(text, whole.text_logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(unit, whole.unit_logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8, torch.float64])
def test_label_embeddings_are_not_rounded(dtype: torch.dtype) -> None:
    model = small_model(torch.float32)
    before = [module.embed_tokens.weight.clone() for module in (model.decoder, model.unit_decoder)]
    model.convert_for_inference(dtype)
    for module, weight in zip((model.decoder, model.unit_decoder), before, strict=True):
        assert torch.equal(module.embed_tokens.weight, weight.to(module.embed_tokens.weight.dtype))
        assert module.embed_tokens.weight.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_int8_is_for_cpus() -> None:
    with pytest.raises(ConfigError, match="int8 is for CPUs, but the model is on meta"):
        small_model().to("meta").convert_for_inference(torch.int8)


@pytest.mark.parametrize("value", [1, -0.1, float("nan"), "0.1"])
def test_dropout_is_less_than_1(value: object) -> None:
    with pytest.raises(ConfigError, match="`dropout` must be a finite number of at least 0 and less than 1, but is"):
        small_model(dropout=value)


def test_sizes_of_the_presets() -> None:
    # 52.5M (text) and 78.8M (speech) parameters with a 10k vocabulary (Ma et al., 2024)
    for units, millions in ((0, 52.5), (1005, 78.8)):
        with torch.device("meta"):
            model = NastModel(preset("base", text_vocab=10000, unit_vocab=units))
        assert abs(sum(p.numel() for p in model.parameters()) / 1e6 - millions) < 0.3
    assert positions_for_seconds(60, SlotRates()) == (750, 4500)


@torch.no_grad()
def test_past_the_position_table_is_a_clear_error() -> None:
    model = small_model(max_text_positions=20, max_unit_positions=60)
    with pytest.raises(ValueError, match=r"unit decoder has learned positions for 60 slots, 0.8 s .* needs 66 slots"):
        model(torch.zeros(1, 88, 80, dtype=torch.float64), None, ChunkPolicy(320, 0))
    output = model(torch.zeros(1, 88, 80, dtype=torch.float64), None, ChunkPolicy(320, 0), with_units=False)
    assert output.unit_logits is None and output.text_logits.size(1) == 11


def test_too_long_a_source_is_refused_before_the_encoder_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(max_text_positions=20, max_unit_positions=120)  # 160 frames
    monkeypatch.setattr(model.encoder, "_run", None)  # would be a TypeError
    hour = torch.zeros(1, 360_000, 1, dtype=torch.float64).expand(-1, -1, 80)
    for policy in (ChunkPolicy(None), ChunkPolicy(320, 0)):
        with pytest.raises(ValueError, match="text decoder has learned positions for 20 slots, 1.6 s"):
            model(hour, None, policy)
        state = model.init_state(policy)
        for final in (False, False, True):
            with pytest.raises(ValueError, match="text decoder has learned positions for 20 slots, 1.6 s"):
                model(hour, None, policy, state=state, final=final)


@torch.no_grad()
def test_sinusoids_of_the_unit_decoder_are_a_shift_of_its_position_table() -> None:
    plain, shifted, policy = small_model(), small_model(unit_sinusoids=0.25), ChunkPolicy(160, 80)
    shifted.load_state_dict(plain.state_dict())
    fbank = torch.randn(1, 90, 80, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    text, unit, _ = stream(shifted, fbank, policy, [7, 40])
    table = plain.unit_decoder.embed_positions.weight
    assert not torch.allclose(unit, plain(fbank, None, policy).unit_logits)
    table += 0.25 * sinusoidal_positions(torch.arange(len(table)), 16, torch.float64)
    folded = plain(fbank, None, policy)
    torch.testing.assert_close(unit, folded.unit_logits, atol=1e-10, rtol=0)
    torch.testing.assert_close(text, folded.text_logits, atol=1e-10, rtol=0)


def test_misuse_of_a_stream_is_refused() -> None:
    policy = ChunkPolicy(320, 0)
    state, fbank = MODEL.init_state(policy), torch.zeros(1, 8, 80, dtype=torch.float64)
    with pytest.raises(ValueError, match="keeps its policy"):
        MODEL(fbank, None, ChunkPolicy(160, 0), state=state)
    with pytest.raises(ValueError, match="without padding"):
        MODEL(fbank, Lengths((8,)), policy, state=state)
    MODEL(fbank, None, policy, state=state, final=True)
    with pytest.raises(ValueError, match="has ended"):
        MODEL(fbank, None, policy, state=state, final=True)
    assert state.frames == 8
    with pytest.raises(ValueError, match=r"\(B, F, 80\)"):
        MODEL(torch.zeros(1, 8, 40), None, policy)


def test_foreign_checkpoints_are_named() -> None:
    state = dict(MODEL.state_dict())
    state["decoder.version"] = torch.zeros(1)
    load_published_state(MODEL, state)
    state["encoder.extra"] = state.pop("decoder.embed_tokens.weight")
    with pytest.raises(ValueError, match="missing decoder.embed_tokens.weight; unknown encoder.extra"):
        load_published_state(MODEL, state)


def test_glancing_shows_labels_in_the_second_pass() -> None:
    policy, fbank = ChunkPolicy(320), torch.randn(1, 64, 80, dtype=torch.float64)
    seen = []

    def glancer(logits: torch.Tensor, lengths: Lengths) -> tuple[torch.Tensor, torch.Tensor]:
        assert not logits.requires_grad and lengths.host == (logits.size(1),)
        seen.append(logits)
        return torch.full(logits.shape[:2], 5), torch.ones(logits.shape[:2], dtype=torch.bool)

    output = MODEL(fbank, None, policy, text_glancer=glancer, unit_glancer=glancer)
    plain = MODEL(fbank, None, policy)
    assert len(seen) == 2 and torch.equal(seen[0], plain.text_logits)
    assert output.text_glance_mask.all() and not torch.allclose(output.text_logits, plain.text_logits)
    assert output.text_logits.requires_grad
