"""Logs of evaluations: one JSON line an utterance, as SimulEval 1.1.4 writes them, with more keys where we ran it.

SimulEval writes ``index``, ``prediction`` (text, or path of a sound file), ``delays``, ``elapsed``, ``reference``,
``source``, ``source_length``, and ``durations`` for speech. ``nast-s2x evaluate`` adds ``id``, ``audio``, ``units``,
``emissions``, ``push_ms``, ``chunk_ms``, and ``elapsed`` for speech, which SimulEval leaves empty.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nast_s2x.corpus import AudioRef
from nast_s2x.errors import NastError
from nast_s2x.frontend.audio import read_samples
from nast_s2x.frontend.resampling import StreamResampler
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.metrics.latency import playback_intervals

LOG_NAME = "instances.log"
WAVS = "wavs"
"""Folder of the sound files, beside the log."""


@dataclass(frozen=True)
class LoggedEmission:
    """What one chunk added to the output.

    Attributes:
        chunk: its number, from 0.
        source_ms: source that the chunk needs, in ms, by the geometry.
        written_ms: source that had been read when it was written, in ms.
        text: words; may be empty.
        units: speech units; may be empty.
        samples: number of samples of speech, 16 kHz.
    """

    chunk: int
    source_ms: float
    written_ms: float
    text: str
    units: tuple[int, ...]
    samples: int = 0


@dataclass(frozen=True)
class LoggedUtterance:
    """One line of a log.

    Attributes:
        index: place in the test set, from 0.
        id: name; the name of the source file in logs of SimulEval alone.
        audio: source file.
        reference: translation to compare with.
        reference_units: speech units to compare with, ``None`` where there are none.
        source_ms: length of the source.
        delays: source read, in ms, when each word (text) or piece of sound (speech) was written.
        elapsed: ``delays`` with the computing time so far added, in ms; empty where it was not measured.
        durations: speech: ms of each piece; ``None`` for text.
        wav: speech: sound file of the output; ``None`` for text and for an empty output.
        words: text: one for each of ``delays``; empty for speech.
        emissions: of each chunk that added something; empty in logs of SimulEval alone.
        push_ms: computing ms of each push.
        chunk_ms: computing ms of each push that completed at least one chunk, with those since the one before.
    """

    index: int
    id: str
    audio: AudioRef
    reference: str
    reference_units: tuple[int, ...] | None
    source_ms: float
    delays: tuple[float, ...]
    elapsed: tuple[float, ...]
    durations: tuple[float, ...] | None
    wav: Path | None
    words: tuple[str, ...]
    emissions: tuple[LoggedEmission, ...]
    push_ms: tuple[float, ...]
    chunk_ms: tuple[float, ...]

    @property
    def is_speech(self) -> bool:
        """True when the output is speech."""
        return self.durations is not None

    @property
    def empty(self) -> bool:
        """True when the output has neither a word nor a sample."""
        return not self.delays

    @property
    def text(self) -> str:
        """The words; of a speech system, those that its emissions carry ("" where the log has no emissions)."""
        if self.is_speech:
            return " ".join(emission.text for emission in self.emissions if emission.text)
        return " ".join(self.words)

    @property
    def units(self) -> tuple[int, ...]:
        """All units, in order."""
        return tuple(unit for emission in self.emissions for unit in emission.units)


def read_log(folder: Path) -> list[LoggedUtterance]:
    """Read ``instances.log`` of a folder, of ``nast-s2x evaluate`` or of SimulEval 1.1.4 alone.

    Returns:
        utterances in order of index.
    Raises:
        FileNotFoundError: no such file.
        ValueError: names file and line of broken JSON, missing or wrong keys, text among speech, doubled indices; an
            index from 0 to the largest that is missing; a log without lines.
    """
    path = Path(folder) / LOG_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such log; is {folder} the folder of an evaluation?")
    utterances: dict[int, LoggedUtterance] = {}
    # Texts may hold characters that str.splitlines takes for line ends: split at newlines only.
    for number, line in enumerate(path.read_text("utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            utterance = _utterance(json.loads(line), path.parent)
            if utterance.index in utterances:
                raise NastError(f"index {utterance.index} appears twice")
            if any(utterance.is_speech != other.is_speech for other in utterances.values()):
                raise NastError("text and speech outputs in one log")
        except json.JSONDecodeError as error:
            raise NastError(f"{path}, line {number}: not JSON ({error.msg})") from None
        except ValueError as error:
            raise NastError(f"{path}, line {number}: {error}") from None
        utterances[utterance.index] = utterance
    if not utterances:
        raise NastError(f"{path}: the log holds no utterance")
    count, largest = len(utterances), max(utterances)
    if largest >= count:
        # The first gap lies within as many numbers as there are lines: a huge index costs nothing.
        first = next(index for index in range(count) if index not in utterances)
        raise NastError(f"{path}: index {first} is missing ({largest + 1 - count} of {largest + 1} in all)")
    return [utterances[index] for index in sorted(utterances)]


def read_output_pieces(utterance: LoggedUtterance) -> list[NDArray[np.float32]]:
    """The pieces of sound as the system wrote them, without the silence inserted where one was late.

    The file begins with the first piece; before a piece that was not available when the one before had ended, it
    holds ``int(rate * silence_ms / 1000)`` samples of silence.

    Returns:
        one array (n,) for each of ``delays``, 16 kHz; none for an empty output.
    Raises:
        ValueError: not a speech output; a missing or unreadable sound file, or one of another length than in the log.
    """
    if utterance.durations is None:
        raise NastError(f"utterance {utterance.index} is text: it has no speech")
    if utterance.empty:
        return []
    assert utterance.wav is not None
    samples, rate = read_samples(utterance.wav)
    pieces, position, end_ms = [], 0, utterance.delays[0]
    for start_ms, duration_ms in playback_intervals(utterance.delays, utterance.durations):
        position += int(rate * (start_ms - end_ms) / 1000)
        size = round(duration_ms * rate / 1000)
        pieces.append(samples[position : position + size])
        position, end_ms = position + size, start_ms + duration_ms
    if position != len(samples):
        raise NastError(
            f"{utterance.wav}: {len(samples)} samples, but the log's durations and delays make {position}: "
            "the sound is of another run"
        )
    return [StreamResampler(rate, SAMPLE_RATE).push(piece, final=True) for piece in pieces]


def read_output_with_gaps(utterance: LoggedUtterance) -> NDArray[np.float32]:
    """The speech as it is played, from the first piece on, with the silences between pieces: (n,), 16 kHz.

    Raises:
        ValueError: as :func:`read_output_pieces`.
    """
    if utterance.durations is None:
        raise NastError(f"utterance {utterance.index} is text: it has no speech")
    if utterance.wav is None:
        return np.zeros(0, np.float32)
    samples, rate = read_samples(utterance.wav)
    return StreamResampler(rate, SAMPLE_RATE).push(samples, final=True)


def _utterance(line: Any, folder: Path) -> LoggedUtterance:
    if not isinstance(line, dict):
        raise NastError(f"an utterance is a JSON object, not {type(line).__name__}")
    for key in ("index", "prediction", "delays", "elapsed", "reference", "source_length"):
        if key not in line:
            raise NastError(f"the key {key!r} is missing")
    if not isinstance(line["index"], int) or line["index"] < 0:
        raise NastError(f"index must be a whole number from 0, not {line['index']!r}")
    delays, elapsed = _times(line, "delays"), _times(line, "elapsed")
    if any(later < earlier for earlier, later in zip(delays, delays[1:])):
        raise NastError("delays must not decrease")
    if elapsed and len(elapsed) != len(delays):
        raise NastError(f"{len(elapsed)} elapsed times do not match {len(delays)} delays")
    is_speech = "durations" in line
    audio = AudioRef.parse(_string(line, "audio", _source(line.get("source", ""))))
    return LoggedUtterance(
        index=line["index"],
        id=_string(line, "id", audio.name),
        audio=audio,
        reference=_string(line, "reference"),
        reference_units=_units(line["units"]) if line.get("units") is not None else None,
        source_ms=_time(line["source_length"], "source_length"),
        delays=delays,
        elapsed=elapsed,
        durations=_durations(line, delays) if is_speech else None,
        wav=_wav(_string(line, "prediction"), folder) if is_speech and delays else None,
        words=() if is_speech else _words(_string(line, "prediction"), delays),
        emissions=tuple(map(_emission, line.get("emissions") or ())),
        push_ms=_times(line, "push_ms"),
        chunk_ms=_times(line, "chunk_ms"),
    )


def _string(line: dict[str, Any], key: str, default: str | None = None) -> str:
    value = line.get(key, default)
    if not isinstance(value, str):
        raise NastError(f"{key} must be a text, not {value!r}")
    return value


def _time(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value < 0:
        raise NastError(f"{key} must hold times of 0 ms or more, not {value!r}")
    return float(value)


def _times(line: dict[str, Any], key: str) -> tuple[float, ...]:
    values = line.get(key) or ()
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise NastError(f"{key} must be a list of times in ms, not {values!r}")
    return tuple(_time(value, key) for value in values)


def _durations(line: dict[str, Any], delays: tuple[float, ...]) -> tuple[float, ...]:
    durations = _times(line, "durations")
    if not all(durations):
        raise NastError("durations must be longer than 0 ms")
    if len(durations) != len(delays):
        raise NastError(f"{len(durations)} durations do not match {len(delays)} delays")
    return durations


def _words(prediction: str, delays: tuple[float, ...]) -> tuple[str, ...]:
    words = tuple(prediction.split())
    if len(words) != len(delays):
        raise NastError(f"{len(words)} words do not match {len(delays)} delays: there must be one delay for each word")
    return words


def _units(units: Any) -> tuple[int, ...]:
    """Units written as a string, or as a list of numbers."""
    try:
        return tuple(int(unit) for unit in (units.split() if isinstance(units, str) else units))
    except (TypeError, ValueError):
        raise NastError(f"units must be whole numbers, not {units!r}") from None


def _emission(emission: Any) -> LoggedEmission:
    try:
        return LoggedEmission(
            chunk=int(emission["chunk"]),
            source_ms=float(emission["source_ms"]),
            written_ms=float(emission["written_ms"]),
            text=str(emission["text"]),
            units=_units(emission["units"]),
            samples=int(emission.get("samples", 0)),
        )
    except KeyError as error:
        raise NastError(f"an emission lacks the key {error}") from None
    except TypeError:
        raise NastError(f"an emission cannot be {emission!r}") from None


def _source(source: Any) -> str:
    """SimulEval writes a path (speech output), or lines about the sound file, the first of which is its path (text)."""
    return source[0] if isinstance(source, list) and source else source


def _wav(prediction: str, folder: Path) -> Path:
    """SimulEval writes absolute paths: a folder that was moved since still holds its ``wavs``."""
    path = folder / prediction
    return path if path.is_file() or not Path(prediction).is_absolute() else folder / WAVS / path.name
