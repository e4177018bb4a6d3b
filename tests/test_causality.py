"""What is emitted, and what the evaluation logs, up to a time depends on the source up to that time alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from chunk_translator import ChunkTranslator
from random_system import make_bundle, make_signal

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.corpus import AudioRef, Utterance
from nast_s2x.evaluation.run import Job, translate
from nast_s2x.evaluation.session import SpeechSession, TextSession, run_session
from nast_s2x.evaluation.settings import RunSettings
from nast_s2x.inference.segments import Segments
from nast_s2x.inference.streaming import Emission, TranslationStream
from nast_s2x.inference.system import System

SECONDS = 2.4
TIMES_MS = (700, 1310, 1900)
"""Where the source is replaced; chunks of 160 and 320 ms are complete before, between and after them."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> System:
    """In float64, so that no label hangs on a rounding."""
    return make_bundle(tmp_path_factory.mktemp("causality"), voice=True, dtype=torch.float64)


def sources(rate: int = 16000) -> list[np.ndarray]:
    """A source, and the same with noise from each of :data:`TIMES_MS` on."""
    whole = make_signal(SECONDS, seed=5, rate=rate)
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, len(whole)).astype(np.float32)
    cuts = [time * rate // 1000 for time in TIMES_MS]
    return [whole, *(np.concatenate([whole[:cut], noise[cut:]]) for cut in cuts)]


def up_to(emissions: list[Emission], time_ms: float) -> list[tuple[str, list[int], list[int]]]:
    return [(entry.text, entry.tokens, entry.units) for entry in emissions if entry.source_ms <= time_ms]


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize(("chunk_ms", "lookahead_ms"), [(160, 0), (320, 320), (160, 480), (640, 80)])
def test_a_stream_does_not_depend_on_later_audio(bundle: System, chunk_ms: int, lookahead_ms: int, rate: int) -> None:
    """All samples in one push: only the times of the geometry say what may depend on what."""
    policy = bundle.policy(chunk_ms, lookahead_ms)
    answers = []
    for samples in sources(rate):
        translator = TranslationStream(bundle, policy, with_speech=True)
        answers.append([*translator.push(samples, rate), *translator.push([], final=True)])
    seen = 0
    for time, answer in zip(TIMES_MS, answers[1:], strict=True):
        early = up_to(answers[0], time)
        assert up_to(answer, time) == early
        pairs = [(a.waveform, b.waveform) for a, b in zip(answers[0][: len(early)], answer)]
        assert all(len(a) == len(b) and np.abs(a - b).max(initial=0) < 1e-5 for a, b in pairs)
        assert [entry.units for entry in answer] != [entry.units for entry in answers[0]]
        seen += sum(bool(text or units) for text, _, units in early)
    assert seen >= 3


def evaluate(
    bundle: System, folder: Path, recordings: list[np.ndarray], rate: int, **setup: Any
) -> list[dict[str, Any]]:
    """The log of an evaluation of recordings at 320 ms."""
    lines = []
    for index, samples in enumerate(recordings):
        path = folder / f"{index}.wav"
        soundfile.write(path, samples, rate, subtype="FLOAT")
        row = Utterance(str(index), audio=AudioRef(path), target_text="a reference", place=f"list:{index + 1}")
        lines.append(translate(bundle, RunSettings(model="", **setup), Job(index, row, folder / "320")))
    return lines


@pytest.mark.parametrize(("rate", "first"), [(16000, None), (16000, 15), (22050, None)])
@pytest.mark.parametrize("target_type", ["text", "speech"])
def test_an_evaluation_does_not_depend_on_later_audio(
    bundle: System, tmp_path: Path, target_type: str, rate: int, first: int | None
) -> None:
    whole, *changed = evaluate(bundle, tmp_path, sources(rate), rate, target_type=target_type, first_segment_ms=first)
    for time, line in zip(TIMES_MS, changed, strict=True):
        early = [entry for entry in whole["emissions"] if entry["written_ms"] <= time]
        assert [entry for entry in line["emissions"] if entry["written_ms"] <= time] == early
        assert line["emissions"] != whole["emissions"]
        delays = [delay for delay in whole["delays"] if delay <= time]
        assert [delay for delay in line["delays"] if delay <= time] == delays
        if target_type == "text":
            assert line["prediction"].split()[: len(delays)] == whole["prediction"].split()[: len(delays)]
        elif delays:
            sounds = [soundfile.read(tmp_path / "320" / entry["prediction"])[0] for entry in (whole, line)]
            heard = int(16 * sum(whole["durations"][: len(delays)]))
            assert heard and np.abs(sounds[0][:heard] - sounds[1][:heard]).max() < 1e-4
    assert any(entry["written_ms"] <= TIMES_MS[1] for entry in whole["emissions"])


@pytest.mark.parametrize(("segment_ms", "first"), [(1, None), (40, None), (320, 15), (333, 7), (5000, None)])
@pytest.mark.parametrize("target_type", ["text", "speech"])
def test_what_a_translator_was_given_is_what_the_log_says(target_type: str, segment_ms: int, first: int | None) -> None:
    """The translator writes how many samples it had: never more than the logged delay, and nothing behind them."""
    samples = make_signal(1.5, seed=3)
    translator = Recorder(ChunkPolicy(80, 40), 80 if target_type == "speech" else 0)
    session = TextSession() if target_type == "text" else SpeechSession()
    line = run_session(session, translator, [(samples, 16000)], Segments(segment_ms, first))
    given = [int(entry["text"].removeprefix("s")) for entry in line["emissions"]]
    assert [entry["written_ms"] for entry in line["emissions"]] == [count / 16 for count in given]
    if target_type == "text":
        assert line["delays"] == [count / 16 for count in given]
    else:
        assert line["delays"] == sorted({count / 16 for count in given})
    assert given[-1] == len(samples) and (np.concatenate(translator.kept) == samples).all()
    # Nothing of the source can be reached from what was handed over.
    assert all(piece.base is None and piece.flags.owndata for piece in translator.kept)


class Recorder(ChunkTranslator):
    """Keeps what it was given."""

    @property
    def kept(self) -> list[np.ndarray]:
        return self.pieces
