"""The commands generate and translate, on random systems and synthetic recordings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from random_system import make_bundle, make_signal

from nast_s2x.cli.main import main
from nast_s2x.corpus import AudioRef, Utterance, read_manifest, write_manifest
from nast_s2x.frontend.audio import load_audio
from nast_s2x.frontend.fbank import fbank
from nast_s2x.inference.bundle import save_bundle
from nast_s2x.inference.generation import SourceRow, generate, make_batches, shard_rows
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.offline import translate_samples
from nast_s2x.inference.streaming import TranslationStream
from nast_s2x.inference.system import System

SECONDS = (1.0, 2.3, 0.4, 0.01, 1.7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, recordings of several rates and a manifest with one row whose file is missing."""
    folder = tmp_path_factory.mktemp("corpus")
    save_bundle(make_bundle(folder / "system", example="Only noise."), folder / "bundle")
    (folder / "audio").mkdir()
    lines = ["id\taudio\tsrc_text\ttgt_text\tsplit"]
    for index, seconds in enumerate(SECONDS):
        rate = (16000, 44100, 8000)[index % 3]
        signal = make_signal(seconds, seed=index, rate=rate)
        name = f"audio/{index}.{'flac' if index % 2 else 'wav'}"
        soundfile.write(folder / name, np.stack([signal, signal], 1) if index == 1 else signal, rate)
        lines.append(f"u{index}\t{name}\tle bruit\tthe small house {index}\t{'dev' if index == 4 else 'test'}")
    lines.append("gone\taudio/gone.wav\tx\ty\tbad")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> System:
    return load_system(folder / "bundle")


