"""The part ``serving`` of ``nast-s2x benchmark``: many streams at once, with audio that arrives in real time.

Computing times are measured; the clock of the streams is not waited for. Audio of each stream arrives in pieces of
80 ms, the streams shifted against each other at random; whenever a step of the engine has ended, the clock has moved on
by the time that it took, and the next step takes every stream whose chunk is complete by then.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nast_s2x.benchmarks.speech import random_vocoder
from nast_s2x.benchmarks.streaming import TEXT_VOCAB, UNIT_VOCAB, random_model
from nast_s2x.benchmarks.timing import Setting, now
from nast_s2x.chunking import ChunkPolicy
from nast_s2x.device import DTYPES
from nast_s2x.errors import ConfigError
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.inference.engine import BatchedEngine, EngineStream
from nast_s2x.inference.system import System
from nast_s2x.labels import NUM_SPECIALS, TextLabels, UnitLabels
from nast_s2x.vocoder.config import VocoderConfig

PIECE_MS = 80
SETTLED = 0.5
"""Share of each stream that is not counted: at its start the past is short, and chunks cost less."""


def run_serving(args: argparse.Namespace) -> dict[str, Any]:
    """Streams of an engine with random weights, text and units, with ``--speech`` also the waveform.

    Returns:
        rows, one for each number of ``--streams``: streams, step_ms_p50 and step_ms_p95 (computing time of a step),
        delay_ms_p50 and delay_ms_p95 (from the arrival of the last sample that a chunk needs to its emission), load
        (computing time per time), rows_per_step (mean); capacity, the largest number of streams found whose
        delay_ms_p95 is below one chunk (with ``--capacity``, else the largest of ``--streams``; 0: none); seconds,
        chunk_ms, left_ms, parameters, threads, device, dtype.
    Raises:
        ConfigError: not one chunk size in ms, or a device that is not available.
    """
    policies = ChunkPolicy.parse(args.chunk_ms, left_ms=args.left_ms)
    if len(policies) != 1 or policies[0].is_offline:
        raise ConfigError(f"serving takes one --chunk-ms in ms, got {args.chunk_ms}")
    setting = Setting.of(args, "serving", tuple(DTYPES))
    system = random_system(args.preset, args.seconds, policies[0], setting, args.speech)
    run_once(system, 1, 2.0, args.speech)
    rows = [run_once(system, count, args.seconds, args.speech) for count in args.streams]
    if args.capacity:
        rows += _search(system, args, policies[0].chunk_ms or 0, rows)
    return {
        "rows": rows,
        "capacity": max(
            (row["streams"] for row in rows if row["delay_ms_p95"] < (policies[0].chunk_ms or 0)), default=0
        ),
        "seconds": args.seconds,
        "chunk_ms": policies[0].chunk_ms,
        "left_ms": args.left_ms,
        "parameters": sum(parameter.numel() for parameter in system.model.parameters()),
        "threads": args.threads,
        **setting.describe(),
    }


def _search(
    system: System, args: argparse.Namespace, chunk_ms: int, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """More rows, until a number that is fast enough and one that is not differ by less than a tenth."""
    good = max((row["streams"] for row in rows if row["delay_ms_p95"] < chunk_ms), default=0)
    bad = min((row["streams"] for row in rows if row["streams"] > good), default=None)
    found: list[dict[str, Any]] = []
    while bad is None or (bad - good > 1 and bad - good > good / 10):
        count = max(1, 2 * good) if bad is None else (good + bad) // 2
        found.append(run_once(system, count, args.seconds, args.speech))
        if found[-1]["delay_ms_p95"] < chunk_ms:
            good = count
        else:
            bad = count
    return found


def random_system(name: str, seconds: float, policy: ChunkPolicy, setting: Setting, speech: bool) -> System:
    """A system of a preset's size with random weights, and with ``speech`` a vocoder of the published size."""
    model = setting.convert(random_model(name, seconds + 1))
    pieces = [f"\u2581w{number}" for number in range(TEXT_VOCAB - NUM_SPECIALS - 1)]
    vocoder = random_vocoder(VocoderConfig()).to(setting.device) if speech else None
    units = UnitLabels.of_size(UNIT_VOCAB)
    return System(model, TextLabels(pieces), units, None, (policy,), vocoder)


@dataclass
class _Client:
    """A stream and when its audio arrives.

    Attributes:
        phase_ms: arrival of its first sample.
        sent: samples pushed.
    """

    stream: EngineStream
    phase_ms: float
    sent: int = 0
    delays: list[float] = field(default_factory=list)

    @property
    def next_ms(self) -> float:
        """When the next piece has arrived."""
        return self.phase_ms + 1000 * self.sent / SAMPLE_RATE + PIECE_MS


def run_once(system: System, count: int, seconds: float, speech: bool) -> dict[str, Any]:
    """Figures of ``count`` streams of ``seconds`` each."""
    random = np.random.default_rng(0)
    policy, device = system.trained[0], system.device
    engine = BatchedEngine(system, count, policy, with_speech=speech)
    sound = random.normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)
    clients = [_Client(engine.open(), float(phase)) for phase in random.uniform(0, policy.chunk_ms or 0, count)]
    by_stream = {client.stream: client for client in clients}
    clock, busy, steps, moved = 0.0, 0.0, [], 0
    while len(engine):
        begun = time.perf_counter()
        for client in clients:
            _send(client, sound, clock)
        took = 1000 * (time.perf_counter() - begun)
        clock, busy = clock + took, busy + took
        ready = sum(stream.is_ready for stream in by_stream)
        if not ready:
            clock = max(clock, min(client.next_ms for client in clients if not client.stream.is_done))
            continue
        begun = now(device)
        emissions = engine.step()
        took = 1000 * (now(device) - begun)
        clock, busy = clock + took, busy + took
        if clock > 1000 * seconds * SETTLED:
            steps.append(took)
            moved += ready
        for stream, emission in emissions:
            by_stream[stream].delays.append(clock - by_stream[stream].phase_ms - emission.source_ms)
    delays = [delay for client in clients for delay in client.delays[int(len(client.delays) * SETTLED) :]]
    return {
        "streams": count,
        "step_ms_p50": float(np.median(steps)),
        "step_ms_p95": float(np.percentile(steps, 95)),
        "delay_ms_p50": float(np.median(delays)),
        "delay_ms_p95": float(np.percentile(delays, 95)),
        "load": busy / clock,
        "rows_per_step": moved / len(steps),
    }


def _send(client: _Client, sound: np.ndarray, clock: float) -> None:
    """Push the pieces that have arrived."""
    size = PIECE_MS * SAMPLE_RATE // 1000
    while client.next_ms <= clock and client.sent < len(sound):
        piece = sound[client.sent : client.sent + size]
        client.sent += size
        client.stream.push(piece, SAMPLE_RATE, final=client.sent >= len(sound))
