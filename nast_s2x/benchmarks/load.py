"""The part ``load`` of ``nast-s2x benchmark``: a server under many sessions in real time and clients that misbehave.

The server runs in a process of its own, on loopback. Half of the sessions use simulstream's protocol, half the
Realtime translation protocol; half of each have one source for the whole time, the others one source after the other.
Every text is compared with that of a stream in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import difflib
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import torch
from numpy.typing import NDArray

from nast_s2x.benchmarks.load_clients import (
    MISDEEDS,
    RATES,
    REALTIME,
    SIMULSTREAM,
    Outcome,
    Record,
    Talk,
    flood,
    healthy,
    misbehave,
)
from nast_s2x.device import parse_dtype
from nast_s2x.errors import ConfigError, NastError
from nast_s2x.frontend.audio import load_audio
from nast_s2x.inference import System, load_system

SHORT_SECONDS = 15.0
"""Length of the sources of sessions that have several, or a third of the whole time."""
SHORT_TALKS = 2
"""Different ones, in each protocol."""
LATE_SECONDS, LATE_SHARE = 30.0, 3.0
"""Time that sessions have after the end, and a share of the whole time that is added: on a machine that is too slow for
all of them in real time they are late, and still lose nothing."""
SETTLING_SECONDS = 10.0
"""Time in which all slots must be free after the last client has gone."""


def run_load(args: argparse.Namespace) -> dict[str, Any]:
    """Serve ``--sessions`` healthy clients for ``--seconds`` with others among them.

    Returns:
        sessions, sources, sources_equal (texts equal to those of a stream in this process), sessions_equal (all of
        their sources), words, words_lost, words_added; the same of sources sent as fast as the server took them
        (unpaced_sources, unpaced_equal); delay_ms_p50 and delay_ms_p95 from the moment when the last sample that an
        emission needs was spoken to its arrival; refused (sources tried again, because the server had no room);
        memory_mb_quarter and memory_mb_end of the server after a quarter of the time and at the end, memory_growth (a
        share); slots_in_use_end; connections_end; misdeeds by kind; metrics of the server; problems, for which the
        exit status is 1.
    Raises:
        ConfigError: no recordings, or no bundle.
        NastError: the server does not start.
    """
    if args.model is None:
        raise ConfigError("load needs --model BUNDLE")
    torch.set_num_threads(args.threads)
    system = load_system(args.model, device=args.device, dtype=parse_dtype(args.dtype))
    talks = make_talks(system, args, _recordings(args))
    with running_server(args, slots=args.sessions + len(MISDEEDS) + 2) as server:
        record, figures = asyncio.run(_clients(server, args, talks))
        figures["slots_in_use_end"], figures["connections_end"] = asyncio.run(server.settled())
        figures["metrics"] = server.metrics()
        if server.process.poll() is not None:
            figures["problems"] = [f"the server has ended with status {server.process.returncode}"]
    return summary(args.sessions, record) | figures | {"problems": _problems(record, figures)}


def _recordings(args: argparse.Namespace) -> list[NDArray[np.float32]]:
    """Recordings of ``--recordings``, by default those beside the bundle; (n,) at 16 kHz each."""
    folder = Path(args.recordings or Path(args.model).resolve().parent / "recordings")
    paths = sorted(path for path in folder.glob("*") if path.suffix in (".flac", ".wav", ".ogg", ".mp3"))
    if not paths:
        raise ConfigError(f"{folder}: no recordings there: name a folder of sound files with --recordings")
    return [load_audio(path) for path in paths[:50]]


# --- what is said -------------------------------------------------------------------------------------------------


def make_talks(
    system: System, args: argparse.Namespace, recordings: list[NDArray[np.float32]]
) -> dict[str, list[Talk]]:
    """For each protocol, first a source for nearly the whole time, then shorter ones."""
    random = np.random.default_rng(0)
    lengths = [0.85 * args.seconds] + [min(SHORT_SECONDS, args.seconds / 3)] * SHORT_TALKS
    talks: dict[str, list[Talk]] = {}
    for path, rate in RATES.items():
        talks[path] = [_make_talk(system, args.chunk_ms, recordings, random, seconds, rate) for seconds in lengths]
    return talks


def _make_talk(
    system: System,
    chunk_ms: str,
    recordings: list[NDArray[np.float32]],
    random: np.random.Generator,
    seconds: float,
    rate: int,
) -> Talk:
    """Recordings in any order, with pauses of 0.2 to 1 s, and their translation."""
    from nast_s2x.frontend.resampling import StreamResampler

    pieces: list[NDArray[np.float32]] = []
    while sum(map(len, pieces)) < seconds * 16000:
        pieces += [recordings[random.integers(len(recordings))], np.zeros(random.integers(3200, 16000), np.float32)]
    sound = np.concatenate(pieces)[: round(seconds * 16000)]
    resampled = StreamResampler(16000, rate).push(sound, final=True)
    samples = np.clip(np.rint(resampled * 32768), -32768, 32767).astype("<i2")
    stream = system.stream(chunk_ms=chunk_ms, with_units=False)
    emissions = [*stream.push(samples, rate), *stream.push([], final=True)]
    return Talk(samples, rate, [(emission.source_ms, emission.delta) for emission in emissions if emission.text])


# --- the server ---------------------------------------------------------------------------------------------------


@dataclass
class ServerProcess:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"ws://127.0.0.1:{self.port}"

    def _get(self, path: str) -> str:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.read().decode()
        except HTTPError as error:  # /health of a full server
            return error.read().decode()

    def metrics(self) -> dict[str, float]:
        """Figures of ``/metrics`` by their names, without the prefix."""
        lines = [line.split() for line in self._get("/metrics").splitlines() if not line.startswith("#")]
        return {name.removeprefix("nast_s2x_"): float(value) for name, value in lines}

    def memory_mb(self) -> float | None:
        """Resident memory; ``None`` on systems without /proc."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return None
        return round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1)

    def connections(self) -> int | None:
        """Open connections, those that listen and belong to the event loop included; ``None`` without /proc."""
        try:
            links = [path.readlink() for path in Path(f"/proc/{self.process.pid}/fd").iterdir()]
        except OSError:
            return None
        return sum(str(link).startswith("socket:") for link in links)

    async def settled(self) -> tuple[int, int | None]:
        """Slots in use and open connections, once none is in use or after :data:`SETTLING_SECONDS`."""
        for _ in range(round(SETTLING_SECONDS / 0.25)):
            in_use = int((await asyncio.to_thread(self.metrics))["slots_in_use"])
            if not in_use:
                break
            await asyncio.sleep(0.25)
        return in_use, self.connections()


