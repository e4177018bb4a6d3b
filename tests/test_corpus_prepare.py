"""``nast-s2x prepare``: from a manifest to a data folder that loads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import soundfile

from nast_s2x.cli.main import main
from nast_s2x.corpus import packing
from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.data_folder import DataFolder, check_split
from nast_s2x.corpus.manifest import read_manifest
from nast_s2x.corpus.prepare import PrepareOptions, prepare
from nast_s2x.corpus.vocabulary import train_vocabulary
from nast_s2x.errors import ConfigError, ManifestError
from nast_s2x.files import locked
from nast_s2x.frontend.cmvn import GlobalCmvn
from nast_s2x.frontend.fbank import fbank
from nast_s2x.labels import TextLabels

SMALL = PrepareOptions(vocab_size=60, source_lang="fr", target_lang="en")
TEXTS = [
    ("le chat noir dort", "the black cat sleeps"),
    ('il dit "oui', 'he says "yes'),
    ("une grande maison", "a big house"),
    ("où est le chien", "where is the dog"),
]


def waveform(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(rng.integers(4000, 9000))).astype(np.float32)


def write_manifest(folder: Path, rows: int = 6, units: bool = False) -> Path:
    """A corpus whose last two rows are not for training."""
    (folder / "sound").mkdir(parents=True, exist_ok=True)
    lines = ["id\taudio\tsrc_text\ttgt_text\tsplit" + ("\ttgt_audio" if units else "")]
    for i in range(rows):
        soundfile.write(folder / f"sound/{i}.wav", waveform(i), 16000, subtype="FLOAT")
        source, target = TEXTS[i % len(TEXTS)]
        split = "train" if i < rows - 2 else "dev"
        lines.append(f"utt {i}/é\tsound/{i}.wav\t{source}\t{target}\t{split}" + (f"\t{i} 7 9" if units else ""))
    (folder / "m.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "m.tsv"


@pytest.mark.parametrize("features", ["zip", "npy", "audio"])
def test_folder_loads(tmp_path: Path, features: str) -> None:
    manifest = write_manifest(tmp_path / "corpus")
    report = prepare(manifest, tmp_path / "out", PrepareOptions(vocab_size=60, features=features), jobs=1)
    assert report.rows == {"train": 4, "dev": 2} and not report.problems
    config = DataFolder.load(tmp_path / "out")
    train, dev = (read_manifest(tmp_path / f"out/{split}.tsv").rows for split in ("train", "dev"))
    rows = train + dev
    assert [row.id for row in rows] == [f"utt {i}/é" for i in range(6)]
    assert (train[1].source_text, train[1].target_text) == TEXTS[1]
    loaded = [row.audio.features() for row in rows]
    for i, (row, values) in enumerate(zip(rows, loaded)):
        np.testing.assert_array_equal(values, fbank(waveform(i)).numpy())
        assert row.num_frames == len(values) and row.audio.relative
    frames = np.concatenate(loaded[:4])
    cmvn = GlobalCmvn.load(config.cmvn_path)
    np.testing.assert_allclose(cmvn.mean, frames.mean(0), rtol=1e-4)
    np.testing.assert_allclose(cmvn.std, frames.std(0), rtol=1e-4)
    tokenizer = TextLabels.load(config.vocab_path, config.spm_path)
    assert tokenizer.size == report.labels
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for pair in TEXTS for text in pair)
    assert config.transforms(True) == ["global_cmvn", "specaugment"] and config.transforms(False) == ["global_cmvn"]
    assert not (tmp_path / "out/.prepare").exists()
    assert (tmp_path / "out/fbank80.zip").exists() == (features == "zip")


@pytest.mark.parametrize(("language", "kept"), [("zh-TW", True), ("ja", True), ("en", False), ("", False)])
def test_punctuation_of_full_width_is_kept_for_chinese_and_japanese(tmp_path: Path, language: str, kept: bool) -> None:
    manifest = write_manifest(tmp_path / "corpus")
    text = "他说：“好，走吧！”"
    table = manifest.read_text("utf-8").replace(TEXTS[0][1], text)
    manifest.write_text(table, encoding="utf-8")
    prepare(manifest, tmp_path / "out", PrepareOptions(vocab_size=80, features="audio", target_lang=language), jobs=1)
    config = DataFolder.load(tmp_path / "out")
    labels = TextLabels.load(config.vocab_path, config.spm_path)
    assert (labels.decode(labels.encode(text)) == text) == kept


def test_zip_is_uncompressed_and_small_in_half_precision(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "corpus")
    options = PrepareOptions(vocab_size=60, float16=True)
    prepare(manifest, tmp_path / "out", options, jobs=1)
    with zipfile.ZipFile(tmp_path / "out/fbank80.zip") as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    row = read_manifest(tmp_path / "out/train.tsv").rows[0]
    values = row.audio.features()
    assert values.dtype == np.float32
    assert 0 < np.abs(values - fbank(waveform(0)).numpy()).max() < 0.01
    assert row.audio.count == row.num_frames * 160 + 128


def test_same_files_from_any_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_manifest(tmp_path / "corpus", rows=9)
    monkeypatch.setattr(packing, "PART_SIZE", 2)
    for jobs in (1, 2):
        prepare(manifest, tmp_path / str(jobs), SMALL, jobs=jobs)
    for name in ("config.yaml", "fbank80.zip", "gcmvn.npz", "spm.model", "spm.txt", "train.tsv", "dev.tsv"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_bad_rows_are_listed_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_manifest(tmp_path)
    (tmp_path / "sound/broken.wav").write_bytes(b"RIFF" + bytes(50))
    (tmp_path / "sound/empty.wav").touch()
    soundfile.write(tmp_path / "sound/none.wav", np.zeros(0, np.float32), 16000)
    soundfile.write(tmp_path / "sound/short.wav", np.zeros(399, np.float32), 16000)
    soundfile.write(tmp_path / "sound/nan.wav", np.full(9000, np.nan, np.float32), 16000, subtype="FLOAT")
    bad = [
        ("x\tsound/0.wav\ta\tb", "has 4 columns, the header 5"),
        ("x\tsound/missing.wav\ta\tb\ttrain", "missing.wav: no such audio file"),
        ("x\tsound/broken.wav\ta\tb\ttrain", "broken.wav: cannot be read as audio"),
        ("y\tsound/empty.wav\ta\tb\ttrain", "empty.wav: the file is empty"),
        ("z\tsound/none.wav\ta\tb\tdev", "none.wav: shorter than one frame of 25 ms"),
        ("v\tsound/short.wav\ta\tb\tdev", "short.wav: shorter than one frame of 25 ms"),
        ("w\tsound/nan.wav\ta\tb\ttrain", "NaN"),
        ("u\tsound/0.wav\t \tb\ttrain", "empty src_text"),
        ("t\tsound/0.wav\ta\t\ttrain", "empty tgt_text"),
        ("utt 0/é\tsound/0.wav\ta\tb\ttrain", "id 'utt 0/é' is that of line 2 too"),
        ("s\tsound/0.wav\ta\tb\t../train", "split '../train' cannot be a file name"),
    ]
    with open(manifest, "a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line, _ in bad)
    command = ["prepare", str(manifest), "--output", str(tmp_path / "out"), "--vocab-size", "60", "--quiet"]
    assert main([*command, "--strict"]) == 1
    assert not (tmp_path / "out").exists()
    capsys.readouterr()
    assert main([*command, "--jobs", "1"]) == 0
    printed = capsys.readouterr()
    problems = printed.err.splitlines()
    assert len(problems) == len(bad)
    for number, (line, (_, reason)) in enumerate(zip(problems, bad), start=8):
        assert line.startswith(f"{manifest}:{number}: ") and reason in line
    assert "11 rows left out" in printed.out and "train: 4 rows" in printed.out
    assert sum(len(read_manifest(tmp_path / f"out/{split}.tsv")) for split in ("train", "dev")) == 6
    # The list is there again when everything is done already, and --strict still refuses.
    assert main(command) == 0
    again = capsys.readouterr()
    assert again.err.splitlines() == problems and "already complete" in again.out
    assert main([*command, "--strict"]) == 1


def test_a_text_where_a_path_should_be(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path)
    with open(manifest, "a", encoding="utf-8") as file:
        file.write(f"x\t{'le chat ' * 50}\ta\tb\ttrain\r\n")
    report = prepare(manifest, tmp_path / "out", SMALL, jobs=1)
    assert len(report.problems) == 1 and report.problems[0].startswith(f"{manifest}:8: ")
    assert "too long" in report.problems[0]


def test_strict_finds_unreadable_audio_before_writing(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path)
    (tmp_path / "sound/1.wav").write_bytes(b"RIFF" + bytes(50))
    with pytest.raises(ManifestError) as error:
        prepare(manifest, tmp_path / "out", SMALL, strict=True)
    assert len(error.value.problems) == 1 and "m.tsv:3: " in error.value.problems[0]
    assert not (tmp_path / "out").exists()


def test_interrupted_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_manifest(tmp_path / "corpus")
    monkeypatch.setattr(packing, "PART_SIZE", 2)
    computed: list[str] = []

    real = AudioRef.features

    def counting(audio: AudioRef) -> np.ndarray:
        computed.append(str(audio))
        if len(computed) == 4:
            raise KeyboardInterrupt
        return real(audio)

    monkeypatch.setattr(AudioRef, "features", counting)
    with pytest.raises(KeyboardInterrupt):
        prepare(manifest, tmp_path / "out", SMALL, jobs=1)
    # The second part was cut short: its two recordings are done again, those of the first are not; but one of those
    # has changed in the meantime.
    soundfile.write(tmp_path / "corpus/sound/0.wav", waveform(77), 16000, subtype="FLOAT")
    computed[:] = ["", "", "", ""]
    prepare(manifest, tmp_path / "out", SMALL, jobs=1)
    assert len(computed) == 4 + 6
    train = read_manifest(tmp_path / "out/train.tsv").rows
    np.testing.assert_array_equal(train[0].audio.features(), fbank(waveform(77)).numpy())
    prepare(manifest, tmp_path / "fresh", SMALL, jobs=1)
    assert (tmp_path / "fresh/fbank80.zip").read_bytes() == (tmp_path / "out/fbank80.zip").read_bytes()


def test_parts_of_other_settings_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(tmp_path)
    recordings = tuple(packing.Recording(str(i), AudioRef(tmp_path / f"sound/{i}.wav"), True) for i in range(2))

    def compute(dtype: str) -> list[packing.Part]:
        return list(packing.compute_parts(recordings, tmp_path / "work", dtype, 1, progress=False))

    def interrupted(audio: AudioRef) -> np.ndarray:
        raise KeyboardInterrupt

    first = compute("float32")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AudioRef, "features", interrupted)
        compute("float16")
    assert compute("float32") == first
    assert first[0].path.stat().st_size == sum(item.length for item in first[0].packed)
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"features.jsonl", first[0].path.name}
    assert compute("float16")[0].path != first[0].path


def test_finished_parts_are_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_manifest(tmp_path / "corpus")
    with pytest.raises(ValueError, match="too small"):
        prepare(manifest, tmp_path / "out", PrepareOptions(vocab_size=6), jobs=1)

    def refuse(audio: AudioRef) -> np.ndarray:
        raise AssertionError(audio)

    monkeypatch.setattr(AudioRef, "features", refuse)
    assert prepare(manifest, tmp_path / "out", SMALL, jobs=1).rows == {"train": 4, "dev": 2}


def test_settings_are_never_mixed(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "corpus")
    prepare(manifest, tmp_path / "out", SMALL, jobs=1)
    other = PrepareOptions(vocab_size=50, source_lang="fr", target_lang="en")
    before = (tmp_path / "out/spm.model").read_bytes()
    with pytest.raises(ConfigError, match=r"other settings \(vocab_size\)"):
        prepare(manifest, tmp_path / "out", other, jobs=1)
    assert (tmp_path / "out/spm.model").read_bytes() == before
    assert prepare(manifest, tmp_path / "out", SMALL, jobs=1).already_complete
    manifest.write_text(manifest.read_text("utf-8").replace("\tdev", "\ttest"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\(manifest\)"):
        prepare(manifest, tmp_path / "out", SMALL, jobs=1)
    prepare(manifest, tmp_path / "out", other, jobs=1, overwrite=True)
    assert (tmp_path / "out/test.tsv").exists() and not (tmp_path / "out/dev.tsv").exists()
    assert json.loads((tmp_path / "out/prepare.json").read_text("utf-8"))["complete"]


def test_features_of_another_form_are_removed(tmp_path: Path) -> None:
    """A folder that is made again with --overwrite holds the features of one form only."""
    manifest = write_manifest(tmp_path / "corpus")
    for features, there in (("zip", "fbank80.zip"), ("npy", "fbank80"), ("audio", ""), ("zip", "fbank80.zip")):
        options = PrepareOptions(vocab_size=60, features=features)
        prepare(manifest, tmp_path / "out", options, jobs=1, overwrite=True)
        assert [path.name for path in (tmp_path / "out").glob("fbank80*")] == [there] * bool(there)


def test_foreign_files_are_not_overwritten(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/config.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"already contains config\.yaml, which `nast-s2x prepare` did not create"):
        prepare(manifest, tmp_path / "out", SMALL, jobs=1)
    own = manifest.rename(tmp_path / "train.tsv")
    with pytest.raises(ManifestError, match="would be overwritten"):
        prepare(own, tmp_path, SMALL, jobs=1, overwrite=True)


def test_units_pass_through(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, units=True)
    with open(manifest, "a", encoding="utf-8") as file:
        file.write("x\tsound/0.wav\ta\tb\ttrain\t1 99 2\n")
    report = prepare(manifest, tmp_path / "out", PrepareOptions(vocab_size=60, num_units=50), jobs=1)
    assert len(report.problems) == 1 and "unit 99 is outside 0..49" in report.problems[0]
    assert DataFolder.load(tmp_path / "out").num_units == 50
    row = read_manifest(tmp_path / "out/train.tsv", num_units=50).rows[2]
    assert row.units.codes == (2, 7, 9)
    assert (tmp_path / "out/train.tsv").read_text("utf-8").split("\n")[3].endswith("\t2 7 9\t3")
    guessed = prepare(manifest, tmp_path / "guess", PrepareOptions(vocab_size=60), jobs=1)
    assert guessed.num_units == 100 and any("num_units is 100" in note for note in guessed.notes)


def test_more_test_data_with_an_old_vocabulary(tmp_path: Path) -> None:
    prepare(write_manifest(tmp_path / "a"), tmp_path / "old", SMALL, jobs=1)
    manifest = write_manifest(tmp_path / "b", rows=2)  # no training rows
    with pytest.raises(ManifestError, match=r"in a split named train \(column `split`; there: dev\)"):
        prepare(manifest, tmp_path / "new", SMALL, jobs=1)
    prepare(manifest, tmp_path / "new", PrepareOptions(vocabulary_from=tmp_path / "old"), jobs=1)
    for name in ("spm.model", "spm.txt", "gcmvn.npz"):
        assert (tmp_path / "old" / name).read_bytes() == (tmp_path / "new" / name).read_bytes()
    assert len(read_manifest(tmp_path / "new/dev.tsv")) == 2


def test_options_and_manifest_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="features must be one of zip, npy, audio, not 'tar'"):
        PrepareOptions(features="tar")
    (tmp_path / "m.tsv").write_text("id\taudio\n")
    assert main(["prepare", str(tmp_path / "m.tsv"), "--output", str(tmp_path / "o")]) == 1
    assert "no column src_text, tgt_text, split" in capsys.readouterr().err
    assert main(["prepare", str(tmp_path / "none.tsv"), "--output", str(tmp_path / "o")]) == 1
    assert "none.tsv: no such manifest" in capsys.readouterr().err


def test_file_names_of_any_id() -> None:
    names = ["a/b", "..", "é" * 200, "é" * 201, "a b", "plain-1_2.3"]
    stems = [packing.file_stem(name) for name in names]
    assert len(set(stems)) == len(names) and stems[-1] == names[-1]
    assert all("/" not in stem and len(stem) < 200 for stem in stems)


# ---- processes, locks and interruptions

FILES = ("config.yaml", "dev.tsv", "fbank80.zip", "gcmvn.npz", "prepare.json", "spm.model", "spm.txt", "train.tsv")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def command(manifest: Path, output: Path, *flags: str) -> list[str]:
    arguments = ["prepare", str(manifest), "--output", str(output), "--vocab-size", "60", "--quiet", *flags]
    # Small parts, so that several processes have work.
    code = "import sys, nast_s2x.corpus.packing as p; p.PART_SIZE = 2; from nast_s2x.cli.main import main; "
    return [sys.executable, "-c", f"{code}sys.exit(main(sys.argv[1:]))", *arguments]


def test_two_runs_at_once(tmp_path: Path) -> None:
    """H1: one of them works, the other one says so and changes nothing."""
    manifest = write_manifest(tmp_path, rows=12)
    flags = ("--source-lang", "fr", "--target-lang", "en")
    alone = subprocess.run(command(manifest, tmp_path / "alone", *flags), capture_output=True, check=False)
    assert alone.returncode == 0
    with locked(tmp_path / "out"):
        blocked = subprocess.run(command(manifest, tmp_path / "out"), capture_output=True, text=True, check=False)
    assert blocked.returncode == 1 and f"process {os.getpid()}" in blocked.stderr
    assert "is at work in" in blocked.stderr and not (tmp_path / "out").exists()
    runs = [
        subprocess.Popen(command(manifest, tmp_path / "out", *flags, "--jobs", "2"), stdout=-1, stderr=-1, text=True)
        for _ in range(2)
    ]
    outcomes = [(*run.communicate(timeout=120), run.returncode) for run in runs]
    assert any(code == 0 for *_, code in outcomes)
    for printed, error, code in outcomes:
        assert "done" in printed or "already complete" in printed if code == 0 else "is at work in" in error
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    assert not list(tmp_path.glob(".*"))  # the lock is gone


def children(process: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by ps")
@pytest.mark.slow
def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    """A killed run leaves no process, and the next one goes on from there."""
    manifest = write_manifest(tmp_path, rows=12)
    long = np.concatenate([waveform(seed) for seed in range(80)])
    for i in range(12):
        soundfile.write(tmp_path / f"sound/{i}.wav", long[i:], 16000, subtype="FLOAT")
    run = subprocess.Popen(command(manifest, tmp_path / "out", "--jobs", "2"), stdout=-1, stderr=-1)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out/.prepare/features.jsonl").exists():
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.01)
    workers = children(run.pid)
    assert len(workers) >= 2
    run.send_signal(signal.SIGKILL)
    run.communicate()
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.05)
    for name in ("out", "fresh"):
        assert subprocess.run(command(manifest, tmp_path / name), capture_output=True, check=False).returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_failure_at_any_write_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_manifest(tmp_path / "corpus")
    monkeypatch.setattr(packing, "PART_SIZE", 2)
    prepare(manifest, tmp_path / "whole", SMALL, jobs=1)
    whole, real = contents(tmp_path / "whole"), os.replace
    assert set(whole) == set(FILES)
    for failing in range(100):
        calls = iter(range(1000))

        def replace(source: str, target: str, failing: int = failing, calls: object = calls) -> None:
            if next(calls) == failing:
                raise OSError("no space left")
            real(source, target)

        output = tmp_path / str(failing)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            try:
                prepare(manifest, output, SMALL, jobs=1)
            except OSError:
                assert not list(output.glob("**/.*part"))
            else:
                break
        assert (
            not (output / "prepare.json").exists() or not json.loads((output / "prepare.json").read_text())["complete"]
        )
        prepare(manifest, output, SMALL, jobs=1)
        assert contents(output) == whole
    assert failing == 3 + 2 * len(FILES) + 1  # three parts; each file is made and moved; the record of a run that began


# ---- splits and rows


def set_splits(manifest: Path, **names: str) -> Path:
    text = manifest.read_text("utf-8")
    for old, new in names.items():
        text = text.replace(f"\t{old}\n", f"\t{new}\n")
    manifest.write_text(text, encoding="utf-8")
    return manifest


@pytest.mark.parametrize("name", ["valid", "validation", "val"])
def test_other_names_of_dev(tmp_path: Path, name: str) -> None:
    report = prepare(set_splits(write_manifest(tmp_path), dev=name), tmp_path / "out", SMALL, jobs=1)
    assert report.rows == {"train": 4, "dev": 2} and (tmp_path / "out/dev.tsv").is_file()
    assert f"split {name} is written as dev, on which the training recipes validate" in report.notes


def test_dev_beside_valid(tmp_path: Path) -> None:
    manifest = set_splits(write_manifest(tmp_path), dev="valid")
    with open(manifest, "a", encoding="utf-8") as file:
        file.write("x\tsound/0.wav\ta\tb\tdev\n")
    report = prepare(manifest, tmp_path / "out", SMALL, jobs=1)
    assert report.rows == {"train": 4, "valid": 2, "dev": 1} and not any("dev" in note for note in report.notes)


def test_no_dev_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = set_splits(write_manifest(tmp_path), dev="test")
    arguments = ["prepare", str(manifest), "--output", str(tmp_path / "out"), "--vocab-size", "60", "--jobs", "1"]
    for _ in range(2):
        assert main([*arguments, "--quiet"]) == 0
        assert "note: there is no split named dev, on which the training recipes validate" in capsys.readouterr().out
    # More test data for a model that is trained already needs none.
    shared = PrepareOptions(vocabulary_from=tmp_path / "out")
    assert not prepare(manifest, tmp_path / "more", shared, jobs=1).notes


def test_rows_of_a_split_are_counted(tmp_path: Path) -> None:
    """H6."""
    manifest = write_manifest(tmp_path)
    check_split(tmp_path, "train", 3)  # a folder without a record
    prepare(manifest, tmp_path / "out", SMALL, jobs=1)
    check_split(tmp_path / "out", "train", 4), check_split(tmp_path / "out", "other", 3)
    with pytest.raises(ManifestError, match=r"train\.tsv has 3 rows, but 4 were written by `nast-s2x prepare`"):
        check_split(tmp_path / "out", "train", 3)
    record = json.loads((tmp_path / "out/prepare.json").read_text("utf-8"))
    (tmp_path / "out/prepare.json").write_text(json.dumps(record | {"complete": False}))
    with pytest.raises(ManifestError, match="is not finished: run `nast-s2x prepare` again"):
        check_split(tmp_path / "out", "train", 4)


def test_a_damaged_record(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path)
    damages = ({"settings": 3}, {"report": None}, {"report": {"other": 1}}, {"splits": "x"}, {"complete": 1})
    for number, damage in enumerate(damages):
        output = tmp_path / str(number)
        prepare(manifest, output, SMALL, jobs=1)
        record = json.loads((output / "prepare.json").read_text("utf-8"))
        (output / "prepare.json").write_text(json.dumps(record | damage))
        with pytest.raises(ConfigError, match=f"prepare.json is damaged \\({next(iter(damage))} missing"):
            prepare(manifest, output, SMALL, jobs=1)
        assert prepare(manifest, output, SMALL, jobs=1, overwrite=True).rows["train"] == 4


def test_words_that_are_too_long(tmp_path: Path) -> None:
    """H11: SentencePiece would need minutes."""
    manifest = write_manifest(tmp_path)
    with open(manifest, "a", encoding="utf-8") as file:
        for name, length in (("x", 1000), ("y", 1001), ("z", 10**6)):
            file.write(f"{name}\tsound/0.wav\ta {'e' * length}\tb\ttrain\n")
    started = time.monotonic()
    report = prepare(manifest, tmp_path / "out", PrepareOptions(vocab_size=40), jobs=1)
    assert time.monotonic() - started < 60
    assert report.rows["train"] == 5
    assert [problem.split(":", 2)[1] for problem in report.problems] == ["9", "10"]
    assert "src_text holds a word of 1001 characters, at most 1000" in report.problems[0]


def test_problems_are_sorted_by_line(tmp_path: Path) -> None:
    """Defect 24: a name that looks like a place in a file misleads nobody."""
    manifest = write_manifest(tmp_path).rename(tmp_path / "a:12: b:7: c.tsv")
    (tmp_path / "sound/2.wav").write_bytes(b"RIFF" + bytes(50))
    with open(manifest, "a", encoding="utf-8") as file:
        file.write("x\n" * 3 + "y\tsound/0.wav\t\tb\ttrain\n")
    problems = prepare(manifest, tmp_path / "out", SMALL, jobs=1).problems
    assert [problem.removeprefix(f"{manifest}:").split(":")[0] for problem in problems] == ["4", "8", "9", "10", "11"]


def test_mistakes_are_found_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_manifest(tmp_path)
    for flags, message in (
        (("--jobs", "0"), "--jobs must be at least 1, got 0"),
        (("--jobs", "-3"), "--jobs must be at least 1, got -3"),
        (("--num-units", "0"), "num_units must be at least 1, not 0"),
        (("--character-coverage", "0.5"), "character_coverage must be in 0.9..1"),
        (("--vocabulary-from", str(tmp_path / "none")), "no such data configuration"),
    ):
        assert main(["prepare", str(manifest), "--output", str(tmp_path / "out"), *flags]) == 1
        assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_manifest_without_a_last_newline(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path)
    manifest.write_text(manifest.read_text("utf-8").rstrip("\n"), encoding="utf-8")
    report = prepare(manifest, tmp_path / "out", SMALL, jobs=1)
    assert report.rows["dev"] == 2 and any("does not end in a newline" in note for note in report.notes)


def test_words_that_never_end_a_sentence_can_be_pieces() -> None:
    """SentencePiece takes no candidate that always has a space behind it; a text without punctuation has many."""
    nouns = ["cat", "dog", "house", "tree", "river", "stone", "bird", "child"]
    texts = [f"the {noun} that is {other} {noun}" for noun in nouns for other in nouns]
    processor = sentencepiece.SentencePieceProcessor(model_proto=train_vocabulary(texts, 60).model)
    assert processor.encode("that is the", out_type=str) == ["\u2581that", "\u2581is", "\u2581the"]
