"""The thread that owns the engines: audio of all sessions in, emissions out."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nast_s2x.errors import NastError
from nast_s2x.inference import System
from nast_s2x.inference.emission import Emission
from nast_s2x.inference.engine import BatchedEngine, EngineStream
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
    """

    accepted: int = 0
    refused: int = 0
    failed: int = 0
    emissions: int = 0
    audio_seconds: float = 0.0
    steps: int = 0
    step_seconds: float = 0.0
    recent: deque[tuple[float, float]] = field(default_factory=deque)

    def add_step(self, seconds: float) -> None:
        """Count a step that has ended now."""
        self.steps, self.step_seconds = self.steps + 1, self.step_seconds + seconds
        self.recent.append((time.monotonic(), seconds))

    @property
    def load(self) -> float:
        """Computing time per time over the last seconds."""
        now = time.monotonic()
        while self.recent and self.recent[0][0] < now - _LOAD_SECONDS:
            self.recent.popleft()
        return sum(seconds for _, seconds in list(self.recent)) / _LOAD_SECONDS


class Seat:
    """One source of a session; made by :meth:`Worker.open`."""

    def __init__(self, worker: Worker, wishes: Wishes, deliver: Callable[[Result], None]) -> None:
        self._worker, self.wishes, self.deliver = worker, wishes, deliver
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
        """Milliseconds of audio that were pushed and not translated yet."""
        stream = self.stream
        return self._pushed_ms if stream is None else self._pushed_ms - stream.source_ms + stream.waiting_ms

    def close(self) -> None:
        """Drop the source; nothing more is delivered."""
        if self.is_open:
            self._worker.put(self, np.zeros(0, np.int16), 0, False)


class Worker(threading.Thread):
    """Runs engines, one for each chunk size and with or without voice, all of them with one set of slots.

    Args:
        system: the trained system.
        slots: sources at a time.
        chunk_ms: of sessions that name none; ``None``: the system's default.
    """

    def __init__(self, system: System, slots: int, chunk_ms: int | None = None) -> None:
        super().__init__(name="nast-s2x-engine", daemon=True)
        self.system, self.slots, self.figures = system, slots, Figures()
        self._chunk_ms = chunk_ms
        self._engines: dict[Wishes, BatchedEngine] = {}
        self._seats: dict[EngineStream, Seat] = {}
        self._open = 0
        self._durations: deque[float] = deque(maxlen=50)
        self._begun: dict[Seat, float] = {}
        self._wake = threading.Condition()
        self._inbox: list[tuple[Seat, NDArray[np.int16], int, bool]] = []
        self._stopping = False

    @property
    def in_use(self) -> int:
        """Slots that are taken."""
        return self._open

    def open(self, wishes: Wishes, deliver: Callable[[Result], None]) -> Seat:
        """A place for a source; ``deliver`` is called by the worker's thread.

        Raises:
            FullError: all slots are taken, or the machine is at its limit.
            ConfigError: a chunk size that the model cannot have.
        """
        self.system.policy(wishes.chunk_ms or self._chunk_ms)
        with self._wake:
            reason = None
            if self._open >= self.slots:
                reason = f"all {self.slots} slots are in use"
            elif self.figures.load > FULL_LOAD:
                reason = f"the server is at its limit ({self.figures.load:.0%} load)"
            if reason is not None:
                self.figures.refused += 1
                raise FullError(reason, self._retry_after())
            self._open += 1
            self.figures.accepted += 1
            seat = Seat(self, wishes, deliver)
            self._begun[seat] = seat.begun
        return seat

    def _retry_after(self) -> float:
        """Seconds until a slot is likely to be free: the usual length of a source, less the age of the oldest."""
        if not self._durations or not self._begun:
            return RETRY_SECONDS
        age = time.monotonic() - min(self._begun.values())
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
                seat.stream = self._engine(seat.wishes).open()
                self._seats[seat.stream] = seat
            seat.stream.push(samples, rate, final)
        except Exception as error:  # whatever it is, it concerns this source alone
            self._end(seat, error)

    def _engine(self, wishes: Wishes) -> BatchedEngine:
        if wishes not in self._engines:
            policy = self.system.policy(wishes.chunk_ms or self._chunk_ms)
            voice = wishes.voice and self.system.vocoder is not None
            self._engines[wishes] = BatchedEngine(self.system, self.slots, policy, voice, voice)
        return self._engines[wishes]

    def _step(self, engine: BatchedEngine) -> None:
        begun = time.perf_counter()
        emitted = engine.step()
        self.figures.add_step(time.perf_counter() - begun)
        for stream, emission in emitted:
            self.figures.emissions += 1
            self._seats[stream].deliver(emission)
        for stream in [stream for stream in self._seats if stream.is_done]:
            self._end(self._seats[stream], stream.error, deliver=True)

    def _end(self, seat: Seat, error: Exception | None = None, deliver: bool = False) -> None:
        """Free the slot; delivers ``error``, or with ``deliver`` the end."""
        seat.is_open = False
        if seat.stream is not None:
            self.figures.audio_seconds += seat.stream.source_ms / 1000
            seat.stream.close()
            self._seats.pop(seat.stream, None)
        with self._wake:
            self._open -= 1
            self._durations.append(time.monotonic() - seat.begun)
            self._begun.pop(seat, None)
        if error is not None:
            self.figures.failed += 1
        if error is not None or deliver:
            seat.deliver(error)
