"""Run a system over a test set at several chunk sizes, by one or more processes; an interrupted run is resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.corpus import Utterance
from nast_s2x.device import parse_dtype
from nast_s2x.errors import ConfigError, NastError
from nast_s2x.evaluation.items import CheckedAudio, recording
from nast_s2x.evaluation.log import LOG_NAME, WAVS
from nast_s2x.evaluation.session import SpeechSession, TextSession, run_session
from nast_s2x.evaluation.settings import RunSettings
from nast_s2x.files import json_text, write_atomic
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.segments import Segments
from nast_s2x.inference.streaming import SynthesisWindow, TranslationStream
from nast_s2x.inference.system import System
from nast_s2x.metrics.text import rules_of
from nast_s2x.processes import ResultFile, resumable_map
from nast_s2x.progress import progress_bar

UNFINISHED = "unfinished.jsonl"
"""File with the results of a chunk size until all are there and the log is written."""
TARGET_TYPES = ("text", "speech")


class UtteranceError(NastError):
    """An utterance could not be translated; the message names it and the reason."""


@dataclass(frozen=True)
class Job:
    """One utterance at one chunk size.

    Attributes:
        index: position in the test set, from 0.
        home: folder of the chunk size; its name is the chunk size: milliseconds, or ``offline``.
    """

    index: int
    utterance: Utterance
    home: Path


def load_for(settings: RunSettings) -> System:
    """Load the system of ``settings``, for speech with its vocoder.

    Raises:
        FileNotFoundError, NastError: the system is missing or damaged, or has no vocoder for speech output.
        ConfigError: an unknown target type, segments below 1 ms, a synthesis look-ahead that the vocoder cannot have.
    """
    if settings.target_type not in TARGET_TYPES:
        raise ConfigError(f"`target_type` must be {' or '.join(TARGET_TYPES)}, got {settings.target_type!r}")
    segments_of(settings)
    system = load_system(settings.model, settings.data, settings.device, parse_dtype(settings.dtype))
    if settings.pause_ms is not None:
        system = replace(system, pause_ms=settings.pause_ms)
    if settings.target_type == "speech":
        if settings.vocoder is not None:
            system = system.with_vocoder(settings.vocoder)
        synthesis_window(system, settings)
    return system


def segments_of(settings: RunSettings) -> Segments:
    """Return the lengths of the segments in which recordings are given to the stream."""
    return Segments(settings.segment_ms, settings.first_segment_ms)


def synthesis_window(system: System, settings: RunSettings) -> SynthesisWindow:
    """Return the vocoder's look-ahead and context."""
    return SynthesisWindow.of(system.require_vocoder(), settings.synthesis_lookahead)


def chunk_policy(system: System, settings: RunSettings, chunk: str) -> ChunkPolicy:
    """Return the policy of a chunk size (``chunk``: milliseconds, or ``offline``).

    Raises:
        ConfigError: a policy that does not fit the model.
    """
    return system.policy(chunk, settings.lookahead_ms, settings.wait_chunks, settings.left_ms)


def make_stream(system: System, settings: RunSettings, chunk: str) -> TranslationStream:
    """Return a new stream of a system at a chunk size, for text or speech."""
    policy = chunk_policy(system, settings, chunk)
    if settings.target_type == "text":
        return system.stream(policy, with_units=False)
    return system.stream(policy, with_speech=True, synthesis=synthesis_window(system, settings))


def too_long(
    system: System,
    settings: RunSettings,
    chunks: Sequence[str],
    rows: Sequence[Utterance],
    checked: Sequence[CheckedAudio],
) -> dict[int, str]:
    """Return index and reason for each recording that is longer than the model allows at one of the chunk sizes."""
    geometries = [system.model.geometry(chunk_policy(system, settings, chunk)) for chunk in chunks]
    found: dict[int, str] = {}
    for index, (row, audio) in enumerate(zip(rows, checked, strict=True)):
        try:
            for geometry in geometries:
                system.model.check_length(audio.num_frames, geometry, with_units=settings.target_type == "speech")
        except ConfigError as error:
            found[index] = f"{row.place}: {row.audio}: {error}"
    return found


