"""Evaluation of long recordings: the command, logs of simulstream and OmniSTEval, agreement with OmniSTEval."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from omnisteval_runs import divide
from random_system import make_bundle, make_signal

pytest.importorskip("sacrebleu")

from nast_s2x.cli.main import main  # noqa: E402
from nast_s2x.errors import ConfigError, ManifestError, NastError  # noqa: E402
from nast_s2x.evaluation import run as run_module  # noqa: E402
from nast_s2x.evaluation.compare import compare  # noqa: E402
from nast_s2x.evaluation.hypotheses import read_hypotheses  # noqa: E402
from nast_s2x.evaluation.longform import RESEGMENTED, import_log, score_long_form  # noqa: E402
from nast_s2x.evaluation.segmentation import (  # noqa: E402
    REFERENCES,
    SEGMENTS,
    SegmentedRecording,
    match_names,
    read_segmentation,
)
from nast_s2x.evaluation.session import TextSession  # noqa: E402
from nast_s2x.inference.bundle import save_bundle  # noqa: E402
from nast_s2x.inference.loading import load_system  # noqa: E402
from nast_s2x.inference.streaming import Emission  # noqa: E402

TALKS = {"one.wav": (1.5, 2.0), "two.wav": (1.2, 0.9, 1.4)}
"""Recordings and the lengths of their sentences in seconds, with 0.25 s between them."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talks")
    save_bundle(make_bundle(folder / "system"), folder / "bundle")
    entries, references = [], []
    for number, (name, lengths) in enumerate(TALKS.items()):
        parts, offset = [], 0.0
        for place, length in enumerate(lengths):
            entries.append(f"- {{duration: {length}, offset: {offset}, speaker_id: a, wav: {name}}}\n")
            references.append(f"the small house {number} is red {place}\n")
            parts += [make_signal(length, seed=10 * number + place), np.zeros(4000, np.float32)]
            offset += length + 0.25
        soundfile.write(folder / name, np.concatenate(parts), 16000)
    (folder / "segments.yaml").write_text("".join(entries))
    (folder / "references").write_text("".join(references))
    (folder / "source").write_text("two.wav\none.wav\n")  # in another order than the segmentation
    return folder


def flags(corpus: Path, output: Path, *more: str) -> list[str]:
    inputs = ["--segments", "segments.yaml", "--source", "source", "--target", "references"]
    inputs = [text if text.startswith("--") else str(corpus / text) for text in inputs]
    return ["evaluate", "--model", str(corpus / "bundle"), "--long-form", *inputs, "--output", str(output), *more]


