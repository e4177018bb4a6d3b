"""``nast-s2x units fit`` and ``extract``: from recordings to a manifest of units, and on to a data folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from unit_corpus import add_row, read_rows, signal, units, write_corpus

from nast_s2x.cli.main import main
from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.data_folder import DataFolder
from nast_s2x.corpus.manifest import read_manifest
from nast_s2x.corpus.prepare import PrepareOptions, prepare
from nast_s2x.errors import ConfigError, ManifestError
from nast_s2x.files import locked
from nast_s2x.frontend.audio import load_audio
from nast_s2x.units import extract as extract_module
from nast_s2x.units import fit as fit_module
from nast_s2x.units.centroids import Centroids, back_end_of
from nast_s2x.units.extract import extract, runs, sidecar
from nast_s2x.units.features import BackEnd, Mfcc, Windows
from nast_s2x.units.fit import cluster, fit, sample_order

SECONDS = (0.5, 0.8, 0.3, 1.1, 0.6)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", SECONDS)


@pytest.fixture
def centroids(tmp_path: Path) -> Path:
    """Centroids of 8 units that occur in such recordings."""
    vectors = Mfcc()(signal(4.0, seed=50))
    Centroids(vectors[:: len(vectors) // 7][:8], Mfcc().describe()).save(tmp_path / "c.safetensors")
    return tmp_path / "c.safetensors"


def make(manifest: Path, centroids: Path, output: Path, **options: object) -> extract_module.ExtractReport:
    return extract(manifest, centroids, output, back_end_of(Centroids.load(centroids)), **options)


def test_fit_follows_the_seed_and_stops_at_max_frames(manifest: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "c.safetensors"
    arguments = ("fit", manifest, "--features", "mfcc", "--num-units", 4, "--max-frames", 60, "--seed", 5, "--jobs", 1)
    assert units(*arguments, "--output", output) == 0
    train = [Mfcc()(load_audio(manifest.parent / f"sound/{i}.wav")) for i in range(4)]  # the fifth is of split dev
    vectors = np.concatenate([train[i] for i in sample_order(4, 5)])[:60]
    found = Centroids.load(output)
    assert found.hash == cluster(vectors, 4, Mfcc(), 5).hash and found.features == Mfcc().describe()


def test_fit_lists_what_it_cannot_use(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "c.safetensors"
    add_row(manifest, "sound/missing.wav")
    fitting = ("fit", manifest, "--features", "logmel", "--num-units", 4, "--jobs", 1, "--output", output)
    assert units(*fitting, "--strict") == 1 and not output.exists()
    assert "1 bad rows" in capsys.readouterr().err
    add_row(manifest, "")
    assert units(*fitting) == 0
    captured = capsys.readouterr()
    assert f"{manifest}:7: " in captured.err and "missing.wav: no such audio file" in captured.err
    assert f"{manifest}:8: empty tgt_speech" in captured.err and "2 rows left out" in captured.out
    for extra, reason in (
        (("--split", "test"), "there is no row of split test (there are: dev, train)"),
        (("--audio-column", "wav"), "no column wav"),
        (("--max-frames", 0), "max_frames must be at least 1"),
        (("--num-units", 0), "num_units must be at least 2, not 0"),
        (("--num-units", 1), "num_units must be at least 2, not 1"),
        (("--jobs", 0), "--jobs must be at least 1"),
        (("--window", 0.01), "leave nothing between overlaps"),
        (("--output", tmp_path / "c.npy"), "written as .safetensors"),
        (("--features", "mhubert"), "need a model (--model)"),
    ):
        assert units(*fitting, *extra) == 1
        assert reason in capsys.readouterr().err


def test_units_manifest(manifest: Path, centroids: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "units here" / "units.tsv"
    assert units("extract", manifest, "--centroids", centroids, "--output", output, "--jobs", 1) == 0
    hash_ = Centroids.load(centroids).hash
    assert f"5 rows, 0.00 hours, {sum(int(row['tgt_n_frames']) for row in read_rows(output))} reduced" in (
        capsys.readouterr().out
    )
    before, after = read_rows(manifest), read_rows(output)
    assert list(after[0]) == [*before[0], "tgt_audio", "tgt_n_frames", "tgt_durations", "unit_hash"]
    for i, (row, made) in enumerate(zip(before, after)):
        assert [made[name] for name in ("id", "src_text", "split")] == [row[n] for n in ("id", "src_text", "split")]
        assert made["audio"] == made["tgt_speech"] == f"../corpus/sound/{i}.wav"
        labels = Centroids.load(centroids).nearest(Mfcc()(load_audio(output.parent / made["tgt_speech"])))
        codes, durations = (np.array(made[name].split(), int) for name in ("tgt_audio", "tgt_durations"))
        np.testing.assert_array_equal(np.repeat(codes, durations), labels)
        assert (codes[1:] != codes[:-1]).all() and made["tgt_n_frames"] == str(len(codes))
        assert made["unit_hash"] == hash_
    assert len({row["tgt_audio"] for row in after}) == 5
    record = json.loads((output.parent / "units.units.json").read_text("utf-8"))
    assert record["features"] == Mfcc().describe() and record["change_cost"] == 0
    assert (record["num_units"], record["hash"], record["centroids"]) == (8, hash_, "c.safetensors")
    assert record["audio_column"] == "tgt_speech"
    assert sorted(path.name for path in output.parent.iterdir()) == ["units.tsv", "units.units.json"]


def test_smoothed_units(manifest: Path, centroids: Path, tmp_path: Path) -> None:
    make(manifest, centroids, tmp_path / "plain.tsv")
    make(manifest, centroids, tmp_path / "smooth.tsv", change_cost=60.0)
    rows = read_rows(tmp_path / "smooth.tsv")
    vectors = Mfcc()(load_audio(manifest.parent / "sound/3.wav"))
    codes, _ = runs(Centroids.load(centroids).smoothed(vectors, 60.0))
    assert rows[3]["tgt_audio"] == " ".join(map(str, codes))
    counts = [sum(int(row["tgt_n_frames"]) for row in read_rows(tmp_path / f"{n}.tsv")) for n in ("plain", "smooth")]
    assert counts[1] < counts[0]
    assert json.loads(sidecar(tmp_path / "smooth.tsv").read_text("utf-8"))["change_cost"] == 60
    with pytest.raises(ConfigError, match="made with another change_cost"):
        make(manifest, centroids, tmp_path / "smooth.tsv")
    for cost in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="cost of a change of unit must be finite and at least 0"):
            make(manifest, centroids, tmp_path / "x.tsv", change_cost=cost)


def test_same_table_from_any_number_of_processes(manifest: Path, centroids: Path, tmp_path: Path) -> None:
    add_row(manifest, "sound/missing.wav")
    for jobs in (1, 2):
        report = make(manifest, centroids, tmp_path / f"{jobs}.tsv", jobs=jobs)
        assert report.rows == 5 and [":7: " in problem for problem in report.problems] == [True]
    for suffix in (".tsv", ".units.json"):
        assert (tmp_path / f"1{suffix}").read_bytes() == (tmp_path / f"2{suffix}").read_bytes()


class Interrupted(Exception):
    """An error in the middle of a run."""


def interrupt_at(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Make the reading of a recording raise; the list gets the recordings read."""
    real, read = Windows.read, []

    def features(self: Windows, back_end: object, audio: AudioRef) -> object:
        if audio.path.name == name:
            raise Interrupted
        read.append(audio.path.name)
        return real(self, back_end, audio)

    monkeypatch.setattr(Windows, "read", features)
    return read


