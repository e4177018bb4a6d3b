"""The autoregressive baseline: its data and recipe for fairseq, and the benchmark against it."""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("fairseq")

from plugin_data import UNITS, make_data_folder  # noqa: E402
from plugin_runs import settings  # noqa: E402

from nast_s2x.benchmarks import autoregressive as benchmark  # noqa: E402
from nast_s2x.benchmarks.streaming import random_model  # noqa: E402
from nast_s2x.chunking import ChunkPolicy  # noqa: E402
from nast_s2x.cli.main import main  # noqa: E402
from nast_s2x.network import NastConfig  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


def load_script():
    spec = importlib.util.spec_from_file_location("s2ut_data", ROOT / "scripts" / "s2ut_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("s2ut")
    make_data_folder(folder / "data", train=8, valid=2)
    assert load_script().main([str(folder / "data"), "--output", str(folder / "s2ut")]) == 0
    return folder / "s2ut"


def recipe_flags(data: Path, save: Path) -> list[str]:
    command = ["bash", str(ROOT / "scripts" / "train.sh"), "tiny_espeak_s2ut", "--data", str(data), "--save", str(save)]
    result = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True)
    heading, line = result.stdout.splitlines()
    assert heading == "== stage s2ut"
    flags = shlex.split(line)[2:]
    at = flags.index("--user-dir")
    return flags[:at] + flags[at + 2 :]


