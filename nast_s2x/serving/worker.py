"""The thread that owns the engines: audio of all sessions in, emissions out."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from nast_s2x.errors import ConfigError, NastError
from nast_s2x.inference import System
from nast_s2x.inference.emission import Emission
from nast_s2x.inference.engine import BatchedEngine, EngineStream
from nast_s2x.inference.streaming import ChunkPolicy
from nast_s2x.serving.protocols.base import Wishes

Result = Emission | Exception | None
"""An emission, what ended the source, or ``None`` after the last emission."""

RETRY_SECONDS = 5.0
"""Least time after which a client that was refused is asked to come back."""
FULL_LOAD = 0.9
"""Computing time per time above which no new source is accepted."""
_LOAD_SECONDS = 5.0  # over which the load is measured


class FullError(NastError):
    """No source can be accepted now.

    Attributes:
        retry_after: seconds after which it is worth to try again.
    """

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(f"{reason}: try again in {retry_after:.0f} s")
        self.retry_after = retry_after


@dataclass
class Figures:
    """Counters since the start, and the computing time of recent steps.

    Attributes:
        accepted, refused, failed: sources.
        emissions: sent.
        audio_seconds: of sources translated.
        steps, step_seconds: number and computing time of steps.
        recent: of the last steps the time of its end, its computing time, and the audio that it translated, seconds.
    """

    accepted: int = 0
    refused: int = 0
    failed: int = 0
    emissions: int = 0
    audio_seconds: float = 0.0
    steps: int = 0
    step_seconds: float = 0.0
    recent: deque[tuple[float, float, float]] = field(default_factory=deque)

    def add_step(self, seconds: float, audio_seconds: float) -> None:
        """Count a step that has ended now."""
        self.steps, self.step_seconds = self.steps + 1, self.step_seconds + seconds
        self.recent.append((time.monotonic(), seconds, audio_seconds))

    @property
    def load(self) -> float:
        """Computing time per time over the last seconds."""
        return self._recently()[0] / _LOAD_SECONDS

    def needed_load(self, sources: int) -> float:
        """The part of :attr:`load` that these sources need at the speed of speech.

        A client that sends faster takes what is left of the machine, which must keep nobody else out.
        """
        seconds, audio_seconds = self._recently()
        return min(seconds / _LOAD_SECONDS, sources * seconds / audio_seconds if audio_seconds else 0.0)

    def _recently(self) -> tuple[float, float]:
        """Computing time of the last seconds, and the audio that it translated."""
        now = time.monotonic()
        while self.recent and self.recent[0][0] < now - _LOAD_SECONDS:
            self.recent.popleft()
        steps = list(self.recent)
        return sum(step[1] for step in steps), sum(step[2] for step in steps)


class Seat:
    """One source of a session; made by :meth:`Worker.open`."""

    def __init__(self, worker: Worker, policy: ChunkPolicy, wishes: Wishes, deliver: Callable[[Result], None]) -> None:
        self._worker, self.policy, self.wishes, self.deliver = worker, policy, wishes, deliver
        self.begun = time.monotonic()
        self.stream: EngineStream | None = None
        self.is_open = True
        self._pushed_ms = 0.0

    def push(self, samples: NDArray[np.int16], rate: int, final: bool = False) -> None:
        """Give the next piece to the worker; what is wrong with it is delivered."""
        self._pushed_ms += 1000 * len(samples) / rate
        self._worker.put(self, samples, rate, final)

    @property
    def backlog_ms(self) -> float:
        """Milliseconds of audio that were pushed and not translated, beyond what a chunk and its look-ahead need."""
        stream = self.stream
        pushed = self._pushed_ms if stream is None else self._pushed_ms - stream.source_ms + stream.waiting_ms
        return pushed - (self.policy.chunk_ms or 0) - (self.policy.lookahead_ms or 0)

    def close(self) -> None:
        """Drop the source; nothing more is delivered."""
        if self.is_open:
            self._worker.put(self, np.zeros(0, np.int16), 0, False)


class Worker(threading.Thread):
    """Runs engines, one for each chunk size, with or without voice and transcript; all have one set of slots.

    Args:
        system: the trained system.
        slots: sources at a time.
        policy: of sessions that name no chunk size; ``None``: the system's default.
    Raises:
        ConfigError: an offline policy.
    """

    def __init__(self, system: System, slots: int, policy: ChunkPolicy | None = None) -> None:
        super().__init__(name="nast-s2x-engine", daemon=True)
        self.system, self.slots, self.figures = system, slots, Figures()
        self._policy = system.policy() if policy is None else policy
        if self._policy.is_offline:
            raise ConfigError("a server translates chunk by chunk: `chunk_ms` cannot be offline")
        self._engines: dict[tuple[ChunkPolicy, bool, bool], BatchedEngine] = {}
        self._seats: dict[EngineStream, Seat] = {}
        self._open: set[Seat] = set()
        self._durations: deque[float] = deque(maxlen=50)
        self._wake = threading.Condition()
        self._inbox: list[tuple[Seat, NDArray[np.int16], int, bool]] = []
        self._stopping = False

    @property
    def in_use(self) -> int:
        """Slots that are taken."""
        return len(self._open)

    def open(self, wishes: Wishes, deliver: Callable[[Result], None]) -> Seat:
        """A place for a source; ``deliver`` is called by the worker's thread.

        Raises:
            FullError: all slots are taken, or the machine is at its limit.
            ConfigError: a chunk size that the model was not trained for, or a transcript that it does not have.
        """
        policy = self._policy_of(wishes)
        wishes = replace(wishes, voice=wishes.voice and self.system.vocoder is not None)
        if wishes.transcript:
            self.system.require_recognition()
        with self._wake:
            reason = None
            if self.in_use >= self.slots:
                reason = f"all {self.slots} slots are in use"
            elif (load := self.figures.needed_load(self.in_use)) > FULL_LOAD:
                reason = f"the server is at its limit ({load:.0%} load)"
            if reason is not None:
                self.figures.refused += 1
                raise FullError(reason, self._retry_after())
            self.figures.accepted += 1
            seat = Seat(self, policy, wishes, deliver)
            self._open.add(seat)
        return seat

    @property
    def policies(self) -> dict[int, ChunkPolicy]:
        """Policies that a session can have, by chunk size in ms, the default first.

        Besides the default only those of the training, because each has an engine of its own.
        """
        assert self._policy.chunk_ms is not None
        sizes = sorted({policy.chunk_ms for policy in self.system.trained if policy.chunk_ms is not None})
        found = {self._policy.chunk_ms: self._policy}
        return found | {size: self.system.policy(size) for size in sizes if size not in found}

    def _policy_of(self, wishes: Wishes) -> ChunkPolicy:
        """The policy of a session."""
        policies = self.policies
        if wishes.chunk_ms is None:
            return self._policy
        if wishes.chunk_ms not in policies:
            sizes = ", ".join(map(str, sorted(policies)))
            raise ConfigError(f"`chunk_ms` must be one of {sizes}, but is {wishes.chunk_ms}")
        return policies[wishes.chunk_ms]

    def _retry_after(self) -> float:
        """Seconds until a slot is likely to be free: the usual length of a source, less the age of the oldest."""
        if not self._durations or not self._open:
            return RETRY_SECONDS
        age = time.monotonic() - min(seat.begun for seat in self._open)
        return max(RETRY_SECONDS, float(np.median(self._durations)) - age)

    def put(self, seat: Seat, samples: NDArray[np.int16], rate: int, final: bool) -> None:
        """Queue a piece of a source; a rate of 0 drops the source."""
        with self._wake:
            self._inbox.append((seat, samples, rate, final))
            self._wake.notify()

    def stop(self) -> None:
        """End the thread after the step that it is in."""
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def run(self) -> None:
        """Take pieces and step, until :meth:`stop`."""
        while True:
            with self._wake:
                while not (self._inbox or self._stopping or any(engine.is_ready for engine in self._engines.values())):
                    self._wake.wait()
                if self._stopping:
                    return
                pieces, self._inbox = self._inbox, []
            for piece in pieces:
                self._take(*piece)
            for engine in list(self._engines.values()):
                if engine.is_ready:
                    self._step(engine)

    def _take(self, seat: Seat, samples: NDArray[np.int16], rate: int, final: bool) -> None:
        if not seat.is_open:
            return
        if rate == 0:
            self._end(seat)
            return
        try:
            if seat.stream is None:
                seat.stream = self._engine(seat).open()
                self._seats[seat.stream] = seat
            seat.stream.push(samples, rate, final)
        except Exception as error:  # whatever it is, it concerns this source alone
            self._end(seat, error)

    def _engine(self, seat: Seat) -> BatchedEngine:
        voice, transcript = seat.wishes.voice, seat.wishes.transcript
        key = (seat.policy, voice, transcript)
        if key not in self._engines:
            self._engines[key] = BatchedEngine(
                self.system, self.slots, seat.policy, voice, voice, with_transcript=transcript
            )
        return self._engines[key]

    def _step(self, engine: BatchedEngine) -> None:
        begun = time.perf_counter()
        try:
            emitted = engine.step()
        except Exception as error:  # of the whole step: its sources end, and those of other engines go on
            self._drop(engine, error)
            return
        chunk_seconds = (engine.policy.chunk_ms or 0) / 1000
        self.figures.add_step(time.perf_counter() - begun, len(emitted) * chunk_seconds)
        for stream, emission in emitted:
            self.figures.emissions += 1
            self._seats[stream].deliver(emission)
        for stream in [stream for stream in self._seats if stream.is_done]:
            self._end(self._seats[stream], stream.error, deliver=True)

    def _drop(self, engine: BatchedEngine, error: Exception) -> None:
        """End all sources of an engine; the next one gets a new engine."""
        self._engines = {key: other for key, other in self._engines.items() if other is not engine}
        for stream, seat in list(self._seats.items()):
            if stream.engine is engine:
                self._end(seat, error)

    def _end(self, seat: Seat, error: Exception | None = None, deliver: bool = False) -> None:
        """Free the slot; delivers ``error``, or with ``deliver`` the end."""
        seat.is_open = False
        if seat.stream is not None:
            self.figures.audio_seconds += seat.stream.source_ms / 1000
            seat.stream.close()
            self._seats.pop(seat.stream, None)
        with self._wake:
            self._open.discard(seat)
            self._durations.append(time.monotonic() - seat.begun)
        if error is not None:
            self.figures.failed += 1
        if error is not None or deliver:
            seat.deliver(error)
