"""``nast-s2x vocoder synthesize``: every format of units, resuming, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from killed import killed_before_each_write
from random_vocoder import make_vocoder

from nast_s2x.cli.main import main
from nast_s2x.corpus.manifest import read_manifest
from nast_s2x.errors import ConfigError
from nast_s2x.files import locked
from nast_s2x.vocoder.checkpoint import load_vocoder, save_vocoder
from nast_s2x.vocoder.files import RESULTS, read_utterances, synthesize_files
from nast_s2x.vocoder.offline import synthesize

HASH = "0123456789abcdef"
BATCH = [[3, 1, 4], [1, 5, 9, 2], [6], [5, 3]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vocoder(make_vocoder(unit_hash=HASH), tmp_path_factory.mktemp("vocoder"))


def text(units: list[int]) -> str:
    return " ".join(map(str, units))


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def manifest(path: Path, unit_hash: str = HASH) -> Path:
    rows = ["id\ttgt_audio\ttgt_durations\tunit_hash\tsplit"]
    for number, units in enumerate(BATCH):
        durations = text([2 + number] * len(units))
        rows.append(f"utt{number}\t{text(units)}\t{durations}\t{unit_hash}\t{'dev' if number == 2 else 'train'}")
    return write(path, rows)


def run(folder: Path, units: Path, output: Path, *flags: str) -> int:
    return main(["vocoder", "synthesize", str(folder), str(units), "--output", str(output), "--no-progress", *flags])


def sounds(output: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in sorted(output.rglob("*.wav")):
        info = soundfile.info(str(path))
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        found[str(path.relative_to(output).with_suffix(""))] = soundfile.read(str(path), dtype="float32")[0]
    return found


def assert_sound(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)  # 16 bit


def test_lines_of_units(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    units = write(tmp_path / "units.txt", [text(BATCH[0]), "", text(BATCH[1]), text(BATCH[2])])
    assert run(folder, units, tmp_path / "out", "--batch-size", "2") == 0
    found = sounds(tmp_path / "out")
    assert list(found) == [f"line-{number:06d}" for number in (1, 2, 3, 4)]
    expected = synthesize(load_vocoder(folder), [BATCH[0], [], BATCH[1], BATCH[2]])
    for sound, samples in zip(found.values(), expected):
        assert_sound(sound, samples)
    assert len(found["line-000002"]) == 0
    assert "4 sound files written; " in capsys.readouterr().err
    listed = read_manifest(tmp_path / "out" / "synthesis.tsv", required=("id", "audio"), keep_extra=True)
    assert [(row.id, row.audio.path, int(row.extra["n_samples"])) for row in listed] == [
        (name, tmp_path / "out" / f"{name}.wav", len(sound)) for name, sound in found.items()
    ]


def test_a_manifest_with_and_without_its_durations(folder: Path, tmp_path: Path) -> None:
    units, vocoder = manifest(tmp_path / "units.tsv"), load_vocoder(folder)
    assert run(folder, units, tmp_path / "predicted") == 0
    assert run(folder, units, tmp_path / "given", "--durations") == 0
    assert run(folder, units, tmp_path / "dev", "--durations", "--split", "dev") == 0
    durations = [[2 + number] * len(units) for number, units in enumerate(BATCH)]
    for name, expected in (
        ("predicted", synthesize(vocoder, BATCH)),
        ("given", synthesize(vocoder, BATCH, durations)),
        ("dev", synthesize(vocoder, BATCH[2:3], durations[2:3])),
    ):
        for sound, samples in zip(sounds(tmp_path / name).values(), expected, strict=True):
            assert_sound(sound, samples)
    assert list(sounds(tmp_path / "dev")) == ["utt2"]


def test_what_generate_writes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [
        {"index": 0, "id": "a", "units": BATCH[0]},
        {"index": 1, "id": "b", "error": "no such audio file"},
        {"index": 2, "id": "sub/c", "units": []},
    ]
    units = write(tmp_path / "out.json", [json.dumps(entry) for entry in entries])
    assert run(folder, units, tmp_path / "json") == 1
    assert f"{units}:2: b was not translated: no such audio file" in capsys.readouterr().err
    found = sounds(tmp_path / "json")
    assert list(found) == ["a", "sub/c"] and not len(found["sub/c"])
    assert_sound(found["a"], synthesize(load_vocoder(folder), BATCH[:1])[0])

    lines = ["T-7\tthe reference", "H-7\t-0.1\t▁the", "D-7\t-0.1\tthe", f"Unit-7\t{text(BATCH[0])}", "Unit-8\t"]
    assert run(folder, write(tmp_path / "out.txt", lines), tmp_path / "lines") == 0
    found = sounds(tmp_path / "lines")
    assert list(found) == ["Unit-7", "Unit-8"] and not len(found["Unit-8"])
    assert_sound(found["Unit-7"], synthesize(load_vocoder(folder), BATCH[:1])[0])


def test_a_second_run_keeps_what_is_complete(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    units, output = manifest(tmp_path / "units.tsv"), tmp_path / "out"
    assert run(folder, units, output) == 0
    expected, times = sounds(output), {path: path.stat().st_mtime_ns for path in output.glob("*.wav")}
    listed = (output / "synthesis.tsv").read_text()
    # As if the run had been stopped: a file missing, one half written, results that end in the middle of a line.
    (output / "utt1.wav").unlink()
    (output / "utt3.wav").write_bytes((output / "utt3.wav").read_bytes()[:500])
    (output / "utt3.wav").rename(output / ".utt3.wav.12-34.part")
    lines = (output / RESULTS).read_text().splitlines(keepends=True)
    assert '"utt2"' in lines[3]
    (output / RESULTS).write_text("".join(lines[:3]) + lines[3][:7])
    (output / "utt2.wav").unlink()
    (output / "synthesis.tsv").unlink()
    capsys.readouterr()
    assert run(folder, units, output) == 0
    assert "3 sound files written, 1 were there already" in capsys.readouterr().err
    assert (output / "utt0.wav").stat().st_mtime_ns == times[output / "utt0.wav"]
    found = sounds(output)
    assert found.keys() == expected.keys() and not list(output.glob(".*.part"))
    assert (output / "synthesis.tsv").read_text() == listed
    for name, samples in found.items():
        assert_sound(samples, expected[name])
    assert run(folder, units, output) == 0
    assert "0 sound files written, 4 were there already" in capsys.readouterr().err


def test_files_of_something_else_are_replaced_with_overwrite_only(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    units, output = manifest(tmp_path / "units.tsv"), tmp_path / "out"
    output.mkdir()
    soundfile.write(str(output / "utt1.wav"), np.zeros(10), 16000)
    assert run(folder, units, output) == 1
    assert "utt1.wav exists and was made from other units" in capsys.readouterr().err
    assert len(sounds(output)) == 1
    assert run(folder, units, output, "--overwrite") == 0
    before = sounds(output)
    assert len(before["utt1"]) > 10
    other = save_vocoder(make_vocoder(seed=3, unit_hash=HASH), tmp_path / "other")
    assert run(other, units, output) == 1
    assert run(folder, units, output, "--durations") == 1
    assert run(folder, units, output) == 0
    for name, samples in sounds(output).items():
        assert np.array_equal(samples, before[name])


def test_a_run_that_is_killed_anywhere_is_resumed(folder: Path, tmp_path: Path) -> None:
    vocoder = load_vocoder(folder)
    utterances = read_utterances(manifest(tmp_path / "units.tsv"), 20).rows[:3]
    synthesize_files(vocoder, utterances, tmp_path / "whole", batch_size=2)
    expected, listed = sounds(tmp_path / "whole"), (tmp_path / "whole" / "synthesis.tsv").read_text()
    output = tmp_path / "out"
    for _ in killed_before_each_write(lambda: synthesize_files(vocoder, utterances, output, 2), tmp_path):
        report = synthesize_files(vocoder, utterances, output, batch_size=2)
        assert report.written + report.kept == 3
        found = sounds(output)
        assert found.keys() == expected.keys()
        for name, samples in found.items():  # batches differ, and with them the last bits
            assert_sound(samples, expected[name])
        assert (output / "synthesis.tsv").read_text() == listed
        visible = {path.name for path in output.iterdir() if not path.name.startswith(".")}
        assert visible == {"utt0.wav", "utt1.wav", "utt2.wav", "synthesis.tsv"}
        shutil.rmtree(output)


def test_two_runs_at_once_and_folders_of_something_else_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    units, output = manifest(tmp_path / "units.tsv"), tmp_path / "out"
    with locked(output):
        assert run(folder, units, output) == 1
    assert "is at work in" in capsys.readouterr().err and not output.exists()
    output.mkdir()
    (output / "thesis.tex").write_text("x")
    assert run(folder, units, output) == 1
    assert "holds something other than a synthesis" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["thesis.tex"]
    (output / "downloads").mkdir()
    (output / "downloads" / ".film.part").write_text("x")
    (output / ".backup.part").mkdir()
    assert run(folder, units, output) == 1
    assert run(folder, units, output, "--overwrite") == run(folder, units, output) == 0
    assert (output / ".backup.part").is_dir() and (output / "downloads" / ".film.part").is_file()
    assert len(sounds(output)) == 4


def test_files_of_several_runs_share_one_list(folder: Path, tmp_path: Path) -> None:
    units, output = manifest(tmp_path / "units.tsv"), tmp_path / "out"
    assert run(folder, units, output, "--split", "dev") == 0
    assert run(folder, units, output, "--split", "train") == 0
    ids = [row.id for row in read_manifest(output / "synthesis.tsv")]
    assert ids == ["utt2", "utt0", "utt1", "utt3"]


def test_bad_lines_are_named_and_the_rest_is_done(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    units = write(tmp_path / "u.txt", ["1 2", "1 20", "1 x", "-1", "3"])
    assert run(folder, units, tmp_path / "out") == 1
    error = capsys.readouterr().err
    for line, reason in ((2, "unit 20 is outside 0..19"), (3, "'x', which is not a unit code"), (4, "'-1'")):
        assert any(f"{units}:{line}: " in message and reason in message for message in error.splitlines())
    assert "3 bad lines left out" in error and list(sounds(tmp_path / "out")) == ["line-000001", "line-000005"]

    rows = ["id\ttgt_audio\ttgt_durations", "a\t1 2\t1", "b\t1 2\t1 0", "c\t1", "../d\t1\t1", "/e\t1\t1", "f\t1\t2"]
    units = write(tmp_path / "u.tsv", [*rows, "f\t2\t1"])
    assert run(folder, units, tmp_path / "rows", "--durations") == 1
    error = capsys.readouterr().err
    expected = ("1 durations for 2 units", "hold '0'", "has 2 columns, the header 3", "'../d' cannot", "'/e' cannot")
    for line, reason in zip((2, 3, 4, 5, 6, 8), (*expected, "id 'f' is that of line 7 too")):
        assert any(f"{units}:{line}: " in message and reason in message for message in error.splitlines())
    assert list(sounds(tmp_path / "rows")) == ["f"]

    entries = ['{"id": "a"}', '{"units": [1]}', '{"id": "b", "units": ["1"]}', "{", '{"id": "c", "units": [true]}']
    units = write(tmp_path / "u.json", entries)
    assert run(folder, units, tmp_path / "entries") == 1
    assert capsys.readouterr().err.count(f"{units}:") == 5
    units = write(tmp_path / "g.txt", ["T-1\tx", "Unit-1\t99", "whatever"])
    assert run(folder, units, tmp_path / "generated") == 1
    error = capsys.readouterr().err
    assert f"{units}:2: unit 99" in error and f"{units}:3: not a line of generate's output" in error


def test_units_of_other_centroids_are_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    units = manifest(tmp_path / "units.tsv", unit_hash="f" * 16)
    assert run(folder, units, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert HASH in error and "f" * 16 in error and not (tmp_path / "out").exists()
    units = write(tmp_path / "plain.tsv", ["id\ttgt_audio", "a\t1 2"])
    assert run(folder, units, tmp_path / "out") == 0  # unknown
    (tmp_path / "plain.units.json").write_text(json.dumps({"hash": "e" * 16}))
    assert run(folder, units, tmp_path / "out2") == 1
    assert "e" * 16 in capsys.readouterr().err
    released = save_vocoder(make_vocoder(), tmp_path / "released")  # without a hash
    assert run(released, units, tmp_path / "out3") == 0


@pytest.mark.parametrize(
    "name, content, flags, message",
    [
        ("u.txt", b"", [], "the file holds no units"),
        ("u.tsv", b"id\ttgt_audio\n", [], "there is no row"),
        ("u.tsv", b"id\tunits\na\t1\n", [], "no column tgt_audio"),
        ("u.tsv", b"id\ttgt_audio\na\t1\n", ["--durations"], "no column tgt_durations"),
        ("u.tsv", b"id\ttgt_audio\na\t1\n", ["--split", "dev"], "no column split"),
        ("u.txt", b"1 2\n", ["--durations"], "is not a units manifest"),
        ("u.txt", b"\xff\xfe1", [], "not UTF-8 text"),
        ("u.txt", b"1\n", ["--batch-size", "0"], "--batch-size must be at least 1"),
        ("u.txt", b"1\n", ["--device", "cuda:99"], "device cuda:99 is not available"),
        ("u.txt", b"1\n", ["--device", "tpu?"], "a device is cpu, cuda or cuda:N"),
    ],
)
def test_wrong_input(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes,
    flags: list[str],
    message: str,
) -> None:
    (tmp_path / name).write_bytes(content)
    assert run(folder, tmp_path / name, tmp_path / "out", *flags) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_missing_files(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, tmp_path / "none.txt", tmp_path / "out") == 1
    assert "no such file of units" in capsys.readouterr().err
    assert run(tmp_path / "nothing", tmp_path / "none.txt", tmp_path / "out") == 1
    assert "no such vocoder folder" in capsys.readouterr().err
    units = write(tmp_path / "u.txt", ["1"])
    (tmp_path / "file").write_text("")
    assert run(folder, units, tmp_path / "file") == 1
    assert "file" in capsys.readouterr().err


def test_a_vocoder_without_durations_needs_them_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = save_vocoder(make_vocoder(durations=False, unit_hash=HASH), tmp_path / "plain")
    units = manifest(tmp_path / "units.tsv")
    assert run(plain, units, tmp_path / "given", "--durations") == 0 and len(sounds(tmp_path / "given")) == 4
    assert run(plain, units, tmp_path / "predicted") == 1
    assert "no duration predictor" in capsys.readouterr().err


def test_a_byte_order_mark_and_carriage_returns_mean_nothing(tmp_path: Path) -> None:
    (tmp_path / "u.txt").write_bytes(b"\xef\xbb\xbf1 2\r\n3\r\n")
    found = read_utterances(tmp_path / "u.txt", 20)
    assert [row.units.codes for row in found.rows] == [(1, 2), (3,)] and not found.problems


def test_a_batch_holds_an_utterance_or_more(folder: Path, tmp_path: Path) -> None:
    for size in (0, -1):
        with pytest.raises(ConfigError, match=f"batch_size must be at least 1, not {size}"):
            synthesize_files(load_vocoder(folder), [], tmp_path / "out", batch_size=size)
    assert not (tmp_path / "out").exists()


def test_threads_are_set(folder: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        assert run(folder, write(tmp_path / "u.txt", ["1"]), tmp_path / "out", "--threads", "2") == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