@pytest.fixture(scope="module")
def evaluated(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("long") / "output"
    assert main(flags(corpus, output, "--chunk-ms", "320", "--no-report")) == 0
    return output


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_command(evaluated: Path, corpus: Path) -> None:
    log = lines(evaluated / "320" / "instances.log")
    assert [Path(line["source"]).name for line in log] == ["two.wav", "one.wav"]
    system = load_system(corpus / "bundle")
    samples = soundfile.read(corpus / "one.wav", dtype="float32")[0]
    assert log[1]["prediction"] == system.translate(samples, 16000, chunk_ms=320).text
    segments = lines(evaluated / "320" / RESEGMENTED)
    assert [(line["docid"], line["segid"]) for line in segments] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    for number, name in ((0, 1), (1, 0)):
        parts = [line["prediction"] for line in segments if line["docid"] == number and line["prediction"]]
        assert " ".join(parts) == log[name]["prediction"]
    row = json.loads((evaluated / "scores.json").read_text())["rows"][0]
    assert (row["chunk"], row["utterances"], [talk["segments"] for talk in row["recordings"]]) == ("320", 5, [2, 3])
    assert row["latency"]["LongLAAL_CA"] > row["latency"]["LongLAAL"] and row["cost"]["audio_s"] == pytest.approx(8.25)
    # Computing is never counted twice: in real time nothing is later than source and all computing together.
    for line in log:
        assert all(late >= delay for late, delay in zip(line["elapsed"], line["delays"]))
        assert line["elapsed"] == sorted(line["elapsed"])
        assert max(line["elapsed"], default=0) <= line["source_length"] + sum(line["push_ms"]) + 1e-6


def test_the_same_command_resumes_and_others_are_refused(
    evaluated: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("a finished recording was translated again")

    monkeypatch.setattr(run_module, "translate", fail)
    before = (evaluated / "320" / "instances.log").read_bytes()
    assert main(flags(corpus, evaluated, "--chunk-ms", "320", "--no-report", "--json")) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((evaluated / "scores.json").read_text())
    assert (evaluated / "320" / "instances.log").read_bytes() == before
    other = corpus / "other.yaml"
    other.write_text((corpus / "segments.yaml").read_text().replace("duration: 1.5", "duration: 1.4"))
    assert main([*flags(corpus, evaluated, "--chunk-ms", "320"), "--segments", str(other)]) == 1
    assert "long_form" in capsys.readouterr().err
    for wrong in (["--skip-long"], ["--units", "x"], ["--manifest", "x.tsv"]):
        assert main([*flags(corpus, evaluated), *wrong]) == 1
        assert "does not apply" in capsys.readouterr().err
    assert main(["evaluate", "--model", "x", "--source", "s", "--target", "t", "--segments", "y", "-o", "o"]) == 1
    assert "--segments needs --long-form" in capsys.readouterr().err


def check_against_omnisteval(folder: Path, chunk: str, tokenizer: str = "13a", char: bool = False) -> None:
    log = folder / chunk / "instances.log"
    instances, segments = divide(folder / SEGMENTS, folder / REFERENCES, log, "char" if char else "word")
    from omnisteval.scoring import evaluate_instances

    scores = evaluate_instances(instances, bleu_tokenizer=tokenizer)[0]
    for line, expected in zip(lines(folder / chunk / RESEGMENTED), segments, strict=True):
        assert line.keys() == expected.keys()
        for key, value in expected.items():
            assert line[key] == (value if isinstance(value, str) else pytest.approx(value)), key
    row = json.loads((folder / "scores.json").read_text())["rows"][0]
    assert row["quality"]["BLEU"] == pytest.approx(scores["bleu"])
    assert row["quality"]["chrF"] == pytest.approx(scores["chrf"])
    for name in ("yaal", "laal"):
        assert row["latency"][f"Long{name.upper()}"] == pytest.approx(scores[f"long_{name}"])
        assert row["latency"][f"Long{name.upper()}_CA"] == pytest.approx(scores[f"ca_long_{name}"])


def test_omnisteval_reads_the_folder_and_agrees(evaluated: Path) -> None:
    check_against_omnisteval(evaluated, "320")


def test_a_log_in_omnistevals_form(evaluated: Path, corpus: Path, tmp_path: Path) -> None:
    """Scored again from the log alone; then both are compared, and the report is written."""
    log = tmp_path / "theirs.jsonl"
    keys = ("source", "prediction", "delays", "elapsed", "source_length")
    log.write_text(
        "".join(
            json.dumps({key: line[key] for key in keys}) + "\n" for line in lines(evaluated / "320" / "instances.log")
        )
    )
    output = tmp_path / "scored"
    inputs = ["--segments", str(corpus / "segments.yaml"), "--target", str(corpus / "references")]
    assert main(["score", str(log), *inputs, "-o", str(output), "--chunk-ms", "320"]) == 0
    page = (output / "report.html").read_text()
    assert "LongYAAL" in page and "segments of long recordings" in page and 'id="utterances"' not in page
    assert page.count('<svg class="timeline"') == 2 and page.count("<rect") == 5  # two recordings, five segments
    assert re.search(r"<p>LongYAAL \d+\.\d\d s</p>", page) and "Hollow" not in page
    assert "Segments and delay over the length of one.wav" in page and "ms in a minute of source" in page
    ours, theirs = (json.loads((folder / "scores.json").read_text())["rows"][0] for folder in (evaluated, output))
    assert ours["latency"] == theirs["latency"] and ours["quality"] == theirs["quality"]
    row = compare([evaluated, output], samples=10)["rows"][0]
    assert [entry["utterances"] for entry in row["systems"]] == [5, 5]
    assert row["systems"][1]["significance"]["BLEU"]["p_value"] is None  # equal outputs
    # Scored again from the folder; another segmentation and a folder of a run are refused.
    assert score_long_form(output)["rows"][0]["latency"] == ours["latency"]
    shorter = tmp_path / "shorter.yaml"
    shorter.write_text((corpus / "segments.yaml").read_text().replace("duration: 1.5", "duration: 1.4"))
    with pytest.raises(NastError, match="another segmentation"):
        import_log(log, output, shorter, corpus / "references", "640")
    with pytest.raises(NastError, match="holds a run"):
        import_log(log, evaluated, corpus / "segments.yaml", corpus / "references", "640")
    with pytest.raises(NastError, match="other files"):
        import_log(log, tmp_path, corpus / "segments.yaml", corpus / "references", "640")
    with pytest.raises(NastError, match="single word"):
        import_log(log, output, corpus / "segments.yaml", corpus / "references", "../640")


def test_characters_agree_with_omnisteval(tmp_path: Path) -> None:
    rng = random.Random(3)
    letters = "我你他是猫狗。，大小"
    entries, references, log = [], [], []
    for name in ("一.wav", "二.wav"):
        said = ["我" + "".join(rng.choices(letters, k=rng.randint(3, 12))) for _ in range(4)]
        entries += [{"wav": name, "offset": 3.0 * place, "duration": 2.9} for place in range(4)]
        references += [text[:2] + " " + text[2:] for text in said]
        prediction = "".join(letter for letter in "".join(said) if rng.random() < 0.8 or letter == said[0][0])
        delays = sorted(12000 * rng.random() for _ in prediction)
        elapsed = [delay + 100 for delay in delays]
        line = {"source": [f"/x/{name}"], "prediction": prediction, "delays": delays, "elapsed": elapsed}
        log.append(json.dumps(line | {"source_length": 12000}, ensure_ascii=False))
    (tmp_path / "y.json").write_text(json.dumps(entries))
    (tmp_path / "r").write_text("".join(f"{text}\n" for text in references), encoding="utf-8")
    (tmp_path / "log.jsonl").write_text("\n".join(log), encoding="utf-8")
    files = (tmp_path / "log.jsonl", tmp_path / "out", tmp_path / "y.json", tmp_path / "r", "log")
    with pytest.raises(ConfigError, match="give --target-lang"):
        import_log(*files)
    import_log(*files, target_lang="zh")
    scores = score_long_form(tmp_path / "out", "zh")
    assert scores["unit"] == "char" and "tok:zh" in scores["rows"][0]["signatures"]["BLEU"]
    check_against_omnisteval(tmp_path / "out", "log", "zh", char=True)


def simulstream_log(path: Path, seed: int, pieces: list[str]) -> None:
    """Two recordings, with tokens that are deleted and written again."""
    rng = random.Random(seed)
    entries: list[dict[str, Any]] = [{"model_loading_time": 1.5}]
    for number, name in enumerate(("/data/one.wav", "two.wav")):
        entries.append({"id": number, "metadata": {"wav_name": name}})
        tokens: list[str] = []
        for step in range(1, 15):
            deleted = tokens[len(tokens) - rng.choice([0, 0, 0, 1, 2]) :] if len(tokens) > 2 else []
            tokens = tokens[: len(tokens) - len(deleted)]
            generated = rng.choices(pieces, k=rng.randint(0, 3)) if tokens else [pieces[0]]
            tokens += generated
            times = {"total_audio_processed": 0.32 * step, "computation_time": rng.random()}
            entries.append({"id": number, **times, "generated_tokens": generated, "deleted_tokens": deleted})
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


@pytest.mark.parametrize("unit", ["word", "char"])
@pytest.mark.parametrize("seed", range(10))
def test_simulstreams_logs_are_read_as_by_simulstream(seed: int, unit: Any, tmp_path: Path) -> None:
    pytest.importorskip("simulstream", reason="simulstream is not installed (extra clients)")
    from simulstream.metrics.readers import LogReader

    log = tmp_path / "metrics.jsonl"
    simulstream_log(
        log, seed, ["▁the", "▁ho", "use", "s", "▁is", "▁", "red"] if unit == "word" else ["▁我", "你", "他是"]
    )
    config = SimpleNamespace(detokenizer_type="simuleval", latency_unit="spm")
    expected = LogReader(config, str(log), unit).final_outputs_and_latencies()
    found = read_hypotheses(log, unit)
    assert [item.name for item in found] == [*expected]
    for item in found:
        output = expected[item.name]
        assert item.units == output.text_items(unit)
        assert item.delays == pytest.approx([1000 * value for value in output.ideal_delays])
        assert item.elapsed == pytest.approx([1000 * value for value in output.computational_aware_delays])


def test_a_log_of_simulstream_is_scored_and_compared(
    evaluated: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, output = tmp_path / "metrics.jsonl", tmp_path / "out"
    simulstream_log(log, 1, ["▁the", "▁small", "▁house", "▁red"])
    inputs = ["--segments", str(corpus / "segments.yaml"), "--target", str(corpus / "references"), "-o", str(output)]
    assert main(["score", str(log), *inputs, "--no-report"]) == 0  # its row has the name of the file
    assert main(["compare", str(evaluated), str(output)]) == 1
    assert "(" + f"{evaluated}: 320; {output}: metrics)" in capsys.readouterr().err
    assert main(["score", str(log), *inputs, "--no-report", "--chunk-ms", "320"]) == 0
    result = compare([evaluated, output], samples=20)
    ours, theirs = result["rows"][0]["systems"]
    assert theirs["latency"]["LongLAAL_CA"] > theirs["latency"]["LongLAAL"] > 0
    assert theirs["significance"]["BLEU"].keys() == ours["significance"]["BLEU"].keys()
    assert theirs["utterances"] == 5 and result["notes"][0].startswith("out: a log of another program")
    assert main(["compare", str(evaluated), str(output), "--output", str(tmp_path / "compared")]) == 0
    assert "LongYAAL" in capsys.readouterr().out and (tmp_path / "compared" / "compare.png").is_file()
    check_against_omnisteval(output, "320")


LINE = {"source": "a", "prediction": "a b", "delays": [1, 2]}


@pytest.mark.parametrize(
    "entries, message",
    [
        ([LINE, LINE], "line 2: a appears twice"),
        ([LINE | {"delays": [1]}], "2 words do not match 1 delays"),
        ([LINE | {"elapsed": [1]}], "1 elapsed times do not match 2 delays"),
        ([LINE | {"delays": [1, float("inf")]}], "`delays` must hold times"),
        ([LINE | {"source": 3}], "`source`"),
        ([[]], "a JSON object"),
        ([{"text": "a"}], "neither a line of SimulEval"),
        ([{"id": 1, "metadata": {}}], "wav_name"),
        ([{"id": 1, "generated_tokens": []}], "no line before names"),
        ([{"id": 1, "metadata": {"wav_name": "a"}}, LINE], "a log has one form"),
        ([{"model_loading_time": 1}], "holds no recording"),
        (
            [
                {"id": 1, "metadata": {"wav_name": "a"}},
                {
                    "id": 1,
                    "total_audio_processed": 1,
                    "computation_time": 1,
                    "generated_tokens": [],
                    "deleted_tokens": ["x"],
                },
            ],
            "are not the last tokens",
        ),
    ],
)
def test_damaged_logs(entries: list[Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with pytest.raises(NastError, match=message):
        read_hypotheses(tmp_path / "log", "word")


GOOD = "- {wav: a, offset: 0, duration: 1}\n"


@pytest.mark.parametrize(
    "text, references, message",
    [
        ("{wav: a}", "x\n", "must be a list of segments"),
        ("- [", "x\n", "not a list of segments"),
        ("[" * 5000, "x\n", "not a list of segments"),
        (GOOD, "x\ny\n", "2 lines, .* 1 entries"),
        ("- {offset: 0, duration: 1}", "x\n", "needs `wav`"),
        ("- {wav: a, offset: .nan, duration: 1}", "x\n", "`offset` must be a number"),
        ("- {wav: a, offset: -1, duration: 1}", "x\n", "`offset` must be 0 or more"),
        ("- {wav: a, offset: 1, duration: 0}", "x\n", "`duration` must be more than 0"),
        (GOOD + "- {wav: b, offset: 0, duration: 1}\n" + GOOD, "x\ny\nz\n", "entries of a must be one after the other"),
    ],
)
def test_damaged_segmentations(text: str, references: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "y.yaml").write_text(text)
    (tmp_path / "r").write_text(references)
    with pytest.raises(ManifestError, match=message):
        read_segmentation(tmp_path / "y.yaml", tmp_path / "r")


def test_names_match_by_file_name_then_without_ending() -> None:
    talks = [SegmentedRecording(name, ()) for name in ("d/a.wav", "d/b.wav")]
    assert match_names(["/x/b.wav", "a.wav"], talks, "logs") == [1, 0]
    assert match_names(["b", "/x/a.flac"], talks, "logs") == [1, 0]
    for names, message in ((["a"], "b of the segmentation has 0"), (["a", "b", "c"], "c is not in the segmentation")):
        with pytest.raises(ManifestError, match=message):
            match_names(names, talks, "logs")
    with pytest.raises(ManifestError, match="a of the segmentation has 2"):
        match_names(["x/a.wav", "y/a.flac", "b"], talks, "logs")


def emission(text: str, final: bool = False) -> Emission:
    return Emission(0, 0.0, text, [], [], final)


def test_elapsed_times_in_real_time() -> None:
    """A slow push delays the next one, silence lets the computing catch up; characters have a time each."""
    session, plain = TextSession("char", real_time=True), TextSession()
    for delay, push, text in ((100, 150, "我 是"), (200, 10, "猫"), (900, 20, "。")):
        session.add([emission(text)], delay, push)
        plain.add([emission(text, final=text == "。")], delay, push)
    assert session.line(1000)["prediction"] == "我是猫。" and session.delays == [100, 100, 200, 900]
    assert session.elapsed == [250, 250, 260, 920]
    assert session.line(1000)["text"] == "我 是 猫 。"
    assert plain.line(1000)["prediction"] == "我 是 猫 。" and plain.elapsed == [250, 360, 1080, 1080]
    assert plain.delays == [100, 200, 900, 900]  # "是" may go on until the space behind it is known
