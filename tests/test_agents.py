"""The SimulEval agent: with a fake translator, and one run of SimulEval's own command for each way to start it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from random_system import make_bundle, make_signal

pytest.importorskip("simuleval")

from simuleval.agents.actions import ReadAction, WriteAction  # noqa: E402
from simuleval.data.segments import EmptySegment, SpeechSegment  # noqa: E402
from simuleval.evaluator import instance as simuleval_instance  # noqa: E402

from nast_s2x.agents.segments import FirstSegment, use_first_segment  # noqa: E402
from nast_s2x.agents.speech_to_speech import NastSpeechToSpeechAgent  # noqa: E402
from nast_s2x.agents.speech_to_text import NastSpeechToTextAgent  # noqa: E402
from nast_s2x.inference.bundle import save_bundle
from nast_s2x.inference.loading import load_system  # noqa: E402
from nast_s2x.inference.offline import translate_samples  # noqa: E402
from nast_s2x.inference.playback import Playback  # noqa: E402
from nast_s2x.inference.streaming import Emission  # noqa: E402

REPOSITORY = Path(__file__).parent.parent


class FakeStream:
    """Answers pushes from a script of words or sounds, and keeps what it was given; begins anew for each sentence."""

    def __init__(self, script: list[list[Any]], end: list[Any]) -> None:
        self.script, self.end = script, end
        self.resets = 0

    def begin(self) -> FakeStream:
        self.resets += 1
        self.pushed: list[tuple[tuple[int, ...], int]] = []
        self.finished = 0
        return self

    def push(self, samples: np.ndarray, sample_rate: int | None = None, final: bool = False) -> list[Emission]:
        if final:
            assert not len(samples)
            self.finished += 1
            return self._emit(self.end)
        self.pushed.append((samples.shape, sample_rate))
        return self._emit(self.script[len(self.pushed) - 1])

    @staticmethod
    def _emit(answers: list[Any]) -> list[Emission]:
        return [
            Emission(0, 0.0, answer, [], [])
            if isinstance(answer, str)
            else Emission(0, 0.0, "", [], [], waveform=np.asarray(answer, np.float32))
            for answer in answers
        ]


def make_agent(script: list[list[str]], end: list[str]) -> tuple[NastSpeechToTextAgent, FakeStream]:
    fake = FakeStream(script, end)
    return NastSpeechToTextAgent(Namespace(), make_stream=fake.begin), fake


def make_speaker(script: list[list[Any]], end: list[Any]) -> tuple[NastSpeechToSpeechAgent, FakeStream]:
    fake = FakeStream(script, end)
    return NastSpeechToSpeechAgent(Namespace(), make_stream=fake.begin), fake


def speech(samples: int, finished: bool = False, channels: int = 0) -> SpeechSegment:
    content = [[0.1] * channels] * samples if channels else [0.1] * samples
    return SpeechSegment(content=content, sample_rate=8000, finished=finished, tgt_lang=None)


def test_words_are_written_as_they_come() -> None:
    agent, fake = make_agent([[], ["a small"], ["", "house", "is"], [""]], ["red", ""])
    answers = [agent.pushpop(speech(160)) for _ in range(3)] + [agent.pushpop(speech(7, finished=True))]
    assert [answer.is_empty for answer in answers] == [True, False, False, False]
    assert [answer.content for answer in answers[1:]] == ["a small", "house is", "red"]
    assert [answer.finished for answer in answers] == [False, False, False, True]
    assert fake.pushed == [((160,), 8000)] * 3 + [((7,), 8000)] and fake.finished == 1
    assert agent.states.source == [] and agent.states.target == ["a small", "house is"]
    assert agent.pop().finished


class Deltas:
    """A stream that returns one text for each push, given with the space before it."""

    def __init__(self, *deltas: str) -> None:
        self.deltas = iter(deltas)

    def push(self, samples: np.ndarray, sample_rate: int | None = None, final: bool = False) -> list[Emission]:
        return [Emission(0, 0.0, "", [], [], final).with_deltas(delta) for delta in [next(self.deltas, "")]]


@pytest.mark.parametrize(
    ("flags", "written"),
    [
        ({}, ["", "我们用GPT", "", "。 ok"]),
        ({"eval_latency_unit": "word"}, ["", "我们用GPT", "", "。 ok"]),
        ({"eval_latency_unit": "char"}, ["我", "们用GPT", " 。", " ok"]),
        ({"latency_unit": "char"}, ["我", "们用GPT", " 。", " ok"]),  # simulstream's wrapper
    ],
)
def test_text_without_spaces(flags: dict[str, str], written: list[str]) -> None:
    """It is written with its chunk where the host counts characters; other hosts put a space between two texts."""
    agent = NastSpeechToTextAgent(Namespace(**flags), make_stream=lambda: Deltas("我", "们用GPT", " 。", " ok"))
    answers = [agent.pushpop(speech(160)) for _ in range(3)] + [agent.pushpop(EmptySegment(finished=True))]
    assert [answer.content or "" for answer in answers] == written and answers[-1].finished


def test_the_unit_is_read_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake(NastSpeechToTextAgent):
        def __init__(self, args: Namespace) -> None:
            super().__init__(args, make_stream=Deltas)

    for words, unit in (([], "word"), (["--eval-latency-unit", "char"], "char"), (["--eval-latency=char"], "char")):
        monkeypatch.setattr(sys, "argv", ["simuleval", "--system-dir", "x", *words])
        assert Fake.from_args(Namespace(model="x")).latency_unit == unit
    assert Fake.from_args(Namespace(model="x", eval_latency_unit="word")).latency_unit == "word"


def test_a_reset_begins_the_next_sentence() -> None:
    agent, fake = make_agent([["one"]], ["end"])
    agent.push(speech(10))
    resets = fake.resets
    agent.reset()
    assert fake.resets == resets + 1 and fake.pushed == [] and agent.states.take() == []
    assert agent.pushpop(speech(10, finished=True)).content == "one end"
    agent.reset()
    assert not agent.states.target_finished and not agent.states.source_finished
    assert agent.pushpop(speech(10, finished=True)).content == "one end"


def test_an_empty_source_and_an_empty_end() -> None:
    agent, fake = make_agent([[]], [])
    answer = agent.pushpop(EmptySegment(finished=True))
    assert answer.finished and answer.content == "" and fake.pushed == [] and fake.finished == 1
    agent.reset()
    assert agent.pushpop(speech(5)).is_empty
    answer = agent.pushpop(EmptySegment(finished=True))
    assert answer.finished and answer.content == "" and fake.finished == 1


def test_stereo_pairs_and_several_states() -> None:
    agent, fake = make_agent([["x"]], [])
    agent.push(speech(6, channels=2))
    assert fake.pushed == [((6, 2), 8000)]
    other = agent.build_states()
    assert isinstance(agent.policy(other), ReadAction) and isinstance(agent.policy(), WriteAction)


def test_sound_is_written_as_it_comes() -> None:
    agent, fake = make_speaker([[[]], [[0.5, 0.25], [], [-1.0]], [], [[]]], [[0.125]])
    answers = [agent.pushpop(speech(160)) for _ in range(3)] + [agent.pushpop(speech(7, finished=True))]
    assert [answer.is_empty for answer in answers] == [True, False, True, False]
    written = [answers[1], answers[3]]
    assert [answer.content for answer in written] == [[0.5, 0.25, -1.0], [0.125]]
    for answer in written:
        assert isinstance(answer, SpeechSegment) and answer.sample_rate == 16000 and answer.tgt_lang is None
        assert type(answer.content) is list and {type(value) for value in answer.content} == {float}
    assert [answer.finished for answer in answers] == [False, False, False, True]
    assert agent.states.target == [0.5, 0.25, -1.0] and agent.states.target_sample_rate == 16000
    assert fake.finished == 1 and agent.states.source == [] and agent.pop().finished


def test_a_silent_end_and_a_reset_of_the_voice() -> None:
    agent, fake = make_speaker([[[0.5]]], [[]])
    assert agent.pushpop(speech(10)).content == [0.5]
    answer = agent.pushpop(EmptySegment(finished=True))
    assert answer.finished and answer.content == [] and not answer.is_empty and agent.states.target_finished
    agent.reset()
    assert fake.pushed == [] and not agent.states.target_finished and agent.states.target == []
    answer = agent.pushpop(EmptySegment(finished=True))
    assert answer.finished and answer.content == []
    other = agent.build_states()
    assert isinstance(agent.policy(other), ReadAction)


def test_a_host_that_ends_the_source_itself_gets_everything() -> None:
    """Some hosts set ``source_finished`` and call ``policy`` once, without a last segment."""
    agent, fake = make_agent([["one"]], ["two"])
    agent.push(speech(10))
    agent.states.source_finished = True
    action = agent.policy()
    assert isinstance(action, WriteAction) and action.finished and action.content == "one two" and fake.finished == 1
    speaker, _ = make_speaker([[[0.5]]], [[0.25]])
    speaker.push(speech(10))
    speaker.states.source_finished = True
    assert speaker.policy().content.content == [0.5, 0.25]


def test_a_configuration_that_holds_only_the_model(corpus: Path) -> None:
    samples, rate = soundfile.read(corpus / "0.wav", dtype="float32")
    system = load_system(corpus / "bundle")
    expected = translate_samples(system, samples, rate, system.policy())
    agent = NastSpeechToTextAgent.from_args(Namespace(model=str(corpus / "bundle")))
    agent.push(SpeechSegment(content=samples.tolist(), sample_rate=rate, finished=False, tgt_lang=None))
    agent.states.source_finished = True
    assert agent.policy().content == expected.text and expected.text
    speaker = NastSpeechToSpeechAgent.from_args(Namespace(model=str(corpus / "bundle")))
    speaker.push(SpeechSegment(content=samples.tolist(), sample_rate=rate, finished=False, tgt_lang=None))
    speaker.states.source_finished = True
    waveform = translate_samples(system, samples, rate, system.policy(), with_speech=True).waveform
    np.testing.assert_allclose(speaker.policy().content.content, waveform, atol=1e-6)


def test_another_vocoder_belongs_to_the_system_that_the_agent_moves(corpus: Path) -> None:
    flags = Namespace(model=str(corpus / "bundle"), vocoder=str(corpus / "bundle"))
    speaker = NastSpeechToSpeechAgent.from_args(flags)
    assert speaker.make_stream().system is speaker.system
    text_only = save_bundle(make_bundle(corpus / "text", units=False), corpus / "text_bundle")
    with pytest.raises(ValueError, match="no unit decoder"):
        NastSpeechToSpeechAgent.from_args(Namespace(model=str(text_only)))


@pytest.fixture
def plain_segments() -> Iterator[None]:
    yield
    use_first_segment(None)


class OneFile:
    """What SimulEval's utterances ask of a data loader."""

    def __init__(self, samples: np.ndarray, rate: int) -> None:
        self.samples, self.rate = samples, rate

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"source": self.samples.tolist(), "target": "a reference", "tgt_lang": None}

    def get_source_audio_info(self, index: int) -> Namespace:
        return Namespace(samplerate=self.rate)


