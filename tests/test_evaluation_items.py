"""Test sets from lists and manifests, errors in them, and the record of settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from random_system import make_bundle

from nast_s2x.errors import AudioError, ManifestError
from nast_s2x.evaluation.items import TestSet, check_audio
from nast_s2x.evaluation.settings import differences, hash_files, read_settings, sort_chunks, system_files, take_folder
from nast_s2x.inference.bundle import save_bundle


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def sound(path: Path, samples: int = 160, level: float = 0.5, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(samples, level), rate, subtype="FLOAT")
    return path


def test_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths are searched beside the list, then in the working directory."""
    for place in ("lists/a.wav", "here/a.wav", "here/b.wav", "c.wav"):
        sound(tmp_path / place)
    monkeypatch.chdir(tmp_path / "here")
    source = write(tmp_path / "lists" / "source.txt", "a.wav", "b.wav", f"{tmp_path}/c.wav")
    target = write(tmp_path / "lists" / "target.txt", "one", " zwei\u2028drei ", "three")
    units = write(tmp_path / "lists" / "units.txt", "1  2", "3", "0 0 9")
    found = TestSet.from_lists(source, target, units)
    assert [item.audio.path for item in found.utterances] == [
        tmp_path / place for place in ("lists/a.wav", "here/b.wav", "c.wav")
    ]
    assert [item.target_text for item in found.utterances] == ["one", "zwei\u2028drei", "three"]
    assert [str(item.units) for item in found.utterances] == ["1 2", "3", "0 0 9"]
    assert [item.id for item in found.utterances] == ["a", "b", "c"]
    assert (found.source, found.target, found.units) == (source, target, units)
    assert found.utterances[1].place == f"{source}:2"
    assert [item.units for item in TestSet.from_lists(source, target).utterances] == [None] * 3
    assert (
        TestSet.from_lists("../lists/source.txt", "../lists/target.txt").utterances[0].audio.path
        == tmp_path / "lists/a.wav"
    )