def test_units_and_transcripts_are_those_of_the_data_folder(data: Path) -> None:
    rows = {}
    for name, path in (("ours", data.parent / "data"), ("units", data), ("pieces", data / "source")):
        header, *lines = [line.split("\t") for line in (path / "train.tsv").read_text(encoding="utf-8").splitlines()]
        rows[name] = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    assert len(rows["ours"]) == 8 and rows["ours"].keys() == rows["units"].keys() == rows["pieces"].keys()
    for key, row in rows["ours"].items():
        assert rows["units"][key]["tgt_audio"] == row["tgt_audio"]
        assert rows["units"][key]["src_audio"] == row["audio"]
        spelled = rows["pieces"][key]["tgt_text"].replace(" ", "").replace("\u2581", " ").strip()
        assert spelled == row["src_text"]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a checkpoint after two updates of the recipe, with fewer layers."""
    from fairseq_cli import train

    folder = tmp_path_factory.mktemp("baseline")
    more = ["--max-update", "2", "--total-num-update", "2", "--max-tokens", "1000", "--encoder-layers", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # paths in the data must not depend on where the command is run
        train.main(settings(data, *recipe_flags(data, folder), *more, "--decoder-layers", "1"))
    return folder / "s2ut"


def test_the_recipe_has_the_sizes_of_the_example_and_trains(data: Path, trained: Path, tmp_path: Path) -> None:
    flags = recipe_flags(data, tmp_path)
    state = torch.load(trained / "checkpoint_last.pt", weights_only=False)["model"]
    assert state["decoder.embed_tokens.weight"].shape == (UNITS + 4, 128)
    assert all(bool(value.isfinite().all()) for value in state.values())

    bundle = json.loads((ROOT / "examples/espeak_fr_en/speech_bundle/config.json").read_text(encoding="utf-8"))
    model, ours = settings(data, *flags).model, NastConfig.from_dict(bundle["architecture"])
    assert (model.encoder_layers, model.decoder_layers) == (ours.encoder_layers, ours.unit_layers)
    assert model.encoder_embed_dim == model.decoder_embed_dim == ours.encoder_dim
    assert model.encoder_ffn_embed_dim == model.decoder_ffn_embed_dim == ours.encoder_ffn_dim
    assert model.encoder_attention_heads == model.decoder_attention_heads == ours.encoder_heads


@pytest.mark.slow
def test_the_trained_baseline_stands_beside_the_bundle(data: Path, trained: Path, tmp_path: Path, capsys) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    from espeak_fr_en import autoregressive

    example = ROOT / "examples" / "espeak_fr_en"
    rows = "".join(
        f"{place}\t{example}/recordings/test_0000{place}.flac\ta text of words\t1 2 3\ttest\n" for place in range(2)
    )
    (tmp_path / "units.tsv").write_text(f"id\taudio\ttgt_text\ttgt_audio\tsplit\n{rows}")
    flags = [str(tmp_path / "units.tsv"), "--data", str(data), "--bundle", str(example / "speech_bundle")]
    more = ["--beams", "1,2", "--threads", "1", "--json", str(tmp_path / "table.json"), "--no-progress"]
    # In a process of its own, where nothing has told torch yet what fairseq's checkpoints may hold.
    command = [sys.executable, autoregressive.__file__, *flags, *more, "--checkpoint"]
    run = subprocess.run([*command, str(trained / "checkpoint_last.pt")], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "table.json").read_text())
    assert [row["model"] for row in found] == ["one pass (bundle)", "autoregressive, beam 1", "autoregressive, beam 2"]
    assert all(row["seconds"] > 0 for row in found) and [row["text_bleu"] is None for row in found] == [
        False,
        True,
        True,
    ]
    assert len(run.stdout.splitlines()) == 5
    assert autoregressive.main([*flags, *more, "--checkpoint", str(tmp_path / "none.pt")]) == 1
    assert "none.pt: no such file" in capsys.readouterr().err


def test_processes_on_cpus_can_gather_what_criterions_log() -> None:
    from fairseq.distributed.utils import all_gather_list

    from nast_s2x.tasks import gathering

    gathering.provide_cpu_buffers()
    if torch.cuda.is_available():
        pytest.skip("fairseq makes the buffers by itself")
    assert all_gather_list._buffer.numel() >= 2 * gathering.MAX_BYTES
    assert all_gather_list._cpu_buffer.numel() == gathering.MAX_BYTES


def test_data_that_fairseq_cannot_use_is_refused(tmp_path: Path, capsys) -> None:
    script = load_script()
    without = make_data_folder(tmp_path / "without", train=2, valid=1, units=False)
    assert script.main([str(without), "--output", str(tmp_path / "a")]) == 1
    assert "has no num_units" in capsys.readouterr().err
    folder = make_data_folder(tmp_path / "with", train=2, valid=1)
    assert script.main([str(folder), "--output", str(folder)]) == 1
    assert "is not empty" in capsys.readouterr().err
    manifest = folder / "train.tsv"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("train-0.npy", "train-0.wav"), encoding="utf-8")
    assert script.main([str(folder), "--output", str(tmp_path / "a")]) == 1
    assert "example train-0: fairseq reads features from .npy and .zip only" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_an_error_while_writing_leaves_no_part_of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script()
    folder = make_data_folder(tmp_path / "with", train=2, valid=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(script.shutil, "copyfile", full)
        assert script.main([str(folder), "--output", str(tmp_path / "a")]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["with"]
    assert script.main([str(folder), "--output", str(tmp_path / "a")]) == 0
    tables = yaml.safe_load((tmp_path / "a" / "multitask.yaml").read_text())["source_text"]
    assert Path(tables["data"]) == tmp_path / "a" / "source" and Path(tables["dict"]).is_file()


@pytest.mark.parametrize("beam", [1, 3])
def test_both_ways_give_units_and_the_forced_length_is_kept(beam: int) -> None:
    ours = random_model("tiny", 2.0)
    theirs = benchmark.build_s2ut(ours.config)
    assert (len(theirs.encoder.transformer_layers), len(theirs.decoder.layers)) == (4, 3)
    assert len(benchmark.build_s2ut(ours.config, decoder_layers=1).decoder.layers) == 1
    fbank = torch.randn(2, 60, 80)
    with torch.inference_mode():
        units = benchmark.one_pass_units(ours, fbank, ChunkPolicy(None))
        decoded = benchmark.autoregressive_units(theirs, benchmark.build_generator(theirs, beam, 7), fbank)
    assert [len(sentence) for sentence in decoded] == [7, 7]
    for sentence in [*units, *decoded]:
        assert all(0 <= unit < ours.config.unit_vocab - 5 for unit in sentence)
    assert all(first != second for sentence in units for first, second in zip(sentence, sentence[1:]))


def test_the_command_measures_every_combination(capsys, monkeypatch) -> None:
    monkeypatch.setattr(benchmark, "MIN_RUNS", 1)
    monkeypatch.setattr(benchmark, "MAX_RUNS", 1)
    flags = ["--preset", "tiny", "--seconds", "0.4,0.8", "--batch", "1,2", "--beams", "2", "--threads", "1"]
    assert main(["benchmark", "autoregressive", "--json", *flags, "--dtype", "bf16", "--units-per-second", "10"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = result["rows"]
    found = [(row["seconds"], row["batch"], row["beam"], row["units"]) for row in rows]
    assert found == [(0.4, 1, 2, 4), (0.4, 2, 2, 4), (0.8, 1, 2, 8), (0.8, 2, 2, 8)]
    for row in rows:
        assert row["speedup"] == pytest.approx(row["autoregressive_seconds"] / row["nast_seconds"])
    assert (result["dtype"], result["autoregressive_dtype"]) == ("bf16", "bf16")


def test_wrong_questions_are_refused(capsys, monkeypatch) -> None:
    assert main(["benchmark", "autoregressive", "--seconds", "0.01"]) == 1
    assert "at least 0.1" in capsys.readouterr().err
    assert main(["benchmark", "autoregressive", "--seconds", "2,200"]) == 1
    message = "--seconds times --units-per-second must be less than 4096, but is 5000"
    assert message in capsys.readouterr().err
    assert main(["benchmark", "autoregressive", "--device", "cuda:77"]) == 1
    assert "device cuda:77 is not available" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["benchmark", "autoregressive", "--beams", "0"])
    monkeypatch.setitem(sys.modules, "fairseq", None)
    assert main(["benchmark", "autoregressive", "--quick"]) == 1
    assert "'fairseq', which is not installed" in capsys.readouterr().err
