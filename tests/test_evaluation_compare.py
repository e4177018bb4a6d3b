"""Comparisons of evaluations: significance tests, files, errors."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from evaluation_folder import REFERENCES, make_evaluation
from sacrebleu.metrics import BLEU, CHRF

from nast_s2x.cli.main import main
from nast_s2x.evaluation.compare import compare, format_table, table, unique_names, write
from nast_s2x.metrics.quality import asr_bleu

WORSE = ("the bridge is old today", "my brother buys apples", "we meet at a station", "")


def pair(tmp_path: Path, target_type: str = "text", **changes: object) -> list[Path]:
    """A good evaluation and a worse one."""
    good = make_evaluation(tmp_path / "good", target_type, REFERENCES, chunks=("160", "320"))
    settings = {"outputs": WORSE, "chunks": ("320", "640"), **changes}
    return [good, make_evaluation(tmp_path / "worse", target_type, **settings)]


def edit(folder: Path, **changes: object) -> None:
    path = folder / "scores.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_scores_are_sacrebleus_and_chunk_sizes_the_common_ones(tmp_path: Path) -> None:
    result = compare(pair(tmp_path), samples=200)
    assert [row["chunk"] for row in result["rows"]] == ["320"] and result["baseline"] == "good"
    good, worse = result["rows"][0]["systems"]
    assert worse["significance"]["BLEU"]["score"] == BLEU().corpus_score(list(WORSE), [list(REFERENCES)]).score
    assert worse["significance"]["chrF"]["score"] == CHRF().corpus_score(list(WORSE), [list(REFERENCES)]).score
    assert good["significance"]["BLEU"]["score"] == pytest.approx(100)
    assert good["significance"]["BLEU"]["p_value"] is None  # the baseline is not tested
    assert 0 < worse["significance"]["BLEU"]["p_value"] < 1 and worse["significance"]["chrF"]["ci"] > 0
    assert "bs:200" in result["rows"][0]["signatures"]["BLEU"] and worse["empty"] == 1
    assert worse["latency"]["AL"] == 480 and "ASR_BLEU" not in worse["significance"]


def test_a_clear_difference_is_significant_and_none_is_not(tmp_path: Path) -> None:
    folders = [make_evaluation(tmp_path / name, chunks=("320",)) for name in ("first", "same")]
    folders.append(make_evaluation(tmp_path / "wrong", outputs=["x y z"] * 4, chunks=("320",)))
    # The wrong outputs share no word with the references.
    _, same, wrong = compare(folders, samples=200)["rows"][0]["systems"]
    assert same["significance"]["BLEU"]["p_value"] is None  # equal outputs: not the bootstrap's smallest p
    assert wrong["significance"]["BLEU"]["p_value"] < 0.05


def test_speech_is_compared_by_its_transcripts(tmp_path: Path) -> None:
    folders = pair(tmp_path, "speech")
    _, worse = compare(folders, samples=50)["rows"][0]["systems"]
    heard = worse["significance"]["ASR_BLEU"]["score"]
    assert heard == asr_bleu(WORSE, REFERENCES).value  # as `score` computes it
    assert heard != worse["significance"]["BLEU"]["score"]  # "&" and "<home>" are no words to a recogniser


def test_two_recognisers_cannot_be_compared(tmp_path: Path) -> None:
    result = compare(pair(tmp_path, "speech", recogniser="bundle:other ears"), samples=50)
    assert "ASR_BLEU" not in result["rows"][0]["systems"][1]["significance"]
    assert any("recogniser differs" in note and "other ears" in note for note in result["notes"])


def test_settings_that_differ_are_noted(tmp_path: Path) -> None:
    folders = pair(tmp_path)
    settings = json.loads((folders[1] / "scores.json").read_text())["settings"]
    edit(folders[1], settings=settings | {"segment_ms": 320})
    assert compare(folders, samples=10)["notes"] == ["segment_ms differs (good: 40, worse: 320)"]
    edit(folders[1], settings=settings | {"left_ms": 5120, "synthesis_lookahead": 0})
    assert compare(folders, samples=10)["notes"] == [
        "left_ms differs (good: not set, worse: 5120)",
        "synthesis_lookahead differs (good: not set, worse: 0)",
    ]


def test_text_that_is_not_known_is_not_compared(tmp_path: Path) -> None:
    """Logs of speech written by SimulEval hold no words: no BLEU of 0, and no significance of it."""
    good, other = pair(tmp_path, "speech")
    log = other / "320" / "instances.log"
    lines = [json.loads(line) | {"emissions": []} for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = json.loads((other / "scores.json").read_text())["rows"]
    for row in rows:
        row["quality"] |= {"BLEU": None, "chrF": None}
    edit(other, rows=rows)
    result = compare([good, other], samples=10)
    assert [set(entry["significance"]) for entry in result["rows"][0]["systems"]] == [{"ASR_BLEU"}] * 2
    assert [line["BLEU"] for line in table(result)] == [23.2, None]


def test_files_and_table(tmp_path: Path) -> None:
    result = compare(pair(tmp_path), samples=50)
    files = write(result, tmp_path / "new" / "folder")
    assert [path.name for path in files] == ["compare.json", "compare.csv", "compare.png"]
    assert json.loads(files[0].read_text("utf-8")) == result
    lines = list(csv.DictReader(io.StringIO(files[1].read_text("utf-8"))))
    assert [(line["chunk"], line["system"]) for line in lines] == [("320", "good"), ("320", "worse")]
    p_value = result["rows"][0]["systems"][1]["significance"]["BLEU"]["p_value"]
    assert lines[0]["BLEU_p"] == "" and float(lines[1]["BLEU_p"]) == p_value
    assert "unit_BLEU" not in lines[0]  # no system has it
    assert files[2].read_bytes().startswith(b"\x89PNG") and table(result)[1]["AL"] == 480
    head, good, worse, *rest = format_table(result).splitlines()
    assert head.split()[:4] == ["chunk", "system", "BLEU", "chrF"] and "p=" not in good and f"p={p_value:.3f}" in worse
    assert "paired bootstrap with 50 resamples against good" in rest[0]


def test_names_with_special_characters(tmp_path: Path) -> None:
    """Names of folders may hold "$" (formulas of matplotlib) and "=" (formulas of spreadsheets)."""
    good, worse = pair(tmp_path)
    folders = [good.rename(tmp_path / r"$\frac{$"), worse.rename(tmp_path / "=1+1")]
    result = compare(folders, samples=10)
    files = write(result, tmp_path / "new")
    lines = list(csv.DictReader(io.StringIO(files[1].read_text("utf-8"))))
    assert [line["system"] for line in lines] == [r"$\frac{$", "'=1+1"]
    assert files[2].read_bytes().startswith(b"\x89PNG")


def test_names(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a/test", "b/test", "dev")]
    assert unique_names(paths) == ["a/test", "b/test", "dev"]
    assert unique_names([paths[0], paths[0]])[0] != unique_names([paths[0], paths[0]])[1]
    assert len(set(unique_names([*paths, paths[1]]))) == 4


def test_refused(tmp_path: Path) -> None:
    good, worse = pair(tmp_path)
    with pytest.raises(ValueError, match="at least two evaluations, got 1"):
        compare([good])
    with pytest.raises(ValueError, match="at least 1 resample, got 0"):
        compare([good, worse], samples=0)
    with pytest.raises(FileNotFoundError, match="scores.json is missing"):
        compare([good, tmp_path])
    speech = make_evaluation(tmp_path / "speech", "speech", chunks=("320",))
    with pytest.raises(ValueError, match="speech evaluates speech, .*good text"):
        compare([good, speech])
    other = make_evaluation(tmp_path / "other", chunks=("1280",))
    with pytest.raises(ValueError, match="no chunk size in common .*good: 160, 320; .*other: 1280"):
        compare([good, other])
    edit(other, format=7)
    with pytest.raises(ValueError, match="format 1, but has 7"):
        compare([good, other])


def test_other_references_are_refused(tmp_path: Path) -> None:
    good, worse = pair(tmp_path)
    log = worse / "320" / "instances.log"
    log.write_text(log.read_text().replace("three red apples", "four red apples"))
    with pytest.raises(ValueError, match="different references .*first difference is at index 1"):
        compare([good, worse])
    fewer = make_evaluation(tmp_path / "fewer", outputs=REFERENCES[:2], chunks=("320",))
    with pytest.raises(ValueError, match=r"\(2 and 4 utterances; the first difference is at index 2\)"):
        compare([good, fewer])


def test_a_log_of_simuleval_beside_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scored in its folder under the name of a chunk size, which scoring it again keeps."""
    ours = make_evaluation(tmp_path / "ours", chunks=("160", "320"))
    worse = make_evaluation(tmp_path / "worse", outputs=WORSE, chunks=("320",))
    keys = ("index", "prediction", "delays", "elapsed", "prediction_length", "reference", "source_length")
    entries = [json.loads(line) for line in (worse / "320" / "instances.log").read_text().splitlines()]
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    lines = [{key: entry[key] for key in keys} | {"source": ["a.wav", "samplerate: 16000"]} for entry in entries]
    (theirs / "instances.log").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["score", str(theirs), "--no-report"]) == 0
    assert main(["compare", str(ours), str(theirs)]) == 1
    assert "no chunk size in common" in (error := capsys.readouterr().err) and "score --chunk-ms NAME" in error
    assert main(["score", str(theirs), "--chunk-ms", "a/b"]) == 1
    assert "must be a single word such as 320, but is 'a/b'" in capsys.readouterr().err
    assert main(["score", str(theirs), "--chunk-ms", "320"]) == 0  # with the report, which finds the log
    for more in ([], ["--chunk-ms", "320"]):
        assert main(["score", str(theirs), "--no-report", *more]) == 0
        result = compare([ours, theirs], samples=20)
        assert [row["chunk"] for row in result["rows"]] == ["320"]
    _, other = result["rows"][0]["systems"]
    assert other["significance"]["BLEU"]["score"] == BLEU().corpus_score(list(WORSE), [list(REFERENCES)]).score
    assert other["latency"]["AL"] > 0 and other["cost"]["real_time_factor"] is None
    assert result["notes"] == ["theirs: a log of another program, its settings are not known"]
    capsys.readouterr()
    assert main(["score", str(ours), "--chunk-ms", "320"]) == 1
    assert "only a log in the folder itself can be given a name" in capsys.readouterr().err
    log = str(theirs / "instances.log")
    assert main(["compare", str(ours), log]) == 1
    assert f"`nast-s2x score {log} --segments YAML --target REFS --output DIR`" in capsys.readouterr().err
    assert main(["score", log]) == 1
    assert f"for SimulEval's of single utterances its folder, {theirs}" in capsys.readouterr().err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(folder) for folder in pair(tmp_path)]
    assert main(["compare", *folders, "--samples", "20", "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "resamples against good" in printed and str(tmp_path / "out" / "compare.png") in printed
    assert main(["compare", folders[0]]) == 1
    assert "nast-s2x compare: error: a comparison needs at least two evaluations" in capsys.readouterr().err
    assert main(["compare", folders[0], str(tmp_path)]) == 1
    assert "scores.json is missing" in capsys.readouterr().err
