"""Utterances of the evaluation: segments, computing time, emissions, the log's lines, through SimulEval's evaluator."""

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

pytest.importorskip("simuleval")

from simuleval.data.segments import EmptySegment  # noqa: E402
from simuleval.evaluator import SentenceLevelEvaluator  # noqa: E402

from nast_s2x.agents.segments import use_first_segment  # noqa: E402
from nast_s2x.chunking import ChunkPolicy  # noqa: E402
from nast_s2x.evaluation import instances  # noqa: E402
from nast_s2x.evaluation.instances import INSTANCES, TimedAgent, UtteranceLoader  # noqa: E402
from nast_s2x.evaluation.items import Item  # noqa: E402
from nast_s2x.evaluation.run import AGENTS  # noqa: E402

GEOMETRY = ChunkPolicy(320)


def make_items(folder: Path, lengths: list[int], rate: int = 16000) -> list[Item]:
    """Recordings of so many samples, whose indices begin at 3."""
    items = []
    for number, length in enumerate(lengths):
        path = folder / f"r{number}.wav"
        soundfile.write(path, np.full(length, 0.125), rate)
        items.append(Item(3 + number, path.stem, path, f"reference {number}", "1 2" if number else None, f"s:{number}"))
    return items


def run(
    items: list[Item],
    translator: ChunkTranslator,
    output: Path,
    segment_ms: int = 40,
    target_type: str = "text",
    first_segment_ms: int | None = None,
) -> list[dict[str, Any]]:
    """Lines of the log that SimulEval's evaluator writes with our utterances."""
    (output / "wavs").mkdir(parents=True, exist_ok=True)
    evaluator = SentenceLevelEvaluator(UtteranceLoader(items), {}, {}, evaluator_flags(output, segment_ms, target_type))
    evaluator.instance_class = type("Ours", (INSTANCES[target_type],), {"first_segment_ms": first_segment_ms})
    evaluator(TimedAgent(AGENTS[target_type](Namespace(), make_stream=lambda: copy.deepcopy(translator))))
    return [json.loads(line) for line in (output / "instances.log").read_text().splitlines()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every push takes 2 ms."""
    times = iter(np.arange(10**6) * 0.002)
    monkeypatch.setattr(instances.time, "perf_counter", lambda: float(next(times)))


@pytest.fixture
def plain_segments() -> Iterator[None]:
    yield
    use_first_segment(None)


@pytest.mark.parametrize(
    ("first", "segment", "start"), [(15, 320, 655), (None, 320, 960), (None, 40, 680), (15, 40, 655)]
)
@pytest.mark.parametrize("target_type", ["text", "speech"])
def test_the_published_protocol(
    tmp_path: Path, first: int | None, segment: int, start: float, target_type: str, plain_segments: None
) -> None:
    """320 ms chunks with 320 ms look-ahead need 655 ms; a first segment of 15 ms ends segments there (StartOffset)."""
    items = make_items(tmp_path, [32000])
    translator = ChunkTranslator(GEOMETRY, sound=160 if target_type == "speech" else 0)
    (line,) = run(items, translator, tmp_path / "ours", segment, target_type, first)
    assert line["delays"][0] == start
    # The same with SimulEval's own utterances, as its command line makes them.
    use_first_segment(first)
    loader = UtteranceLoader(items)
    evaluator = SentenceLevelEvaluator(loader, {}, {}, evaluator_flags(tmp_path / "theirs", segment, target_type))
    evaluator(AGENTS[target_type](Namespace(), make_stream=lambda: copy.deepcopy(translator)))
    (plain,) = map(json.loads, (tmp_path / "theirs" / "instances.log").read_text().splitlines())
    assert plain["delays"] == line["delays"]


def test_a_line_of_text(tmp_path: Path, clock: None) -> None:
    """500 ms segments of 2.2 s: pushes end at 500, 1000, 1500, 2000 and 2200 ms, and each takes 2 ms. Chunks are
    complete at 655, 975, 1295, 1615 and 1935 ms; the end writes another word."""
    first, second = run(make_items(tmp_path, [35200, 16]), ChunkTranslator(GEOMETRY), tmp_path, segment_ms=500)
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
    assert (first["index"], first["id"], first["audio"]) == (3, "r0", str(tmp_path / "r0.wav"))
    assert (first["reference"], first["units"], first["source_length"]) == ("reference 0", None, 2200)
    assert (second["index"], second["prediction"], second["delays"], second["units"]) == (4, "s16", [1], "1 2")
    assert second["elapsed"] == pytest.approx([3])


def test_a_line_of_speech(tmp_path: Path, clock: None) -> None:
    items = make_items(tmp_path, [24000])
    (line,) = run(items, ChunkTranslator(GEOMETRY, sound=1600), tmp_path, segment_ms=500, target_type="speech")
    # Two chunks of 100 ms complete within the push that ends at 1000 ms; one more, and the end, within the last.
    assert line["delays"] == [1000, 1500] and line["durations"] == [200, 200]
    assert line["elapsed"] == pytest.approx([1004, 1506])
    assert line["intervals"] == [[1000, 200], [1500, 200]] and line["prediction_offset"] == 1000
    assert line["prediction"] == "wavs/3_pred.wav" and line["prediction_length"] == pytest.approx(0.7)
    sound, rate = soundfile.read(tmp_path / line["prediction"])
    assert rate == 16000 and (sound[:3200] == 0.25).all() and not sound[3200:8000].any() and len(sound) == 11200
    assert [entry["samples"] for entry in line["emissions"]] == [1600] * 4
    assert [entry["text"] for entry in line["emissions"]] == ["s16000", "s16000", "s24000", "s24000"]


def test_nothing_is_said(tmp_path: Path) -> None:
    translator = ChunkTranslator(GEOMETRY, last_words=False)
    for target_type in ("text", "speech"):
        (line,) = run(make_items(tmp_path, [1600]), translator, tmp_path / target_type, target_type=target_type)
        assert line["delays"] == line["elapsed"] == line["emissions"] == line["chunk_ms"] == []
        assert len(line["push_ms"]) == 3 and min(line["push_ms"]) >= 0
    assert str(line["prediction_length"]) == "0.0" and line["durations"] == []
    assert not (tmp_path / "speech" / line["prediction"]).exists()


def test_an_agent_behaves_as_without_the_clock(tmp_path: Path) -> None:
    timed = TimedAgent(AGENTS["text"](Namespace(), make_stream=lambda: ChunkTranslator(GEOMETRY)))
    answer = timed.pushpop(EmptySegment(finished=True))
    assert answer.content == "s0" and answer.finished
    assert [emitted.text for emitted in answer.config["emitted"]] == ["s0"] and answer.config["push_ms"] > 0
    timed.reset()
    assert timed.agent.states._emissions == [] and not timed.agent.states.source_finished


def test_the_loader_holds_one_utterance(tmp_path: Path) -> None:
    items = make_items(tmp_path, [100, 200, 300], rate=8000)
    loader = UtteranceLoader(items)
    assert loader.current is None
    seen = []
    for index in loader:
        assert loader.current is items[index - 3] and loader.get_source_audio_info(index).samplerate == 8000
        sample = loader[index]
        assert sample["source"].dtype == np.float32 and sample["tgt_lang"] is None
        seen.append((index, len(sample["source"]), sample["target"]))
        with pytest.raises(AssertionError, match="not the current one"):
            loader.get_source(index + 1)
    assert seen == [(3, 100, "reference 0"), (4, 200, "reference 1"), (5, 300, "reference 2")]
    stops = iter([False, True])
    assert list(UtteranceLoader(items, stop=lambda: next(stops))) == [3]


def test_stereo_is_mixed_and_read_when_its_turn_comes(tmp_path: Path) -> None:
    items = make_items(tmp_path, [100])
    loader = UtteranceLoader(items)
    soundfile.write(items[0].audio, np.tile([[0.5, 0.0]], (50, 1)), 16000)
    assert [loader[index]["source"].tolist() for index in loader] == [[0.25] * 50]