def segment_lengths(samples: int, rate: int, segment_ms: int) -> list[int]:
    """Samples of the segments that an utterance of SimulEval's registry hands out."""
    flags = Namespace(eval_latency_unit="word", output=".")
    kind = simuleval_instance.INSTANCE_TYPE_DICT["speech-text"]
    utterance = kind(0, OneFile(np.zeros(samples), rate), flags)
    lengths = []
    while not utterance.source_finished_reading:
        lengths.append(len(utterance.send_source(segment_ms).content))
    return lengths


def test_the_first_segment_can_have_a_length_of_its_own(plain_segments: None) -> None:
    use_first_segment(15)
    assert segment_lengths(16000, 16000, 320) == [240, 5120, 5120, 5120, 400]
    assert segment_lengths(200, 16000, 320) == [200]
    assert segment_lengths(1000, 44100, 10) == [662, 338]  # SimulEval rounds 661.5 up
    use_first_segment(400)
    assert segment_lengths(16000, 16000, 320) == [6400, 5120, 4480]
    use_first_segment(None)
    assert segment_lengths(16000, 16000, 320) == [5120, 5120, 5120, 640]
    assert not any(issubclass(kind, FirstSegment) for kind in simuleval_instance.INSTANCE_TYPE_DICT.values())
    with pytest.raises(ValueError, match="at least 1 ms long, got 0 ms"):
        use_first_segment(0)


