"""References to recordings: every form, and every consumer of tables with every form."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from random_system import make_bundle
from unit_corpus import read_rows
from vocoder_data import write_config

from nast_s2x.cli.main import main
from nast_s2x.corpus import AudioRef, read_manifest
from nast_s2x.errors import AudioError
from nast_s2x.frontend.audio import load_audio
from nast_s2x.frontend.fbank import fbank
from nast_s2x.inference.bundle import save_bundle
from nast_s2x.units.centroids import Centroids
from nast_s2x.units.features import Mfcc

RATE = 48000


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def pack(path: Path, *files: Path) -> list[str]:
    """An uncompressed zip of files; returns the reference of each."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, file.name)
    with zipfile.ZipFile(path) as archive:
        return [
            f"{path.name}:{info.header_offset + 30 + len(info.filename)}:{info.file_size}"
            for info in archive.infolist()
        ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One second of sound at 48 kHz inside a longer file, cut out, and its features."""
    whole = noise(3.0)
    cut = whole[RATE : 2 * RATE]
    soundfile.write(tmp_path / "long.flac", whole, RATE, subtype="PCM_24")
    soundfile.write(tmp_path / "cut.flac", cut, RATE, subtype="PCM_24")
    soundfile.write(tmp_path / "cut.wav", soundfile.read(tmp_path / "cut.flac", dtype="float32")[0], RATE, "FLOAT")
    np.save(tmp_path / "cut.npy", fbank(load_audio(tmp_path / "cut.flac")).numpy())
    return tmp_path


def references(folder: Path) -> list[str]:
    """The same second of sound in every form."""
    packed = pack(folder / "p.zip", folder / "cut.npy", folder / "cut.wav")
    return ["cut.flac", "cut.wav", "cut.npy", f"long.flac:{RATE}:{RATE}", *packed, str(folder / "cut.flac")]


def test_every_form_gives_the_same_features(folder: Path) -> None:
    expected = fbank(load_audio(folder / "cut.flac")).numpy()
    for text in references(folder):
        audio = AudioRef.parse(text, folder)
        np.testing.assert_array_equal(audio.features(), expected)
        assert audio.features().dtype == np.float32 and audio.num_frames() == len(expected) == 98
        assert AudioRef.parse(str(audio)) == audio and audio.relative == (not os.path.isabs(text))
        if ".npy" not in text and audio.path.suffix != ".zip":
            np.testing.assert_array_equal(audio.samples(), load_audio(folder / "cut.flac"))
    half = folder / "half.npy"
    np.save(half, np.asfortranarray(expected.astype(np.float16)))
    found = AudioRef(half).features()
    assert found.dtype == np.float32 and found.flags.c_contiguous and np.abs(found - expected).max() < 0.01


def test_a_segment_is_the_cut_file(folder: Path) -> None:
    np.testing.assert_array_equal(
        AudioRef(folder / "long.flac", RATE, RATE).samples(), AudioRef(folder / "cut.flac").samples()
    )
    # A segment may end some milliseconds behind the file, as rounded lists have it.
    end = AudioRef(folder / "long.flac", 2 * RATE, RATE + 900)
    assert len(end.samples()) == 16000 and end.num_frames() == 98
    for start, count in ((2 * RATE, 2 * RATE), (3 * RATE, 10)):
        for read in (AudioRef.samples, AudioRef.num_frames):
            with pytest.raises(AudioError, match=rf"long\.flac:{start}:{count}: the segment ends at sample"):
                read(AudioRef(folder / "long.flac", start, count))


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.wav:4000:90000"])
def test_pieces_are_the_recording(tmp_path: Path, name: str) -> None:
    sound = np.stack([noise(25, seed, 8000) for seed in (1, 2)], axis=1)
    reference = AudioRef.parse(name, tmp_path)
    soundfile.write(reference.path, sound, 8000)
    samples, rate = reference.recording()
    pieces = [*reference.pieces()]
    assert {found for _, found in pieces} == {rate} == {8000}
    np.testing.assert_array_equal(np.concatenate([piece for piece, _ in pieces]), samples)
    assert len(pieces) == (1 if reference.count else 3) and len(samples) == (reference.count or 200_000)
    sound[150_000] = np.nan
    soundfile.write(tmp_path / "b.wav", sound, 8000, subtype="FLOAT")
    with pytest.raises(AudioError, match="b.wav: samples must be finite"):
        list(AudioRef(tmp_path / "b.wav").pieces())


def test_a_file_whose_name_looks_like_a_segment(folder: Path) -> None:
    (folder / "cut.flac").rename(folder / "a.flac:1:2")
    audio = AudioRef.parse("a.flac:1:2", folder)
    assert audio == AudioRef(folder / "a.flac:1:2") and audio.num_frames() == 98
    assert AudioRef.parse("b.flac:1:2", folder) == AudioRef(folder / "b.flac", 1, 2)
    assert AudioRef.parse("b.flac:1:-2", folder) == AudioRef(folder / "b.flac:1:-2")


def test_names_of_archives_that_look_like_one_another(folder: Path) -> None:
    """Archives are looked up once for a table, by their whole names; numbers have at most 18 digits."""
    digits = "9" * 5000
    cells = ["p.zip:q.zip:0:6", "p.zip:0:6", "p.zip:\u0661:6", f"p.zip:0:{digits}"]
    (folder / "t.tsv").write_text("id\taudio\n" + "".join(f"{i}\t{cell}\n" for i, cell in enumerate(cells)), "utf-8")
    table = read_manifest(folder / "t.tsv", strict=False)
    assert [row.audio.path.name for row in table] == ["p.zip:q.zip", "p.zip", "p.zip:\u0661:6", f"p.zip:0:{digits}"]


def test_stamps_follow_the_file(folder: Path) -> None:
    audio = AudioRef(folder / "cut.wav", 5, 100)
    before = audio.stamp()
    assert before == audio.stamp() and before != AudioRef(folder / "cut.wav").stamp()
    os.utime(folder / "cut.wav", ns=(1, 1))
    assert audio.stamp() != before and "missing" in AudioRef(folder / "none.wav").stamp()


def test_links_and_parents(folder: Path) -> None:
    (folder / "real/deep").mkdir(parents=True)
    (folder / "cut.flac").rename(folder / "real/cut.flac")
    (folder / "link").symlink_to(folder / "real/deep")
    assert AudioRef.parse("../cut.flac", folder / "link").num_frames() == 98
    assert AudioRef.parse("link/../cut.flac", folder).problem() is None


def test_errors_name_the_reference(folder: Path) -> None:
    np.save(folder / "narrow.npy", np.zeros((5, 40), np.float32))
    np.save(folder / "flat.npy", np.zeros(5, np.float32))
    np.save(folder / "nan.npy", np.full((5, 80), np.nan, np.float32))
    np.save(folder / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    (folder / "bad.npy").write_bytes(b"nonsense")
    (folder / "x.zip").write_bytes(bytes(100))
    np.save(folder / "cutoff.npy", np.zeros((9, 80), np.float32))
    (folder / "cutoff.npy").write_bytes((folder / "cutoff.npy").read_bytes()[:-1])
    for text, message in (
        ("narrow.npy", r"narrow\.npy: features must have shape \(frames, 80\), not \(5, 40\)"),
        ("flat.npy", r"flat\.npy: features must have shape"),
        ("nan.npy", r"nan\.npy: features hold NaN"),
        ("bad.npy", r"bad\.npy: not a numpy array"),
        ("object.npy", r"object\.npy: not a numpy array of numbers"),
        ("cutoff.npy", r"cutoff\.npy: not a numpy array \(2880 bytes announced, 2879 there\)"),
        ("none.npy", r"none\.npy: no such feature file"),
        ("none.zip:1:2", r"none\.zip: no such feature archive"),
        ("x.zip", "needs a byte offset"),
        ("x.npy:1:2", "segments of feature files"),
        ("x.wav:1:0", "a start from 0 and a length from 1"),
        ("x.zip:90:20", r"x\.zip:90:20: the archive ends before byte 110"),
        (f"x.zip:0:{10**15}", r"the archive ends before byte"),
        ("x.zip:10:20", r"x\.zip:10:20: cannot be read as audio"),
        ("none.wav", r"none\.wav: no such audio file"),
    ):
        with pytest.raises(AudioError, match=message):
            AudioRef.parse(text, folder).features()
    with pytest.raises(AudioError, match="holds features, not samples"):
        AudioRef(folder / "cut.npy").samples()


def test_what_a_header_claims_is_not_allocated(folder: Path) -> None:
    """128 bytes that announce 10^11 frames."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**11, 80)})
    (folder / "huge.npy").write_bytes(buffer.getvalue())
    with pytest.raises(AudioError, match="bytes announced, 0 there"):
        AudioRef(folder / "huge.npy").features()
    for frames in (-1, 10**30):
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (frames, 80)})
        (folder / "huge.npy").write_bytes(buffer.getvalue())
        for method in (AudioRef.features, AudioRef.num_frames):
            with pytest.raises(AudioError, match=rf"huge.npy: .* shape .*\({frames}, 80\)"):
                method(AudioRef(folder / "huge.npy"))


