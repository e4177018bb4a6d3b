"""Utterances in tables and lists: one reader, one writer, one rule for relative paths."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nast_s2x.corpus import AudioRef, Units, Utterance, read_lists, read_manifest, write_manifest
from nast_s2x.corpus.utterance import parse_units
from nast_s2x.errors import AudioError, ManifestError


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def sound(path: Path, samples: int = 800, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(samples, 0.5), rate, subtype="FLOAT")
    return path


def test_all_columns(tmp_path: Path) -> None:
    table = write(
        tmp_path / "m.tsv",
        "id\tsplit\tsrc_audio\tsrc_n_frames\tsrc_text\ttgt_text\ttgt_speech\ttgt_audio\ttgt_n_frames\ttgt_durations\t"
        "unit_hash\tspeaker",
        ' u1 \ttrain\ta.flac:100:4000\t23\tdit "oui\tsays  yes\\ \ts/b.wav\t7 1  7\t9\t1 2 3\tabc\t s 1 ',
        "u2\tdev\t/far/x.npy\t\t\t\t\t\t\t\t\t",
    )
    manifest = read_manifest(table, with_durations=True, keep_extra=True)
    first, second = manifest.rows
    assert first == Utterance(
        id="u1",
        split="train",
        audio=AudioRef(tmp_path / "a.flac", 100, 4000),
        num_frames=23,
        source_text='dit "oui',
        target_text="says  yes\\",
        target_audio=AudioRef(tmp_path / "s/b.wav"),
        units=Units((7, 1, 7), (1, 2, 3), "abc"),
        extra={"speaker": "s 1"},
    )
    assert second == Utterance("u2", "dev", AudioRef(Path("/far/x.npy")), extra={"speaker": ""})
    assert (first.place, second.place) == (f"{table}:2", f"{table}:3") and manifest.lines == [2, 3]
    assert first.audio.relative and not second.audio.relative
    assert read_manifest(table).rows[0].units == Units((7, 1, 7), None, "abc")
    assert pickle.loads(pickle.dumps(first)) == first


def test_round_trip(tmp_path: Path) -> None:
    rows = [
        Utterance(
            "a/1", "train", AudioRef(tmp_path / "d/x.zip", 36, 100, relative=True), 12, 'dit "oui', "said 'yes\\",
            AudioRef(tmp_path / "t.wav", 5, 9, relative=True), Units((3, 0, 999), (1, 1, 2), "ab"), {"speaker": "s"},
        ),
        Utterance("b", "dev", AudioRef(tmp_path / "b.wav"), None, "", "« ça »\u2028", extra={"speaker": ""}),
    ]  # fmt: skip
    path = tmp_path / "new" / "t.tsv"
    write_manifest(path, rows)
    again = read_manifest(path, with_durations=True, keep_extra=True)
    assert again.rows == rows
    assert again.columns == (
        "id", "audio", "n_frames", "src_text", "tgt_text", "split", "tgt_speech", "tgt_audio", "tgt_n_frames",
        "tgt_durations", "unit_hash", "speaker",
    )  # fmt: skip
    # Paths keep their form: relative ones lead from the new table, absolute ones stay.
    assert [line.split("\t")[1] for line in path.read_text("utf-8").split("\n")[1:3]] == [
        "../d/x.zip:36:100", f"{tmp_path}/b.wav"
    ]  # fmt: skip
    write_manifest(path, iter(rows), ("id", "tgt_text"))
    assert path.read_text("utf-8") == "id\ttgt_text\na/1\tsaid 'yes\\\nb\t« ça »\u2028\n"
    with pytest.raises(ManifestError, match="'c'.*tab"):
        write_manifest(path, [Utterance("c", source_text="a\tb")])
    assert path.read_text("utf-8").startswith("id\ttgt_text")


def test_where_relative_paths_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("data/a.wav", "data/audio/a.wav", "data/b.wav", "here/a.wav", "here/b.wav", "here/c.wav", "r/a.wav"):
        sound(tmp_path / place)
    monkeypatch.chdir(tmp_path / "here")
    table = write(tmp_path / "data/t.tsv", "audio", "a.wav", "b.wav", "c.wav", "d.wav", f"{tmp_path}/r/a.wav")

    def found(**options: str) -> list[str]:
        return [str(row.audio.path.relative_to(tmp_path)) for row in read_manifest(table, unique_ids=False, **options)]

    assert found() == ["data/a.wav", "data/b.wav", "here/c.wav", "data/d.wav", "r/a.wav"]
    write(tmp_path / "data/config.yaml", "audio_root: audio")
    assert found() == ["data/audio/a.wav", "data/b.wav", "here/c.wav", "data/audio/d.wav", "r/a.wav"]
    assert found(root="../r") == ["r/a.wav", "r/b.wav", "r/c.wav", "r/d.wav", "r/a.wav"]
    # Another program's file of that name is no obstacle.
    write(tmp_path / "data/config.yaml", "[" * 5000)
    assert found()[0] == "data/a.wav"
    # A table reached by a symbolic link: beside the link, then beside the real file.
    sound(tmp_path / "links/b.wav")
    (tmp_path / "links/t.tsv").symlink_to(table)
    table = tmp_path / "links/t.tsv"
    assert found() == ["data/a.wav", "links/b.wav", "here/c.wav", "links/d.wav", "r/a.wav"]
    lists = write(tmp_path / "data/list.txt", "a.wav", "c.wav")
    assert [row.audio.path for row in read_lists(lists)] == [tmp_path / "data/a.wav", tmp_path / "here/c.wav"]


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t/folder.wav").mkdir(parents=True)
    table = write(tmp_path / "t/m.tsv", "id\taudio", "u\tlost.wav", "v\tfolder.wav", f"w\t{'long ' * 100}", "x\ta\0b")
    problems = read_manifest(table, check_files=True, strict=False).problems
    assert [problem.line for problem in problems] == [2, 3, 4, 5]
    assert str(problems[0]) == (f"{table}:2: {tmp_path}/t/lost.wav: no such audio file (nor {tmp_path}/lost.wav)")
    for problem, reason in zip(problems[1:], ("folder.wav: not a file", "name too long", "null byte")):
        assert reason in problem.reason
    with pytest.raises(ManifestError, match=r"m\.tsv:2: .*lost\.wav.*\(and 3 more bad rows\)") as error:
        read_manifest(table, check_files=True)
    assert error.value.problems == [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["id\taudio"], r"t\.tsv:1: no column n_frames \(tab-separated columns: id, audio\)"),
        (["id\tid\tn_frames"], r"t\.tsv:1: a column appears twice"),
        (["id\tn_frames"], r"t\.tsv: there is no row$"),
        (["id\taudio\tn_frames", "u\tx.npy"], r"t\.tsv:2: has 2 columns, the header 3"),
        (["id\tn_frames", "", "u\t-3"], r"t\.tsv:3: n_frames must be a whole number, not '-3'"),
        (["id\tn_frames", f"u\t{'9' * 5000}"], r"t\.tsv:2: n_frames must be a whole number"),
        (["id\tn_frames", "u\t3\rv"], r"t\.tsv:2: a carriage return inside the line"),
        (["id\tn_frames", "\t3"], r"t\.tsv:2: empty id"),
        (["id\tn_frames", "u\t3", "v\t3", " u\t4"], r"t\.tsv:4: id 'u' is that of line 2 too"),
        (["id\tn_frames\taudio", "u\t3\tx.zip"], r"t\.tsv:2: .*x\.zip: a zip needs a byte offset and length"),
        (["id\tn_frames\ttgt_audio", "u\t3\t1 5 2"], r"t\.tsv:2: unit 5 is outside 0..4"),
        (["id\tn_frames\ttgt_audio\ttgt_durations", "u\t3\t1 2\t3"], r"t\.tsv:2: 1 durations for 2 units"),
        (["id\tn_frames\ttgt_audio\ttgt_durations", "u\t3\t1\t0"], r"t\.tsv:2: tgt_durations must be whole numbers"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_manifest(write(tmp_path / "t.tsv", *lines), required=("id", "n_frames"), num_units=5, with_durations=True)


def test_a_path_that_looks_like_a_place_in_a_file(tmp_path: Path) -> None:
    """Problems have their line as a number, so no path can be taken for one."""
    table = write(tmp_path / "a:12: b:7: c.tsv", "id\ttgt_audio", "u\tx", "v\t1", "w\tx")
    assert [problem.line for problem in read_manifest(table, strict=False).problems] == [2, 4]


def test_whole_tables(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("id\ttgt_text\nu\tone\nv\ttw")
    with pytest.raises(ManifestError, match=r"t\.tsv: the last line does not end in a newline"):
        read_manifest(tmp_path / "t.tsv", whole=True)
    assert len(read_manifest(tmp_path / "t.tsv")) == 2
    (tmp_path / "t.tsv").write_bytes("\ufeffid\ttgt_text\r\nu\tone\r\n\r\n".encode())
    assert read_manifest(tmp_path / "t.tsv", whole=True).rows == [Utterance("u", target_text="one")]
    (tmp_path / "t.tsv").write_bytes(b"id\xff\n")
    with pytest.raises(ManifestError, match=r"not UTF-8 text \(byte 2\)"):
        read_manifest(tmp_path / "t.tsv")
    with pytest.raises(FileNotFoundError, match="no such manifest"):
        read_manifest(tmp_path / "none.tsv")


def test_splits(tmp_path: Path) -> None:
    table = write(tmp_path / "t.tsv", "id\tsplit", "u\ttrain", "v\tdev", "w\ttest", "bad\trow\tx")
    assert [row.id for row in read_manifest(table, split="dev", strict=False)] == ["v"]
    assert [row.id for row in read_manifest(table, split=("train", "test"), strict=False)] == ["u", "w"]
    table = write(tmp_path / "t.tsv", "id\tsplit", "u\ttrain", "v\tdev")
    with pytest.raises(ManifestError, match=r"there is no row of split test \(there are: dev, train\)"):
        read_manifest(table, split="test")
    # A table without the column is one split.
    assert [row.split for row in read_manifest(write(tmp_path / "t.tsv", "id", "u"), split="test")] == ["test"]
    with pytest.raises(ManifestError, match="no column split"):
        read_manifest(tmp_path / "t.tsv", split="test", required=("split",))


def test_units_of_several_sets_of_centroids(tmp_path: Path) -> None:
    head = "id\ttgt_audio\tunit_hash"
    assert read_manifest(write(tmp_path / "t.tsv", head, "u\t1\tab", "v\t\t", "w\t2\tab")).unit_hash() == "ab"
    assert read_manifest(write(tmp_path / "t.tsv", "id", "u")).unit_hash() is None
    for other, message in (("cd", r"ab \(line 2\), cd \(line 3\)"), ("", r"ab \(line 2\), none \(line 3\)")):
        with pytest.raises(ManifestError, match=message):
            read_manifest(write(tmp_path / "t.tsv", head, "u\t1\tab", f"v\t2\t{other}")).unit_hash()


def test_lists(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav"), sound(tmp_path / "b.wav")
    source = write(tmp_path / "source", "a.wav", "b.wav:100:500")
    target = write(tmp_path / "target", "one", " zwei\u2028drei ")
    units = write(tmp_path / "units", "1  2", "3")
    rows = read_lists(source, target, units).rows
    second = AudioRef(tmp_path / "b.wav", 100, 500)
    assert rows == [
        Utterance("a", audio=AudioRef(tmp_path / "a.wav"), target_text="one", units=Units((1, 2))),
        Utterance("b-100", audio=second, target_text="zwei\u2028drei", units=Units((3,))),
    ]  # fmt: skip
    assert rows[1].place == f"{source}:2" and rows[1].length() == 1
    assert [row.units for row in read_lists(source)] == [None, None]
    for name, lines, message in (
        ("target", ["one"], "source has 2 lines, .*target has 1: they do not belong together"),
        ("target", ["one", "  "], "target:2: empty line, expected one reference a line"),
        ("target", [], "target: the list is empty"),
        ("units", ["1 2", "3 x"], "units:2: unit string holds 'x', which is not a unit code"),
        ("source", ["a.wav", "lost.wav"], "source:2: .*lost.wav: no such audio file"),
    ):
        with pytest.raises(ManifestError, match=message):
            read_with(tmp_path, name, lines)
    with pytest.raises(FileNotFoundError, match="missing: no such list"):
        read_lists(tmp_path / "missing")


def read_with(folder: Path, name: str, lines: list[str]) -> None:
    """Read the lists with one of them replaced for the time being."""
    before = (folder / name).read_bytes()
    write(folder / name, *lines)
    try:
        read_lists(folder / "source", folder / "target", folder / "units")
    finally:
        (folder / name).write_bytes(before)


def test_length_is_never_guessed(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 16000)
    table = write(tmp_path / "t.tsv", "id\taudio\tn_frames", "u\ta.wav\t7", "v\ta.wav\t", "w\tnone.wav\t", "x\t\t")
    rows = read_manifest(table).rows
    assert [row.length() for row in rows[:2]] == [7, 98]
    with pytest.raises(AudioError, match=r"none\.wav"):
        rows[2].length()
    with pytest.raises(AudioError, match=r"t\.tsv:5: no recording"):
        rows[3].length()


def test_unit_strings() -> None:
    assert parse_units(" 3 0  12 ") == (3, 0, 12) and str(Units((3, 0, 12))) == "3 0 12"
    for text, message in (
        ("", "empty"), ("1 -2", "'-2'"), ("1 two", "'two'"), ("1 2.0", "'2.0'"), ("²", "'²'"), ("9" * 5000, "999")
    ):  # fmt: skip
        with pytest.raises(ManifestError, match=message):
            parse_units(text)