def test_the_agent_asks_for_its_first_segment(plain_segments: None) -> None:
    class Fake(NastSpeechToTextAgent):
        def __init__(self, args: Namespace) -> None:
            super().__init__(args, make_stream=lambda: FakeStream([], []))

    parser = ArgumentParser()
    Fake.add_args(parser)
    Fake.from_args(parser.parse_args(["--model", "m", "--first-segment-ms", "15"]))
    kinds = simuleval_instance.INSTANCE_TYPE_DICT
    assert [kinds[f"speech-{target}"].first_segment_ms for target in ("text", "speech")] == [15, 15]
    Fake.from_args(parser.parse_args(["--model", "m"]))
    assert kinds["speech-speech"] is simuleval_instance.SpeechToSpeechInstance


def test_no_flag_is_mistaken_for_one_of_simuleval() -> None:
    """SimulEval reads the command line several times with parsers that know only its own flags and abbreviations."""
    from simuleval import options

    ours = ArgumentParser(add_help=False)
    NastSpeechToSpeechAgent.add_args(ours)  # those of the other agent among them
    theirs = ArgumentParser(add_help=False, conflict_handler="resolve")
    for add in (options.add_evaluator_args, options.add_slurm_args):
        add(theirs)
    options.general_parser(parser=theirs)
    options.GenericDataloader.add_args(theirs)
    for flag in ours._option_string_actions:
        assert not [name for name in theirs._option_string_actions if name.startswith(flag)], flag


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simuleval")
    save_bundle(make_bundle(folder / "system", voice=True), folder / "bundle")
    mono, stereo = make_signal(2.2, seed=1), make_signal(1.6, seed=2, rate=44100)
    soundfile.write(folder / "0.wav", mono, 16000)
    soundfile.write(folder / "1.wav", np.stack([stereo, stereo / 2], axis=1), 44100)
    (folder / "source").write_text(f"{folder}/0.wav\n{folder}/1.wav\n")
    (folder / "target").write_text("the small house is red\na big dog sleeps\n")
    return folder