def run(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def read_json(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def expected_texts(folder: Path, bundle: System, chunk: str) -> list[str]:
    files = sorted((folder / "audio").iterdir(), key=lambda path: path.stem)
    policy = bundle.policy(chunk)
    return [translate_samples(bundle, load_audio(path), policy=policy).text for path in files]


def test_generate_lines(folder: Path, bundle: System, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", "--manifest", folder / "manifest.tsv", "--split", "test", "-m", folder / "bundle") == 0
    out, err = capsys.readouterr()
    table = {line.split("\t")[0]: line.split("\t")[1:] for line in out.splitlines()}
    texts = expected_texts(folder, bundle, "offline")
    for index in range(4):
        assert table[f"T-{index}"] == [f"the small house {index}"]
        assert table[f"D-{index}"][1] == texts[index] and table[f"D-{index}"][0] == table[f"H-{index}"][0]
        assert "".join(table[f"H-{index}"][1].split()).replace("\u2581", " ").split() == texts[index].split()
        assert float(table[f"H-{index}"][0]) <= 0
        assert all(0 <= int(unit) < 20 for unit in table[f"Unit-{index}"][0].split())
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        f"{k}-{i}" for i in range(4) for k in ["T", "H", "D", "Unit"]
    ]
    assert texts[3] == "" and len(texts[1]) > 10
    assert "example model" in err and "Only noise." in err and "offline" in err
    assert "BLEU on 4 utterances" in err and "translated 4 of 4 utterances, 3.6 s of speech" in err


def test_generate_files_with_a_missing_one(folder: Path, bundle: System, capsys: pytest.CaptureFixture[str]) -> None:
    files = [folder / "audio" / "4.wav", folder / "audio" / "gone.wav", folder / "audio" / "1.flac"]
    out_file = folder / "out" / "lines.txt"
    status = run("generate", *files, "-m", folder / "bundle", "--chunk-ms", 160, "--json", "-", "-o", out_file)
    out, err = capsys.readouterr()
    rows = read_json(out)
    texts = expected_texts(folder, bundle, "160")
    assert status == 1 and [row["index"] for row in rows] == [0, 1, 2]
    assert rows[0]["text"] == texts[4] and rows[2]["text"] == texts[1] and "gone.wav" in rows[1]["error"]
    assert "left out: gone" in err and "BLEU" not in err
    assert [line[:3] for line in out_file.read_text().splitlines() if line.startswith("D-")] == ["D-0", "D-2"]


def test_shards_are_the_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["generate", "--manifest", folder / "manifest.tsv", "-m", folder / "bundle", "--json", "-", "--no-units"]
    assert run(*common, "--batch-size", 2) == 1
    whole = read_json(capsys.readouterr().out)
    parts = []
    for shard in range(3):
        run(*common, "--num-shards", 3, "--shard-id", shard, "--max-tokens", 100)
        parts += read_json(capsys.readouterr().out)
    parts.sort(key=lambda row: row["index"])
    for row, part in zip(whole, parts, strict=True):
        assert row.pop("score", 0) == pytest.approx(part.pop("score", 0), abs=2e-4)
    assert parts == whole and len(whole) == 6 and "units" not in whole[0]


def test_generate_from_a_data_folder(folder: Path, bundle: System, tmp_path: Path) -> None:
    features = fbank(load_audio(folder / "audio" / "1.flac")).numpy()
    np.save(tmp_path / "a.npy", features)
    np.save(tmp_path / "nan.npy", np.full((50, 80), np.nan, np.float32))
    np.save(tmp_path / "long.npy", np.zeros((3300, 80), np.float32))
    rows = [
        Utterance(name, audio=AudioRef(tmp_path / f"{name}.npy"), num_frames=100, target_text="a house")
        for name in ("long", "a", "nan")
    ]
    write_manifest(tmp_path / "test.tsv", rows)
    rows = shard_rows(read_manifest(tmp_path / "test.tsv").rows)
    done = list(generate(bundle, rows, bundle.policy("offline")))
    assert [result.row.utterance.id for result in done] == ["long", "a", "nan"]
    assert done[0].translation is not None and done[0].translation.num_frames == 3300  # in segments of at most 32 s
    assert done[1].translation and done[1].translation.text == expected_texts(folder, bundle, "offline")[1]
    assert done[2].translation is None and "NaN" in str(done[2].error)


@pytest.mark.parametrize(
    ("config", "folder"),
    [("model: {layers: 2}\n", ""), ("a: [\n", ""), ("- 1\n", ""), ("audio_root: sound\n", "sound")],
)
def test_where_the_audio_of_a_manifest_starts(config: str, folder: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(config)  # not necessarily one of ours
    (tmp_path / "m.tsv").write_text("id\taudio\r\nx\tx.npy\r\n")
    (row,) = read_manifest(tmp_path / "m.tsv").rows
    assert row.audio.path == tmp_path / folder / "x.npy"


def test_rows_of_unknown_length_go_alone(tmp_path: Path) -> None:
    """Defect: segments and archives without n_frames counted as 0 frames and were batched 16 at a time."""
    soundfile.write(tmp_path / "x.wav", make_signal(2.0), 16000)
    lines = ["id\taudio", *(f"{number}\tx.wav:{number * 100}:16000" for number in range(16))]
    (tmp_path / "m.tsv").write_text("\n".join(lines) + "\n")
    rows = shard_rows(read_manifest(tmp_path / "m.tsv").rows)
    assert [row.num_frames() for row in rows] == [98] * 16
    assert [len(batch) for batch in make_batches(rows, batch_size=16, max_tokens=98)] == [1] * 16
    assert [len(batch) for batch in make_batches(rows, batch_size=16, max_tokens=200)] == [2] * 8
    (tmp_path / "x.wav").write_bytes(b"damaged")
    assert [len(batch) for batch in make_batches(rows, batch_size=16, max_tokens=None)] == [1] * 16


def test_batches() -> None:
    lengths = [5, 100, 7, 90, 300, 6, None]
    rows = [SourceRow(index, Utterance(str(index), num_frames=length)) for index, length in enumerate(lengths)]
    batches = list(make_batches(rows, batch_size=3, max_tokens=200))
    assert [[row.index for row in batch] for batch in batches] == [[4], [1, 3], [2, 5, 0], [6]]
    utterances = [row.utterance for row in rows]
    parts = [row for part in range(2) for row in shard_rows(utterances, 2, part)]
    assert sorted((row.index, row.utterance.id) for row in parts) == [(number, str(number)) for number in range(7)]
    for shards, shard in ((0, 0), (2, 2), (2, -1)):
        with pytest.raises(ValueError, match="shard_id must lie in"):
            shard_rows(utterances, shards, shard)
    for size, tokens in ((0, 5), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            list(make_batches(rows, size, tokens))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either audio files or --manifest"),
        (["x.wav", "--manifest", "m.tsv"], "either audio files or --manifest"),
        (["x.wav", "--split", "test"], "--split needs --manifest"),
        (
            ["--manifest", "{folder}/manifest.tsv", "--split", "nope"],
            "there is no row of split nope (there are: bad, dev, test)",
        ),
        (["--manifest", "{folder}/none.tsv"], "none.tsv"),
        (["x.wav", "--chunk-ms", "100"], "chunk"),
        (["x.wav", "--threads", "0"], "--threads"),
    ],
)
def test_generate_wrong_usage(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [argument.format(folder=folder) for argument in arguments]
    assert run("generate", *filled, "-m", folder / "bundle") == 1
    assert message in capsys.readouterr().err


def test_bleu_without_sacrebleu(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sacrebleu", "sacrebleu.metrics"):
        monkeypatch.setitem(sys.modules, name, None)
    assert run("generate", "--manifest", folder / "manifest.tsv", "--split", "dev", "-m", folder / "bundle") == 0
    assert "pip install sacrebleu" in capsys.readouterr().err


def test_the_script_does_the_same(folder: Path) -> None:
    script = Path(__file__).parent.parent / "scripts" / "generate.py"
    arguments = [sys.executable, script, folder / "audio" / "0.wav", "-m", folder / "bundle", "--threads", "1"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout.startswith("H-0\t") and "translated 1 of 1" in done.stderr


def test_translate_json(folder: Path, bundle: System, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "audio" / "1.flac"
    assert (
        run("translate", path, "-m", folder / "bundle", "--json", "--units", "--chunk-ms", 160, "--piece-ms", 33) == 0
    )
    out, err = capsys.readouterr()
    rows = read_json(out)
    samples, rate = soundfile.read(path, dtype="float32")
    translator = TranslationStream(bundle, bundle.policy(160))
    emissions = translator.push(samples, rate) + translator.push([], final=True)
    for row, emission in zip(rows, emissions, strict=True):
        assert (row["text"], row["tokens"], row["units"]) == (emission.text, emission.tokens, emission.units)
        assert row["delta"] == emission.delta
        assert row["chunk"] == emission.chunk and row["final"] == emission.final
        assert abs(row["source_ms"] - emission.source_ms) <= 10.001
    assert [row["compute_ms"] for row in rows] == sorted(row["compute_ms"] for row in rows)
    assert 0 < rows[-1]["compute_ms"] <= rows[-1]["elapsed_ms"] and "example model" in err


def test_translate_prints_words_with_their_time(
    folder: Path, bundle: System, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "audio" / "4.wav"
    assert run("translate", path, "-m", folder / "bundle") == 0
    first, *lines, last = capsys.readouterr().out.splitlines()
    text = expected_texts(folder, bundle, "320")[4]
    assert first == f"# {path}" and last == f"= {text}"
    assert " ".join(line.split(" s  ")[1] for line in lines) == text
    times = [float(line.split(" s  ")[0]) for line in lines]
    assert times == sorted(times) and times[0] >= 0.65 and times[-1] == pytest.approx(1.7, abs=0.01)


def test_translate_offline_and_bad_files(folder: Path, bundle: System, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "junk.wav").write_bytes(b"RIFF junk")
    files = [folder / "nope.wav", folder / "junk.wav", folder / "audio" / "0.wav"]
    assert run("translate", *files, "-m", folder / "bundle", "--offline", "--json") == 1
    out, err = capsys.readouterr()
    (row,) = read_json(out)
    assert row["text"] == expected_texts(folder, bundle, "offline")[0] and row["final"] and row["source_ms"] == 1000
    assert "nope.wav: no such audio file" in err and "junk.wav: cannot be read as audio" in err
    assert run("translate", files[2], "-m", folder / "bundle", "--offline", "--chunk-ms", 320) == 1
    assert run("translate", files[2], "-m", folder / "bundle", "--piece-ms", 0) == 1
    assert run("translate", files[2], "-m", folder / "bundle", "--chunk-ms", 1280) == 0
    assert "the model was trained for 160 ms chunks" in capsys.readouterr().err


def test_translate_in_real_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("translate", folder / "audio" / "0.wav", "-m", folder / "bundle", "--real-time", "--json") == 0
    rows = read_json(capsys.readouterr().out)
    assert all(row["elapsed_ms"] >= row["source_ms"] for row in rows) and rows[-1]["elapsed_ms"] >= 1000


def test_translations_as_a_manifest(folder: Path, bundle: System, tmp_path: Path) -> None:
    """Rows of the split have the system's translations, the others are copied, failures are left out."""
    manifest, output = folder / "manifest.tsv", tmp_path / "distilled.tsv"
    common = ["generate", "--manifest", manifest, "-m", folder / "bundle", "-o", tmp_path / "lines", "--no-progress"]
    assert run(*common, "--split", "test", "--as-manifest", output, "--json", tmp_path / "rows.json") == 0
    before = {row.id: row for row in read_manifest(manifest, keep_extra=True)}
    after = {row.id: row for row in read_manifest(output, keep_extra=True)}
    texts = {row["id"]: row for row in read_json((tmp_path / "rows.json").read_text())}
    assert after["u4"] == before["u4"] and after["gone"] == before["gone"]
    for name, row in texts.items():
        assert (name in after) == bool(row["text"])
        if row["text"]:
            assert after[name].target_text == row["text"] and after[name].source_text == before[name].source_text
            assert after[name].audio == before[name].audio
            assert list(after[name].units.codes if after[name].units else ()) == row["units"]
    assert sum(bool(row["text"]) for row in texts.values()) >= 2
    assert run(*common, "--as-manifest", output, "--no-units") == 1  # the missing file
    assert "gone" not in {row.id for row in read_manifest(output)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.wav"], "--as-manifest needs --manifest"),
        (["--manifest", "o.tsv"], "would replace the manifest itself"),
        (["--manifest", "m.tsv", "--num-shards", "2"], "does not go with --num-shards"),
    ],
)
def test_wrong_usage_of_as_manifest(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", *arguments, "--as-manifest", "o.tsv", "-m", "m") == 1
    assert message in capsys.readouterr().err
