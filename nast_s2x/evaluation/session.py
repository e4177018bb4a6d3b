"""Play one recording to a translation stream and record what is returned, and when."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nast_s2x.frontend.audio import write_wav
from nast_s2x.inference.detokenizer import join_words
from nast_s2x.inference.segments import Segments
from nast_s2x.inference.streaming import SPEECH_RATE, Emission
from nast_s2x.metrics.latency import playback_intervals


class Stream(Protocol):
    """The part of :class:`~nast_s2x.inference.streaming.TranslationStream` that is used here."""

    def push(self, samples: ArrayLike, sample_rate: int | None = None, final: bool = False) -> list[Emission]:
        """Take the next piece of the source; ``final`` ends it."""


class Session:
    """Output of one recording with its times, in milliseconds; the base of text and speech output.

    Attributes:
        delays: source that had been given when each word, or piece of speech, was returned.
        elapsed: the same with the computing time so far added.
        push_ms: computing time of each push.
        chunk_ms: computing time of each push that completed a chunk, those since the one before it included.
        emissions: what the emissions that are not empty contained.
    """

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.elapsed: list[float] = []
        self.push_ms: list[float] = []
        self.chunk_ms: list[float] = []
        self.emissions: list[dict[str, Any]] = []
        self._since_chunk = 0.0

    def add(self, emissions: Sequence[Emission], delay_ms: float, push_ms: float) -> None:
        """Record the emissions of a push that took ``push_ms``, after ``delay_ms`` of source."""
        self.push_ms.append(push_ms)
        self._since_chunk += push_ms
        if emissions:
            self.chunk_ms.append(self._since_chunk)
            self._since_chunk = 0.0
        self.emissions += [entry for item in emissions if (entry := _entry(item, delay_ms))]
        outputs = self._outputs(emissions, delay_ms)
        self.delays += [delay_ms] * outputs
        self.elapsed += [delay_ms + sum(self.push_ms)] * outputs

    def _outputs(self, emissions: Sequence[Emission], delay_ms: float) -> int:
        """Keep the words or samples of ``emissions``; returns the number of words, or pieces of speech."""
        raise NotImplementedError

    def line(self, source_ms: float) -> dict[str, Any]:
        """The entries of the log, by SimulEval's names and ours, but for those that name the recording."""
        return {
            "delays": self.delays,
            "elapsed": self.elapsed,
            "source_length": source_ms,
            "emissions": self.emissions,
            "push_ms": self.push_ms,
            "chunk_ms": self.chunk_ms,
        }


def _entry(emission: Emission, delay_ms: float) -> dict[str, Any] | None:
    samples = 0 if emission.waveform is None else len(emission.waveform)
    if not (emission.text or emission.units or samples):
        return None
    return {
        "chunk": emission.chunk,
        "source_ms": emission.source_ms,
        "written_ms": delay_ms,
        "text": emission.text,
        "units": list(emission.units),
        "samples": samples,
    }


class TextSession(Session):
    """Output as words."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def _outputs(self, emissions: Sequence[Emission], delay_ms: float) -> int:
        words = join_words(emission.text for emission in emissions).split()
        self.words += words
        return len(words)

    def line(self, source_ms: float) -> dict[str, Any]:
        """As :meth:`Session.line`."""
        words = {"prediction": " ".join(self.words), "prediction_length": len(self.words)}
        return super().line(source_ms) | words


class SpeechSession(Session):
    """Output as pieces of speech, which are played one after the other.

    Attributes:
        durations: of each piece.
        pieces: their samples.
    """

    def __init__(self) -> None:
        super().__init__()
        self.durations: list[float] = []
        self.pieces: list[NDArray[np.float32]] = []

    def _outputs(self, emissions: Sequence[Emission], delay_ms: float) -> int:
        waveforms = [item.waveform for item in emissions if item.waveform is not None and len(item.waveform)]
        if not waveforms:
            return 0
        self.pieces.append(np.concatenate(waveforms))
        self.durations.append(1000 * len(self.pieces[-1]) / SPEECH_RATE)
        return 1

    def sound(self) -> NDArray[np.float32]:
        """The speech as it is played, (n,): with ``int(rate * gap / 1000)`` samples of silence in a gap."""
        sound, end = [np.zeros(0, np.float32)], None
        for (start, duration), piece in zip(playback_intervals(self.delays, self.durations), self.pieces, strict=True):
            if end is not None:
                sound.append(np.zeros(int(SPEECH_RATE * (start - end) / 1000), np.float32))
            sound.append(piece)
            end = start + duration
        return np.concatenate(sound)

    def line(self, source_ms: float) -> dict[str, Any]:
        """As :meth:`Session.line`, without the name of the sound file."""
        speech = {
            "durations": self.durations,
            "intervals": playback_intervals(self.delays, self.durations),
            "prediction_offset": self.delays[0] if self.delays else source_ms,
            "prediction_length": len(self.sound()) / SPEECH_RATE,
        }
        return super().line(source_ms) | speech

    def write(self, path: Path) -> None:
        """Write the sound as a WAV file, if there is any."""
        if self.pieces:
            write_wav(path, self.sound(), SPEECH_RATE)


def run_session(
    session: Session, stream: Stream, samples: NDArray[np.float32], sample_rate: int, segments: Segments
) -> dict[str, Any]:
    """Give ``stream`` a whole recording, segment by segment; returns :meth:`Session.line`.

    Args:
        samples: (n,) at ``sample_rate``, n from 1. Each segment is a copy, so that a stream cannot reach what follows.
    """
    for start, stop in segments.cut(len(samples), sample_rate):
        segment = np.array(samples[start:stop], np.float32)
        begun = time.perf_counter()
        emissions = stream.push(segment, sample_rate)
        if stop == len(samples):
            # A push of its own, as for hosts that learn of the end of the source after its last samples.
            emissions = [*emissions, *stream.push(np.zeros(0, np.float32), final=True)]
        push_ms = 1000 * (time.perf_counter() - begun)
        session.add(emissions, 1000 * stop / sample_rate, push_ms)
    return session.line(1000 * len(samples) / sample_rate)
