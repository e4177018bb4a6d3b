"""Latency agrees with SimulEval's scorers where those are right, and with OmniSTEval's where it is installed.

Where SimulEval 1.1.4 is wrong its values are asserted too, so that a mended SimulEval is noticed.
"""

from __future__ import annotations

import json
import random
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nast_s2x.errors import NastError
from nast_s2x.evaluation.log import LoggedUtterance, read_log, read_output_pieces, read_output_with_gaps
from nast_s2x.evaluation.scoring import score
from nast_s2x.metrics import latency

pytest.importorskip("simuleval")

from sacrebleu.metrics import BLEU  # noqa: E402
from simuleval.agents import SpeechToSpeechAgent, SpeechToTextAgent  # noqa: E402
from simuleval.agents.actions import Action, ReadAction, WriteAction  # noqa: E402
from simuleval.data.dataloader import SpeechToTextDataloader  # noqa: E402
from simuleval.data.segments import SpeechSegment  # noqa: E402
from simuleval.evaluator import SentenceLevelEvaluator  # noqa: E402
from simuleval.evaluator.instance import LogInstance, SpeechToSpeechInstance  # noqa: E402
from simuleval.evaluator.scorers.latency_scorer import LATENCY_SCORERS_DICT  # noqa: E402

WORDS = ["the", "small", "house", "on", "the", "hill", "is", "red", "and", "old"]


def simuleval_score(name: str, instances: dict[int, Any], computation_aware: bool = False) -> float:
    return LATENCY_SCORERS_DICT[name](computation_aware=computation_aware)(instances)


def log_of(folder: Path, lines: list[dict[str, Any]]) -> tuple[list[LoggedUtterance], dict[int, LogInstance]]:
    """The same log as we and as SimulEval read it."""
    text = [json.dumps(line) for line in lines]
    (folder / "instances.log").write_text("\n".join(text) + "\n")
    return read_log(folder), {place: LogInstance(line) for place, line in enumerate(text)}


