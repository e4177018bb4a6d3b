"""Give one recording to a translation stream, segment by segment, and record its output with times."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nast_s2x.frontend.audio import write_wav_pieces
from nast_s2x.inference.detokenizer import WholeWords
from nast_s2x.inference.segments import Segments
from nast_s2x.inference.streaming import SPEECH_RATE, Emission, Stream
from nast_s2x.metrics.latency import playback_intervals
from nast_s2x.metrics.text import Unit, join_units, units_of


class Session:
    """Output of one recording with times in milliseconds; base class of text and speech output.

    Attributes:
        delays: for each word or piece of speech, the length of the source given before it was returned.
        elapsed: ``delays`` plus the total computing time until then, as in SimulEval. With ``real_time`` the time of a
            source in real time: a push begins when its source is there and the push before it is done.
        push_ms: computing time of each push.
        chunk_ms: computing time of each chunk: of the push that completed it and the pushes since the previous one.
        emissions: contents of the emissions that are not empty.
    """

    def __init__(self, real_time: bool = False) -> None:
        self.real_time = real_time
        self.delays: list[float] = []
        self.elapsed: list[float] = []
        self.push_ms: list[float] = []
        self.chunk_ms: list[float] = []
        self.emissions: list[dict[str, Any]] = []
        self._computed = 0.0
        self._since_chunk = 0.0
        self._done = 0.0

    def add(self, emissions: Sequence[Emission], delay_ms: float, push_ms: float) -> None:
        """Record the emissions of a push that took ``push_ms``, after ``delay_ms`` of source."""
        self.push_ms.append(push_ms)
        self._computed += push_ms
        self._since_chunk += push_ms
        self._done = max(self._done, delay_ms) + push_ms if self.real_time else delay_ms + self._computed
        if emissions:
            self.chunk_ms.append(self._since_chunk)
            self._since_chunk = 0.0
        self.emissions += [entry for item in emissions if (entry := _entry(item, delay_ms))]
        outputs = self._outputs(emissions, delay_ms)
        self.delays += [delay_ms] * outputs
        self.elapsed += [self._done] * outputs

    def _outputs(self, emissions: Sequence[Emission], delay_ms: float) -> int:
        """Store the words or samples of ``emissions``; returns the number of words, or pieces of speech."""
        raise NotImplementedError

    def line(self, source_ms: float) -> dict[str, Any]:
        """Return the entries of the log line, without those that name the recording.

        The keys are SimulEval's and, for ``emissions``, ``push_ms`` and ``chunk_ms``, this project's.
        """
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
        "delta": emission.delta,
        "units": list(emission.units),
        "samples": samples,
    }


class TextSession(Session):
    """Output as words, or as characters.

    A character has the delay of its emission. A word has that of its last part, once it is known to be the last one.

    Attributes:
        words: the words or characters, in order.
        text: the whole output.
    """

    def __init__(self, unit: Unit = "word", real_time: bool = False) -> None:
        super().__init__(real_time)
        self.unit: Unit = unit
        self.words: list[str] = []
        self.text = ""
        self._whole = WholeWords()

    def _outputs(self, emissions: Sequence[Emission], delay_ms: float) -> int:
        text = "".join(emission.delta for emission in emissions)
        self.text += text
        if self.unit == "word":
            text = self._whole.push(text, final=any(emission.final for emission in emissions))
        words = units_of(text, self.unit)
        self.words += words
        return len(words)

    def line(self, source_ms: float) -> dict[str, Any]:
        """As :meth:`Session.line`. SimulEval leaves the spaces between characters out; ``text`` has them."""
        words = {"prediction": join_units(self.words, self.unit), "prediction_length": len(self.words)}
        return super().line(source_ms) | words | ({"text": self.text.strip()} if self.unit == "char" else {})


class SpeechSession(Session):
    """Output as pieces of speech, which are played one after the other.

    Attributes:
        durations: length of each piece in ms.
        pieces: samples of each piece, (n,) at 16 kHz.
    """

    def __init__(self, real_time: bool = False) -> None:
        super().__init__(real_time)
        self.durations: list[float] = []
        self.pieces: list[NDArray[np.float32]] = []

    def _outputs(self, emissions: Sequence[Emission], delay_ms: float) -> int:
        waveforms = [item.waveform for item in emissions if item.waveform is not None and len(item.waveform)]
        if not waveforms:
            return 0
        self.pieces.append(np.concatenate(waveforms))
        self.durations.append(1000 * len(self.pieces[-1]) / SPEECH_RATE)
        return 1

    def sound(self) -> Iterator[NDArray[np.float32]]:
        """Yield the speech as it is played, at 16 kHz, from the first piece on: each gap, then the piece after it."""
        for silence, piece in zip(self._silences(), self.pieces, strict=True):
            yield np.zeros(silence, np.float32)
            yield piece

    def _silences(self) -> list[int]:
        """Return the samples of silence before each piece: ``int(rate * gap / 1000)``, as in SimulEval's files."""
        intervals = playback_intervals(self.delays, self.durations)
        gaps = [after - (start + duration) for (start, duration), (after, _) in zip(intervals, intervals[1:])]
        return [int(SPEECH_RATE * gap / 1000) for gap in [0.0, *gaps][: len(intervals)]]

    def line(self, source_ms: float) -> dict[str, Any]:
        """As :meth:`Session.line`, without the name of the sound file."""
        samples = sum(self._silences()) + sum(map(len, self.pieces))
        speech = {
            "durations": self.durations,
            "intervals": playback_intervals(self.delays, self.durations),
            "prediction_offset": self.delays[0] if self.delays else source_ms,
            "prediction_length": samples / SPEECH_RATE,
        }
        return super().line(source_ms) | speech

    def write(self, path: Path) -> None:
        """Write :meth:`sound` as a WAV file; nothing is written for an empty output."""
        if self.pieces:
            write_wav_pieces(path, self.sound(), SPEECH_RATE)


def run_session(
    session: Session, stream: Stream, pieces: Iterable[tuple[NDArray[np.float32], int]], segments: Segments
) -> dict[str, Any]:
    """Give ``stream`` a whole recording, segment by segment; returns :meth:`Session.line`.

    Args:
        session: records the output.
        pieces: the recording, in pieces of any length: samples (n,) and sample rate, one sample or more in all. The
            stream receives copies, so that it has no access to later samples.
        segments: lengths of the segments.
    """
    heard, rate = 0, 1
    for segment, rate, is_last in segments.cut(pieces):
        heard += len(segment)
        begun = time.perf_counter()
        emissions = stream.push(segment, rate)
        if is_last:
            # A separate push, as by programs that detect the end of the source after its last samples.
            emissions = [*emissions, *stream.push(np.zeros(0, np.float32), final=True)]
        push_ms = 1000 * (time.perf_counter() - begun)
        session.add(emissions, 1000 * heard / rate, push_ms)
    return session.line(1000 * heard / rate)
