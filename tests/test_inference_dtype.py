"""Inference in bf16 and int8: where asked for alone, with almost the same labels on the example's recordings."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch
from random_system import make_bundle

from nast_s2x.cli.main import main
from nast_s2x.cli.system import open_system
from nast_s2x.device import parse_dtype
from nast_s2x.errors import ConfigError
from nast_s2x.frontend.audio import load_audio
from nast_s2x.frontend.fbank import fbank
from nast_s2x.inference.bundle import save_bundle
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.offline import Translation, translate_batch
from nast_s2x.network.linear import Linear

EXAMPLE = Path(__file__).parents[1] / "examples" / "espeak_fr_en"
RECORDINGS = sorted((EXAMPLE / "recordings").glob("*.flac"))


def agreement(ours: list[Translation], reference: list[Translation], name: str) -> float:
    """Share of slots with the same best label."""
    pairs = [zip(getattr(a, name), getattr(b, name), strict=True) for a, b in zip(ours, reference, strict=True)]
    same = [first == second for first, second in chain.from_iterable(pairs)]
    return sum(same) / len(same)


@pytest.mark.parametrize("chunk", ["offline", "320"])
def test_smaller_number_types_agree_with_fp32_on_the_example(chunk: str) -> None:
    features = [fbank(load_audio(path)) for path in RECORDINGS]
    bundle = load_system(EXAMPLE / "speech_bundle")
    reference = translate_batch(bundle, features, bundle.policy(chunk))
    for name in ("int8", "bf16"):  # bf16 last: its weights are rounded for good
        ours = translate_batch(bundle.to(dtype=parse_dtype(name)), features, bundle.policy(chunk))
        assert agreement(ours, reference, "labels") >= 0.99
        assert agreement(ours, reference, "unit_labels") >= 0.98
        changed = [first.text for first, second in zip(reference, ours, strict=True) if first.text != second.text]
        assert len(changed) <= 2, changed


def test_batching_and_streaming_change_next_to_nothing_in_int8() -> None:
    bundle = load_system(EXAMPLE / "speech_bundle", dtype=torch.int8)
    features = [fbank(load_audio(path)) for path in RECORDINGS[:6]]
    policy = bundle.policy(320)
    together = translate_batch(bundle, features, policy)
    alone, streamed = [], []
    for item in features:
        alone += translate_batch(bundle, [item], policy)
        state, labels = bundle.model.init_state(policy), []
        pieces = bundle.normalize(item)[None].split(23, dim=1)
        for number, piece in enumerate(pieces, start=1):
            with torch.inference_mode():
                output = bundle.model(piece, None, policy, state=state, final=number == len(pieces))
            labels += output.unit_logits[0].argmax(-1).tolist()
        streamed.append(Translation(unit_labels=labels))
    assert agreement(alone, together, "unit_labels") >= 0.99
    assert agreement(streamed, together, "unit_labels") >= 0.99


def test_rows_of_int8_products_do_not_depend_on_one_another() -> None:
    torch.manual_seed(0)
    layer = Linear(64, 32)
    layer.set_int8(True)
    x = torch.randn(40, 64)
    with torch.inference_mode():
        together = layer(x)
        assert torch.equal(together, torch.cat([layer(piece) for piece in x.split([1, 2, 16, 21])]))


def test_int8_products_are_near_and_exact_weights_come_back() -> None:
    torch.manual_seed(0)
    layer = Linear(64, 32)
    x = torch.randn(3, 5, 64)
    x[0, 0] = 0
    x[1] *= 1000  # rows have scales of their own
    with torch.inference_mode():
        exact = layer(x)
        layer.set_int8(True)
        ours = layer(x)
        assert torch.equal(ours[0, 0], layer.bias)
        assert float(((ours - exact).norm(dim=-1) / exact.norm(dim=-1)).max()) < 0.02
        assert not torch.equal(ours, exact)
        layer.set_int8(False)
        assert torch.equal(layer(x), exact)


def test_int8_leaves_the_saved_bundle_as_it_is(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    files = [save_bundle(bundle.to(dtype=dtype), tmp_path / str(dtype)) for dtype in (torch.float32, torch.int8)]
    first, second = ((folder / "model.safetensors").read_bytes() for folder in files)
    assert first == second


@pytest.mark.parametrize("dtype", [torch.int8, None])
def test_int8_on_another_device_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype | None
) -> None:
    system = make_bundle(tmp_path).to(dtype=torch.float32 if dtype else torch.int8)
    monkeypatch.setattr("nast_s2x.inference.system.find_device", torch.device)
    with pytest.raises(ConfigError, match="int8 is for CPUs, not for meta"):
        system.to("meta", dtype)
    assert system.device.type == "cpu" and system.model.int8 == (dtype is None)


def test_logits_and_voice_stay_in_float32() -> None:
    bundle = load_system(EXAMPLE / "speech_bundle", dtype=torch.bfloat16)
    assert bundle.model.decoder.layers[0].fc1.weight.dtype == torch.bfloat16
    output = bundle.model(torch.zeros(1, 64, 80, dtype=torch.bfloat16), None, bundle.policy("320"), with_asr=True)
    assert output.encoder_out.dtype == torch.bfloat16
    assert {output.text_logits.dtype, output.unit_logits.dtype, output.asr_logits.dtype} == {torch.float32}
    assert {parameter.dtype for parameter in bundle.vocoder.parameters()} == {torch.float32}


def test_the_flag_reaches_the_network(tmp_path: Path, capsys, monkeypatch) -> None:
    folder = save_bundle(make_bundle(tmp_path), tmp_path / "bundle")
    seen = []

    def remember(*args, **kwargs):
        bundle, geometry = open_system(*args, **kwargs)
        seen.append(bundle.dtype)
        return bundle, geometry

    monkeypatch.setattr("nast_s2x.cli.generate.open_system", remember)
    for flags in ([], ["--dtype", "bf16"]):
        assert main(["generate", str(RECORDINGS[0]), "--model", str(folder), "--no-progress", *flags]) == 0
    assert seen == [torch.float32, torch.bfloat16]
    with pytest.raises(SystemExit):
        main(["generate", str(RECORDINGS[0]), "--model", str(folder), "--dtype", "bf8"])
    assert "--dtype" in capsys.readouterr().err


def test_unknown_number_types_are_refused() -> None:
    with pytest.raises(ValueError, match="one of fp32, bf16, fp16, int8, got 'float'"):
        parse_dtype("float")