def translate(system: System, settings: RunSettings, job: Job) -> dict[str, Any]:
    """Translate one recording and return its line of the log; speech is written to the folder ``wavs``.

    Raises:
        UtteranceError: the recording cannot be read or translated; names the recording.
    """
    row, audio, chunk = job.utterance, recording(job.utterance), job.home.name
    place = f"{row.place}: {row.id} ({audio}), chunk size {chunk}"
    wav = job.home / WAVS / f"{job.index}_pred.wav"
    unit = rules_of(settings.target_lang or system.info.target_lang).unit
    is_text = settings.target_type == "text"
    session = TextSession(unit, settings.long_form) if is_text else SpeechSession(settings.long_form)
    try:
        stream = make_stream(system, settings, chunk)
        line = run_session(session, stream, audio.pieces(), segments_of(settings))
        if isinstance(session, SpeechSession):
            session.write(wav)
            line["prediction"] = f"{WAVS}/{wav.name}"
    except (NastError, OSError) as error:
        raise UtteranceError(f"{place}: {error or type(error).__name__}") from error
    except Exception as error:  # a bug: its traceback is shown, with the place
        error.add_note(place)
        raise
    units = None if row.units is None else str(row.units)
    names = {"source": str(audio), "audio": str(audio), "id": row.id, "units": units}
    return {"index": job.index, "reference": row.target_text, **names, **line}


# The system of a worker process, or of this process during a run with one worker.
_work: tuple[System, RunSettings] | None = None


def _start_work(settings: RunSettings, system: System | None = None) -> None:
    global _work
    torch.set_num_threads(settings.threads)
    _work = (load_for(settings) if system is None else system, settings)


def _translate(job: Job) -> dict[str, Any]:
    assert _work is not None, "the worker has not been started"
    return translate(*_work, job)


def evaluate(
    folder: Path,
    rows: Sequence[Utterance],
    settings: RunSettings,
    chunks: Sequence[str],
    workers: int = 1,
    progress: bool = False,
    system: System | None = None,
) -> None:
    """Run the chunk sizes that ``folder`` does not have yet; finished utterances of an earlier run are kept.

    Args:
        folder: folder of the evaluation. The caller holds its lock and has checked its settings, see
            :func:`~nast_s2x.evaluation.settings.take_folder`.
        chunks: chunk sizes, which name the folders: milliseconds, or ``offline``.
        workers: processes; with 1 the work is done in this process.
        progress: show a progress bar on stderr.
        system: the system, if it has been loaded already; used with one worker.
    Raises:
        UtteranceError: an utterance could not be translated. Utterances finished before are kept.
        OSError: a worker process has died.
    """
    global _work
    threads = torch.get_num_threads()
    with progress_bar(len(rows) * len(chunks), "translating", show=progress) as bar:
        try:
            for chunk in chunks:
                home = folder / chunk
                if is_complete(home, len(rows)):
                    (home / UNFINISHED).unlink(missing_ok=True)  # the run ended after the log was written
                    bar.update(len(rows))
                    continue
                if workers == 1 and system is None:
                    system = load_for(settings)  # once for all chunk sizes
                results = ResultFile(home / UNFINISHED)
                resumable_map(
                    _translate,
                    [Job(index, row, home) for index, row in enumerate(rows)],
                    [str(index) for index in range(len(rows))],
                    results,
                    workers,
                    _start_work,
                    (settings, system if workers == 1 else None),
                    lambda _: bar.update(),
                )
                _write_log(home, results, len(rows))
        finally:
            _work = None
            torch.set_num_threads(threads)


def _write_log(home: Path, results: ResultFile, count: int) -> None:
    lines = [json_text(results[str(index)]) + "\n" for index in range(count)]
    write_atomic(home / LOG_NAME, "".join(lines))
    results.path.unlink(missing_ok=True)


def is_complete(home: Path, num_utterances: int) -> bool:
    """Return True when the folder of a chunk size holds a complete log.

    Raises:
        NastError: the log does not have one line for each utterance.
    """
    path = home / LOG_NAME
    if not path.is_file():
        return False
    lines = path.read_bytes().splitlines()
    if [_index(line, path) for line in lines] != list(range(num_utterances)):
        raise NastError(f"{path} has {len(lines)} lines where {num_utterances} utterances were run: delete {home}")
    return True


def _index(line: bytes, path: Path) -> int:
    try:
        return int(json.loads(line)["index"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        shown = line[:60].decode("utf-8", "replace")
        raise NastError(
            f"{path} is damaged: a line is not the record of an utterance ({shown}): delete {path.parent} to repeat it"
        ) from None
