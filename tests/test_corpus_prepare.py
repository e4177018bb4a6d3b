"""``nast-s2x prepare``: from a manifest to a data folder that loads."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nast_s2x.cli.main import main
from nast_s2x.corpus import packing
from nast_s2x.corpus.audio_ref import load_features
from nast_s2x.corpus.data_folder import DataFolder
from nast_s2x.corpus.manifest import read_split
from nast_s2x.corpus.prepare import ManifestError, PrepareOptions, prepare
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
    train, dev = (read_split(tmp_path / f"out/{split}.tsv") for split in ("train", "dev"))
    assert [row.id for row in train + dev] == [f"utt {i}/é" for i in range(6)]
    assert (train[1].src_text, train[1].tgt_text) == TEXTS[1]
    loaded = [load_features(row.audio, config.audio_root) for row in train + dev]
    for i, (row, values) in enumerate(zip(train + dev, loaded)):
        np.testing.assert_array_equal(values, fbank(waveform(i)).numpy())
        assert row.n_frames == len(values) and not row.audio.startswith("/")
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


def test_zip_is_uncompressed_and_small_in_half_precision(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "corpus")
    options = PrepareOptions(vocab_size=60, float16=True)
    prepare(manifest, tmp_path / "out", options, jobs=1)
    with zipfile.ZipFile(tmp_path / "out/fbank80.zip") as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    row = read_split(tmp_path / "out/train.tsv")[0]
    values = load_features(row.audio, tmp_path / "out")
    assert values.dtype == np.float32
    assert 0 < np.abs(values - fbank(waveform(0)).numpy()).max() < 0.01
    assert int(row.audio.split(":")[2]) == row.n_frames * 160 + 128


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
    assert sum(len(read_split(tmp_path / f"out/{split}.tsv")) for split in ("train", "dev")) == 6
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

    def counting(audio: str) -> np.ndarray:
        computed.append(audio)
        if len(computed) == 4:
            raise KeyboardInterrupt
        return load_features(audio)

    monkeypatch.setattr(packing, "load_features", counting)
    with pytest.raises(KeyboardInterrupt):
        prepare(manifest, tmp_path / "out", SMALL, jobs=1)
    # The second part was cut short: its two recordings are done again, those of the first are not; but one of those
    # has changed in the meantime.
    soundfile.write(tmp_path / "corpus/sound/0.wav", waveform(77), 16000, subtype="FLOAT")
    computed[:] = ["", "", "", ""]
    prepare(manifest, tmp_path / "out", SMALL, jobs=1)
    assert len(computed) == 4 + 6
    train = read_split(tmp_path / "out/train.tsv")
    np.testing.assert_array_equal(load_features(train[0].audio, tmp_path / "out"), fbank(waveform(77)).numpy())
    prepare(manifest, tmp_path / "fresh", SMALL, jobs=1)
    assert (tmp_path / "fresh/fbank80.zip").read_bytes() == (tmp_path / "out/fbank80.zip").read_bytes()


def test_overwritten_part_is_void(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(tmp_path)
    recordings = tuple(packing.Recording(str(i), str(tmp_path / f"sound/{i}.wav"), True) for i in range(2))
    full = packing.PartJob(str(tmp_path / "000000"), recordings, "float32")
    first = packing.compute_part(full)

    def interrupted(audio: str) -> np.ndarray:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packing, "load_features", interrupted)
        packing.compute_part(packing.PartJob(full.stem, recordings, "float16"))
    assert packing.compute_part(full) == first
    with open(full.stem + ".bin", "rb") as file:
        assert len(file.read()) == sum(item.length for item in first.packed)


def test_finished_parts_are_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_manifest(tmp_path / "corpus")
    with pytest.raises(ValueError, match="too small"):
        prepare(manifest, tmp_path / "out", PrepareOptions(vocab_size=6), jobs=1)

    def refuse(audio: str) -> np.ndarray:
        raise AssertionError(audio)

    monkeypatch.setattr(packing, "load_features", refuse)
    assert prepare(manifest, tmp_path / "out", SMALL, jobs=1).rows == {"train": 4, "dev": 2}


def test_settings_are_never_mixed(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "corpus")
    prepare(manifest, tmp_path / "out", SMALL, jobs=1)
    other = PrepareOptions(vocab_size=50, source_lang="fr", target_lang="en")
    before = (tmp_path / "out/spm.model").read_bytes()
    with pytest.raises(ManifestError, match=r"other settings \(vocab_size\)"):
        prepare(manifest, tmp_path / "out", other, jobs=1)
    assert (tmp_path / "out/spm.model").read_bytes() == before
    assert prepare(manifest, tmp_path / "out", SMALL, jobs=1).already_complete
    manifest.write_text(manifest.read_text("utf-8").replace("\tdev", "\ttest"), encoding="utf-8")
    with pytest.raises(ManifestError, match=r"\(manifest\)"):
        prepare(manifest, tmp_path / "out", SMALL, jobs=1)
    prepare(manifest, tmp_path / "out", other, jobs=1, overwrite=True)
    assert (tmp_path / "out/test.tsv").exists() and not (tmp_path / "out/dev.tsv").exists()
    assert json.loads((tmp_path / "out/prepare.json").read_text("utf-8"))["complete"]


def test_foreign_files_are_not_overwritten(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/config.yaml").write_text("mine")
    with pytest.raises(ManifestError, match=r"config\.yaml that was not made here"):
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
    row = read_split(tmp_path / "out/train.tsv", num_units=50)[2]
    assert (row.tgt_audio, row.tgt_n_frames) == ((2, 7, 9), 3)
    guessed = prepare(manifest, tmp_path / "guess", PrepareOptions(vocab_size=60), jobs=1)
    assert guessed.num_units == 100 and any("num_units is 100" in note for note in guessed.notes)


def test_more_test_data_with_an_old_vocabulary(tmp_path: Path) -> None:
    prepare(write_manifest(tmp_path / "a"), tmp_path / "old", SMALL, jobs=1)
    manifest = write_manifest(tmp_path / "b", rows=2)  # no training rows
    with pytest.raises(ManifestError, match="no usable row in a split named train"):
        prepare(manifest, tmp_path / "new", SMALL, jobs=1)
    prepare(manifest, tmp_path / "new", PrepareOptions(vocabulary_from=tmp_path / "old"), jobs=1)
    for name in ("spm.model", "spm.txt", "gcmvn.npz"):
        assert (tmp_path / "old" / name).read_bytes() == (tmp_path / "new" / name).read_bytes()
    assert len(read_split(tmp_path / "new/dev.tsv")) == 2


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
