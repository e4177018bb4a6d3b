"""Inference in bf16: where asked for alone, with almost the same labels on the example, in float32 where it matters."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch
from random_system import make_bundle

from nast_s2x.cli.main import main
from nast_s2x.cli.system import open_system
from nast_s2x.frontend.audio import load_audio
from nast_s2x.frontend.fbank import fbank
from nast_s2x.inference.bundle import load_system
from nast_s2x.inference.dtypes import number_type
from nast_s2x.inference.offline import Translation, translate_batch

EXAMPLE = Path(__file__).parents[1] / "examples" / "espeak_fr_en"
RECORDINGS = sorted((EXAMPLE / "recordings").glob("*.flac"))


def agreement(ours: list[Translation], reference: list[Translation], name: str) -> float:
    """Share of slots with the same best label."""
    pairs = [zip(getattr(a, name), getattr(b, name), strict=True) for a, b in zip(ours, reference, strict=True)]
    same = [first == second for first, second in chain.from_iterable(pairs)]
    return sum(same) / len(same)


@pytest.mark.parametrize("chunk", ["offline", "320"])
def test_bf16_agrees_with_fp32_on_the_example(chunk: str) -> None:
    features = [fbank(load_audio(path)) for path in RECORDINGS]
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        bundle = load_system(EXAMPLE / "speech_bundle", dtype=dtype)
        assert bundle.dtype == dtype
        results.append(translate_batch(bundle, features, bundle.geometry(chunk)))
    reference, ours = results
    assert agreement(ours, reference, "labels") >= 0.99
    assert agreement(ours, reference, "unit_labels") >= 0.98
    changed = [first.text for first, second in zip(reference, ours, strict=True) if first.text != second.text]
    assert len(changed) <= 2, changed


def test_logits_and_voice_stay_in_float32() -> None:
    bundle = load_system(EXAMPLE / "speech_bundle", dtype=torch.bfloat16)
    assert bundle.model.decoder.layers[0].fc1.weight.dtype == torch.bfloat16
    output = bundle.model(torch.zeros(1, 64, 80, dtype=torch.bfloat16), None, bundle.geometry("320"), with_asr=True)
    assert output.encoder_out.dtype == torch.bfloat16
    assert {output.text_logits.dtype, output.unit_logits.dtype, output.asr_logits.dtype} == {torch.float32}
    assert {parameter.dtype for parameter in bundle.vocoder.parameters()} == {torch.float32}


def test_the_flag_reaches_the_network(tmp_path: Path, capsys, monkeypatch) -> None:
    folder = make_bundle(tmp_path).save(tmp_path / "bundle")
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
    with pytest.raises(ValueError, match="one of fp32, bf16, fp16, got 'float'"):
        number_type("float")
