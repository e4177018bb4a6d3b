"""Runs of an evaluation: agreement with SimulEval, several processes, resuming, separate settings; the command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from random_system import make_bundle, make_signal

pytest.importorskip("simuleval")
pytest.importorskip("sacrebleu")

from simuleval import options  # noqa: E402
from simuleval.data.dataloader import build_dataloader  # noqa: E402
from simuleval.evaluator import SentenceLevelEvaluator  # noqa: E402

from nast_s2x.agents.segments import use_first_segment  # noqa: E402
from nast_s2x.agents.speech_to_speech import NastSpeechToSpeechAgent  # noqa: E402
from nast_s2x.agents.speech_to_text import NastSpeechToTextAgent  # noqa: E402
from nast_s2x.cli.main import main  # noqa: E402
from nast_s2x.corpus import AudioRef, Utterance  # noqa: E402
from nast_s2x.errors import AudioError, NastError  # noqa: E402
from nast_s2x.evaluation import run as run_module  # noqa: E402
from nast_s2x.evaluation.items import TestSet, check_audio  # noqa: E402
from nast_s2x.evaluation.log import LOG_NAME as LOG  # noqa: E402
from nast_s2x.evaluation.run import UNFINISHED, UtteranceError, evaluate, too_long  # noqa: E402
from nast_s2x.evaluation.settings import RunSettings  # noqa: E402
from nast_s2x.files import locked  # noqa: E402
from nast_s2x.inference.bundle import save_bundle
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.system import System  # noqa: E402
from nast_s2x.processes import ResultFile  # noqa: E402

COUNT = 5
"""Number of utterances of the test set."""
AGENTS: dict[str, Any] = {"text": NastSpeechToTextAgent, "speech": NastSpeechToSpeechAgent}
TIMED = ("elapsed", "push_ms", "chunk_ms")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a vocoder, and a test set in which one recording is stereo of another rate."""
    folder = tmp_path_factory.mktemp("evaluation")
    save_bundle(make_bundle(folder / "system", voice=True), folder / "bundle")
    for index in range(COUNT):
        soundfile.write(folder / f"{index}.wav", make_signal(0.8 + 0.2 * index, seed=index), 16000)
    stereo = make_signal(1.6, seed=77, rate=44100)
    soundfile.write(folder / "1.wav", np.stack([stereo, stereo / 2], axis=1), 44100)
    (folder / "source").write_text("".join(f"{index}.wav\n" for index in range(COUNT)))
    (folder / "target").write_text("".join(f"the small house is red {index}\n" for index in range(COUNT)))
    return folder


@pytest.fixture(scope="module")
def system(corpus: Path) -> System:
    return load_system(corpus / "bundle")


@pytest.fixture(scope="module")
def test_set(corpus: Path) -> TestSet:
    return TestSet.from_lists(corpus / "source", corpus / "target")


def setup(corpus: Path, **values: Any) -> RunSettings:
    return RunSettings(model=str(corpus / "bundle"), **values)


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def untimed(folder: Path) -> list[dict[str, Any]]:
    """Read a log without the entries that differ from run to run."""
    return [{name: value for name, value in line.items() if name not in TIMED} for line in read(folder)]


