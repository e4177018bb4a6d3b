"""Logs of evaluations in the format of SimulEval 1.1.4: one JSON object per line and utterance.

SimulEval writes ``index``, ``prediction`` (text, or path of a sound file), ``delays``, ``elapsed``, ``reference``,
``source``, ``source_length``, and ``durations`` for speech. ``nast-s2x evaluate`` adds ``id``, ``audio``, ``units``,
``emissions``, ``push_ms``, ``chunk_ms``, for characters ``text``, and for speech the values of ``elapsed``, which
SimulEval leaves empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nast_s2x.corpus import AudioRef
from nast_s2x.errors import NastError, shown
from nast_s2x.files import parse_json
from nast_s2x.frontend.audio import read_header, read_samples
from nast_s2x.frontend.resampling import StreamResampler
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.metrics.latency import playback_intervals
from nast_s2x.metrics.text import Unit, join_units, units_of

LOG_NAME = "instances.log"
LONGEST_MS = 1e10
"""Largest time in a log, 115 days: sums of times stay finite."""
WAVS = "wavs"
"""Folder of the sound files, beside the log."""


@dataclass(frozen=True)
class LoggedEmission:
    """Output of one chunk.

    Attributes:
        chunk: index of the chunk, from 0.
        source_ms: length of the source that the chunk requires, in ms.
        written_ms: length of the source read when the output was written, in ms.
        text: text; may be empty.
        units: speech units; may be empty.
        samples: number of samples of speech, 16 kHz.
        delta: ``text`` with the space before it, as :attr:`nast_s2x.inference.emission.Emission.delta`.
    """

    chunk: int
    source_ms: float
    written_ms: float
    text: str
    units: tuple[int, ...]
    samples: int = 0
    delta: str = ""


@dataclass(frozen=True)
class LoggedUtterance:
    """One line of a log.

    Attributes:
        index: position in the test set, from 0.
        id: name; the name of the source file in logs written by SimulEval.
        audio: source recording.
        reference: reference translation.
        reference_units: reference speech units; ``None`` without.
        source_ms: length of the source in ms.
        delays: length of the source read, in ms, when each word (text) or piece of speech was written.
        elapsed: ``delays`` plus the total computing time until then, in ms; empty where it was not measured.
        durations: length of each piece of speech in ms; ``None`` for text.
        wav: sound file of the speech; ``None`` for text and for an empty output.
        words: one word, or character, for each of ``delays``; empty for speech.
        emissions: one for each chunk with output; empty in logs written by SimulEval.
        push_ms: computing time of each push in ms.
        chunk_ms: computing time of each chunk in ms: of the push that completed it and the pushes since the previous
            one.
        unit: what ``words`` holds.
        text: the output; for speech that of the emissions, "" if the log has none.
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
    unit: Unit = "word"
    text: str = ""

    @property
    def is_speech(self) -> bool:
        """True when the output is speech."""
        return self.durations is not None

    @property
    def empty(self) -> bool:
        """True when the output has neither a word nor a sample."""
        return not self.delays

    @property
    def units(self) -> tuple[int, ...]:
        """Units of all emissions, in order."""
        return tuple(unit for emission in self.emissions for unit in emission.units)


def read_log(folder: Path, unit: Unit = "word") -> list[LoggedUtterance]:
    """Read ``instances.log`` of a folder, written by ``nast-s2x evaluate`` or by SimulEval 1.1.4.

    Args:
        unit: what each delay of a text belongs to; SimulEval's ``--eval-latency-unit``.
    Returns:
        utterances in order of index.
    Raises:
        FileNotFoundError: no such file.
        ValueError: the log is not UTF-8, has no lines, a line that is not JSON, a missing or wrong entry, both text
            and speech, an index that appears twice or is missing; names the file and, if there is one, the line.
    """
    path = Path(folder) / LOG_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such log; is {folder} the folder of an evaluation?")
    utterances: dict[int, LoggedUtterance] = {}
    is_speech: bool | None = None
    for number, line in read_lines(path):
        try:
            utterance = _utterance(parse_json(line), path.parent, unit)
            if utterance.index in utterances:
                raise NastError(f"index {utterance.index} appears twice")
            if is_speech is not None and utterance.is_speech != is_speech:
                raise NastError("text and speech outputs in one log")
        except ValueError as error:
            raise NastError(f"{path}, line {number}: {error}") from None
        utterances[utterance.index], is_speech = utterance, utterance.is_speech
    if not utterances:
        raise NastError(f"{path}: the log holds no utterance")
    count, largest = len(utterances), max(utterances)
    if largest >= count:
        # One of the first `count` indices is missing, so the search is short however large an index is.
        first = next(index for index in range(count) if index not in utterances)
        raise NastError(f"{path}: index {first} is missing ({largest + 1 - count} of {largest + 1} in all)")
    return [utterances[index] for index in sorted(utterances)]


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number (from 1) and text of each line of a UTF-8 file that is not blank.

    Raises:
        NastError: the file is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise NastError(f"{path}: not UTF-8 text (byte {error.start})") from None
    # Texts may hold characters that str.splitlines takes for line ends: split at newlines only.
    yield from ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def read_output_pieces(utterance: LoggedUtterance) -> list[NDArray[np.float32]]:
    """Read the pieces of speech without the silence between them; :func:`output_pieces` as a list."""
    return [*output_pieces(utterance)]