@contextlib.contextmanager
def running_server(args: argparse.Namespace, slots: int) -> Iterator[ServerProcess]:
    """A server with the bundle of the flags, on a free port of loopback.

    Raises:
        NastError: it does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", "--model", str(args.model), "--port", str(port), "--slots", str(slots)]
    words += ["--chunk-ms", args.chunk_ms, "--threads", str(args.threads)]
    words += ["--device", args.device, "--dtype", args.dtype]
    command = [sys.executable, "-m", "nast_s2x.cli.main", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline().startswith("ready: "):
                raise NastError("the server did not start")
            yield ServerProcess(process, port)
        finally:
            process.terminate()
            try:
                process.wait(SETTLING_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


# --- the clients --------------------------------------------------------------------------------------------------


async def _clients(
    server: ServerProcess, args: argparse.Namespace, talks: dict[str, list[Talk]]
) -> tuple[Record, dict[str, Any]]:
    """Run all clients; returns what has happened, and the memory of the server."""
    loop, record, random = asyncio.get_running_loop(), Record(), np.random.default_rng(1)
    end = loop.time() + args.seconds
    sessions = []
    for number in range(args.sessions):
        path = (SIMULSTREAM, REALTIME)[number % 2]
        chosen = talks[path][:1] if number % 4 < 2 else talks[path][1:]
        # Not all at once, and not in step.
        delay = float(random.uniform(0, 0.1 * args.seconds))
        sessions.append(asyncio.create_task(healthy(server.url, path, number, chosen, end, record, min(delay, 5.0))))
    others = [asyncio.create_task(misbehave(server.url, name, talks[SIMULSTREAM][1], record)) for name in MISDEEDS]
    others.append(asyncio.create_task(flood(server.url, talks[SIMULSTREAM][1], record)))
    await asyncio.sleep(0.25 * args.seconds)
    quarter = server.memory_mb()
    await asyncio.sleep(max(0.0, end - loop.time()))
    last = server.memory_mb()
    # A server that cannot keep up makes its clients wait: they are late, but nothing is lost.
    _, late = await asyncio.wait(sessions, timeout=LATE_SECONDS + LATE_SHARE * args.seconds)
    for task in [*late, *others]:
        task.cancel()
    results = await asyncio.gather(*sessions, *others, return_exceptions=True)
    faults = [result for result in results if isinstance(result, Exception)]
    if faults:
        raise faults[0]
    growth = None if quarter is None or last is None else round(last / quarter - 1, 4)
    return record, {
        "memory_mb_quarter": quarter,
        "memory_mb_end": last,
        "memory_growth": growth,
        "sessions_late": len(late),
    }


# --- figures ------------------------------------------------------------------------------------------------------


def summary(sessions: int, record: Record) -> dict[str, Any]:
    """Figures of the sources."""
    paced = [outcome for outcomes in record.outcomes.values() for outcome in outcomes]
    delays = 1000 * np.array([delay for outcome in paced for delay in outcome.delays] or [np.nan])
    lost, added = (sum(changes) for changes in zip((0, 0), *map(word_changes, [*paced, *record.unpaced])))
    return {
        "sessions": sessions,
        "sessions_equal": sum(all(o.is_equal for o in outcomes) for outcomes in record.outcomes.values() if outcomes),
        "sources": len(paced),
        "sources_equal": sum(outcome.is_equal for outcome in paced),
        "unpaced_sources": len(record.unpaced),
        "unpaced_equal": sum(outcome.is_equal for outcome in record.unpaced),
        "words": sum(len(outcome.talk.text.split()) for outcome in [*paced, *record.unpaced]),
        "words_lost": lost,
        "words_added": added,
        "delay_ms_p50": round(float(np.percentile(delays, 50)), 1),
        "delay_ms_p95": round(float(np.percentile(delays, 95)), 1),
        "refused": record.refused,
        "misdeeds": record.misdeeds,
    }


def word_changes(outcome: Outcome) -> tuple[int, int]:
    """Words of a source that did not come, and words that came and are not its."""
    wanted, got = outcome.talk.text.split(), outcome.text.split()
    if wanted == got:
        return 0, 0
    blocks = difflib.SequenceMatcher(None, wanted, got, autojunk=False).get_matching_blocks()
    common = sum(block.size for block in blocks)
    return len(wanted) - common, len(got) - common


def _problems(record: Record, figures: dict[str, Any]) -> list[str]:
    """What must not be."""
    problems = list(figures.get("problems", []))
    for number, outcomes in record.outcomes.items():
        if not outcomes:
            problems.append(f"session {number} had no source")
    named = [(f"session {number}", o) for number, outcomes in record.outcomes.items() for o in outcomes]
    for name, outcome in [*named, *(("unpaced", outcome) for outcome in record.unpaced)]:
        if not outcome.is_equal:
            lost, added = word_changes(outcome)
            problems.append(f"{name}: {outcome.error or 'another text'}: {lost} words lost, {added} added")
    if figures["sessions_late"]:
        problems.append(f"{figures['sessions_late']} sessions did not end")
    if figures["slots_in_use_end"]:
        problems.append(f"{figures['slots_in_use_end']} slots are in use without a client")
    return problems
