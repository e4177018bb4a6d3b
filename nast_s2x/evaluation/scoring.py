"""Scores of stored logs: quality, latency and cost of each chunk size and of each utterance.

Quality includes empty outputs, as empty texts; ``empty`` is their number. They have no latency: the mean of a figure
of latency is over the utterances that have it (:func:`mean_latency`). A figure that cannot be computed is ``None``,
never 0, and ``notes`` gives the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nast_s2x.errors import ConfigError, NastError
from nast_s2x.evaluation.hypotheses import Hypothesis
from nast_s2x.evaluation.language import language_of, rules_for
from nast_s2x.evaluation.log import LOG_NAME, LoggedUtterance, read_log, read_output_pieces, read_output_with_gaps
from nast_s2x.evaluation.score_files import SCORES, TRANSCRIPTS, previous_scores, write_scores
from nast_s2x.evaluation.segmentation import SEGMENTS
from nast_s2x.evaluation.settings import SETTINGS, read_settings
from nast_s2x.evaluation.stored import FORMAT
from nast_s2x.evaluation.transcripts import TranscriptMissingError, TranscriptStore, recogniser_for
from nast_s2x.files import locked
from nast_s2x.metrics.latency import playback_gaps, playback_intervals, speech_latency, text_latency
from nast_s2x.metrics.quality import (
    asr_bleu,
    bleu,
    chrf,
    sentence_asr_bleu,
    sentence_bleu,
    unit_bleu,
    word_error_rate,
)
from nast_s2x.metrics.text import NORMALISATION, TextRules, Unit, rules_of, unit_count
from nast_s2x.recognisers.base import Recogniser, Transcript

QUALITY_FIGURES = ("BLEU", "chrF", "unit_BLEU", "ASR_BLEU", "ASR_BLEU_silence", "ASR_WER")
COST_FIGURES = ("chunk_ms_p50", "chunk_ms_p95", "real_time_factor", "compute_s", "audio_s")
NO_TIMES = {
    "word": "the recogniser gives no times of words: latency of words is not known",
    "char": "a recogniser times words, the language counts characters: latency of words is not known",
}
"""Note on a recogniser without times, by unit of latency."""


@dataclass(frozen=True)
class Transcripts:
    """Transcripts of the speech outputs of a chunk size.

    Attributes:
        speech: transcripts of the pieces joined without silence.
        with_silence: transcripts of the speech as it is played, silences included.
    """

    speech: list[Transcript]
    with_silence: list[Transcript]


def score(
    folder: Path,
    recogniser: Recogniser | None = None,
    progress: bool = False,
    target_lang: str | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Score the logs of an evaluation; writes ``scores.json``, ``scores.csv``, ``utterances.jsonl`` beside each log.

    A folder with ``segments.yaml`` holds long recordings: see :func:`~nast_s2x.evaluation.longform.score_long_form`.
    A folder without ``settings.json`` must hold logs written by SimulEval: ``instances.log`` in the folder itself (one
    row), or in its subfolders (a row each, named after them).

    Args:
        folder: folder of the evaluation.
        recogniser: transcribes speech output. ``None``: the stored transcripts of the recogniser of the previous
            scores are used; without them the figures that need transcripts are ``None``.
        progress: show a progress bar on stderr while the recogniser runs.
        target_lang: language of the output, for logs of SimulEval; ``None``: that of the run or the previous scores.
        name: name of the row of a log in the folder itself: milliseconds, or any word; ``None``: as in the previous
            scores, or that of the folder.
    Returns:
        the content of ``scores.json``.
    Raises:
        FileNotFoundError: no log.
        ConfigError: another process scores the same folder; references without spaces between words and no language; a
            name for logs in subfolders.
        ValueError: a damaged log; a number of utterances or a kind of output that differs from the settings; a
            recogniser for text output; a sound file that does not fit its log. No scores are written then.
    """
    folder = Path(folder)
    if name is not None and ((folder / SEGMENTS).is_file() or not (folder / LOG_NAME).is_file()):
        raise ConfigError(f"only a log in the folder itself can be given a name, but {folder} has no {LOG_NAME}")
    if (folder / SEGMENTS).is_file():
        from nast_s2x.evaluation.longform import (
            score_long_form,
        )  # here: it takes the means and the cost from this module

        return score_long_form(folder, target_lang, recogniser, progress)
    settings = read_settings(folder) if (folder / SETTINGS).is_file() else None
    language = language_of(folder, settings, target_lang)
    logs, notes = _logs(folder, settings, rules_of(language).unit)
    names = {place: place.name for place in logs}
    if folder.resolve() in names:
        names[folder.resolve()] = row_name(name or _previous_name(folder) or folder.resolve().name)
    rules = rules_for(language, (utterance.reference for log in logs.values() for utterance in log))
    notes += [rules.note] if rules.note else []
    is_speech = _is_speech(folder, logs, settings)
    recogniser = recogniser_for(folder, is_speech, recogniser, notes)
    if is_speech and settings is None:
        notes.append("logs of speech written by SimulEval hold no words: BLEU and chrF are not known")
    has_text = not is_speech or settings is not None
    rows, lines = [], {}
    with locked(folder / SCORES):  # two processes must not write to one file of transcripts
        for place, utterances in logs.items():
            transcripts = _transcripts(folder, names[place], utterances, recogniser, notes, progress)
            row, lines[place] = _score_chunk(names[place], utterances, transcripts, has_text, rules)
            rows.append(row)
            notes += _chunk_notes(row, utterances, transcripts)
        scores = {
            "format": FORMAT,
            "target_type": "speech" if is_speech else "text",
            "settings": settings,
            "recogniser": None if recogniser is None else recogniser.identity,
            "target_lang": language,
            "unit": rules.unit,
            "rows": rows,
            "notes": notes,
        }
        write_scores(folder, scores, lines)
    return scores


