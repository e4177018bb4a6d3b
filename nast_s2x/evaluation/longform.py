"""Evaluation of long recordings: each translation is divided among the reference segments, and these are scored.

The folder of an evaluation holds ``segments.yaml`` and ``references.txt``, and in the folder of each chunk size a log
of whole recordings in SimulEval's form. Of text OmniSTEval reads these three files, and what is written beside the log,
``instances.resegmented.jsonl``, has its form. Speech (:mod:`nast_s2x.evaluation.spoken`) is scored by the words that a
recogniser transcribes in it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nast_s2x.corpus import read_lists
from nast_s2x.errors import ManifestError, NastError
from nast_s2x.evaluation.divided import ScoredRecording, ScoredSegment, divide
from nast_s2x.evaluation.hypotheses import Hypothesis, read_hypotheses
from nast_s2x.evaluation.items import TestSet, recording
from nast_s2x.evaluation.language import language_of, rules_for
from nast_s2x.evaluation.log import LOG_NAME, read_log
from nast_s2x.evaluation.score_files import SCORES, TRANSCRIPTS, write_lines, write_scores
from nast_s2x.evaluation.scoring import (
    NO_TIMES,
    QUALITY_FIGURES,
    chunk_number,
    cost,
    log_places,
    mean_latency,
    normalisation_signatures,
    row_name,
)
from nast_s2x.evaluation.segmentation import (
    REFERENCES,
    SEGMENTS,
    SegmentedRecording,
    match_names,
    read_segmentation,
    write_segmentation,
)
from nast_s2x.evaluation.settings import SETTINGS, read_settings
from nast_s2x.evaluation.spoken import Recognised, divide_speech, recognise
from nast_s2x.evaluation.stored import FORMAT
from nast_s2x.evaluation.transcripts import TranscriptMissingError, TranscriptStore, recogniser_for
from nast_s2x.files import digest, is_empty, locked
from nast_s2x.metrics.quality import (
    asr_bleu,
    asr_chrf,
    bleu,
    chrf,
    sentence_asr_bleu,
    sentence_bleu,
    word_error_rate,
)
from nast_s2x.metrics.text import TextRules, join_units, normalise, units_of
from nast_s2x.progress import progress_bar
from nast_s2x.recognisers.base import Recogniser

RESEGMENTED = "instances.resegmented.jsonl"


def read_long_form(
    source: str | os.PathLike[str], target: str | os.PathLike[str], segments: str | os.PathLike[str]
) -> tuple[TestSet, list[SegmentedRecording]]:
    """Read a test set of long recordings.

    Args:
        source: audio paths, one a line.
        target: references, one a segment.
        segments: the segmentation, see :func:`~nast_s2x.evaluation.segmentation.read_segmentation`.
    Returns:
        the test set, one utterance a recording with all its references as its reference, and the segmentation.
    Raises:
        FileNotFoundError, ManifestError: a missing or damaged file; recordings that are not those of the segmentation.
    """
    rows = read_lists(source).rows
    recordings = read_segmentation(Path(segments), Path(target))
    order = match_names([str(recording(row)) for row in rows], recordings, f"the recordings of {source}")
    texts = {index: " ".join(item.references).strip() for index, item in zip(order, recordings)}
    for index, item in zip(order, recordings):
        if not texts[index]:
            raise ManifestError(f"{target}: all references of {item.name} are empty")
    utterances = tuple(replace(row, target_text=texts[index]) for index, row in enumerate(rows))
    return TestSet(utterances, Path(source), Path(target), None), recordings


def segmentation_record(path: str | os.PathLike[str], recordings: Sequence[SegmentedRecording]) -> dict[str, Any]:
    """Entry ``long_form`` of the record of an evaluation."""
    parts = [(item.name, part) for item in recordings for part in item.segments]
    lines = [f"{name}\t{part.offset_s!r}\t{part.duration_s!r}\t{part.reference}" for name, part in parts]
    return {"path": str(Path(path).resolve()), "sha256": digest(*lines), "num_segments": len(lines)}


def import_log(
    log: Path,
    folder: Path,
    segments: Path,
    references: Path,
    chunk: str,
    target_lang: str | None = None,
    cumulative: bool = False,
) -> None:
    """Put a log of another program into the folder of a long-form evaluation, for :func:`score_long_form`.

    Args:
        log: see :func:`~nast_s2x.evaluation.hypotheses.read_hypotheses`, also for ``cumulative``.
        folder: a new folder, or one that holds logs of the same segmentation.
        chunk: name of the row: milliseconds, or any word.
        target_lang: language of the output; decides between words and characters.
    Raises:
        FileNotFoundError, NastError: a missing or damaged file; recordings that are not those of the segmentation;
            a folder with other files.
    """
    recordings = read_segmentation(segments, references)
    row_name(chunk)
    language = language_of(folder, None, target_lang)
    rules = rules_for(language, (text for item in recordings for text in item.references))
    hypotheses = _ordered(read_hypotheses(log, rules.unit, cumulative), recordings, log)
    with locked(folder):
        if (folder / SETTINGS).is_file():
            raise NastError(f"{folder} holds a run of `nast-s2x evaluate`: name another folder for other logs")
        if (folder / SEGMENTS).is_file():
            if read_segmentation(folder / SEGMENTS, folder / REFERENCES) != recordings:
                raise NastError(f"{folder} holds an evaluation of another segmentation: name another folder")
        elif folder.exists() and (not folder.is_dir() or not is_empty(folder)):
            raise NastError(f"{folder} holds other files and no long-form evaluation: name another folder")
        lines = [hypothesis.line(index, rules.unit) for index, hypothesis in enumerate(hypotheses)]
        write_lines(folder / chunk / LOG_NAME, lines)
        write_segmentation(folder, recordings)


def score_long_form(
    folder: Path, target_lang: str | None = None, recogniser: Recogniser | None = None, progress: bool = False
) -> dict[str, Any]:
    """Score the logs of a long-form evaluation.

    Writes ``scores.json``, ``scores.csv``, and beside each log ``instances.resegmented.jsonl`` and
    ``utterances.jsonl``, a line a segment.

    Args:
        folder, target_lang, recogniser, progress: as for :func:`~nast_s2x.evaluation.scoring.score`.
    Returns:
        the content of ``scores.json``: as :func:`~nast_s2x.evaluation.scoring.score`, where ``utterances`` counts
        segments, and each row has ``recordings`` too: ``{"recording", "segments", "empty", "source_ms", "quality",
        "latency", "growth"}``; ``growth`` is the slope of LongYAAL over the recording, in ms a minute. Of speech,
        ``latency`` holds the figures of its playback too, those of a row as means over the recordings.
    Raises:
        FileNotFoundError, NastError: no log, a damaged log, recordings that are not those of the segmentation, a
            recogniser for text.
    """
    settings = read_settings(folder) if (folder / SETTINGS).is_file() else None
    is_speech = settings is not None and settings["target_type"] == "speech"
    recordings = read_segmentation(folder / SEGMENTS, folder / REFERENCES)
    language = language_of(folder, settings, target_lang)
    rules = rules_for(language, (text for item in recordings for text in item.references))
    places, notes = log_places(folder, settings)
    notes += [rules.note] if rules.note else []
    recogniser = recogniser_for(folder, is_speech, recogniser, notes)
    rows, lines = [], {}
    with locked(folder / SCORES):
        for place in places:
            talks = (
                _speech_talks(place, recordings, rules, recogniser, notes, progress)
                if is_speech
                else _text_talks(place, recordings, rules)
            )
            segments = [segment for talk in talks for segment in talk.segments]
            write_lines(place / RESEGMENTED, [_instance(*pair, rules) for pair in enumerate(segments)])
            rows.append(_row(place.name, talks, rules))
            lines[place] = _lines(segments, rules)
            notes += _notes(rows[-1], talks, rules)
        scores = {
            "format": FORMAT,
            "target_type": "speech" if is_speech else "text",
            "long_form": True,
            "settings": settings,
            "recogniser": None if recogniser is None else recogniser.identity,
            "target_lang": language,
            "unit": rules.unit,
            "rows": rows,
            "notes": notes,
        }
        write_scores(folder, scores, lines)
    return scores


def _text_talks(place: Path, recordings: Sequence[SegmentedRecording], rules: TextRules) -> list[ScoredRecording]:
    """The recordings of a log of text, in the order of the segmentation."""
    hypotheses = _ordered(read_hypotheses(place / LOG_NAME, rules.unit), recordings, place / LOG_NAME)
    return [
        ScoredRecording(divide(number, item, hypothesis, rules), hypothesis)
        for number, (item, hypothesis) in enumerate(zip(recordings, hypotheses))
    ]


def _speech_talks(
    place: Path,
    recordings: Sequence[SegmentedRecording],
    rules: TextRules,
    recogniser: Recogniser | None,
    notes: list[str],
    progress: bool,
) -> list[ScoredRecording]:
    """The recordings of a log of speech; a note, if some of it has no transcript."""
    utterances = read_log(place, rules.unit)
    names = [str(utterance.audio) for utterance in utterances]
    order = match_names(names, recordings, f"the recordings of {place / LOG_NAME}")
    chosen = [utterances[index] for index in order]
    recognised: list[Recognised | None] = [None] * len(chosen)
    if recogniser is not None:
        store = TranscriptStore(place.parent / TRANSCRIPTS)
        try:
            with progress_bar(len(chosen), "transcribing", "recording", show=progress) as bar:
                for number, utterance in enumerate(chosen):
                    recognised[number] = recognise(utterance, partial(store.transcribe, recogniser), rules.unit)
                    bar.update()
        except TranscriptMissingError:
            recognised = [None] * len(chosen)
            notes.append(
                f"{place.name}: parts of the speech have no stored transcript of {recogniser.identity}: give the "
                "recogniser again for ASR-BLEU and latency"
            )
    return [
        divide_speech(number, item, utterance, found, rules)
        for number, (item, utterance, found) in enumerate(zip(recordings, chosen, recognised))
    ]


def _ordered(hypotheses: Sequence[Hypothesis], recordings: Sequence[SegmentedRecording], log: Path) -> list[Hypothesis]:
    """The hypothesis of each recording."""
    order = match_names([hypothesis.name for hypothesis in hypotheses], recordings, f"the recordings of {log}")
    chosen = [hypotheses[index] for index in order]
    return [
        hypothesis if hypothesis.source_ms is not None else replace(hypothesis, source_ms=1000 * item.end_s)
        for hypothesis, item in zip(chosen, recordings)
    ]


def _instance(index: int, segment: ScoredSegment, rules: TextRules) -> dict[str, Any]:
    """A line in OmniSTEval's form; of speech that has been transcribed, the normalised words and reference."""
    prediction, reference = segment.text, segment.reference
    if segment.transcript is not None:
        prediction = segment.transcript
        reference = join_units(units_of(normalise(reference, rules.unit), rules.unit), rules.unit)
    line: dict[str, Any] = {
        "index": index,
        "docid": segment.recording,
        "segid": segment.place,
        "prediction": prediction,
        "reference": reference,
        "source_length": 1000 * segment.segment.duration_s,
    }
    for key, suffix in (("emission_cu", ""), ("emission_ca", "_CA")):
        if segment.times[suffix]:
            line |= {key: segment.times[suffix], "time_to_recording_end": segment.end_ms}
    return line