def random_line(rng: random.Random, index: int, speech: bool) -> dict[str, Any]:
    source = rng.choice([900, 1234.5, 4000, 7777])
    count = rng.randint(1, 9)
    writes = sorted(rng.choice([40, 320, 655, 975, 1295, source, source]) for _ in range(count))
    delays = [min(time, source) for time in writes]
    spent, elapsed = 0.0, []
    for place, delay in enumerate(delays):
        if place == 0 or delay != delays[place - 1]:
            spent += rng.randint(1, 400)
        elapsed.append(delay + spent)
    reference = " ".join(rng.choices(WORDS, k=rng.randint(1, 9)))
    line = {"index": index, "delays": delays, "elapsed": elapsed, "reference": reference, "source_length": source}
    if not speech:
        return line | {"prediction": " ".join(rng.choices(WORDS, k=count)), "source": ["a.wav"]}
    durations = [rng.choice([20, 160, 320.5, 700, 1500]) for _ in delays]
    return line | {
        "prediction": f"wavs/{index}_pred.wav",
        "source": "a.wav",
        "durations": durations,
        "intervals": latency.playback_intervals(delays, durations),
    }


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("seed", range(5))
def test_text_agrees_with_simuleval(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    ours, theirs = log_of(tmp_path, [random_line(rng, index, speech=False) for index in range(20)])
    figures = [latency.text_latency(u.delays, u.elapsed, u.source_ms, len(u.reference.split())) for u in ours]
    for name in ("AL", "LAAL", "AP", "DAL", "ATD", "StartOffset", "EndOffset"):
        assert mean([row[name] for row in figures]) == pytest.approx(simuleval_score(name, theirs)), name
        expected = simuleval_score(name, theirs, computation_aware=True)
        assert mean([row[f"{name}_CA"] for row in figures]) == pytest.approx(expected), name
    # SimulEval counts words as chunks of text.
    assert simuleval_score("NumChunks", theirs) == mean([len(u.words) for u in ours])
    assert mean([row["NumChunks"] for row in figures]) == mean([len(set(u.delays)) for u in ours])


@pytest.mark.parametrize("seed", range(5))
def test_characters_agree_with_simuleval(seed: int, tmp_path: Path) -> None:
    """Text without spaces, SimulEval with --eval-latency-unit char."""
    rng = random.Random(seed)
    lines = []
    for index in range(20):
        line = random_line(rng, index, speech=False)
        reference = "".join(rng.choices("我你他是猫狗。 a", k=rng.randint(2, 12))).strip() or "猫"
        lines.append(line | {"prediction": "".join(rng.choices("我你他是猫狗。", k=len(line["delays"])))})
        lines[-1]["reference"] = reference
    text = [json.dumps(line) for line in lines]
    (tmp_path / "instances.log").write_text("\n".join(text) + "\n")
    theirs = {place: LogInstance(line, "char") for place, line in enumerate(text)}
    with pytest.raises(NastError, match="--target-lang"):
        score(tmp_path)
    row = score(tmp_path, target_lang="zh-TW")["rows"][0]
    for name in ("AL", "LAAL", "AP", "DAL", "ATD", "StartOffset", "EndOffset"):
        assert row["latency"][name] == pytest.approx(simuleval_score(name, theirs)), name
        assert row["latency"][f"{name}_CA"] == pytest.approx(simuleval_score(name, theirs, True)), name
    pairs = [[line["prediction"] for line in lines], [[line["reference"] for line in lines]]]
    assert row["quality"]["BLEU"] == pytest.approx(BLEU(tokenize="zh").corpus_score(*pairs).score)
    assert "tok:zh" in row["signatures"]["BLEU"]
    assert score(tmp_path)["target_lang"] == "zh-TW"  # as before


@pytest.mark.parametrize("seed", range(5))
def test_speech_agrees_with_simuleval(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    ours, theirs = log_of(tmp_path, [random_line(rng, index, speech=True) for index in range(20)])
    figures = [
        latency.speech_latency(u.delays, u.elapsed, u.durations, u.source_ms, len(u.reference.split())) for u in ours
    ]
    pairs = {"StartOffset": "StartOffset", "EndOffset": "EndOffset", "NumChunks": "NumChunks"}
    for name, other in {**pairs, "AL_chunks_vs_words": "AL"}.items():
        assert mean([row[name] for row in figures]) == pytest.approx(simuleval_score(other, theirs)), name
    # SimulEval takes pieces of sound in a log for words, and ends them without computing time.
    assert simuleval_score("ATD", theirs) == pytest.approx(mean([latency.average_token_delay(u.delays) for u in ours]))
    assert simuleval_score("EndOffset", theirs, True) == pytest.approx(mean([row["EndOffset"] for row in figures]))
    assert mean([row["EndOffset_CA"] for row in figures]) > mean([row["EndOffset"] for row in figures])


# -- runs of SimulEval itself ------------------------------------------------------------------------------------------


class Speaker(SpeechToSpeechAgent):
    """Says a rising tone of so many samples after so many pushes."""

    def __init__(self, script: dict[int, int]) -> None:
        self.script = script
        super().__init__(Namespace())

    def policy(self) -> Action:
        pushes = round(len(self.states.source) / 640)
        size = self.script.pop(pushes, 0)
        if not size and not self.states.source_finished:
            return ReadAction()
        content = (0.1 + np.arange(size) / 40000).tolist()
        segment = SpeechSegment(content=content, sample_rate=16000, finished=self.states.source_finished, tgt_lang=None)
        return WriteAction(segment, finished=segment.finished)


class Writer(SpeechToTextAgent):
    """Writes so many words after so many pushes."""

    def __init__(self, scripts: list[dict[int, int]]) -> None:
        self.scripts, self.turn = scripts, -1
        super().__init__(Namespace())

    def reset(self) -> None:
        super().reset()
        self.turn += 1

    def policy(self) -> Action:
        pushes = -(-len(self.states.source) // 640)
        count = self.scripts[self.turn].get(pushes, 0)
        if not count and not self.states.source_finished:
            return ReadAction()
        return WriteAction(" ".join(WORDS[:count]), finished=self.states.source_finished)


def make_loader(folder: Path, lengths: list[int], references: list[str]) -> SpeechToTextDataloader:
    paths = []
    for index, length in enumerate(lengths):
        paths.append(str(folder / f"source{index}.wav"))
        soundfile.write(paths[-1], np.zeros(length), 16000)
    return SpeechToTextDataloader(paths, references)


def arguments(folder: Path, target_type: str) -> Namespace:
    return Namespace(
        output=str(folder), source_type="speech", target_type=target_type, source_segment_size=40, start_index=0,
        end_index=-1, eval_latency_unit="word", score_only=False, no_scoring=True, no_progress_bar=True,
        continue_unfinished=False,
    )  # fmt: skip


def test_log_of_simulevals_own_evaluator(tmp_path: Path) -> None:
    """Three utterances of 0.4, 0.2 and 0.3 s; nothing comes out of the second."""
    loader = make_loader(tmp_path, [6400, 3200, 4800], ["a red house", "nothing", "two words"])
    writer = Writer([{3: 2, 7: 1, 10: 2}, {}, {5: 1, 8: 1}])
    writer.turn = -1
    scorers = {name: LATENCY_SCORERS_DICT[name]() for name in ("AL", "LAAL", "AP", "DAL", "StartOffset", "EndOffset")}
    evaluator = SentenceLevelEvaluator(loader, {}, scorers, arguments(tmp_path / "run", "text"))
    evaluator(writer)
    utterances = read_log(tmp_path / "run")
    assert [utterance.words for utterance in utterances] == [("the", "small", "the", "the", "small"), (), ("the",) * 2]
    assert utterances[0].delays == (120, 120, 280, 400, 400) and utterances[1].empty
    assert utterances[0].audio.path == tmp_path / "source0.wav" and utterances[0].id == "source0"
    assert len(utterances[2].elapsed) == 2 and utterances[2].elapsed[0] >= 200
    row = score(tmp_path / "run")["rows"][0]
    assert (row["chunk"], row["utterances"], row["empty"]) == ("run", 3, 1)
    for name, value in evaluator.latency.items():
        assert row["latency"][name] == pytest.approx(value), name


@pytest.fixture
def spoken(tmp_path: Path) -> tuple[SpeechToSpeechInstance, LoggedUtterance]:
    """An utterance of 0.8 s in SimulEval's memory, and from its log: four pieces, the third and fourth late."""
    loader = make_loader(tmp_path, [12800], ["the small house is red"])
    instance = SpeechToSpeechInstance(0, loader, arguments(tmp_path, "speech"))
    speaker = Speaker({2: 640, 3: 2400, 9: 1000, 20: 5000})
    speaker.reset()
    while not instance.source_finished_reading:
        instance.receive_prediction(speaker.pushpop(instance.send_source(40)))
    (tmp_path / "instances.log").write_text(json.dumps(instance.summarize()) + "\n")
    return instance, read_log(tmp_path)[0]


def test_speech_in_simulevals_memory(spoken: tuple[SpeechToSpeechInstance, LoggedUtterance]) -> None:
    instance, utterance = spoken
    # 40 ms at 80, 150 at 120 until 270, 62.5 at 360 until 422.5, 312.5 at 800.
    assert utterance.delays == (80, 120, 360, 800) and utterance.durations == (40, 150, 62.5, 312.5)
    figures = latency.speech_latency(utterance.delays, instance.elapsed, utterance.durations, utterance.source_ms, 5)
    assert (figures["GapNum"], figures["GapSum"]) == (2, 90 + 377.5)
    names = {"GapNum": "DiscontinuityNum", "GapSum": "DiscontinuitySum", "GapMean": "DiscontinuityAve"}
    for name, other in {**names, "ATD": "ATD", "StartOffset": "StartOffset", "EndOffset": "EndOffset"}.items():
        assert figures[name] == pytest.approx(simuleval_score(other, {0: instance})), name
    assert figures["ATD_CA"] == pytest.approx(simuleval_score("ATD", {0: instance}, computation_aware=True))


def test_pieces_are_found_in_simulevals_sound_file(spoken: tuple[SpeechToSpeechInstance, LoggedUtterance]) -> None:
    _, utterance = spoken
    pieces = read_output_pieces(utterance)
    assert [len(piece) for piece in pieces] == [640, 2400, 1000, 5000]
    for piece in pieces:
        np.testing.assert_allclose(piece, 0.1 + np.arange(len(piece)) / 40000, atol=2**-15)
    # 90 ms of silence after the second piece, 377.5 after the third.
    heard = read_output_with_gaps(utterance)
    assert len(heard) == 640 + 2400 + 1440 + 1000 + 6040 + 5000
    assert not heard[3040 : 3040 + 1440].any() and heard[3039] != 0 and heard[3040 + 1440] != 0


# -- OmniSTEval --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_text_agrees_with_omnisteval(seed: int, tmp_path: Path) -> None:
    scoring = pytest.importorskip("omnisteval.scoring")
    rng = random.Random(seed)
    ours, _ = log_of(tmp_path, [random_line(rng, index, speech=False) for index in range(20)])
    theirs = [
        scoring.Instance(
            prediction=u.text,
            reference=u.reference,
            index=u.index,
            source_length=u.source_ms,
            emission_cu=list(u.delays),
            emission_ca=list(u.elapsed),
        )
        for u in ours
    ]
    expected, _, _ = scoring.evaluate_instances(theirs, is_longform=False)
    row = score(tmp_path)["rows"][0]
    for name in ("AL", "LAAL", "AP", "DAL"):
        assert row["latency"][name] == pytest.approx(expected[name.lower()]), name
        assert row["latency"][f"{name}_CA"] == pytest.approx(expected[f"ca_{name.lower()}"]), name
    assert row["quality"]["BLEU"] == pytest.approx(expected["bleu"])
    assert row["quality"]["chrF"] == pytest.approx(expected["chrf"])