def test_lists_with_errors(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    source = write(tmp_path / "source", "a.wav", "a.wav")
    target = write(tmp_path / "target", "one", "two")
    bad = tmp_path / "bad"
    with pytest.raises(FileNotFoundError, match="missing: no such list"):
        TestSet.from_lists(source, tmp_path / "missing")
    with pytest.raises(ValueError, match="source has 2 lines, .*bad has 1: they do not belong together"):
        TestSet.from_lists(source, write(bad, "one"))
    with pytest.raises(ValueError, match="bad has 3: they do not belong together"):
        TestSet.from_lists(source, target, write(bad, "1", "2", "3"))
    with pytest.raises(ValueError, match="bad:2: empty line, expected one reference a line"):
        TestSet.from_lists(source, write(bad, "one", "  "))
    with pytest.raises(ValueError, match="bad:1: empty line, expected one audio path a line"):
        TestSet.from_lists(write(bad, "", "a.wav"), target)
    with pytest.raises(ValueError, match="bad: the list is empty"):
        TestSet.from_lists(source, write(bad))
    with pytest.raises(ValueError, match="bad:2: unit string holds 'x', which is not a unit code"):
        TestSet.from_lists(source, target, write(bad, "1 2", "3 x"))
    with pytest.raises(ManifestError, match=f"bad:2: {tmp_path}/lost.wav: no such audio file .nor .*lost.wav"):
        TestSet.from_lists(write(bad, "a.wav", "lost.wav"), target)
    bad.write_bytes(b"one\n\xff\n")
    with pytest.raises(ValueError, match=r"bad: not UTF-8 text \(byte 4\)"):
        TestSet.from_lists(source, bad)


def test_without_some_utterances(tmp_path: Path) -> None:
    class Indices(list[int]):
        read = 0

        def __iter__(self) -> Iterator[int]:
            self.read += 1
            return super().__iter__()

    sound(tmp_path / "a.wav")
    rows = TestSet.from_lists(write(tmp_path / "s", *["a.wav"] * 4), write(tmp_path / "t", "0", "1", "2", "3"))
    indices = Indices([2, 0])
    rest = rows.without(indices)
    assert [row.target_text for row in rest.utterances] == ["1", "3"] and rest.source == rows.source
    assert indices.read == 1


def test_manifest(tmp_path: Path) -> None:
    sound(tmp_path / "audio" / "a.wav")
    sound(tmp_path / "audio" / "b.wav")
    header = "id\taudio\ttgt_text\tsplit\ttgt_audio"
    rows = ["u1\taudio/a.wav\tone\ttrain\t", "u2\taudio/b.wav\ttwo\ttest\t4 5", "u3\taudio/a.wav\tthree\ttest\t6"]
    manifest = write(tmp_path / "m.tsv", header, *rows)
    found = TestSet.from_manifest(manifest, "test")
    assert [(item.id, item.target_text, str(item.units)) for item in found.utterances] == [
        ("u2", "two", "4 5"),
        ("u3", "three", "6"),
    ]
    assert (
        found.utterances[0].audio.path == tmp_path / "audio" / "b.wav" and found.utterances[0].place == f"{manifest}:3"
    )
    assert found.source == found.target == found.units == manifest
    plain = TestSet.from_manifest(manifest, "train")
    assert plain.units is None and plain.utterances[0].units is None
    with pytest.raises(ValueError, match="m.tsv:2: empty unit string"):
        TestSet.from_manifest(manifest)  # some rows have units, that one has none
    few = write(tmp_path / "few.tsv", "audio\ttgt_text", "audio/a.wav\tone")
    assert [(item.id, item.units) for item in TestSet.from_manifest(few).utterances] == [("a", None)]


def test_manifest_with_errors(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    bad = tmp_path / "bad.tsv"
    write(bad, "audio\ttgt_text\tsplit", "a.wav\tone\ttest", "a.wav\ttwo\tdev")
    with pytest.raises(ValueError, match=r"there is no row of split train \(there are: dev, test\)"):
        TestSet.from_manifest(bad, "train")
    for lines, message in (
        (["audio\tsplit", "a.wav\ttest"], "bad.tsv:1: no column tgt_text"),
        (["audio\ttgt_text", "a.wav\tone"], "bad.tsv:1: no column split"),
        (["audio\ttgt_text\tsplit", "a.wav\t \ttest"], "bad.tsv:2: empty tgt_text"),
        (["audio\ttgt_text\tsplit", "a.wav\tone\ttest", "\ttwo\ttest"], "bad.tsv:3: empty audio"),
        (["audio\ttgt_text\tsplit", "a.wav\tone"], "bad.tsv:2: has 2 columns"),
        (["audio\ttgt_text\tsplit", "b.wav\tone\ttest"], "bad.tsv:2: .*b.wav: no such audio file"),
        (["audio\ttgt_text\tsplit"], "there is no row$"),
    ):
        with pytest.raises(ValueError, match=message):
            TestSet.from_manifest(write(bad, *lines), "test")


def test_audio_is_read_before_anything_runs(tmp_path: Path) -> None:
    names = [sound(tmp_path / "a.wav"), sound(tmp_path / "b.wav"), sound(tmp_path / "c.wav", level=0.25)]
    names += [sound(tmp_path / "d.wav", rate=8000)]
    source = write(tmp_path / "source", *map(str, names))
    target = write(tmp_path / "target", *"abcd")
    items = TestSet.from_lists(source, target).utterances
    checked = check_audio(items)
    first, second, third, fourth = (item.digest for item in checked)
    assert [item.num_frames for item in checked] == [0, 0, 0, 0]
    assert first == second and len({first, third, fourth}) == 3 and len(first) == 64
    for content, message in (
        (b"", "the file is empty"),
        (b"no sound", "cannot be read as audio"),
        (np.zeros(0), "the recording has no samples"),
        (np.array([0.0, np.nan]), "NaN or infinite"),
    ):
        if isinstance(content, bytes):
            names[1].write_bytes(content)
        else:
            soundfile.write(names[1], content, 16000, subtype="FLOAT")
        with pytest.raises(AudioError, match=f"source:2: {names[1]}: .*{message}"):
            check_audio(items)


SETTINGS = {
    "format": 1,
    "model": {"path": "/a", "sha256": "0" * 64},
    "num_utterances": 2,
    "target_type": "text",
    "chunks": ["320"],
    "segment_ms": 40,
    "units": None,
}


def test_a_folder_takes_one_evaluation(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "evaluation"
    assert take_folder(folder, SETTINGS) == SETTINGS == read_settings(folder)
    moved = {**SETTINGS, "model": {"path": "/b", "sha256": "0" * 64}, "chunks": ["offline", "1280", "160"]}
    assert take_folder(folder, moved)["chunks"] == ["160", "320", "1280", "offline"]
    assert read_settings(folder)["chunks"] == ["160", "320", "1280", "offline"]
    before = (folder / "settings.json").read_bytes()
    other = {**SETTINGS, "model": {"path": "/a", "sha256": "1" * 64}, "segment_ms": 320}
    with pytest.raises(
        ValueError, match=r"other settings \(model.sha256: 0{12} then, 1{12} now; segment_ms: 40 then, 320 now\)"
    ):
        take_folder(folder, other)
    with pytest.raises(ValueError, match=r"\(units: none then, given now\)"):
        take_folder(folder, {**SETTINGS, "units": {"path": "/u", "sha256": "2" * 64}})
    assert (folder / "settings.json").read_bytes() == before


def test_a_folder_with_something_else(tmp_path: Path) -> None:
    note = write(tmp_path / "used" / "note.txt", "mine")
    with pytest.raises(ValueError, match="used holds other files and no evaluation"):
        take_folder(tmp_path / "used", SETTINGS)
    with pytest.raises(ValueError, match="note.txt holds other files"):
        take_folder(note, SETTINGS)
    assert note.read_text() == "mine\n" and len(list(note.parent.iterdir())) == 1
    with pytest.raises(FileNotFoundError, match="used is not the folder of an evaluation"):
        read_settings(tmp_path / "used")
    for content, message in (
        ("{", "not valid JSON"),
        ("[]", "a JSON object, not list"),
        ("{}", "must have format 1"),
        ('{"format": 1}', "lacks `chunks`"),
        ('{"format": 1, "chunks": [], "num_utterances": 1}', "lacks `target_type`"),
        (
            '{"format": 1, "num_utterances": 1, "target_type": "text", "chunks": ["../x"]}',
            "must be a number of ms or offline",
        ),
    ):
        (tmp_path / "used" / "settings.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            take_folder(tmp_path / "used", SETTINGS)


def test_differences_and_order() -> None:
    assert differences({"a": 1, "old": 2, "b": {"path": 1, "c": 2}}, {"a": 1, "b": {"path": 3, "c": 4}, "new": 5}) == [
        ("b.c", 2, 4),
        ("new", None, 5),
        ("old", 2, None),
    ]
    assert sort_chunks(["offline", "1280", "320", "160", "320"]) == ["160", "320", "1280", "offline"]


def test_the_hash_of_a_system_is_that_of_what_it_computes(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "system", voice=True)
    folder = save_bundle(bundle, tmp_path / "bundle")
    names = [name for name, _ in system_files(folder)]
    assert {"config.json", "model.safetensors", "dict.txt", "spm.model", "gcmvn.npz"} < set(names)
    assert any(name.startswith("vocoder/") for name in names)
    before = hash_files(system_files(folder))
    write(folder / "README.md", "another card")
    write(folder / "main.yaml", "chunk_ms: 160")
    assert hash_files(system_files(folder)) == before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"example": "other"}))
    assert hash_files(system_files(folder)) != before