def _lines(segments: Sequence[ScoredSegment], rules: TextRules) -> list[dict[str, Any]]:
    """Scores of each segment."""
    texts, references = [item.text for item in segments], [item.reference for item in segments]
    bleus = sentence_bleu(texts, references, rules.tokenizer)
    lines = [
        {
            "index": index,
            "id": f"{Path(item.name).stem}-{item.place}",
            "recording": item.name,
            "offset_ms": 1000 * item.segment.offset_s,
            "source_ms": 1000 * item.segment.duration_s,
            "reference": item.reference,
            "text": item.text,
            "BLEU": bleus[index],
            "latency": item.latency,
            "delays": item.times[""],
        }
        for index, item in enumerate(segments)
    ]
    recognised = _transcripts(segments)
    if recognised is not None:
        asr_bleus = sentence_asr_bleu(recognised[0], references, rules.unit)
        for line, text, silence, value in zip(lines, *recognised, asr_bleus, strict=True):
            line |= {"transcript": text, "transcript_silence": silence, "ASR_BLEU": value}
    return lines


def _transcripts(segments: Sequence[ScoredSegment]) -> tuple[list[str], list[str]] | None:
    """Transcripts of the segments, without gaps and as played; ``None`` for text and without a recogniser."""
    pairs = [(item.transcript, item.transcript_silence) for item in segments]
    known = [(text, silence) for text, silence in pairs if text is not None and silence is not None]
    return ([text for text, _ in known], [silence for _, silence in known]) if len(known) == len(pairs) else None