# ---- every consumer


def prepared(table: Path, work: Path) -> list[object]:
    """Features in the data folder that ``prepare`` makes."""
    arguments = ["prepare", str(table), "--output", str(work / "data"), "--vocab-size", "30", "--jobs", "1", "--quiet"]
    assert main([*arguments, "--strict"]) == 0
    return [row.audio.features().tobytes() for row in read_manifest(work / "data/train.tsv")]


def generated(table: Path, work: Path) -> list[object]:
    """Texts and scores of ``generate``."""
    save_bundle(make_bundle(work / "system"), work / "bundle")
    arguments = ["generate", "--manifest", str(table), "--model", str(work / "bundle"), "--no-progress"]
    assert main([*arguments, "--json", str(work / "g.jsonl"), "--output", str(work / "g.txt")]) == 0
    entries = [json.loads(line) for line in (work / "g.jsonl").read_text("utf-8").splitlines()]
    return [(entry["text"], entry["units"], entry["seconds"]) for entry in entries]


def extracted(table: Path, work: Path) -> list[object]:
    """Units of ``units extract``."""
    vectors = Mfcc()(noise(1.0, seed=5, rate=16000))
    Centroids(vectors[::12][:4], Mfcc().describe()).save(work / "c.safetensors")
    arguments = ["units", "extract", str(table), "--centroids", str(work / "c.safetensors"), "--audio-column", "audio"]
    assert main([*arguments, "--output", str(work / "u.tsv"), "--jobs", "1", "--strict", "--quiet"]) == 0
    rows = read_rows(work / "u.tsv")
    # The new table leads to the same recordings.
    assert [row.audio.num_frames() for row in read_manifest(work / "u.tsv")] == [98] * len(rows)
    return [(row["tgt_audio"], row["tgt_durations"]) for row in rows]


