"""Sessions: segments of one recording, computing time, emissions, entries of the log."""

from __future__ import annotations

import copy
import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from chunk_translator import ChunkTranslator
from evaluation_folder import evaluator_flags

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.errors import ConfigError
from nast_s2x.evaluation import session as session_module
from nast_s2x.evaluation.session import SpeechSession, TextSession, run_session
from nast_s2x.inference.segments import Segments
from nast_s2x.inference.streaming import Emission

POLICY = ChunkPolicy(320)
SESSIONS = {"text": TextSession, "speech": SpeechSession}


def run(
    length: int,
    translator: ChunkTranslator,
    segments: Segments = Segments(),  # noqa: B008 - frozen
    target_type: str = "text",
    wav: Path | None = None,
) -> dict[str, Any]:
    """Return the log entries of a recording of ``length`` samples."""
    session = SESSIONS[target_type]()
    line = run_session(session, translator, [(np.full(length, 0.125, np.float32), 16000)], segments)
    if isinstance(session, SpeechSession) and wav is not None:
        session.write(wav)
    return json.loads(json.dumps(line))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every push takes 2 ms."""
    times = iter(np.arange(10**6) * 0.002)
    monkeypatch.setattr(session_module.time, "perf_counter", lambda: float(next(times)))


@pytest.fixture
def plain_segments() -> Iterator[None]:
    yield
    from nast_s2x.agents.segments import use_first_segment

    use_first_segment(None)


def of_simuleval(folder: Path, translator: ChunkTranslator, segments: Segments, target_type: str) -> dict[str, Any]:
    """Return the log line that SimulEval writes with the agent for 2 s of source."""
    from simuleval.data.dataloader import SpeechToTextDataloader
    from simuleval.evaluator import SentenceLevelEvaluator

    from nast_s2x.agents.segments import use_first_segment
    from nast_s2x.agents.speech_to_speech import NastSpeechToSpeechAgent
    from nast_s2x.agents.speech_to_text import NastSpeechToTextAgent

    soundfile.write(folder / "source.wav", np.full(32000, 0.125), 16000)
    (folder / "wavs").mkdir()
    use_first_segment(segments.first_ms)
    loader = SpeechToTextDataloader([str(folder / "source.wav")], ["a reference"])
    evaluator = SentenceLevelEvaluator(loader, {}, {}, evaluator_flags(folder, segments.segment_ms, target_type))
    agent = {"text": NastSpeechToTextAgent, "speech": NastSpeechToSpeechAgent}[target_type]
    evaluator(agent(Namespace(), make_stream=lambda: copy.deepcopy(translator)))
    (line,) = map(json.loads, (folder / "instances.log").read_text().splitlines())
    return line


@pytest.mark.parametrize(
    ("first", "segment", "start"), [(15, 320, 655), (None, 320, 960), (None, 40, 680), (15, 40, 655)]
)
@pytest.mark.parametrize("target_type", ["text", "speech"])
def test_the_published_protocol(
    tmp_path: Path, first: int | None, segment: int, start: float, target_type: str, plain_segments: None
) -> None:
    """320 ms chunks with 320 ms look-ahead need 655 ms; with a first segment of 15 ms a segment ends there."""
    pytest.importorskip("simuleval")
    translator = ChunkTranslator(POLICY, sound=160 if target_type == "speech" else 0)
    segments = Segments(segment, first)
    line = run(32000, copy.deepcopy(translator), segments, target_type)
    assert line["delays"][0] == start
    theirs = of_simuleval(tmp_path, translator, segments, target_type)
    same = theirs.keys() - {"elapsed", "source", "index", "reference", *(["prediction"] * (target_type == "speech"))}
    assert {name: line[name] for name in same} == {name: theirs[name] for name in same}


def test_segments() -> None:
    def lengths(segments: Segments, rate: int, *pieces: int) -> list[int]:
        source = np.arange(sum(pieces), dtype=np.float32)
        cut = [*segments.cut((part, rate) for part in np.split(source, np.cumsum(pieces)[:-1]))]
        assert np.array_equal(np.concatenate([samples for samples, _, _ in cut]), source)
        assert {found for _, found, _ in cut} == {rate} and not np.shares_memory(cut[0][0], source)
        assert [is_last for _, _, is_last in cut] == [False] * (len(cut) - 1) + [True]
        return [len(samples) for samples, _, _ in cut]

    for pieces in ([1600], [640, 640, 320], [1, 0, 1599], [1280, 320]):
        assert lengths(Segments(40), 16000, *pieces) == [640, 640, 320]
    assert lengths(Segments(40), 16000, 640, 640) == [640, 640]
    assert lengths(Segments(320, 15), 16000, 100, 7900) == [240, 5120, 2640]
    assert lengths(Segments(1000), 44100, 5) == [5] and lengths(Segments(7), 22050, 300, 400)[0] == 155
    assert [*Segments().cut([])] == []
    with pytest.raises(ConfigError, match="segments must be at least 1 ms long, got 0 ms"):
        Segments(0)
    with pytest.raises(ConfigError, match="the first segment must be at least 1 ms long, got -1 ms"):
        Segments(40, -1)


def test_a_line_of_text(clock: None) -> None:
    """500 ms segments of 2.2 s: pushes end at 500, 1000, 1500, 2000 and 2200 ms, and each takes 2 ms. Chunks are
    complete at 655, 975, 1295, 1615 and 1935 ms; the end writes another word."""
    first = run(35200, ChunkTranslator(POLICY), Segments(500))
    assert first["prediction"].split() == ["s16000", "s16000", "s24000", "s32000", "s32000", "s35200"]
    assert first["delays"] == [1000, 1000, 1500, 2000, 2000, 2200]
    assert first["push_ms"] == pytest.approx([2] * 5)
    assert first["elapsed"] == pytest.approx([1004, 1004, 1506, 2008, 2008, 2210])
    assert first["chunk_ms"] == pytest.approx([4, 2, 2, 2])
    times = [(entry["chunk"], entry["source_ms"], entry["written_ms"]) for entry in first["emissions"]]
    assert times == [
        (0, 655, 1000),
        (1, 975, 1000),
        (2, 1295, 1500),
        (3, 1615, 2000),
        (4, 1935, 2000),
        (5, 2200, 2200),
    ]
    assert (first["emissions"][2]["text"], first["emissions"][2]["units"]) == ("s24000", [2])
    assert (first["source_length"], first["prediction_length"]) == (2200, 6)
    second = run(16, ChunkTranslator(POLICY), Segments(500))
    assert (second["prediction"], second["delays"]) == ("s16", [1])
    assert second["elapsed"] == pytest.approx([3])


def test_a_line_of_speech(tmp_path: Path, clock: None) -> None:
    wav = tmp_path / "wavs" / "3_pred.wav"
    line = run(24000, ChunkTranslator(POLICY, sound=1600), Segments(500), "speech", wav)
    # Two chunks of 100 ms complete within the push that ends at 1000 ms; one more, and the end, within the last.
    assert line["delays"] == [1000, 1500] and line["durations"] == [200, 200]
    assert line["elapsed"] == pytest.approx([1004, 1506])
    assert line["intervals"] == [[1000, 200], [1500, 200]] and line["prediction_offset"] == 1000
    assert line["prediction_length"] == pytest.approx(0.7)
    sound, rate = soundfile.read(wav)
    assert rate == 16000 and (sound[:3200] == 0.25).all() and not sound[3200:8000].any() and len(sound) == 11200
    assert [entry["samples"] for entry in line["emissions"]] == [1600] * 4
    assert [entry["text"] for entry in line["emissions"]] == ["s16000", "s16000", "s24000", "s24000"]


def test_the_speech_is_joined_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined, sound = [], SpeechSession.sound
    monkeypatch.setattr(SpeechSession, "sound", lambda self: joined.append(self) or sound(self))
    run(24000, ChunkTranslator(POLICY, sound=1600), Segments(500), "speech", tmp_path / "x.wav")
    assert len(joined) == 1


def test_a_push_does_not_add_up_all_pushes_before_it() -> None:
    class Times(list[float]):
        def __iter__(self) -> Iterator[float]:
            raise AssertionError("the times of all pushes are read")

    session = TextSession()
    session.push_ms = Times()
    for delay in (40.0, 80.0, 120.0):
        session.add([Emission(0, delay, "word", [], [])], delay, 2.0)
    assert session.elapsed == [42.0, 84.0, 126.0]


@pytest.mark.parametrize("target_type", ["text", "speech"])
def test_an_empty_output(tmp_path: Path, target_type: str) -> None:
    line = run(1600, ChunkTranslator(POLICY, last_words=False), Segments(), target_type, tmp_path / "x.wav")
    assert line["delays"] == line["elapsed"] == line["emissions"] == line["chunk_ms"] == []
    assert len(line["push_ms"]) == 3 and min(line["push_ms"]) >= 0
    assert line["prediction_length"] == 0
    if target_type == "speech":
        assert line["durations"] == line["intervals"] == [] and not (tmp_path / "x.wav").exists()
        assert line["prediction_offset"] == 100
