"""The engine: every stream gets what it gets alone, whatever the others do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_system import make_bundle, make_signal

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.errors import AudioError, ConfigError, StreamError
from nast_s2x.inference.engine import BatchedEngine, EngineStream
from nast_s2x.inference.streaming import Emission, TranslationStream
from nast_s2x.inference.system import System

SIGNAL = make_signal(12.0, seed=9)
POLICIES = (ChunkPolicy(320, left_chunks=3), ChunkPolicy(160, 120, wait_chunks=1, left_chunks=1))


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> System:
    return make_bundle(tmp_path_factory.mktemp("exact"), dtype=torch.float64)


class SharedEngine(BatchedEngine):
    """An engine with one state for all streams, as on a GPU."""

    def __init__(self, system: System, slots: int, policy: ChunkPolicy, **options: bool) -> None:
        super().__init__(system, slots, policy, **options)
        self._shared = system.model.init_state(self.policy, slots)


def alone(system: System, policy: ChunkPolicy, samples: np.ndarray) -> list[Emission]:
    stream = TranslationStream(system, policy)
    return [*stream.push(samples), *stream.push([], final=True)]


def contents(emissions: list[Emission]) -> tuple[list, list, str, list]:
    return (
        [token for emission in emissions for token in emission.tokens],
        [unit for emission in emissions for unit in emission.units],
        "".join(emission.delta for emission in emissions),
        [(emission.chunk, emission.source_ms) for emission in emissions if emission.tokens or emission.units],
    )


@pytest.mark.parametrize("policy", [*POLICIES, ChunkPolicy(320)], ids=str)
@pytest.mark.parametrize("kind", [BatchedEngine, SharedEngine])
def test_streams_join_pause_and_end_in_any_order(exact: System, kind: type, policy: ChunkPolicy) -> None:
    if kind is SharedEngine and policy.left_chunks is None:
        pytest.skip("a shared state has a limited past")
    random = np.random.default_rng(4)
    lengths = [61234, 400, 399, 0, 24680, 5200, 40000, 16000, 33333, 720]
    sources = [SIGNAL[start : start + length] for start, length in zip(range(0, 100000, 7000), lengths)]
    engine, todo = kind(exact, 3, policy), list(range(len(sources)))
    place: dict[EngineStream, int] = {}
    pushed, got = [0] * len(sources), [[] for _ in sources]
    while todo or any(not stream.is_done for stream in place):
        if todo and len(engine) < 3 and random.random() < 0.5:
            place[engine.open()] = todo.pop()
        for stream, number in place.items():
            if stream.is_done or stream._track.input.is_finished or random.random() < 0.5:
                continue
            count = int(random.integers(0, 6000))
            piece = sources[number][pushed[number] : pushed[number] + count]
            pushed[number] += len(piece)
            stream.push(piece, final=pushed[number] == len(sources[number]) and random.random() < 0.7)
        for stream, emission in engine.step():
            got[place[stream]].append(emission)
    for number, samples in enumerate(sources):
        assert contents(got[number]) == contents(alone(exact, policy, samples)), number
        assert [emission.final for emission in got[number]] == [False] * (len(got[number]) - 1) + [True] * (
            len(got[number]) > 0
        )
    assert len(engine) == 0


@pytest.mark.parametrize("kind", [BatchedEngine, SharedEngine])
def test_a_fault_ends_one_stream(exact: System, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = kind(exact, 3, POLICIES[0])
    good, bad, closed = engine.open(), engine.open(), engine.open()
    with pytest.raises(StreamError, match="all 3 slots of the engine are in use"):
        engine.open()
    with pytest.raises(AudioError, match="NaN|nan|finite"):
        bad.push(np.full(100, np.nan))
    assert not bad.is_done  # a refused piece changes nothing
    monkeypatch.setattr(bad._track.output, "emissions", lambda *_: 1 / 0)
    for stream in (good, bad, closed):
        stream.push(SIGNAL[:30000])
    closed.close()
    closed.close()
    got = []
    good.push(SIGNAL[30000:50000], final=True)
    while not good.is_done:
        got += engine.step()
    assert isinstance(bad.error, ZeroDivisionError) and bad.is_done and len(engine) == 0
    assert {stream for stream, _ in got} == {good}
    assert contents([emission for _, emission in got]) == contents(alone(exact, POLICIES[0], SIGNAL[:50000]))
    with pytest.raises(StreamError, match="has ended"):
        closed.push(SIGNAL[:100])
    again = [engine.open() for _ in range(3)]
    assert sorted(stream.slot for stream in again) == [0, 1, 2]


def test_speech_and_units_are_those_of_the_stream_alone(exact: System) -> None:
    engine = BatchedEngine(exact, 1, POLICIES[0], with_units=False)
    stream = engine.open()
    stream.push(SIGNAL[:40000], final=True)
    emissions = []
    while not stream.is_done:
        emissions += [emission for _, emission in engine.step()]
    expected = alone(exact, POLICIES[0], SIGNAL[:40000])
    assert [replace(emission, units=[]) for emission in expected if emission.tokens] == [
        emission for emission in emissions if emission.tokens
    ]
    assert stream.waiting_ms == 0


def test_an_engine_needs_chunks_and_on_a_gpu_a_limited_past(exact: System, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cannot be offline"):
        BatchedEngine(exact, 2, ChunkPolicy(None))
    monkeypatch.setattr(System, "device", torch.device("cuda"))
    with pytest.raises(ConfigError, match="needs a left context"):
        BatchedEngine(exact, 2, ChunkPolicy(320))