def fitted(table: Path, work: Path) -> list[object]:
    """Centroids of ``units fit`` on each row alone."""
    found: list[object] = []
    header, *lines = table.read_text("utf-8").splitlines()
    for line in lines:
        one = table.resolve().with_name("one.tsv")
        one.write_text(f"{header}\n{line}\n", encoding="utf-8")
        arguments = ["units", "fit", str(one), "--features", "mfcc", "--num-units", "3", "--audio-column", "audio"]
        assert main([*arguments, "--output", str(work / "f.safetensors"), "--jobs", "1", "--strict", "--quiet"]) == 0
        found.append(Centroids.load(work / "f.safetensors").hash)
    return found


def trained(table: Path, work: Path) -> list[object]:
    """Weights of ``vocoder train`` after one update on each row alone."""
    found: list[object] = []
    config = write_config(work / "config.json")
    header, *lines = table.read_text("utf-8").splitlines()
    for index, line in enumerate(lines):
        one, output = table.resolve().with_name("one.tsv"), work / f"v{index}"
        one.write_text(f"{header}\ttgt_audio\ttgt_durations\n{line}\t1 2 0\t20 20 9\n", encoding="utf-8")
        arguments = ["vocoder", "train", str(one), "--output", str(output), "--config", str(config), "--device", "cpu"]
        assert main([*arguments, "--audio-column", "audio", "--max-updates", "1"]) == 0
        found.append((output / "vocoder/model.safetensors").read_bytes())
    return found


def evaluated(table: Path, work: Path) -> list[object]:
    """Words and units of ``evaluate``, with their times."""
    save_bundle(make_bundle(work / "system"), work / "bundle")
    arguments = ["evaluate", "--manifest", str(table), "--model", str(work / "bundle"), "--chunk-ms", "320"]
    assert main([*arguments, "--output", str(work / "e"), "--no-report"]) == 0
    lines = [json.loads(line) for line in (work / "e/320/instances.log").read_text("utf-8").splitlines()]
    return [(line["prediction"], line["delays"], line["source_length"], line["emissions"]) for line in lines]


CONSUMERS: dict[str, tuple[Callable[[Path, Path], list[object]], bool]] = {
    # name: (results of each row, whether stored features will do)
    "prepare": (prepared, True),
    "generate": (generated, True),
    "evaluate": (evaluated, False),
    "units extract": (extracted, False),
    "units fit": (fitted, False),
    "vocoder train": (trained, False),
}


@pytest.mark.parametrize("place", ["beside", "audio_root", "working directory", "link"])
@pytest.mark.parametrize("name", CONSUMERS)
def test_every_consumer_reads_every_form(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    """Defects 2, 3 and 4: a row gives the same, however its recording is written and wherever its path starts."""
    consume, takes_features = CONSUMERS[name]
    texts = [text for text in references(folder) if takes_features or not _has_features(AudioRef.parse(text, folder))]
    table = folder / "t.tsv"
    if place != "beside":
        (tmp_path / "elsewhere").mkdir()
        table = tmp_path / "elsewhere/t.tsv"
    if place == "audio_root":
        (table.parent / "config.yaml").write_text(f"audio_root: {os.path.relpath(folder, table.parent)}\n")
    if place == "working directory":
        monkeypatch.chdir(folder)
    rows = [f"u{index}\t{text}\tle bruit\tthe noise\ttrain" for index, text in enumerate(texts)]
    content = "\n".join(["id\taudio\tsrc_text\ttgt_text\tsplit", *rows]) + "\n"
    if place == "link":
        (folder / "real.tsv").write_text(content, encoding="utf-8")
        table.symlink_to(folder / "real.tsv")
    else:
        table.write_text(content, encoding="utf-8")
    (tmp_path / "work").mkdir()
    results = consume(table, tmp_path / "work")
    assert len(results) == len(texts) >= 5 and results == [results[0]] * len(texts)


def _has_features(audio: AudioRef) -> bool:
    try:
        audio.samples()
    except AudioError:
        return True
    return False