def _figures(segments: Sequence[ScoredSegment], playback: Sequence[dict[str, Any]], rules: TextRules) -> dict[str, Any]:
    """Quality and mean latency of some segments; ``playback``: figures of the playback of their recordings."""
    texts, references = [item.text for item in segments], [item.reference for item in segments]
    scored = {"BLEU": bleu(texts, references, rules.tokenizer), "chrF": chrf(texts, references)}
    quality: dict[str, float | None] = dict.fromkeys(QUALITY_FIGURES)
    recognised = _transcripts(segments)
    if recognised is not None:
        scored["ASR_BLEU"] = asr_bleu(recognised[0], references, rules.unit)
        scored["ASR_chrF"] = asr_chrf(recognised[0], references, rules.unit)
        scored["ASR_BLEU_silence"] = asr_bleu(recognised[1], references, rules.unit)
        if any(normalise(text, rules.unit) for text in references):
            quality["ASR_WER"] = word_error_rate(recognised[0], references, rules.unit)
    return {
        "empty": sum(not text for text in texts),
        "quality": quality | {name: result.value for name, result in scored.items()},
        "signatures": {name: result.signature for name, result in scored.items()},
        "latency": mean_latency([item.latency for item in segments]) | mean_latency(playback),
    }


def _row(chunk: str, talks: Sequence[ScoredRecording], rules: TextRules) -> dict[str, Any]:
    """The row of a chunk size: all segments, then each recording."""
    found = []
    for talk in talks:
        figures = _figures(talk.segments, [talk.playback], rules)
        del figures["signatures"]
        counts = {"recording": talk.segments[0].name, "segments": len(talk.segments)}
        counts |= {"source_ms": talk.output.source_ms}
        found.append(counts | figures | {"growth": _growth(talk.segments)})
    segments = [segment for talk in talks for segment in talk.segments]
    counts = {"chunk": chunk, "chunk_ms": chunk_number(chunk), "utterances": len(segments)}
    figures = _figures(segments, [talk.playback for talk in talks], rules)
    if "ASR_BLEU" in figures["signatures"]:
        figures["signatures"] |= normalisation_signatures(rules)
    return counts | figures | {"cost": cost([talk.output for talk in talks]), "recordings": found}


