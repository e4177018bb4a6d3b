"""Files of scores in the folder of an evaluation."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nast_s2x.errors import NastError
from nast_s2x.evaluation.cells import csv_cell
from nast_s2x.files import json_text, read_json, write_atomic
from nast_s2x.texts import printable

SCORES, SCORES_TABLE, UTTERANCES, TRANSCRIPTS = "scores.json", "scores.csv", "utterances.jsonl", "transcripts.jsonl"


def previous_scores(folder: Path) -> dict[str, Any]:
    """Read the scores of a folder; empty where there are none, and for damaged ones, which are about to be replaced."""
    try:
        return read_json(folder / SCORES)
    except (OSError, NastError):
        return {}


def write_scores(folder: Path, scores: dict[str, Any], lines: Mapping[Path, Sequence[dict[str, Any]]]) -> None:
    """Write all files of the scores; ``lines`` holds, for each folder with a log, the scores of its utterances."""
    for place, entries in lines.items():
        write_lines(place / UTTERANCES, entries)
    write_atomic(folder / SCORES_TABLE, _csv(scores["rows"]))
    write_atomic(folder / SCORES, json_text(scores, indent=2, allow_nan=False) + "\n")


def write_lines(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    write_atomic(path, "".join(json_text(entry, allow_nan=False) + "\n" for entry in entries))


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """Format the rows as CSV with a header; unknown figures are empty cells."""
    flat = [
        {name: row[name] for name in ("chunk", "chunk_ms", "utterances", "empty")}
        | row["quality"] | row["latency"] | row["cost"]
        for row in rows
    ]  # fmt: skip
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in flat)
    return stream.getvalue()


def table(scores: dict[str, Any]) -> str:
    """Format the main figures as a text table, one line per chunk size, followed by the notes."""
    speech = scores["target_type"] == "speech"
    quality = ("ASR_BLEU", "ASR_BLEU_silence", "ASR_WER", "BLEU", "unit_BLEU") if speech else ("BLEU", "chrF", "COMET")
    latency = (
        ("StartOffset", "EndOffset", "AL_words", "ATD", "GapNum", "GapSum")
        if speech
        else ("AL", "LAAL", "ATD", "StartOffset", "AL_CA", "LAAL_CA")
    )
    if scores.get("long_form"):
        latency = ("LongYAAL", "LongLAAL", "StreamLAAL", "LongYAAL_CA", "LongLAAL_CA", "StreamLAAL_CA")
        latency += ("StartOffset", "EndOffset", "GapNum", "GapSum") if speech else ()
    counted = "segments" if scores.get("long_form") else "utterances"
    lines = [["chunk", counted, "empty", *quality, *latency, "ms/chunk p50", "p95", "real-time factor"]]
    for row in scores["rows"]:
        timed = row["cost"]
        lines.append([
            *(printable(str(row[name])) for name in ("chunk", "utterances", "empty")),
            *(_format(row["quality"].get(name), 4 if name == "COMET" else 2) for name in quality),
            *(_format(row["latency"][name], 1 if name == "GapNum" else 0) for name in latency),
            *(_format(timed[name], 1) for name in ("chunk_ms_p50", "chunk_ms_p95")),
            _format(timed["real_time_factor"], 3),
        ])  # fmt: skip
    return "\n".join([*_aligned(lines), *(f"note: {printable(note)}" for note in scores["notes"])])


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with right-aligned columns, the first line its header; columns of ``-`` alone are left out."""
    kept = [column for column in zip(*lines) if any(cell != "-" for cell in column[1:])]
    widths = [max(map(len, column)) for column in kept]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in zip(*kept)]


def _format(value: float | None, digits: int) -> str:
    """A figure with so many decimal places; ``-`` where it is not known."""
    return "-" if value is None else f"{value:.{digits}f}"