@pytest.fixture(scope="module")
def texts(corpus: Path, system: System, test_set: TestSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of text at two chunk sizes."""
    folder = tmp_path_factory.mktemp("texts")
    evaluate(folder, test_set.utterances, setup(corpus), ["320", "offline"], system=system)
    return folder


def test_logs_are_complete(texts: Path, test_set: TestSet) -> None:
    for chunk in ("320", "offline"):
        lines = read(texts / chunk)
        assert [line["index"] for line in lines] == list(range(COUNT))
        assert [line["audio"] for line in lines] == [str(item.audio) for item in test_set.utterances]
        assert not (texts / chunk / UNFINISHED).exists()
        assert any(line["prediction"] for line in lines)
        assert all(len(line["elapsed"]) == len(line["delays"]) for line in lines)
    assert all(set(line["delays"]) <= {line["source_length"]} for line in read(texts / "offline"))


@pytest.fixture
def plain_segments() -> Iterator[None]:
    yield
    use_first_segment(None)


@pytest.mark.parametrize("target_type", ["text", "speech"])
def test_agreement_with_simuleval_alone(
    corpus: Path,
    system: System,
    test_set: TestSet,
    tmp_path: Path,
    target_type: str,
    monkeypatch: pytest.MonkeyPatch,
    plain_segments: None,
) -> None:
    """SimulEval, run with the agent as by its command line on the same lists, gives the same outputs and times."""
    monkeypatch.chdir(corpus)  # SimulEval resolves paths from the working directory
    kind = AGENTS[target_type]
    parser = ArgumentParser()
    kind.add_args(parser)
    options.add_evaluator_args(parser)
    flags = ["--model", "bundle", "--chunk-ms", "160", "--first-segment-ms", "15", "--output", str(tmp_path / "theirs")]
    args = parser.parse_args([*flags, "--no-progress-bar"])
    lists = {"source": "source", "target": "target", "tgt_lang": None, "source_segment_size": 40}
    vars(args).update(lists, source_type="speech", target_type=target_type, score_only=False, no_scoring=True)
    agent = kind.from_args(args)
    SentenceLevelEvaluator(build_dataloader(args), {}, {}, args)(agent)
    ours_like = setup(corpus, target_type=target_type, first_segment_ms=15)
    evaluate(tmp_path, test_set.utterances, ours_like, ["160"], system=system)
    skipped = {"elapsed", "source"} | ({"prediction"} if target_type == "speech" else set())
    assert any(line["delays"][0] < line["source_length"] for line in read(tmp_path / "160"))
    for ours, theirs in zip(read(tmp_path / "160"), read(tmp_path / "theirs"), strict=True):
        assert {name: ours[name] for name in theirs.keys() - skipped} == {
            name: theirs[name] for name in theirs.keys() - skipped
        }
        assert set(theirs) < set(ours)
        if target_type == "speech":
            sounds = [soundfile.read(path)[0] for path in (tmp_path / "160" / ours["prediction"], theirs["prediction"])]
            assert np.array_equal(*sounds) and len(sounds[0])


def test_several_workers_give_the_same_log(texts: Path, corpus: Path, test_set: TestSet, tmp_path: Path) -> None:
    evaluate(tmp_path, test_set.utterances, setup(corpus), ["320", "offline"], workers=2)
    for chunk in ("320", "offline"):
        assert untimed(tmp_path / chunk) == untimed(texts / chunk)


class Broken(RuntimeError):
    pass


def breaking_at(monkeypatch: pytest.MonkeyPatch, index: int, error: BaseException) -> None:
    """Make reading the recording of an utterance fail."""
    original = AudioRef.pieces

    def pieces(self: AudioRef) -> Any:
        if self.path.name == f"{index}.wav":
            raise error
        return original(self)

    monkeypatch.setattr(AudioRef, "pieces", pieces)


@pytest.mark.parametrize("index", [2, COUNT - 1])
def test_an_interrupted_run_is_resumed(
    texts: Path,
    corpus: Path,
    system: System,
    test_set: TestSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    index: int,
) -> None:
    with monkeypatch.context() as patch:
        breaking_at(patch, index, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            evaluate(tmp_path, test_set.utterances, setup(corpus), ["320"], system=system)
    unfinished = tmp_path / "320" / UNFINISHED
    kept = [ResultFile(unfinished)[str(place)] for place in range(index)]
    assert len(ResultFile(unfinished)) == index and not (tmp_path / "320" / LOG).exists()
    # An incomplete line, as after a power failure.
    with open(unfinished, "a") as file:
        file.write('{"key": "3", "result": {"prediction": "half a l')
    evaluate(tmp_path, test_set.utterances, setup(corpus), ["320"], system=system)
    assert untimed(tmp_path / "320") == untimed(texts / "320") and not unfinished.exists()
    # Finished utterances were not run again: their times are the same.
    assert read(tmp_path / "320")[:index] == kept


def test_what_is_finished_is_not_run_again(
    texts: Path, corpus: Path, system: System, test_set: TestSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(texts / "320", tmp_path / "320")
    before = (tmp_path / "320" / LOG).read_bytes()
    breaking_at(monkeypatch, 0, Broken("nothing is to be read"))
    evaluate(tmp_path, test_set.utterances, setup(corpus), ["320"], system=system)
    assert (tmp_path / "320" / LOG).read_bytes() == before
    with pytest.raises(Broken, match="nothing is to be read"):
        evaluate(tmp_path, test_set.utterances, setup(corpus), ["320", "640"], system=system)
    (tmp_path / "320" / LOG).write_bytes(b"".join(before.splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match=f"320/{LOG} has {COUNT - 1} lines where {COUNT} utterances were run: delete"):
        evaluate(tmp_path, test_set.utterances, setup(corpus), ["320"], system=system)


def test_a_run_leaves_nothing_behind(
    corpus: Path, system: System, test_set: TestSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the loaded system after the run, nor the file of unfinished results beside a complete log."""
    loaded: list[RunSettings] = []
    monkeypatch.setattr(run_module, "load_for", lambda settings: loaded.append(settings) or system)
    evaluate(tmp_path, test_set.utterances[:1], setup(corpus), ["320", "offline"])
    assert len(loaded) == 1  # once for both chunk sizes
    assert run_module._work is None
    (tmp_path / "320" / UNFINISHED).write_text("")
    evaluate(tmp_path, test_set.utterances[:1], setup(corpus), ["320"])
    assert not (tmp_path / "320" / UNFINISHED).exists() and len(loaded) == 1
    breaking_at(monkeypatch, 0, Broken("a bug"))
    with pytest.raises(Broken):
        evaluate(tmp_path, test_set.utterances, setup(corpus), ["640"], system=system)
    assert run_module._work is None


def test_an_error_names_the_utterance(
    corpus: Path, system: System, test_set: TestSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        breaking_at(patch, 2, AudioError("cannot be read"))
        with pytest.raises(UtteranceError, match=f"source:3: 2 \\({corpus}/2.wav\\), chunk size 320: cannot be read"):
            evaluate(tmp_path, test_set.utterances, setup(corpus), ["320"], system=system)
    assert [*ResultFile(tmp_path / "320" / UNFINISHED)] == ["0", "1"]
    # A bug keeps its type and traceback; the place is added as a note.
    breaking_at(monkeypatch, 2, Broken("a bug"))
    with pytest.raises(Broken) as caught:
        evaluate(tmp_path, test_set.utterances, setup(corpus), ["320"], system=system)
    assert caught.value.__notes__ == [f"{corpus}/source:3: 2 ({corpus}/2.wav), chunk size 320"]


def test_an_error_in_a_worker_names_the_utterance(corpus: Path, test_set: TestSet, tmp_path: Path) -> None:
    rows: list[Utterance] = [*test_set.utterances]
    rows[1] = replace(rows[1], audio=AudioRef(corpus / "gone.wav"))
    with pytest.raises(UtteranceError, match="source:2: 1 .*gone.wav.*chunk size 320: .*no such audio file"):
        evaluate(tmp_path, rows, setup(corpus), ["320"], workers=2)
    assert [*ResultFile(tmp_path / "320" / UNFINISHED)] == ["0"]


def test_damaged_results_are_not_used(corpus: Path, system: System, test_set: TestSet, tmp_path: Path) -> None:
    path = tmp_path / "320" / UNFINISHED
    path.parent.mkdir()
    path.write_text('{"key": "0"}\n')
    with pytest.raises(NastError, match=f"{UNFINISHED}:1: not a stored result; delete the file to start again"):
        evaluate(tmp_path, test_set.utterances, setup(corpus), ["320"], system=system)
    (tmp_path / "320" / LOG).write_text("[1]\n")
    with pytest.raises(NastError, match="is damaged: a line is not the record of an utterance"):
        evaluate(tmp_path, test_set.utterances, setup(corpus), ["320"], system=system)


def test_two_runs_do_not_share_a_folder(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lock comes before the first write: the second run leaves the settings of the first as they are."""
    output = tmp_path / "new"
    output.mkdir()
    (output / "settings.json").write_text("of another run")
    with locked(output):
        assert main(command(corpus, output, "--chunk-ms", "320", "--no-report")) == 1
    assert f"is at work in {output}" in capsys.readouterr().err
    assert (output / "settings.json").read_text() == "of another run" and len([*output.iterdir()]) == 1


def test_long_recordings_are_named_and_evaluated_in_segments(
    corpus: Path, system: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All recordings that are too long are named; --skip-long leaves them out."""
    for name, seconds in (("a", 1.0), ("b", 70.0), ("c", 0.8), ("d", 40.0)):
        soundfile.write(tmp_path / f"{name}.wav", make_signal(seconds, rate=8000), 8000)
    (tmp_path / "source").write_text("a.wav\nb.wav\nc.wav\nd.wav\n")
    (tmp_path / "target").write_text("one\ntwo\nthree\nfour\n")
    rows = TestSet.from_lists(tmp_path / "source", tmp_path / "target").utterances
    found = too_long(system, setup(corpus), ["320", "offline"], rows, check_audio(rows))
    assert [*found] == [1, 3] and "positions" in found[1]
    lists = ["--source", str(tmp_path / "source"), "--target", str(tmp_path / "target")]
    arguments = [*command(corpus, tmp_path / "new", "--chunk-ms", "320", "--no-report"), *lists]
    assert main(arguments) == 0
    message = capsys.readouterr().err
    assert "source:2: " in message and "source:4: " in message and "2 of 4 recordings are longer" in message
    lines = read(tmp_path / "new" / "320")
    assert [line["id"] for line in lines] == ["a", "b", "c", "d"]
    samples, stream = (
        soundfile.read(tmp_path / "b.wav", dtype="float32")[0],
        system.stream(chunk_ms=320, with_units=False),
    )
    emissions = [
        item for start in range(0, len(samples), 320) for item in stream.push(samples[start : start + 320], 8000)
    ]
    emissions += stream.push([], final=True)
    assert emissions[-1].segment >= 2
    assert lines[1]["prediction"] == "".join(emission.delta for emission in emissions)
    arguments[arguments.index(str(tmp_path / "new"))] = str(tmp_path / "short")
    assert main([*arguments, "--skip-long"]) == 0
    assert [line["id"] for line in read(tmp_path / "short" / "320")] == ["a", "c"]


def test_evaluate_needs_neither_simuleval_nor_fairseq(corpus: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfor name in ('simuleval', 'fairseq'): sys.modules[name] = None\n"
        "from nast_s2x.cli.main import main\n"
        f"sys.exit(main({command(corpus, tmp_path / 'new', '--chunk-ms', '640')!r}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "new" / "report.html").is_file()
    assert "translating: 100%" in result.stderr  # piped, a line now and then


def test_parts_of_files_and_tables(corpus: Path, system: System, tmp_path: Path) -> None:
    """A segment of a file and the cut file have the same translation; audio_root of the table is used."""
    whole = make_signal(3.0, seed=9)
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "whole.wav", whole, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "audio" / "cut.wav", whole[8000:32000], 16000, subtype="FLOAT")
    (tmp_path / "config.yaml").write_text("audio_root: audio\n")
    rows = ["a\twhole.wav:8000:24000\tone\ttest", "b\tcut.wav\tone\ttest"]
    (tmp_path / "test.tsv").write_text("\n".join(["id\taudio\ttgt_text\tsplit", *rows]) + "\n")
    test_set = TestSet.from_manifest(tmp_path / "test.tsv", "test")
    assert len({item.digest for item in check_audio(test_set.utterances)}) == 1
    evaluate(tmp_path / "new", test_set.utterances, setup(corpus), ["320"], system=system)
    part, cut = untimed(tmp_path / "new" / "320")
    names = {"index", "id", "audio", "source"}
    assert part["audio"].endswith("whole.wav:8000:24000") and part["prediction"]
    assert {name: part[name] for name in part.keys() - names} == {name: cut[name] for name in cut.keys() - names}


def command(corpus: Path, output: Path, *more: str) -> list[str]:
    lists = ["--source", str(corpus / "source"), "--target", str(corpus / "target")]
    return ["evaluate", "--model", str(corpus / "bundle"), *lists, "--output", str(output), *more]


def test_the_command(
    corpus: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = command(corpus, tmp_path / "new", "--threads", "1", "--no-report", "--chunk-ms")
    assert main([*arguments, "320"]) == 0
    first = (tmp_path / "new" / "320" / LOG).read_bytes()
    table = capsys.readouterr().out
    assert "BLEU" in table and "320" in table
    assert main([*arguments, "offline, 320"]) == 0
    settings = json.loads((tmp_path / "new" / "settings.json").read_text())
    assert settings["chunks"] == ["320", "offline"] and settings["num_utterances"] == COUNT
    assert settings["model"]["source_lang"] == "fr" and settings["segment_ms"] == 40
    assert untimed(tmp_path / "new" / "offline") == untimed(texts / "offline")
    assert (tmp_path / "new" / "320" / LOG).read_bytes() == first
    scores = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert [row["chunk"] for row in scores["rows"]] == ["320", "offline"]
    capsys.readouterr()
    for change, message in (
        (["--segment-ms", "320"], "segment_ms: 40 then, 320 now"),
        (["--first-segment-ms", "15"], "first_segment_ms: none then, 15 now"),
        (["--lookahead-ms", "160"], "lookahead_ms: none then, 160 now"),
        (["--target-type", "speech"], "target_type: text then, speech now"),
    ):
        assert main([*arguments, "320", *change]) == 1
        assert message in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    for name in ("source", "target"):
        (tmp_path / name).write_text((corpus / name).read_text())
    for index in range(COUNT):
        shutil.copy(corpus / f"{index}.wav", tmp_path)
    moved = ["--source", "source", "--target", "target"]
    assert main([*arguments, "320", *moved]) == 0  # the same lists elsewhere
    soundfile.write(tmp_path / "3.wav", make_signal(1.0, seed=50), 16000)
    assert main([*arguments, "320", *moved]) == 1
    assert "source.sha256: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--chunk-ms", "320,330"], "330"),
        (["--chunk-ms", "320,,640"], "--chunk-ms takes sizes such as"),
        (["--chunk-ms", "soon"], "soon"),
        (["--lookahead-ms", "15"], "`lookahead_ms` must be a multiple of 10"),
        (["--segment-ms", "0"], "segments must be at least 1 ms long, got 0 ms"),
        (["--first-segment-ms", "-5"], "first segment must be at least 1 ms long, got -5 ms"),
        (["--workers", "0"], "--workers must be at least 1, got 0"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--vocoder", "v"], "--vocoder needs --target-type speech"),
        (["--recogniser", "bundle:x"], "--recogniser needs --target-type speech"),
        (["--target-type", "speech", "--recogniser", "bundle:missing"], "missing"),
        (["--target-type", "speech", "--synthesis-lookahead", "-1"], "lookahead_frames cannot be negative, but is -1"),
        (["--split", "test"], "--split needs --manifest"),
        (["--manifest", "m.tsv"], "--manifest replaces --source"),
        (["--target", "nowhere"], "nowhere: no such list"),
        (["--model", "nowhere"], "nowhere"),
        (["--device", "cuda:77"], "device cuda:77 is not available"),
    ],
)
def test_wrong_commands_leave_nothing(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(command(corpus, tmp_path / "new", *arguments)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_speech_needs_a_vocoder(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_bundle(make_bundle(tmp_path / "system", units=False), tmp_path / "text")
    arguments = command(corpus, tmp_path / "new", "--target-type", "speech", "--model", str(tmp_path / "text"))
    assert main(arguments) == 1
    assert "it produces text only" in capsys.readouterr().err and not (tmp_path / "new").exists()
    assert main(["evaluate", "--model", "m", "--output", "o"]) == 1
    assert "--source is missing: give --source and --target, or --manifest" in capsys.readouterr().err


def test_the_command_with_speech_and_a_manifest(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["audio\ttgt_text\ttgt_audio\tsplit"]
    rows += [f"{corpus}/{index}.wav\tthe house {index}\t1 2 3\ttest" for index in range(3)]
    (tmp_path / "m.tsv").write_text("\n".join(rows) + "\n")
    arguments = ["evaluate", "-m", str(corpus / "bundle"), "--manifest", str(tmp_path / "m.tsv"), "--split", "test"]
    arguments += ["--target-type", "speech", "--chunk-ms", "640", "--threads", "1", "--no-report"]
    assert main([*arguments, "-o", str(tmp_path / "new")]) == 0
    captured = capsys.readouterr()
    assert "without --recogniser there is no ASR-BLEU" in captured.err and "StartOffset" in captured.out
    (row,) = json.loads((tmp_path / "new" / "scores.json").read_text())["rows"]
    assert row["quality"]["ASR_BLEU"] is None and row["quality"]["unit_BLEU"] is not None
    for line in read(tmp_path / "new" / "640"):
        assert line["units"] == "1 2 3" and len(line["elapsed"]) == len(line["delays"]) == len(line["durations"])
        samples, rate = soundfile.read(tmp_path / "new" / "640" / line["prediction"])
        assert rate == 16000 and len(samples) / 16000 == pytest.approx(line["prediction_length"])


def test_the_published_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The flag sets segments and look-ahead, and prints the published figures beside the measured ones."""
    example = Path(__file__).parent.parent / "examples/espeak_fr_en"
    lines = (example / "recordings/source.txt").read_text().splitlines()[:1]
    (tmp_path / "source.txt").write_text(f"{example / 'recordings' / lines[0]}\n")
    (tmp_path / "target.txt").write_text((example / "recordings/target.txt").read_text().splitlines()[0] + "\n")
    command = ["evaluate", "--model", str(example / "speech_bundle"), "--source", str(tmp_path / "source.txt")]
    command += ["--target", str(tmp_path / "target.txt"), "--output", str(tmp_path / "out"), "--published", "320"]
    assert main(command) == 1
    assert "--published needs --recogniser" in capsys.readouterr().err
    command += ["--recogniser", str(example / "recogniser"), "--no-report"]
    assert main([*command, "--segment-ms", "320"]) == 1
    assert "--published sets --segment-ms" in capsys.readouterr().err
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "CVSS-C Fr-En, 320 ms" in shown and "published 24.9" in shown and "StartOffset" in shown
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    assert (settings["segment_ms"], settings["first_segment_ms"], settings["lookahead_ms"]) == (320, 15, 320)
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    # With a first segment of 15 ms chunks complete at 655 + 320 k ms.
    assert scores["rows"][0]["latency"]["StartOffset"] % 320 == 655 % 320