def _growth(segments: Sequence[ScoredSegment]) -> float | None:
    """Slope of LongYAAL over the segments of a recording, in ms for each minute of source, by least squares."""
    pairs = [
        (item.segment.offset_s / 60, value) for item in segments if (value := item.latency["LongYAAL"]) is not None
    ]
    if len(pairs) < 2:
        return None
    starts, values = np.array(pairs).T
    starts -= starts.mean()
    return float(starts @ (values - values.mean()) / (starts @ starts))


def _notes(row: dict[str, Any], talks: Sequence[ScoredRecording], rules: TextRules) -> list[str]:
    notes = []
    if row["empty"]:
        notes.append(
            f"{row['chunk']}: {row['empty']} of {row['utterances']} segments have no part of the translation: they "
            "count as empty texts in quality and are left out of latency"
        )
    unmeasured = sum(not talk.output.elapsed for talk in talks if talk.output.delays)
    if unmeasured:
        notes.append(
            f"{row['chunk']}: the log lacks the computing time of {unmeasured} recordings: _CA figures leave them out"
        )
    segments = [segment for talk in talks for segment in talk.segments]
    if _transcripts(segments) is None:
        return notes
    if any(segment.transcript and not segment.times[""] for segment in segments):
        notes.append(f"{row['chunk']}: {NO_TIMES[rules.unit]}")
    elif wordless := sum(bool(segment.text) and not segment.transcript for segment in segments):
        notes.append(f"{row['chunk']}: no word was recognised in {wordless} segments: they are left out of latency")
    return notes
