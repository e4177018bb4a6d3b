"""Microphone and loudspeaker, by PortAudio (package ``sounddevice``).

PortAudio calls back from a thread of its own, which must never wait. The microphone's callback puts samples into a
bounded queue; the loudspeaker's takes them from a ring buffer. Samples that find the queue full are counted, and so is
everything that the device itself reports as lost.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nast_s2x.errors import AudioError
from nast_s2x.frontend.resampling import StreamResampler
from nast_s2x.frontend.samples import SAMPLE_RATE

QUEUE_SECONDS = 30.0
"""Captured audio that may wait; beyond it samples are lost, and counted."""
PLAYBACK_SECONDS = 60.0
"""Speech that may wait to be played; beyond it :meth:`Loudspeaker.write` waits."""
SILENT_SECONDS = 5.0
"""Longest time without any call of the device, after which it counts as gone."""
_POLL_SECONDS = 0.1  # waiting is cut into these, so that signals are handled


def _sounddevice() -> Any:
    """The package ``sounddevice``.

    Raises:
        AudioError: the system library PortAudio is missing.
        ModuleNotFoundError: the package is not installed.
    """
    try:
        import sounddevice
    except OSError as error:
        raise AudioError(
            f"{error}: install the system package libportaudio2 (Debian, Ubuntu: apt-get install libportaudio2)"
        ) from None
    return sounddevice


def _device_rate(sounddevice: Any, device: int | None, kind: str) -> int:
    """The sample rate that a device prefers, Hz.

    Raises:
        AudioError: there is no such device.
    """
    name = "microphone" if kind == "input" else "loudspeaker"
    which = f"no {name}" if device is None else f"device {device} is no {name}"
    try:
        entry: dict[str, Any] = sounddevice.query_devices(device, kind)
    except (ValueError, sounddevice.PortAudioError) as error:
        raise AudioError(f"{which} ({error}); `python -m sounddevice` lists the devices") from None
    return int(entry["default_samplerate"])


class _Device:
    """An open PortAudio stream, as a context."""

    _stream: Any

    def _open(self, sounddevice: Any, kind: str, name: str, **options: Any) -> None:
        stream_class = getattr(sounddevice, kind)
        try:
            self._stream = stream_class(channels=1, dtype="float32", **options)
            self._stream.start()
        except (ValueError, sounddevice.PortAudioError) as error:
            raise AudioError(f"the {name} cannot be opened: {error}") from None

    def close(self) -> None:
        """Close the device."""
        self._stream.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Microphone(_Device):
    """Captures sound from the moment it is made.

    Args:
        device: number of PortAudio's device; ``None``: the system's default.
        piece_ms: shortest length of a piece, ms.
    Attributes:
        rate: sample rate, the one that the device prefers, Hz.
        overflows: how often the device has reported that it lost samples.
        lost: samples that found the queue full.
    Raises:
        AudioError: PortAudio is missing, no such device, or one that cannot be opened.
    """

    def __init__(self, device: int | None = None, piece_ms: float = 40.0) -> None:
        sounddevice = _sounddevice()
        self.rate = _device_rate(sounddevice, device, "input")
        self.overflows = self.lost = 0
        self._least = max(1, round(self.rate * piece_ms / 1000))
        self._queue: deque[NDArray[np.float32]] = deque()
        self._waiting = 0
        self._change = threading.Condition()
        self._called = time.monotonic()
        self._ended = False
        self._open(
            sounddevice,
            "InputStream",
            "microphone",
            device=device,
            samplerate=self.rate,
            callback=self._capture,
            finished_callback=self._finished,
        )

    def __enter__(self) -> Microphone:
        return self

    def _capture(self, samples: NDArray[np.float32], frames: int, times: Any, status: Any) -> None:
        """Called by PortAudio with (frames, 1) samples."""
        with self._change:
            self._called = time.monotonic()
            self.overflows += bool(status.input_overflow)
            if self._waiting + frames > QUEUE_SECONDS * self.rate:
                self.lost += frames
                return
            self._queue.append(samples[:, 0].copy())
            self._waiting += frames
            self._change.notify()

    def _finished(self) -> None:
        with self._change:
            self._ended = True
            self._change.notify()

    def pieces(self, stopped: Callable[[], bool] = lambda: False) -> Iterator[tuple[NDArray[np.float32], int]]:
        """Captured audio, (samples (n,), rate), until ``stopped()``; then what was captured before that.

        Raises:
            AudioError: the device has stopped.
        """
        while True:
            with self._change:
                while not (done := stopped() or self._is_gone()) and self._waiting < self._least:
                    self._change.wait(_POLL_SECONDS)
                taken, self._waiting = list(self._queue), 0
                self._queue.clear()
            if taken:
                yield np.concatenate(taken), self.rate
            if done:
                if not stopped():
                    raise AudioError("the microphone has stopped")
                return

    def _is_gone(self) -> bool:
        return self._ended or time.monotonic() - self._called > SILENT_SECONDS


class Loudspeaker(_Device):
    """Plays speech without gaps between pieces that are there in time.

    Args:
        device: number of PortAudio's device; ``None``: the system's default.
        source_rate: sample rate of the speech, Hz; it is resampled to what the device prefers.
    Attributes:
        underruns: silences within the speech: a piece came after the one before it had been played.
        underflows: how often the device has reported that it was not served in time.
    Raises:
        AudioError: PortAudio is missing, no such device, or one that cannot be opened.
    """

    def __init__(self, device: int | None = None, source_rate: int = SAMPLE_RATE) -> None:
        sounddevice = _sounddevice()
        self.rate = _device_rate(sounddevice, device, "output")
        self.underruns = self.underflows = 0
        self._resampler = StreamResampler(source_rate, self.rate)
        self._ring = np.zeros(round(PLAYBACK_SECONDS * self.rate), np.float32)
        self._read = self._written = 0  # samples since the start
        self._has_run_dry = False
        self._change = threading.Condition()
        self._called = time.monotonic()
        self._open(
            sounddevice,
            "OutputStream",
            "loudspeaker",
            device=device,
            samplerate=self.rate,
            callback=self._play,
        )

    def __enter__(self) -> Loudspeaker:
        return self

    def _play(self, out: NDArray[np.float32], frames: int, times: Any, status: Any) -> None:
        """Called by PortAudio; fills (frames, 1) with speech, and with silence where there is none."""
        with self._change:
            self._called = time.monotonic()
            self.underflows += bool(status.output_underflow)
            count = min(frames, self._written - self._read)
            where = (self._read + np.arange(count)) % len(self._ring)
            out[:count, 0], out[count:, 0] = self._ring[where], 0.0
            self._read += count
            self._has_run_dry = self._has_run_dry or (count < frames and self._read > 0)
            self._change.notify()

    def write(self, samples: NDArray[np.float32], final: bool = False) -> None:
        """Queue speech (n,); waits while :data:`PLAYBACK_SECONDS` of it are queued.

        Raises:
            AudioError: the device has stopped playing.
        """
        waiting = self._resampler.push(samples, final)
        while len(waiting):
            with self._change:
                self._wait_until(lambda: self._written - self._read < len(self._ring))
                count = min(len(waiting), len(self._ring) - (self._written - self._read))
                where = (self._written + np.arange(count)) % len(self._ring)
                self._ring[where] = waiting[:count]
                self._written += count
                self.underruns += self._has_run_dry
                self._has_run_dry = False
            waiting = waiting[count:]

    def drain(self) -> None:
        """Play what the resampler holds back, and wait until everything was played; the last call.

        Raises:
            AudioError: the device has stopped playing.
        """
        self.write(np.zeros(0, np.float32), final=True)
        with self._change:
            self._wait_until(lambda: self._read == self._written)
        self._stream.stop()  # returns when the device has played what it has taken

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if time.monotonic() - self._called > SILENT_SECONDS:
                raise AudioError("the loudspeaker has stopped playing")
            self._change.wait(_POLL_SECONDS)