def run_simuleval(corpus: Path, output: Path, arguments: list[str]) -> str:
    """SimulEval's own command; returns what it told on stderr."""
    command = [sys.executable, "-m", "simuleval.cli", *arguments, "--output", str(output)]
    command += ["--source", "source", "--target", "target", "--source-segment-size", "40"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=corpus, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "chunk_ms"),
    [
        (["--system-dir", "bundle"], 320),
        pytest.param(["--system-dir", "bundle", "--system-config", "main-160.yaml"], 160, marks=pytest.mark.slow),
        pytest.param(
            ["--agent", "{repository}/examples/simuleval_agent.py", "--model", "bundle", "--chunk-ms", "640"],
            640,
            marks=pytest.mark.slow,
        ),
        (
            ["--agent-class", "nast_s2x.agents.speech_to_text.NastSpeechToTextAgent", "--model", "bundle"]
            + ["--user-dir", "{repository}/nast_s2x", "--chunk-ms", "offline"],
            "offline",
        ),
        (
            ["--agent-class", "nast_s2x.agents.speech_to_text.NastSpeechToTextAgent", "--model", "bundle"]
            + ["--chunk-ms", "320", "--first-segment-ms", "15"],
            320,
        ),
    ],
)
def test_simuleval_runs_the_agent(
    corpus: Path, tmp_path: Path, arguments: list[str], chunk_ms: int | str, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = ["--latency-metrics", "AL", "LAAL", "StartOffset"]
    run_simuleval(corpus, tmp_path, [word.format(repository=REPOSITORY) for word in arguments] + metrics)
    (scores,) = csv.DictReader((tmp_path / "scores.tsv").open(), delimiter="\t")
    instances = [json.loads(line) for line in (tmp_path / "instances.log").read_text().splitlines()]
    bundle = load_system(corpus / "bundle")
    policy = bundle.policy(chunk_ms)
    for index, instance in enumerate(instances):
        samples, rate = soundfile.read(corpus / f"{index}.wav", dtype="float32")
        assert instance["prediction"] == translate_samples(bundle, samples, rate, policy).text
        first = instance["source_length"] if policy.is_offline else bundle.model.geometry(policy).emission_ms(0)
        assert all(delay >= min(first, instance["source_length"]) for delay in instance["delays"])
    starts = [instance["delays"][0] for instance in instances]
    assert float(scores["StartOffset"]) == pytest.approx(sum(starts) / 2, abs=0.01)
    assert float(scores["AL"]) <= float(scores["LAAL"]) + 1e-6 and "BLEU" in scores
    shift, end = 15 if "--first-segment-ms" in arguments else 0, instances[0]["source_length"]
    assert all(delay == end or delay % 40 == shift for delay in instances[0]["delays"])
    if chunk_ms == "offline":
        assert starts == [instance["source_length"] for instance in instances]
    else:
        assert min(starts) < 1600


def test_simuleval_runs_the_voice(corpus: Path, tmp_path: Path) -> None:
    arguments = ["--system-dir", "bundle", "--system-config", "main-speech.yaml"]
    metrics = ["--latency-metrics", "StartOffset", "EndOffset", "ATD", "NumChunks"]
    run_simuleval(corpus, tmp_path, arguments + metrics)
    (scores,) = csv.DictReader((tmp_path / "scores.tsv").open(), delimiter="\t")
    bundle = load_system(corpus / "bundle")
    instances = [json.loads(line) for line in (tmp_path / "instances.log").read_text().splitlines()]
    starts, ends, chunks = [], [], []
    for index, instance in enumerate(instances):
        samples, rate = soundfile.read(corpus / f"{index}.wav", dtype="float32")
        expected = translate_samples(bundle, samples, rate, bundle.policy(320), with_speech=True).waveform
        playback, heard = Playback(), 0
        for delay, duration in zip(instance["delays"], instance["durations"], strict=True):
            piece = expected[heard : heard + round(16 * duration)]
            heard += len(piece)
            playback.add(delay, piece)
        assert heard == len(expected) > 0
        # What SimulEval wrote is our sound from its start on, silence in the gaps.
        written, rate = soundfile.read(instance["prediction"], dtype="float32")
        mixed = playback.mix()[round(16 * playback.start_ms) :]
        assert rate == 16000 and abs(len(written) - len(mixed)) <= len(playback.gaps)
        assert len(playback.gaps) or np.abs(written - mixed).max() <= 2 / 32768
        starts.append(playback.start_ms)
        ends.append(playback.end_ms - instance["source_length"])
        chunks.append(len(playback.pieces))
    for name, values in (("StartOffset", starts), ("EndOffset", ends), ("NumChunks", chunks)):
        assert float(scores[name]) == pytest.approx(sum(values) / 2, abs=0.2), name
    assert np.isfinite(float(scores["ATD"]))
