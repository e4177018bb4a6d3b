"""``nast-s2x convert``: published layouts, made small, to a manifest that ``prepare`` and training accept."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
from corpus_trees import (
    common_voice,
    covost2,
    cvss_c,
    europarl_st,
    fairseq_s2t,
    fleurs,
    parquet_files,
    sound,
    talks,
    write,
)  # fmt: skip
from plugin_runs import train

from nast_s2x.cli.main import main
from nast_s2x.corpus import read_manifest
from nast_s2x.corpus.converters import ConvertOptions, convert
from nast_s2x.corpus.converters.entries import yaml_items
from nast_s2x.corpus.prepare import PrepareOptions, prepare
from nast_s2x.errors import ConfigError, ManifestError

FR_EN = ConvertOptions("fr", "en")


def run(corpus: str, folders: list[Path], output: Path, options: ConvertOptions = FR_EN):  # type: ignore[no-untyped-def]
    report = convert(corpus, folders, output, options)
    rows = read_manifest(output / "manifest.tsv", check_files=True, keep_extra=True).rows
    return report, {row.id: row for row in rows}


LAYOUTS = {
    "cvss-c": lambda root: cvss_c(root),
    "covost2": lambda root: covost2(root),
    "common-voice": lambda root: [common_voice(root)],
    "must-c": lambda root: [talks(root, "fr-en")],
    "mtedx": lambda root: [talks(root, "fr-en", dev="valid", ending=".flac")],
    "europarl-st": lambda root: [europarl_st(root)],
    "fleurs": lambda root: [fleurs(root)],
    "parquet": lambda root: [parquet_files(root)],
    "fairseq-s2t": lambda root: [fairseq_s2t(root)],
}


@pytest.mark.parametrize("corpus", LAYOUTS)
def test_from_the_layout_to_an_update_of_training(corpus: str, tmp_path: Path) -> None:
    """Each layout is converted, prepared and trained on; every row is taken or left out with a reason."""
    pytest.importorskip("fairseq")
    if corpus == "parquet":
        pytest.importorskip("pyarrow")
    report, rows = run(corpus, LAYOUTS[corpus](tmp_path / "made"), tmp_path / "out")
    assert sum(report.rows.values()) == len(rows) >= 5
    assert report.rows["train"] >= 3 and report.rows["dev"] == 1 and all(hours > 0 for hours in report.hours.values())
    left_out = (tmp_path / "out" / "left_out.tsv").read_text().splitlines()[1:]
    assert len(left_out) == sum(report.left_out.values())
    assert json.loads((tmp_path / "out" / "convert.json").read_text())["report"]["rows"] == dict(report.rows)
    prepared = prepare(tmp_path / "out" / "manifest.tsv", tmp_path / "data", PrepareOptions(vocab_size=40), jobs=1)
    assert prepared.problems == [] and sum(prepared.rows.values()) == len(rows)
    flags = ("--arch", "nast_s2t", "--max-update", "1", "--disable-validation", "--no-save", "--text-upsample", "4")
    (update,) = train(tmp_path / "data", tmp_path / "save", *flags, "--valid-subset", "dev").updates
    assert math.isfinite(float(update["loss"])) and update["num_updates"] == "1"


def test_cvss_c(tmp_path: Path) -> None:
    report, rows = run("cvss-c", cvss_c(tmp_path)[::-1], tmp_path / "out")
    row = rows["common_voice_fr_2"]
    assert (row.split, row.source_text, row.target_text) == ("train", "null", "null")
    assert row.target_audio is not None and row.target_audio.header()[1] == 24000
    assert row.extra == {"speaker": "speaker0"}
    assert report.left_out == {"missing target audio": 1} and report.target_hours["train"] > 0
    assert str(tmp_path / "cvss_c_fr_en" / "train.tsv:4") in report.examples["missing target audio"][0]


def test_covost2(tmp_path: Path) -> None:
    report, rows = run("covost2", covost2(tmp_path), tmp_path / "out", ConvertOptions())
    assert rows["common_voice_fr_1"].target_text == "where is\\ the dog"
    assert report.rows == {"train": 4, "dev": 1, "test": 1}
    assert report.left_out == {"no transcript in validated.tsv": 1}
    assert report.notes == ["split train_covost is written as train"]


def test_must_c_keeps_the_order_of_the_files(tmp_path: Path) -> None:
    """Offsets are numbers, also where the YAML has them as text, and U+2028 does not end a line."""
    _, rows = run("must-c", [talks(tmp_path, "fr-en")], tmp_path / "out")
    parts = [rows[f"ted_train_{index}"].audio for index in range(4)]
    assert [(part.start, part.count) for part in parts if part] == [
        (0, 12800), (168000, 12800), (145600, 12800), (48000, 12800),
    ]  # fmt: skip
    assert rows["ted_train_1"].source_text == "où est le chien oui"
    assert rows["ted_tst-COMMON_0"].split == "tst-COMMON"


def test_mtedx_names_flac_and_dev(tmp_path: Path) -> None:
    _, rows = run("mtedx", [talks(tmp_path, "fr-en", "valid", ".flac") / "fr-en"], tmp_path / "out", ConvertOptions())
    row = rows["ted_valid_0"]
    assert row.split == "dev" and row.audio is not None and row.audio.path.suffix == ".flac"


def test_talks_with_texts_of_another_length(tmp_path: Path) -> None:
    text = talks(tmp_path, "fr-en") / "fr-en" / "data" / "train" / "txt" / "train.en"
    write(text, text.read_text() + "one too many\n")
    with pytest.raises(ManifestError, match=r"train\.fr ends before line 5"):
        run("must-c", [tmp_path], tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.tsv").exists()


def test_yaml_items_are_parsed_one_by_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "- {a: 1}\n- b: 2\n  c: '3'\n\n- {d: x}\n")
    assert list(yaml_items(path)) == [{"a": 1}, {"b": 2, "c": "3"}, {"d": "x"}]
    with pytest.raises(ManifestError, match="not a list of entries"):
        list(yaml_items(write(tmp_path / "b.yaml", "a: [1\n")))


def test_segment_outside_its_recording(tmp_path: Path) -> None:
    path = talks(tmp_path, "fr-en") / "fr-en" / "data" / "train" / "txt" / "train.yaml"
    write(path, path.read_text().replace("'10.5'", "'99'").replace("wav: ted_train.wav}", "wav: ted_none.wav}", 1))
    report, _ = run("must-c", [tmp_path], tmp_path / "out")
    assert report.left_out == {"missing audio": 1, "bad segment": 1}
    assert "0.8 s at 99 s of" in report.examples["bad segment"][0]


def test_europarl_st_end_is_not_a_duration(tmp_path: Path) -> None:
    _, rows = run("europarl-st", [europarl_st(tmp_path)], tmp_path / "out")
    row = next(row for row in rows.values() if row.split == "dev")
    assert row.audio is not None and (row.audio.start, row.audio.count) == (8000, 12000)
    assert row.extra == {"speaker": "MEP 4"}


def test_m4a_is_refused_with_what_to_do(tmp_path: Path) -> None:
    root = europarl_st(tmp_path)
    for path in (root / "fr" / "audios").iterdir():
        path.rename(path.with_suffix(".m4a"))
    with pytest.raises(ConfigError, match="does not read m4a .* ffmpeg"):
        run("europarl-st", [root], tmp_path / "out")


def test_fleurs_pairs_readings_in_turn(tmp_path: Path) -> None:
    report, rows = run("fleurs", [fleurs(tmp_path)], tmp_path / "out")
    assert report.left_out == {"no translation in en_us": 1}
    assert rows["train_0_0"].audio != rows["train_0_1"].audio
    assert rows["train_0_0"].target_audio == rows["train_0_1"].target_audio
    assert rows["train_2_0"].source_text == "null"


def test_parquet_writes_the_bytes_as_they_are(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    report, rows = run("parquet", [parquet_files(tmp_path / "made")], tmp_path / "out")
    audio = rows["row0"].audio
    assert audio is not None and audio.path == tmp_path / "out" / "audio" / "train" / "row0.mp3"
    assert audio.path.read_bytes() == (tmp_path / "made" / "made" / "0.mp3").read_bytes()
    assert report.rows == {"test": 1, "train": 3, "dev": 1} and report.left_out == {"missing audio": 1}
    with pytest.raises(ConfigError, match="--column nothing is not there"):
        run("parquet", [tmp_path / "made"], tmp_path / "other", ConvertOptions(columns={"src_text": "nothing"}))


def test_fairseq_tables_without_transcripts(tmp_path: Path) -> None:
    report, rows = run("fairseq-s2t", [fairseq_s2t(tmp_path)], tmp_path / "out")
    assert rows["u0"].target_text == "the cat sleeps\\" and rows["u0"].split == "train"
    assert any("has no transcripts" in note for note in report.notes)


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
def test_lhotse_there_and_back(name: str, tmp_path: Path) -> None:
    """Whole recordings and segments, speech and texts survive; the same rows give the same bytes."""
    for corpus, folders in (("cvss-c", cvss_c(tmp_path / "a")), ("must-c", [talks(tmp_path / "b", "fr-en")])):
        convert(corpus, folders, tmp_path / corpus, FR_EN)
        files = [tmp_path / corpus / "x" / name, tmp_path / corpus / "y" / name]
        for file in files:
            assert main(["export-manifest", str(tmp_path / corpus / "manifest.tsv"), "--output", str(file)]) == 0
        assert files[0].read_bytes() == files[1].read_bytes()
        _, back = run("lhotse", [files[0]], tmp_path / corpus / "back")
        before = read_manifest(tmp_path / corpus / "manifest.tsv", keep_extra=True)
        assert {row.id: row for row in before} == back


def test_lhotse_supervisions_with_recordings(tmp_path: Path) -> None:
    path = sound(tmp_path / "long.wav", seconds=2.0)
    source = {"type": "file", "channels": [0], "source": str(path)}
    recordings = [
        {"id": "r", "sources": [source], "sampling_rate": 16000, "num_samples": 32000, "duration": 2.0},
        {"id": "c", "sources": [{"type": "command", "source": "touch /tmp/never"}]},
        {"id": "t", "sources": [source], "transforms": [{"name": "Speed"}]},
    ]
    base = {"start": 0.5, "duration": 1.0, "text": "oui", "custom": {"english": "yes"}}
    rows = [{"id": name, "recording_id": name} | base for name in ("r", "c", "t", "x")]
    rows[0]["text"] = "oui\tbien"
    write(tmp_path / "in" / "fr_recordings_dev.jsonl", "".join(json.dumps(values) + "\n" for values in recordings))
    with gzip.open(tmp_path / "in" / "fr_supervisions_dev.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(values) + "\n" for values in rows)
    report, found = run(
        "lhotse", [tmp_path / "in"], tmp_path / "out", ConvertOptions(columns={"tgt_text": "custom.english"})
    )
    row = found["r"]
    assert row.audio is not None and (row.audio.start, row.audio.count, row.split) == (8000, 16000, "dev")
    assert (row.source_text, row.target_text) == ("oui bien", "yes")
    reasons = " ".join(report.examples["bad row"])
    assert "type file is supported, not command" in reasons and "transforms" in reasons and "no recording x" in reasons


def test_lhotse_files_without_a_split(tmp_path: Path) -> None:
    """Rows whose file does not name a split are for training; a split of their own comes first."""
    source = {"type": "file", "channels": [0], "source": str(sound(tmp_path / "a.wav"))}
    write(tmp_path / "in" / "recordings.jsonl", json.dumps({"id": "r", "sources": [source]}) + "\n")
    row = {"recording_id": "r", "start": 0, "duration": 0.5, "text": "oui"}
    customs = {"a": {"tgt_text": "yes"}, "b": {"tgt_text": "yes", "split": "test"}}
    lines = [json.dumps({"id": name, **row, "custom": custom}) + "\n" for name, custom in customs.items()]
    write(tmp_path / "in" / "supervisions.jsonl", "".join(lines))
    report, rows = run("lhotse", [tmp_path / "in"], tmp_path / "out")
    assert (rows["a"].split, rows["b"].split) == ("train", "test")
    assert report.notes == ["neither supervisions.jsonl (as in NAME_dev.jsonl) nor its rows name a split: it is train"]


def test_lhotse_mixed_cuts_are_named(tmp_path: Path) -> None:
    write(tmp_path / "cuts.jsonl", json.dumps({"id": "m", "type": "MixedCut", "tracks": []}) + "\n")
    with pytest.raises(ManifestError, match="no usable row") as error:
        run("lhotse", [tmp_path], tmp_path / "out")
    assert "MixedCut m: only MonoCut" in error.value.problems[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": None}, {"supervisions": [7]}, {"supervisions": {"a": 1}}, {"recording": [1]}, {"type": "MultiCut"},
        {"supervisions": [{"id": "s", "start": "x"}]}, {"recording": {"id": "r", "sources": "x"}},
    ],
)  # fmt: skip
def test_lhotse_values_of_other_types_are_left_out(wrong: dict[str, object], tmp_path: Path) -> None:
    supervision = {"id": "s", "start": 0, "duration": 0.5, "text": "oui", "custom": {"tgt_text": "yes"}}
    source = {"type": "file", "channels": [0], "source": str(sound(tmp_path / "a.wav"))}
    cut = {"id": "c", "type": "MonoCut", "start": 0, "supervisions": [supervision]}
    cut["recording"] = {"id": "r", "sources": [source]}
    lines = [json.dumps(cut), json.dumps(cut | wrong)]
    write(tmp_path / "cuts.jsonl", "\n".join(lines) + "\n")
    report, rows = run("lhotse", [tmp_path / "cuts.jsonl"], tmp_path / "out")
    assert list(rows) == ["s"] and report.left_out == {"bad row": 1}


def test_command_reports_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = list(map(str, cvss_c(tmp_path)))
    command = ["convert", "cvss-c", *folders, "--output", str(tmp_path / "out"), "--quiet"]
    assert main([*command, "--limit", "2"]) == 0
    shown = capsys.readouterr()
    assert "train: 2 rows" in shown.out and "4 rows, 0 left out" in shown.out
    assert main(command) == 1
    assert "already holds a conversion" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == {"missing target audio": 1}
    assert main([*command[:-3], "--output", str(tmp_path / "strict"), "--strict", "--quiet"]) == 1
    assert "train.tsv:4: missing target audio" in capsys.readouterr().err
    assert not (tmp_path / "strict" / "manifest.tsv").exists()


def test_rows_with_broken_recordings_are_left_out(tmp_path: Path) -> None:
    folders = cvss_c(tmp_path)
    write(tmp_path / "cv" / "fr" / "clips" / "common_voice_fr_0.mp3", "not sound")
    report, rows = run("cvss-c", folders, tmp_path / "out")
    assert "common_voice_fr_0" not in rows and report.left_out["unreadable audio"] == 1


def test_languages_are_required_where_a_corpus_has_several(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--source-lang and --target-lang are required"):
        run("fleurs", [fleurs(tmp_path)], tmp_path / "out", ConvertOptions())
    with pytest.raises(ConfigError, match="language 'de'"):
        run("fleurs", [tmp_path], tmp_path / "out", ConvertOptions("fr", "de"))
