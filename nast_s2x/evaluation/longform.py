"""Evaluation of long recordings: each translation is divided among the reference segments, and these are scored.

The folder of an evaluation holds ``segments.yaml`` and ``references.txt``, and in the folder of each chunk size a log
of whole recordings in SimulEval's form. OmniSTEval reads these three files, and what is written beside the log,
``instances.resegmented.jsonl``, has its form.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nast_s2x.corpus import read_lists
from nast_s2x.errors import ManifestError, NastError
from nast_s2x.evaluation.hypotheses import Hypothesis, read_hypotheses
from nast_s2x.evaluation.items import TestSet, recording
from nast_s2x.evaluation.language import language_of, rules_for
from nast_s2x.evaluation.log import LOG_NAME
from nast_s2x.evaluation.score_files import SCORES, write_lines, write_scores
from nast_s2x.evaluation.scoring import FORMAT, QUALITY_FIGURES, chunk_number, cost, log_places, mean_latency
from nast_s2x.evaluation.segmentation import (
    REFERENCES,
    SEGMENTS,
    ReferenceSegment,
    SegmentedRecording,
    match_names,
    read_segmentation,
    write_segmentation,
)
from nast_s2x.evaluation.settings import SETTINGS, read_settings
from nast_s2x.files import digest, is_empty, locked
from nast_s2x.metrics.longform import laal, resegment, resegment_by_edits, yaal
from nast_s2x.metrics.quality import bleu, chrf, sentence_bleu
from nast_s2x.metrics.text import TextRules, join_units, units_of

RESEGMENTED = "instances.resegmented.jsonl"
FIGURES = ("LongYAAL", "LongLAAL", "StreamLAAL", "YAAL")


@dataclass(frozen=True)
class ScoredSegment:
    """A reference segment with the part of the translation that belongs to it.

    Attributes:
        recording: number of the recording.
        name: its name.
        place: number of the segment in it.
        segment: start, length and reference.
        reference: the reference as it is scored: of a language measured in characters without spaces.
        end_ms: end of the recording, from the start of the segment.
        text: the part of the translation.
        times: ``""`` and ``"_CA"`` -> delays and elapsed times of its units from the start of the segment, in ms.
        latency: figures, ``None`` where there is none.
    """

    recording: int
    name: str
    place: int
    segment: ReferenceSegment
    reference: str
    end_ms: float
    text: str
    times: dict[str, list[float]]
    latency: dict[str, float | None]


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
    if Path(chunk).name != chunk or chunk in ("", ".", ".."):
        raise NastError(f"the name of a row must be a single word such as 320, but is {chunk!r}")
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


def score_long_form(folder: Path, target_lang: str | None = None) -> dict[str, Any]:
    """Score the logs of a long-form evaluation.

    Writes ``scores.json``, ``scores.csv``, and beside each log ``instances.resegmented.jsonl`` and
    ``utterances.jsonl``, a line a segment.

    Returns:
        the content of ``scores.json``: as :func:`~nast_s2x.evaluation.scoring.score`, where ``utterances`` counts
        segments, and each row has ``recordings`` too: ``{"recording", "segments", "empty", "source_ms", "quality",
        "latency", "growth"}``; ``growth`` is the slope of LongYAAL over the recording, in ms a minute.
    Raises:
        FileNotFoundError, NastError: no log, a damaged log, recordings that are not those of the segmentation.
    """
    settings = read_settings(folder) if (folder / SETTINGS).is_file() else None
    recordings = read_segmentation(folder / SEGMENTS, folder / REFERENCES)
    language = language_of(folder, settings, target_lang)
    rules = rules_for(language, (text for item in recordings for text in item.references))
    places, notes = log_places(folder, settings)
    notes += [rules.note] if rules.note else []
    rows, lines = [], {}
    with locked(folder / SCORES):
        for place in places:
            hypotheses = _ordered(read_hypotheses(place / LOG_NAME, rules.unit), recordings, place / LOG_NAME)
            segments = [
                segment
                for number, pair in enumerate(zip(recordings, hypotheses))
                for segment in _divide(number, *pair, rules)
            ]
            write_lines(place / RESEGMENTED, [_instance(index, segment) for index, segment in enumerate(segments)])
            rows.append(_row(place.name, segments, hypotheses, rules))
            lines[place] = _lines(segments, rules)
            notes += _notes(rows[-1], hypotheses)
        scores = {
            "format": FORMAT,
            "target_type": "text",
            "long_form": True,
            "settings": settings,
            "recogniser": None,
            "target_lang": language,
            "unit": rules.unit,
            "rows": rows,
            "notes": notes,
        }
        write_scores(folder, scores, lines)
    return scores


def _ordered(hypotheses: Sequence[Hypothesis], recordings: Sequence[SegmentedRecording], log: Path) -> list[Hypothesis]:
    """The hypothesis of each recording."""
    order = match_names([hypothesis.name for hypothesis in hypotheses], recordings, f"the recordings of {log}")
    chosen = [hypotheses[index] for index in order]
    return [
        hypothesis if hypothesis.source_ms is not None else replace(hypothesis, source_ms=1000 * item.end_s)
        for hypothesis, item in zip(chosen, recordings)
    ]


def _divide(number: int, item: SegmentedRecording, hypothesis: Hypothesis, rules: TextRules) -> list[ScoredSegment]:
    """The segments of a recording with their parts of the translation."""
    parts = resegment(item.references, hypothesis.units, rules.unit)
    by_edits = resegment_by_edits(item.references, hypothesis.units, rules.unit)
    found = []
    for place, (segment, part, other) in enumerate(zip(item.segments, parts, by_edits)):
        start_ms, source_ms = 1000 * segment.offset_s, 1000 * segment.duration_s
        end_ms = 1000 * item.end_s - start_ms
        reference = units_of(segment.reference, rules.unit)
        times, latency = {}, {}
        for suffix, values in (("", hypothesis.delays), ("_CA", hypothesis.elapsed)):
            times[suffix] = [values[index] - start_ms for index in part] if values else []
            stream = [values[index] - start_ms for index in other] if values else []
            figures = (
                yaal(times[suffix], source_ms, len(reference), end_ms),
                laal(times[suffix], source_ms, len(reference)),
                laal(stream, source_ms, len(reference)),
                yaal(times[suffix], source_ms, len(reference)),
            )
            latency |= {f"{name}{suffix}": value for name, value in zip(FIGURES, figures, strict=True)}
        text = join_units([hypothesis.units[index] for index in part], rules.unit)
        scored = segment.reference if rules.unit == "word" else join_units(reference, rules.unit)
        found.append(ScoredSegment(number, item.name, place, segment, scored, end_ms, text, times, latency))
    return found


def _instance(index: int, segment: ScoredSegment) -> dict[str, Any]:
    """A line in OmniSTEval's form."""
    line: dict[str, Any] = {
        "index": index,
        "docid": segment.recording,
        "segid": segment.place,
        "prediction": segment.text,
        "reference": segment.reference,
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
    return [
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


def _figures(segments: Sequence[ScoredSegment], rules: TextRules) -> dict[str, Any]:
    """Quality and mean latency of some segments."""
    texts, references = [item.text for item in segments], [item.reference for item in segments]
    scored = {"BLEU": bleu(texts, references, rules.tokenizer), "chrF": chrf(texts, references)}
    return {
        "empty": sum(not text for text in texts),
        "quality": dict.fromkeys(QUALITY_FIGURES) | {name: result.value for name, result in scored.items()},
        "signatures": {name: result.signature for name, result in scored.items()},
        "latency": mean_latency([item.latency for item in segments]),
    }


def _row(
    chunk: str, segments: Sequence[ScoredSegment], hypotheses: Sequence[Hypothesis], rules: TextRules
) -> dict[str, Any]:
    """The row of a chunk size: all segments, then each recording."""
    talks = []
    for number, hypothesis in enumerate(hypotheses):
        own = [item for item in segments if item.recording == number]
        figures = _figures(own, rules)
        del figures["signatures"]
        counts = {"recording": own[0].name, "segments": len(own), "source_ms": hypothesis.source_ms}
        talks.append(counts | figures | {"growth": _growth(own)})
    counts = {"chunk": chunk, "chunk_ms": chunk_number(chunk), "utterances": len(segments)}
    return counts | _figures(segments, rules) | {"cost": cost(hypotheses), "recordings": talks}


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


def _notes(row: dict[str, Any], hypotheses: Sequence[Hypothesis]) -> list[str]:
    notes = []
    if row["empty"]:
        notes.append(
            f"{row['chunk']}: {row['empty']} of {row['utterances']} segments have no part of the translation: they "
            "count as empty texts in quality and are left out of latency"
        )
    unmeasured = sum(not item.elapsed for item in hypotheses if item.units)
    if unmeasured:
        notes.append(
            f"{row['chunk']}: the log lacks the computing time of {unmeasured} recordings: _CA figures leave them out"
        )
    return notes