def mean_latency(figures: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """Return the mean of each figure over the utterances that have it, ``None`` if none has; one utterance or more."""
    means: dict[str, float | None] = {}
    for name in figures[0]:
        values = [value for row in figures if (value := row[name]) is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


def cost(utterances: Sequence[LoggedUtterance | Hypothesis]) -> dict[str, float | None]:
    """Return the computing time per chunk and in total.

    ``chunk_ms_p50`` and ``chunk_ms_p95`` are percentiles over all chunks, in ms; ``compute_s`` and ``audio_s`` are
    sums over all utterances, in seconds; ``real_time_factor`` is ``compute_s / audio_s``. Figures that the logs do
    not hold are ``None``.
    """
    chunks = [ms for utterance in utterances for ms in utterance.chunk_ms]
    pushes = [ms for utterance in utterances for ms in utterance.push_ms]
    audio_ms = sum(utterance.source_ms or 0.0 for utterance in utterances)
    p50, p95 = np.percentile(chunks, [50, 95]).tolist() if chunks else (None, None)
    return {
        "chunk_ms_p50": p50,
        "chunk_ms_p95": p95,
        "real_time_factor": sum(pushes) / audio_ms if pushes and audio_ms else None,
        "compute_s": sum(pushes) / 1000 if pushes else None,
        "audio_s": audio_ms / 1000,
    }


def _logs(
    folder: Path, settings: dict[str, Any] | None, unit: Unit
) -> tuple[dict[Path, list[LoggedUtterance]], list[str]]:
    """Return the log of each chunk size by its folder, and the notes, as :func:`log_places`."""
    places, notes = log_places(folder, settings)
    return {place: read_log(place, unit) for place in places}, notes


def log_places(folder: Path, settings: dict[str, Any] | None) -> tuple[list[Path], list[str]]:
    """Return the folder of each log, in order of chunk size, and a note for each missing one.

    Raises:
        FileNotFoundError: no log.
    """
    if settings is not None:
        places = [folder / chunk for chunk in settings["chunks"]]
    elif (folder / LOG_NAME).is_file():
        places = [folder.resolve()]
    else:
        places = [path.parent for path in folder.glob(f"*/{LOG_NAME}")]
    there = sorted((place for place in places if (place / LOG_NAME).is_file()), key=_order)
    if not there:
        raise FileNotFoundError(f"{folder}: nothing to score: no {LOG_NAME} of a finished chunk size")
    return there, [f"{place.name}: not evaluated yet" for place in places if place not in there]


def _order(place: Path) -> tuple[bool, bool, int, str]:
    """Sorting key: by chunk size; other names after the numbers; offline last."""
    number = chunk_number(place.name)
    return place.name == "offline", number is None, number or 0, place.name


def row_name(name: str) -> str:
    """Return the name of a row.

    Raises:
        ConfigError: it is no name of a folder.
    """
    if Path(name).name != name or name in ("", ".", ".."):
        raise ConfigError(f"the name of a row must be a single word such as 320, but is {name!r}")
    return name


def _previous_name(folder: Path) -> str | None:
    """Return the name that the only row of the previous scores has."""
    rows = previous_scores(folder).get("rows")
    return str(rows[0]["chunk"]) if isinstance(rows, list) and len(rows) == 1 and "chunk" in rows[0] else None


def chunk_number(name: str) -> int | None:
    """Milliseconds of a chunk size; ``None`` for other names."""
    return int(name) if name.isdecimal() else None


def _is_speech(folder: Path, logs: dict[Path, list[LoggedUtterance]], settings: dict[str, Any] | None) -> bool:
    """Return True for speech outputs, False for text.

    Raises:
        NastError: the logs differ in kind, or differ from the settings in kind or number of utterances.
    """
    kinds = {utterances[0].is_speech for utterances in logs.values()}
    if len(kinds) > 1:
        raise NastError(f"{folder}: some chunk sizes are text, some speech")
    is_speech = kinds.pop()
    if settings is not None:
        wanted, kind = settings["num_utterances"], "speech" if is_speech else "text"
        for place, utterances in logs.items():
            if len(utterances) != wanted:
                raise NastError(f"{place / LOG_NAME}: {len(utterances)} utterances, the settings say {wanted}")
        if settings["target_type"] != kind:
            raise NastError(f"{folder}: the logs are {kind}, the settings say {settings['target_type']}")
    return is_speech


def _transcripts(
    folder: Path,
    chunk: str,
    utterances: list[LoggedUtterance],
    recogniser: Recogniser | None,
    notes: list[str],
    progress: bool,
) -> Transcripts | None:
    """Return the transcripts of the outputs of a chunk size; ``None``, and a note, if some are not available."""
    if recogniser is None:
        return None
    speech: list[NDArray[np.float32]] = [
        np.concatenate([np.zeros(0, np.float32), *read_output_pieces(utterance)]) for utterance in utterances
    ]
    waveforms = speech + [read_output_with_gaps(utterance) for utterance in utterances]
    try:
        transcripts = TranscriptStore(folder / TRANSCRIPTS).transcribe(recogniser, waveforms, progress)
    except TranscriptMissingError as error:
        notes.append(f"{chunk}: {error} of {recogniser.identity}: give the recogniser again for ASR-BLEU")
        return None
    return Transcripts(transcripts[: len(speech)], transcripts[len(speech) :])


def _score_chunk(
    chunk: str,
    utterances: list[LoggedUtterance],
    transcripts: Transcripts | None,
    has_text: bool,
    rules: TextRules,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of a chunk size, and the line of each of its utterances."""
    quality, signatures = _quality(utterances, transcripts, has_text, rules)
    latencies = [_latency(chunk, utterance, transcripts, rules.unit) for utterance in utterances]
    row = {
        "chunk": chunk,
        "chunk_ms": chunk_number(chunk),
        "utterances": len(utterances),
        "empty": sum(utterance.empty for utterance in utterances),
        "quality": quality,
        "signatures": signatures,
        "latency": mean_latency(latencies),
        "cost": cost(utterances),
    }
    return row, _utterance_lines(utterances, transcripts, latencies, has_text, rules)


def _utterance_lines(
    utterances: list[LoggedUtterance],
    transcripts: Transcripts | None,
    latencies: list[dict[str, float | None]],
    has_text: bool,
    rules: TextRules,
) -> list[dict[str, Any]]:
    references = [utterance.reference for utterance in utterances]
    unknown = [None] * len(utterances)
    outputs = [utterance.text for utterance in utterances]
    bleus = sentence_bleu(outputs, references, rules.tokenizer) if has_text else unknown
    texts, silences, asr_bleus = unknown, unknown, unknown
    if transcripts is not None:
        texts = [made.text for made in transcripts.speech]
        silences = [made.text for made in transcripts.with_silence]
        asr_bleus = sentence_asr_bleu(texts, references, rules.unit)
    return [
        {
            "index": utterance.index,
            "id": utterance.id,
            "source_ms": utterance.source_ms,
            "reference": utterance.reference,
            "text": utterance.text if has_text else None,
            "transcript": texts[place],
            "transcript_silence": silences[place],
            "BLEU": bleus[place],
            "ASR_BLEU": asr_bleus[place],
            "latency": latencies[place],
            "gaps": _gaps(utterance),
            "chunk_ms": list(utterance.chunk_ms),
        }
        for place, utterance in enumerate(utterances)
    ]


def _quality(
    utterances: list[LoggedUtterance], transcripts: Transcripts | None, has_text: bool, rules: TextRules
) -> tuple[dict[str, float | None], dict[str, str]]:
    references = [utterance.reference for utterance in utterances]
    scored = {}
    if has_text:
        texts = [utterance.text for utterance in utterances]
        scored |= {"BLEU": bleu(texts, references, rules.tokenizer), "chrF": chrf(texts, references)}
    units = [utterance.reference_units for utterance in utterances]
    if None not in units and any(utterance.units for utterance in utterances):
        scored["unit_BLEU"] = unit_bleu([utterance.units for utterance in utterances], [row or () for row in units])
    figures: dict[str, float | None] = dict.fromkeys(QUALITY_FIGURES)
    if transcripts is not None:
        texts = [transcript.text for transcript in transcripts.speech]
        silences = [transcript.text for transcript in transcripts.with_silence]
        scored["ASR_BLEU"] = asr_bleu(texts, references, rules.unit)
        scored["ASR_BLEU_silence"] = asr_bleu(silences, references, rules.unit)
        figures["ASR_WER"] = word_error_rate(texts, references, rules.unit)
    figures |= {name: result.value for name, result in scored.items()}
    signatures = {name: result.signature for name, result in scored.items()}
    if transcripts is not None:
        signatures |= normalisation_signatures(rules)
    return figures, signatures


def normalisation_signatures(rules: TextRules) -> dict[str, str]:
    """Signatures of the figures of transcripts that say how texts are normalised."""
    normalisation = NORMALISATION + (", characters" if rules.unit == "char" else "")
    return {"ASR_WER": normalisation, "ASR_normalisation": normalisation}


def _latency(
    chunk: str, utterance: LoggedUtterance, transcripts: Transcripts | None, unit: Unit
) -> dict[str, float | None]:
    length = unit_count(utterance.reference, unit)
    times = (utterance.delays, utterance.elapsed)
    try:
        if utterance.durations is None:
            return text_latency(*times, utterance.source_ms, length)
        # A recogniser's words are no characters: their times would be set against another unit of the reference.
        words = transcripts.speech[utterance.index].words if transcripts is not None and unit == "word" else None
        ends_s = [word.end_s for word in words or ()]
        return speech_latency(*times, utterance.durations, utterance.source_ms, length, ends_s)
    except NastError as error:
        raise NastError(f"{chunk}: utterance {utterance.index} ({utterance.id}): {error}") from None


def _gaps(utterance: LoggedUtterance) -> list[tuple[float, float]] | None:
    if utterance.durations is None:
        return None
    return playback_gaps(playback_intervals(utterance.delays, utterance.durations))


def _chunk_notes(
    row: dict[str, Any], utterances: list[LoggedUtterance], transcripts: Transcripts | None
) -> Iterable[str]:
    if row["empty"]:
        yield (
            f"{row['chunk']}: {row['empty']} of {row['utterances']} outputs are empty: they count as empty "
            "texts in quality and are left out of latency"
        )
    unmeasured = sum(not utterance.elapsed for utterance in utterances if not utterance.empty)
    if unmeasured:
        yield f"{row['chunk']}: the log lacks the computing time of {unmeasured} outputs: _CA figures leave them out"
    if transcripts is None:
        return
    if utterances[0].unit == "char":
        yield f"{row['chunk']}: {NO_TIMES['char']}"
        return
    spoken = [transcript for transcript, utterance in zip(transcripts.speech, utterances) if not utterance.empty]
    if any(transcript.words is None for transcript in spoken):
        yield f"{row['chunk']}: {NO_TIMES['word']}"
    elif wordless := sum(not transcript.words for transcript in spoken):
        yield f"{row['chunk']}: no word was recognised in {wordless} outputs: they are left out of latency of words"
