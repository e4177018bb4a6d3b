"""COMET of scored evaluations; a program in the form of comet-score 2.2.7 stands in for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from evaluation_folder import REFERENCES, make_evaluation

pytest.importorskip("sacrebleu")

from nast_s2x.cli.main import main  # noqa: E402
from nast_s2x.errors import NastError  # noqa: E402
from nast_s2x.evaluation.comet import Comet, add_comet  # noqa: E402
from nast_s2x.evaluation.compare import compare, table  # noqa: E402

PROGRAM = """#!{python}
import json, os, sys
flags = dict(zip(sys.argv[2::2], sys.argv[3::2]))
assert sys.argv[1] == "--quiet" and os.environ["HF_HUB_OFFLINE"] == "1"
if "broken" in flags["--model"]:
    sys.exit("the model is broken")
texts = [open(flags[name]).read().splitlines() for name in ("--sources", "--translations", "--references")]
lines = [
    {{"src": source, "mt": output, "ref": reference, "COMET": len(output.split()) + len(source) / 100}}
    for source, output, reference in zip(*texts, strict=True)
]
json.dump({{flags["--translations"]: lines}}, open(flags["--to_json"], "w"))
"""
OUTPUTS = ("the bridge", "my brother buys apples", "we meet", "")
SOURCES = ("un", "deux", "trois", "quatre")
VALUES = [2.02, 4.04, 2.05, 0.06]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "comet-score"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    return path


def model(folder: Path) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "model.ckpt").write_text("weights")
    (folder / "hparams.yaml").write_text("class_identifier: regression_metric\n")
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_command(tmp_path: Path, program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_evaluation(tmp_path / "run", outputs=OUTPUTS, chunks=("320",))
    (tmp_path / "sources").write_text("".join(f"{text}\n" for text in SOURCES))
    flags = ["--comet", str(model(tmp_path / "model")), "--comet-command", str(program)]
    assert main(["score", str(folder), *flags, "--source-text", str(tmp_path / "sources"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    row = scores["rows"][0]
    assert scores == json.loads((folder / "scores.json").read_text())
    assert row["quality"]["COMET"] == pytest.approx(sum(VALUES) / 4) and row["signatures"]["COMET"].startswith("model ")
    assert [entry["COMET"] for entry in lines(folder / "320" / "utterances.jsonl")] == pytest.approx(VALUES)
    assert "COMET" in (folder / "scores.csv").read_text() and "2.0425" in (folder / "report.html").read_text()
    assert "COMET" in table(compare([folder, folder], samples=5))[0]
    assert main(["score", str(folder), "--no-report"]) == 0  # without the model the figure is absent
    assert "COMET" not in (folder / "scores.json").read_text() and "COMET" not in capsys.readouterr().out


def test_transcripts_of_the_manifest(tmp_path: Path, program: Path) -> None:
    folder = make_evaluation(tmp_path / "run", outputs=OUTPUTS, chunks=("320",))
    rows = "".join(f"sentence_{n}\ta.wav\t{text}\t{REFERENCES[n]}\n" for n, text in enumerate(SOURCES))
    (tmp_path / "test.tsv").write_text(f"id\taudio\tsrc_text\ttgt_text\n{rows}")
    scores = json.loads((folder / "scores.json").read_text())
    scores["settings"]["source"]["path"] = str(tmp_path / "test.tsv")
    (folder / "scores.json").write_text(json.dumps(scores))
    row = add_comet(folder, Comet.find(model(tmp_path / "model"), str(program)))["rows"][0]
    assert row["quality"]["COMET"] == pytest.approx(sum(VALUES) / 4)


def test_long_recordings(tmp_path: Path, program: Path) -> None:
    entries = [{"wav": name, "offset": start, "duration": 1} for name in "ab" for start in (0, 1)]
    (tmp_path / "segments.json").write_text(json.dumps(entries))
    (tmp_path / "references").write_text("one two\nthree\nfour\nfive six\n")
    (tmp_path / "sources").write_text("un deux\ntrois\nquatre\ncinq six\n")
    texts = {"a": ["one", "two", "three"], "b": ["four", "five"]}
    log = [
        {"source": name, "prediction": " ".join(words), "delays": [500.0] * len(words), "source_length": 2000.0}
        for name, words in texts.items()
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    given = {"segments": "segments.json", "target": "references", "output": "out", "source-text": "sources"}
    flags = [text for name, path in given.items() for text in (f"--{name}", str(tmp_path / path))]
    flags += ["--comet", str(model(tmp_path / "model")), "--comet-command", str(program), "--no-report"]
    assert main(["score", str(tmp_path / "log.jsonl"), *flags]) == 0
    row = json.loads((tmp_path / "out" / "scores.json").read_text())["rows"][0]
    first, second = (talk["quality"]["COMET"] for talk in row["recordings"])
    assert (first, second) == pytest.approx(((2.07 + 1.05) / 2, (1.06 + 1.08) / 2))
    assert row["quality"]["COMET"] == pytest.approx((first + second) / 2)


def test_what_is_missing_is_one_line_before_anything_runs(
    tmp_path: Path, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_evaluation(tmp_path / "run", outputs=OUTPUTS, chunks=("320",))
    before = (folder / "scores.json").read_bytes()
    there, text = model(tmp_path / "model"), tmp_path / "text"
    for flags, message in (
        (["--comet", there, "--comet-command", "no-such-program"], "needs the program no-such-program"),
        (["--comet", tmp_path / "no", "--comet-command", program], "no: no such file; a COMET model is a folder"),
        (["--comet", there, "--comet-command", program, "--source-text", text], "text: no such file"),
        (["--source-text", text], "--source-text needs --comet"),
    ):
        assert main(["score", str(folder), *map(str, flags)]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert (folder / "scores.json").read_bytes() == before
    text.write_text("one\n")
    comet = Comet.find(there, str(program))
    for used, source, message in (
        (comet, text, "has 1 lines, the evaluation 4 texts"),
        (comet, None, "sentence_0 has none in a manifest: give --source-text"),
        (
            Comet.find(model(tmp_path / "broken") / "checkpoints" / "model.ckpt", str(program)),
            text,
            "status 1: the model",
        ),
    ):
        if "status" in message:
            text.write_text("one\n" * 4)
        with pytest.raises(NastError, match=message):
            add_comet(folder, used, source)
    assert (folder / "scores.json").read_bytes() == before