def test_an_interrupted_extraction_resumes(
    manifest: Path, centroids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(manifest, centroids, tmp_path / "whole.tsv")
    with monkeypatch.context() as patch:
        assert interrupt_at(patch, "3.wav") is not None
        with pytest.raises(Interrupted):
            make(manifest, centroids, tmp_path / "units.tsv")
    assert not (tmp_path / "units.tsv").exists() and (tmp_path / "units.tsv.partial").is_file()
    read = interrupt_at(monkeypatch, "")
    assert not make(manifest, centroids, tmp_path / "units.tsv").already_complete
    assert read == ["3.wav", "4.wav"]
    assert (tmp_path / "units.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes()
    again = make(manifest, centroids, tmp_path / "units.tsv")
    assert again.already_complete and again.rows == 5 and read == ["3.wav", "4.wav"]
    assert not (tmp_path / "units.tsv.partial").exists()


def test_parts_of_something_else_are_made_again(
    manifest: Path, centroids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.safetensors"
    Centroids(Centroids.load(centroids).centers[:5], Mfcc().describe()).save(other)
    with monkeypatch.context() as patch:
        interrupt_at(patch, "4.wav")
        with pytest.raises(Interrupted):
            make(manifest, centroids, tmp_path / "units.tsv")
    # A recording changes, then the centroids do: first one is read again, then all.
    soundfile.write(manifest.parent / "sound/1.wav", signal(0.9, seed=77), 16000, subtype="FLOAT")
    with monkeypatch.context() as patch:
        read = interrupt_at(patch, "4.wav")
        with pytest.raises(Interrupted):
            make(manifest, centroids, tmp_path / "units.tsv")
        assert read == ["1.wav"]
    read = interrupt_at(monkeypatch, "")
    make(manifest, other, tmp_path / "units.tsv")
    assert read == [f"{i}.wav" for i in range(5)]
    make(manifest, other, tmp_path / "fresh.tsv")
    assert (tmp_path / "units.tsv").read_bytes() == (tmp_path / "fresh.tsv").read_bytes()


def test_a_finished_table_is_replaced_with_overwrite_only(manifest: Path, centroids: Path, tmp_path: Path) -> None:
    output, other = tmp_path / "units.tsv", tmp_path / "other.safetensors"
    make(manifest, centroids, output)
    Centroids(Centroids.load(centroids).centers[:5], Mfcc().describe()).save(other)
    first = output.read_bytes()
    with pytest.raises(ConfigError, match="made with another hash; choose another output"):
        make(manifest, other, output)
    soundfile.write(manifest.parent / "sound/1.wav", signal(0.9, seed=77), 16000, subtype="FLOAT")
    with pytest.raises(ConfigError, match="made from other input"):
        make(manifest, centroids, output)
    assert output.read_bytes() == first
    make(manifest, other, output, overwrite=True)
    assert {row["unit_hash"] for row in read_rows(output)} == {Centroids.load(other).hash}
    output.write_text("mine", "utf-8")
    with pytest.raises(ConfigError, match="changed since"):
        make(manifest, other, output)
    sidecar(output).write_text("{", "utf-8")
    with pytest.raises(ConfigError, match="was not made by `nast-s2x units extract`"):
        make(manifest, other, output)
    assert output.read_text("utf-8") == "mine"


def write_bad_recordings(folder: Path) -> dict[str, str]:
    """Unusable sound files, and the message for each."""
    soundfile.write(folder / "none.wav", np.zeros(0, np.float32), 16000)
    (folder / "empty.wav").touch()
    (folder / "broken.wav").write_bytes(b"RIFF" + bytes(50))
    nan = signal(0.5)
    nan[3000] = np.nan
    soundfile.write(folder / "nan.wav", nan, 16000, subtype="FLOAT")
    soundfile.write(folder / "short.wav", signal(0.5)[:559], 16000, subtype="FLOAT")
    return {
        "none.wav": "shorter than a unit frame (0 samples",
        "empty.wav": "the file is empty",
        "broken.wav": "cannot be read as audio",
        "nan.wav": "NaN or infinite",
        "short.wav": "shorter than a unit frame (559 samples",
        "missing.wav": "no such audio file",
    }


def test_bad_rows_are_listed_and_left_out(
    manifest: Path, centroids: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write_bad_recordings(manifest.parent / "sound")
    for name in bad:
        add_row(manifest, f"sound/{name}")
    add_row(manifest, " ")
    with open(manifest, "a", encoding="utf-8") as file:
        file.write("too\tfew\n")
    output = tmp_path / "units.tsv"
    command = ("extract", manifest, "--centroids", centroids, "--output", output, "--jobs", 1)
    assert units(*command, "--strict") == 1 and not output.exists()
    assert "2 bad rows, nothing was written" in capsys.readouterr().err
    assert units(*command) == 0
    captured = capsys.readouterr()
    reasons = [*bad.values(), "empty tgt_speech", "has 2 columns, the header 6"]
    lines = captured.err.splitlines()
    assert len(lines) == len(reasons) == 8 and "8 rows left out" in captured.out
    for number, (line, reason) in enumerate(zip(lines, reasons), start=7):
        assert line.startswith(f"{manifest}:{number}: ") and reason in line
    assert [row["id"] for row in read_rows(output)] == [f"u{i}" for i in range(5)]
    assert units(*command) == 0  # complete: the same bad rows are listed again
    assert capsys.readouterr().err == captured.err
    assert units(*command, "--strict") == 1


def test_strict_stops_at_bad_audio_and_keeps_the_work(manifest: Path, centroids: Path, tmp_path: Path) -> None:
    add_row(manifest, "sound/missing.wav")
    with pytest.raises(ManifestError, match="1 bad rows, no table was written") as error:
        make(manifest, centroids, tmp_path / "units.tsv", strict=True)
    assert "missing.wav" in error.value.problems[0] and not (tmp_path / "units.tsv").exists()
    soundfile.write(manifest.parent / "sound/missing.wav", signal(0.4), 16000)
    assert make(manifest, centroids, tmp_path / "units.tsv", strict=True).rows == 6


def test_recordings_of_all_kinds(centroids: Path, tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path / "corpus", (1.5,))
    sound, long = manifest.parent / "sound", signal(1.5, rate=96000, seed=3)
    low = long.reshape(-1, 6).mean(axis=1)  # 16 kHz
    soundfile.write(sound / "eight.wav", low, 16000, subtype="PCM_U8")
    soundfile.write(sound / "96k.wav", long, 96000, subtype="PCM_24")
    soundfile.write(sound / "stereo.wav", np.stack([low, low], 1), 16000, subtype="PCM_16")
    soundfile.write(sound / "s.mp3", low, 16000)
    soundfile.write(sound / "s.flac", low, 16000)
    names = ("eight.wav", "96k.wav", "stereo.wav", "s.mp3", "s.flac")
    for name in names:
        add_row(manifest, f"sound/{name}")
    add_row(manifest, "sound/s.flac:8000:4000")
    make(manifest, centroids, tmp_path / "units.tsv", strict=True)
    rows = read_rows(tmp_path / "units.tsv")[1:]
    for name, row in zip(names, rows):
        codes, durations = runs(Centroids.load(centroids).nearest(Mfcc()(load_audio(sound / name))))
        assert row["tgt_audio"] == " ".join(map(str, codes)) and abs(durations.sum() - 74) <= 5
    assert rows[2]["tgt_audio"] == rows[4]["tgt_audio"]  # two equal channels are one
    assert rows[5]["tgt_speech"].endswith("s.flac:8000:4000")
    assert sum(map(int, rows[5]["tgt_durations"].split())) == (4000 - 240) // 320


def test_unusable_settings(manifest: Path, centroids: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "foreign.npy", Centroids.load(centroids).centers)
    wide = tmp_path / "wide.npy"
    np.save(wide, np.zeros((4, 80)))
    output = tmp_path / "u.tsv"
    for known, extra, reason in (
        (tmp_path / "foreign.npy", (), "foreign.npy: these centroids do not record the features"),
        (centroids, ("--features", "logmel"), "the centroids are of features mfcc, not logmel"),
        (wide, ("--features", "mfcc"), "the centroids are 80 wide, the features 20"),
        (tmp_path / "gone.npy", (), "no such file of centroids"),
        (centroids, ("--audio-column", "id"), "no recording is usable"),
        (centroids, ("--audio-column", "tgt_audio"), "need a column of another name"),
        (centroids, ("--output", manifest), "would be overwritten"),
        (centroids, ("--output", tmp_path), "is a folder"),
    ):
        assert units("extract", manifest, "--centroids", known, "--output", output, "--jobs", 1, *extra) == 1
        assert reason in capsys.readouterr().err
    assert not output.exists()
    foreign = ("--centroids", tmp_path / "foreign.npy", "--features", "mfcc")
    assert units("extract", manifest, *foreign, "--output", output, "--jobs", 1) == 0
    make(manifest, centroids, tmp_path / "own.tsv")
    assert output.read_bytes() == (tmp_path / "own.tsv").read_bytes()


def test_prepare_keeps_the_hash_and_the_number_of_units(manifest: Path, centroids: Path, tmp_path: Path) -> None:
    make(manifest, centroids, tmp_path / "units.tsv")
    options = ("--vocab-size", "20", "--features", "audio", "--jobs", "1", "--quiet")
    assert main(["prepare", str(tmp_path / "units.tsv"), "--output", str(tmp_path / "data"), *options]) == 0
    config = DataFolder.load(tmp_path / "data")
    assert config.unit_hash == Centroids.load(centroids).hash and config.num_units == 8
    made = read_manifest(tmp_path / "data/train.tsv", num_units=config.num_units).rows[1]
    assert str(made.units) == read_rows(tmp_path / "units.tsv")[1]["tgt_audio"]
    # Without the table's record the largest unit decides; without a hash there is none.
    lines = [line.rsplit("\t", 1)[0] for line in (tmp_path / "units.tsv").read_text("utf-8").splitlines()]
    (tmp_path / "units.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    report = prepare(tmp_path / "units.tsv", tmp_path / "bare", PrepareOptions(vocab_size=20, features="audio"), jobs=1)
    units_seen = {int(code) for row in read_rows(tmp_path / "units.tsv") for code in row["tgt_audio"].split()}
    assert report.num_units == max(units_seen) + 1 and report.unit_hash is None
    assert DataFolder.load(tmp_path / "bare").unit_hash is None


@pytest.mark.parametrize("other", ["0123456789abcdef", ""])
def test_prepare_refuses_units_of_several_sets(manifest: Path, centroids: Path, tmp_path: Path, other: str) -> None:
    make(manifest, centroids, tmp_path / "units.tsv")
    hash_ = Centroids.load(centroids).hash
    head, _, tail = (tmp_path / "units.tsv").read_text("utf-8").rpartition(hash_)
    (tmp_path / "units.tsv").write_text(head + other + tail, "utf-8")
    small = PrepareOptions(vocab_size=20, features="audio")
    with pytest.raises(ManifestError, match=rf"unit_hash {hash_} \(line 2\), {other or 'none'} \(line 6\)"):
        prepare(tmp_path / "units.tsv", tmp_path / "data", small, jobs=1)
    assert not (tmp_path / "data").exists()


def test_prepare_with_the_vocabulary_of_other_units(manifest: Path, centroids: Path, tmp_path: Path) -> None:
    make(manifest, centroids, tmp_path / "units.tsv")
    prepare(tmp_path / "units.tsv", tmp_path / "data", PrepareOptions(vocab_size=20, features="audio"), jobs=1)
    text = (tmp_path / "units.tsv").read_text("utf-8")
    (tmp_path / "test.tsv").write_text(text.replace(Centroids.load(centroids).hash, "f" * 16), "utf-8")
    shared = PrepareOptions(features="audio", vocabulary_from=tmp_path / "data")
    with pytest.raises(ManifestError, match=f"units of centroids {'f' * 16}, but "):
        prepare(tmp_path / "test.tsv", tmp_path / "more", shared, jobs=1)


def test_one_process_at_a_time(manifest: Path, centroids: Path, tmp_path: Path) -> None:
    for output, run in (
        (tmp_path / "units.tsv", ("extract", manifest, "--centroids", centroids)),
        (tmp_path / "new.safetensors", ("fit", manifest, "--features", "mfcc", "--num-units", 4)),
    ):
        words = ["units", *map(str, run), "--output", str(output), "--jobs", "1", "--quiet"]
        with locked(output):
            other = subprocess.run(
                [sys.executable, "-m", "nast_s2x.cli.main", *words], capture_output=True, text=True, check=False
            )
        assert other.returncode == 1 and f"process {os.getpid()}" in other.stderr and "is at work in" in other.stderr
        assert not output.exists() and not sidecar(output).exists()
        assert main(words) == 0 and output.exists() and not list(tmp_path.glob(".*"))


def test_a_failure_at_any_write_is_resumed(
    manifest: Path, centroids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(manifest, centroids, tmp_path / "whole/units.tsv")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    real = os.replace
    for failing in range(100):
        calls = iter(range(1000))

        def replace(source: str, target: str, failing: int = failing, calls: object = calls) -> None:
            if next(calls) == failing:
                raise OSError("no space left")
            real(source, target)

        output = tmp_path / str(failing) / "units.tsv"
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            try:
                make(manifest, centroids, output)
            except OSError:
                assert not output.exists()
            else:
                break
        make(manifest, centroids, output)
        assert {path.name: path.read_bytes() for path in output.parent.iterdir()} == whole
    assert failing == 3  # the table under another name, its record, its own name


def test_columns_of_the_input_are_kept(centroids: Path, tmp_path: Path) -> None:
    """Any column may name the recordings; other columns keep their place and content, paths lead to the same files."""
    corpus = write_corpus(tmp_path / "corpus", (0.6,), column="tgt_speech").parent
    lines = (
        "speaker\tid\tsplit\ttgt_speech\taudio\twav\ttgt_audio\tnote",
        f"s 1\tu\ttrain\tsound/0.wav\t{corpus}/sound/0.wav\tsound/0.wav:100:8000\t9 9\t«x»",
        "\tv\tdev\t\tsound/0.wav\tsound/0.wav\t\t",
    )
    (corpus / "m.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    output = tmp_path / "new/units.tsv"
    assert make(corpus / "m.tsv", centroids, output, audio_column="wav", strict=True).rows == 2
    first, second = read_rows(output)
    assert list(first) == ["speaker", "id", "split", "tgt_speech", "audio", "wav", "note", *extract_module.COLUMNS]
    assert list(first.values())[:7] == [
        "s 1", "u", "train", "../corpus/sound/0.wav", f"{corpus}/sound/0.wav", "../corpus/sound/0.wav:100:8000", "«x»"
    ]  # fmt: skip
    assert list(second.values())[:7] == ["", "v", "dev", "", "../corpus/sound/0.wav", "../corpus/sound/0.wav", ""]
    assert make(corpus / "m.tsv", centroids, tmp_path / "a.tsv", audio_column="audio", strict=True).rows == 2


def test_fit_checks_its_settings_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AudioRef, "samples", lambda _: pytest.fail("a recording was read"))
    manifest = write_corpus(tmp_path, (0.5, 0.5))
    for flags, message in (
        (("--num-units", 0), "num_units must be at least 2, not 0"),
        (("--num-units", 9, "--max-frames", 8), "at least 1 for each of 9 units"),
        (("--num-units", 4, "--jobs", -2), "--jobs must be at least 1, got -2"),
        (("--num-units", 4, "--seed", -1), "seed must be in 0..4294967295, not -1"),
        (("--num-units", 4, "--seed", 1 << 32), "not 4294967296"),
    ):
        assert units("fit", manifest, "--features", "mfcc", *flags, "--output", tmp_path / "c.safetensors") == 1
        assert message in capsys.readouterr().err
    add_row(manifest, "")
    strict = ("--num-units", 4, "--strict", "--output", tmp_path / "c.safetensors")
    assert units("fit", manifest, "--features", "mfcc", *strict) == 1
    assert "1 bad rows, nothing was written" in capsys.readouterr().err


def test_no_network_is_kept_after_a_run_in_this_process(manifest: Path, centroids: Path, tmp_path: Path) -> None:
    make(manifest, centroids, tmp_path / "units.tsv", jobs=1)
    fit(manifest, tmp_path / "new.safetensors", BackEnd("mfcc"), 4, jobs=1)
    assert extract_module._worker is None and fit_module._worker is None