def output_pieces(utterance: LoggedUtterance) -> Iterator[NDArray[np.float32]]:
    """Read the pieces of speech one by one, without the silence between them.

    The sound file begins with the first piece. Where a piece was not available when the previous one had ended, the
    file holds ``int(rate * silence_ms / 1000)`` samples of silence before it.

    Yields:
        (n,) at 16 kHz for each of ``delays``; nothing for an empty output.
    Raises:
        ValueError: a text output; a sound file that is missing, unreadable, or of another length than in the log.
    """
    durations, wav = _speech(utterance)
    if wav is None:
        return
    length, rate = read_header(wav)
    places, end, end_ms = [], 0, utterance.delays[0]
    for start_ms, duration_ms in playback_intervals(utterance.delays, durations):
        start = end + int(rate * (start_ms - end_ms) / 1000)
        places.append((start, round(duration_ms * rate / 1000)))
        end, end_ms = sum(places[-1]), start_ms + duration_ms
    if end != length:
        raise NastError(
            f"{wav} has {length} samples, but durations and delays in the log make {end}: the file belongs to another "
            "run"
        )
    for start, size in places:
        samples, _ = read_samples(wav, start=start, frames=size)
        yield StreamResampler(rate, SAMPLE_RATE).push(samples, final=True)


def read_output_with_gaps(utterance: LoggedUtterance) -> NDArray[np.float32]:
    """Read the speech as it is played; the pieces of :func:`output_with_gaps` joined."""
    return np.concatenate([np.zeros(0, np.float32), *output_with_gaps(utterance)])


def output_with_gaps(utterance: LoggedUtterance) -> Iterator[NDArray[np.float32]]:
    """Read the speech as it is played, from the first piece on, with the silence between pieces, in pieces of 10 s.

    Yields:
        (n,) at 16 kHz.
    Raises:
        ValueError: a text output; a sound file that is missing or unreadable.
    """
    wav = _speech(utterance)[1]
    if wav is None:
        return
    resampler = None
    for samples, rate in AudioRef(wav).pieces():
        resampler = resampler or StreamResampler(rate, SAMPLE_RATE)
        yield resampler.push(samples)
    if resampler is not None:
        yield resampler.push(np.zeros(0, np.float32), final=True)


def _speech(utterance: LoggedUtterance) -> tuple[tuple[float, ...], Path | None]:
    """Lengths of the pieces of speech in ms, and the sound file; ``None`` for an empty output."""
    if utterance.durations is None:
        raise NastError(f"utterance {utterance.index} is text: it has no speech")
    return utterance.durations, utterance.wav


