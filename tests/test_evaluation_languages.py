"""Evaluation of a system for Chinese: a delay for each character, the same as in SimulEval's own runs."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
import soundfile
from random_system import CHINESE, make_bundle, make_signal

from nast_s2x.cli.main import main
from nast_s2x.inference.bundle import save_bundle
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.offline import translate_samples

pytest.importorskip("sacrebleu")

COUNT = 4
REFERENCES = ["我们用GPT翻译。", "今天天气很好", "小猫 慢慢地走", "他说：去河边"]
LATENCY = ("AL", "LAAL", "AP", "DAL", "ATD", "StartOffset", "EndOffset")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Chinese bundle with Latin words and punctuation, and a test set."""
    folder = tmp_path_factory.mktemp("languages")
    sentences = [*CHINESE, "the old man 说 hello 。"]
    save_bundle(make_bundle(folder / "system", language="zh", sentences=sentences, size=120), folder / "bundle")
    for index in range(COUNT):
        soundfile.write(folder / f"{index}.wav", make_signal(1.5 + 0.4 * index, seed=index), 16000)
    (folder / "source").write_text("".join(f"{index}.wav\n" for index in range(COUNT)))
    (folder / "target").write_text("\n".join(REFERENCES) + "\n", encoding="utf-8")
    return folder


def test_generate_translate_and_live_print_the_same_text(
    corpus: Path, characters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{index}\t{corpus}/{index}.wav\t\t{text}\n" for index, text in enumerate(REFERENCES)]
    (corpus / "rows.tsv").write_text("id\taudio\tsrc_text\ttgt_text\n" + "".join(rows), encoding="utf-8")
    texts = [line["text"] for line in read(characters / "320")]
    model = ["--model", str(corpus / "bundle"), "--chunk-ms", "320"]
    capsys.readouterr()
    assert main(["generate", "--manifest", str(corpus / "rows.tsv"), *model]) == 0
    out, err = capsys.readouterr()
    assert [line.split("\t")[2] for line in out.splitlines() if line.startswith("D-")] == texts and "|tok:zh|" in err
    for index, text in enumerate(texts):
        assert main(["translate", str(corpus / f"{index}.wav"), *model]) == 0
        assert f"= {text}" in capsys.readouterr().out.splitlines()
    for command in (["translate", str(corpus / "0.wav")], ["live", "--input", str(corpus / "0.wav")]):
        assert main([*command, *model, "--json"]) == 0
        entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert "".join(entry.get("delta", "") for entry in entries) == texts[0]
        assert sum(bool(entry.get("text")) for entry in entries) >= 4


def test_generate_gives_no_bleu_by_words_where_there_are_no_spaces(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nameless = make_bundle(tmp_path / "system", units=False, language=None, sentences=CHINESE, size=100)
    save_bundle(nameless, tmp_path / "bundle")
    (tmp_path / "rows.tsv").write_text(f"id\taudio\ttgt_text\na\t{corpus}/0.wav\t今天天气很好\n", encoding="utf-8")
    assert main(["generate", "--manifest", str(tmp_path / "rows.tsv"), "--model", str(tmp_path / "bundle")]) == 0
    assert "BLEU is not computed: the references have no spaces between words" in capsys.readouterr().err


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "instances.log").read_text("utf-8").splitlines()]


def evaluated(corpus: Path, output: Path, *flags: str) -> Path:
    """The folder of a run of ``nast-s2x evaluate`` at 320 ms."""
    lists = ["--source", str(corpus / "source"), "--target", str(corpus / "target"), "--output", str(output)]
    assert main(["evaluate", "--model", str(corpus / "bundle"), *lists, "--chunk-ms", "320", *flags]) == 0
    return output


@pytest.fixture(scope="module")
def characters(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in the language of the bundle."""
    return evaluated(corpus, tmp_path_factory.mktemp("characters"))


def test_each_character_has_the_delay_of_its_emission(corpus: Path, characters: Path) -> None:
    scores, lines = json.loads((characters / "scores.json").read_text("utf-8")), read(characters / "320")
    assert (scores["target_lang"], scores["unit"]) == ("zh", "char")
    system = load_system(corpus / "bundle")
    for index, line in enumerate(lines):
        samples = soundfile.read(corpus / f"{index}.wav", dtype="float32")[0]
        expected = translate_samples(system, samples, policy=system.policy(320)).text
        assert line["text"] == expected and line["prediction"] == expected.replace(" ", "")
        deltas = [(entry["written_ms"], entry["delta"]) for entry in line["emissions"]]
        assert "".join(delta for _, delta in deltas) == expected
        assert line["delays"] == [ms for ms, delta in deltas for char in delta if not char.isspace()]
        assert len(set(line["delays"])) >= 4 and line["prediction_length"] == len(line["delays"])
    assert any(" " in line["text"] for line in lines)


def test_the_report_shows_characters_without_spaces_between_them(characters: Path) -> None:
    (line, *_), page = read(characters / "320"), (characters / "report.html").read_text("utf-8")
    first = [entry["delta"] for entry in line["emissions"] if entry["written_ms"] == line["delays"][0]]
    assert len(first[0]) > 1 and f">{''.join(first)}<" in page and line["text"] in page


def test_simulevals_command_gives_the_same_delays(corpus: Path, characters: Path, tmp_path: Path) -> None:
    pytest.importorskip("simuleval")
    command = [sys.executable, "-m", "simuleval.cli", "--system-dir", "bundle", "--eval-latency-unit", "char"]
    command += ["--source", "source", "--target", "target", "--source-segment-size", "40", "--quality-metrics"]
    command += ["BLEU", "--sacrebleu-tokenizer", "zh", "--latency-metrics", *LATENCY, "--output", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=corpus, env=environment)
    assert done.returncode == 0, done.stderr
    check_log(read(characters / "320"), read(tmp_path))
    (theirs,) = csv.DictReader((tmp_path / "scores.tsv").open(), delimiter="\t")
    ours = json.loads((characters / "scores.json").read_text("utf-8"))["rows"][0]["latency"]
    for name in LATENCY:
        assert ours[name] == pytest.approx(float(theirs[name]), abs=6e-4), name


def check_log(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    for name in ("prediction", "delays", "prediction_length", "source_length", "reference"):
        assert [line[name] for line in ours] == [line[name] for line in theirs], name


def test_by_words_text_without_spaces_waits_for_the_next_space(
    corpus: Path, characters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SimulEval puts a space between any two texts of an agent: its text is that of the offline pass all the same."""
    pytest.importorskip("simuleval")
    from simuleval import options
    from simuleval.data.dataloader import build_dataloader
    from simuleval.evaluator import SentenceLevelEvaluator

    from nast_s2x.agents.speech_to_text import NastSpeechToTextAgent

    monkeypatch.chdir(corpus)
    ours = read(evaluated(corpus, tmp_path / "ours", "--no-report", "--target-lang", "en") / "320")
    assert [line["prediction"] for line in ours] == [line["text"] for line in read(characters / "320")]
    parser = ArgumentParser()
    NastSpeechToTextAgent.add_args(parser)
    options.add_evaluator_args(parser)
    args = parser.parse_args(["--model", "bundle", "--output", str(tmp_path / "theirs"), "--no-progress-bar"])
    lists = {"source": "source", "target": "target", "tgt_lang": None, "source_segment_size": 40}
    vars(args).update(lists, source_type="speech", target_type="text", score_only=False, no_scoring=True)
    SentenceLevelEvaluator(build_dataloader(args), {}, {}, args)(NastSpeechToTextAgent.from_args(args))
    check_log(ours, read(tmp_path / "theirs"))