def _utterance(line: Any, folder: Path, unit: Unit) -> LoggedUtterance:
    if not isinstance(line, dict):
        raise NastError(f"an utterance is a JSON object, not {type(line).__name__}")
    for key in ("index", "prediction", "delays", "elapsed", "reference", "source_length"):
        if key not in line:
            raise NastError(f"the key {shown(key)} is missing")
    if isinstance(line["index"], bool) or not isinstance(line["index"], int) or line["index"] < 0:
        raise NastError(f"index must be a whole number from 0, not {shown(line['index'])}")
    delays, elapsed = _times(line, "delays"), _times(line, "elapsed")
    if any(later < earlier for earlier, later in zip(delays, delays[1:])):
        raise NastError("delays must not decrease")
    if elapsed and len(elapsed) != len(delays):
        raise NastError(f"{len(elapsed)} elapsed times do not match {len(delays)} delays")
    is_speech = "durations" in line
    emissions = _emissions(line.get("emissions") or [])
    words = () if is_speech else _words(_string(line, "prediction"), delays, unit)
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
        words=words,
        emissions=emissions,
        push_ms=_times(line, "push_ms"),
        chunk_ms=_times(line, "chunk_ms"),
        unit=unit,
        text="".join(item.delta for item in emissions).strip() if is_speech else _text(line, words, unit),
    )


def _text(line: dict[str, Any], words: tuple[str, ...], unit: Unit) -> str:
    """The output with its spaces: those between characters are not in ``prediction``."""
    text = _string(line, "text", join_units(words, unit))
    if tuple(units_of(text, unit)) != words:
        raise NastError(f"text must be that of prediction, but is {shown(text)}")
    return text


def _string(line: dict[str, Any], key: str, default: str | None = None) -> str:
    value = line.get(key, default)
    if not isinstance(value, str):
        raise NastError(f"{key} must be a text, not {shown(value)}")
    return value


def _time(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LONGEST_MS:
        raise NastError(f"{key} must hold times from 0 to {LONGEST_MS:g} ms, not {shown(value)}")
    return float(value)


def _times(line: dict[str, Any], key: str) -> tuple[float, ...]:
    values = line.get(key) or ()
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise NastError(f"{key} must be a list of times in ms, not {shown(values)}")
    return tuple(_time(value, key) for value in values)


def _durations(line: dict[str, Any], delays: tuple[float, ...]) -> tuple[float, ...]:
    durations = _times(line, "durations")
    if not all(durations):
        raise NastError("durations must be longer than 0 ms")
    if len(durations) != len(delays):
        raise NastError(f"{len(durations)} durations do not match {len(delays)} delays")
    return durations


def _words(prediction: str, delays: tuple[float, ...], unit: Unit) -> tuple[str, ...]:
    words = tuple(units_of(prediction, unit))
    if len(words) != len(delays):
        kind, rule = ("words", "word") if unit == "word" else ("characters", "character")
        hint = "" if prediction.isascii() else "; the language (--target-lang) decides between words and characters"
        raise NastError(f"{len(words)} {kind} do not match {len(delays)} delays: each {rule} must have one delay{hint}")
    return words


def _units(units: Any) -> tuple[int, ...]:
    """Units from a string, or from a list of numbers."""
    try:
        return tuple(int(unit) for unit in (units.split() if isinstance(units, str) else units))
    except (TypeError, ValueError, OverflowError):
        raise NastError(f"units must be whole numbers, not {shown(units)}") from None


def _emissions(emissions: Any) -> tuple[LoggedEmission, ...]:
    if not isinstance(emissions, list):
        raise NastError(f"emissions must be a list, not {shown(emissions)}")
    return tuple(map(_emission, emissions))


def _emission(emission: Any) -> LoggedEmission:
    try:
        return LoggedEmission(
            chunk=int(emission["chunk"]),
            source_ms=_time(emission["source_ms"], "source_ms"),
            written_ms=_time(emission["written_ms"], "written_ms"),
            text=str(emission["text"]),
            units=_units(emission["units"]),
            samples=int(emission.get("samples", 0)),
            # Logs of older versions have whole words only, with spaces between them.
            delta=str(emission.get("delta", f" {emission['text']}" if emission["text"] else "")),
        )
    except KeyError as error:
        raise NastError(f"an emission lacks the key {error}") from None
    except (TypeError, OverflowError):
        raise NastError(f"an emission must be an object of numbers and text, not {shown(emission)}") from None


def _source(source: Any) -> str:
    """Path of the source: SimulEval writes it alone (speech output), or as the first entry of a list (text output)."""
    return source[0] if isinstance(source, list) and source else source


def _wav(prediction: str, folder: Path) -> Path:
    """Path of a sound file. SimulEval writes absolute paths: if the folder was moved, the file is in its ``wavs``."""
    path = folder / prediction
    return path if path.is_file() or not Path(prediction).is_absolute() else folder / WAVS / path.name
