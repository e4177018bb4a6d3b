"""The page's tiles, the table of all figures, and the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nast_s2x.evaluation.report.curves import qualities
from nast_s2x.evaluation.report.glossary import CA_SUFFIX, COST, LATENCY, QUALITY, describe, shown
from nast_s2x.evaluation.report.results import Results


def chunk_name(chunk: str) -> str:
    """Return ``"320 ms"`` for ``"320"``; other names, such as ``"offline"``, are returned unchanged."""
    return f"{chunk} ms" if chunk.isdigit() else chunk


def tiles(results: Results) -> list[dict[str, str]]:
    """Return the content of the tile of each chunk size: quality, start offset, empty outputs."""
    names = qualities(results.rows, results.target_type)
    counted = "segments" if results.is_long_form else "outputs"
    items = []
    for row in results.rows:
        start, long = (row["latency"].get(name) for name in ("StartOffset", "LongYAAL"))
        first = "no output" if start is None else f"first output after {start / 1000:.2f} s"
        if results.is_long_form:
            first = "LongYAAL not known" if long is None else f"LongYAAL {long / 1000:.2f} s"
        items.append(
            {
                "name": chunk_name(row["chunk"]),
                "value": shown(names[0], row["quality"].get(names[0])) if names else "–",
                "label": describe(names[0]).label if names else "quality not known",
                "first": first,
                "empty": f"{row['empty']} of {row['utterances']} {counted} empty" if row["empty"] else "",
            }
        )
    return items


def groups(rows: Sequence[dict[str, Any]]) -> list[tuple[str, list[tuple[str, list[float | None]]]]]:
    """Return the figures that some row has, grouped: (heading, [(name, value of each row)])."""
    latencies = [*LATENCY, *(f"{name}{CA_SUFFIX}" for name in LATENCY), *_others(rows, "latency", LATENCY)]
    parts = [
        ("Quality", "quality", [*QUALITY, *_others(rows, "quality", QUALITY)]),
        ("Latency, without computing time", "latency", [n for n in latencies if not n.endswith(CA_SUFFIX)]),
        ("Latency, computation-aware", "latency", [n for n in latencies if n.endswith(CA_SUFFIX)]),
        ("Cost", "cost", [*COST, *_others(rows, "cost", COST)]),
    ]
    found = []
    for heading, part, names in parts:
        figures = [(name, [row[part].get(name) for row in rows]) for name in names]
        figures = [(name, values) for name, values in figures if any(value is not None for value in values)]
        if figures:
            found.append((heading, figures))
    return found


def _others(rows: Sequence[dict[str, Any]], part: str, known: dict[str, Any]) -> list[str]:
    """Return the names of figures without an entry in the glossary; the page shows them too."""
    names = dict.fromkeys(name for row in rows for name in row[part])
    return [name for name in names if name.removesuffix(CA_SUFFIX) not in known]


def figures(results: Results) -> list[dict[str, Any]]:
    """Return the groups of the table of all figures: ``heading`` and ``lines``, each line with its explanation."""
    counted = "Number of segments of the recordings." if results.is_long_form else "Number of recordings."
    counts = [
        _line("Utterances", "", [str(row["utterances"]) for row in results.rows], counted),
        _line(
            "Empty outputs",
            "",
            [str(row["empty"]) for row in results.rows],
            "Recordings with an empty output: they count as empty texts in quality and have no latency.",
            marked=[bool(row["empty"]) for row in results.rows],
        ),
    ]
    found: list[dict[str, Any]] = [{"heading": "", "lines": counts}]
    for heading, group in groups(results.rows):
        lines = [
            _line(describe(name).label, describe(name).unit, [shown(name, v) for v in values], describe(name).meaning)
            for name, values in group
        ]
        found.append({"heading": heading, "lines": lines})
    return found


def _line(label: str, unit: str, values: Sequence[str], meaning: str, marked: Sequence[bool] = ()) -> dict[str, Any]:
    cells = list(zip(values, marked or [False] * len(values), strict=True))
    return {"label": label, "unit": unit, "meaning": meaning, "cells": cells}


def settings(results: Results) -> list[tuple[str, str]]:
    """Return names and values of the settings, and the signatures of the scores."""
    values = results.settings
    model = values.get("model") or {}
    pairs = [
        ("Model", _file(model)),
        ("Languages", f"{model.get('source_lang') or '?'} to {model.get('target_lang') or '?'}"),
        ("Output", results.target_type),
        ("Source", _file(values.get("source"))),
        ("References", _file(values.get("target"))),
        ("Reference units", _file(values.get("units"))),
        ("Utterances", str(values.get("num_utterances", "?"))),
        ("Chunk sizes", ", ".join(map(chunk_name, results.chunks))),
        ("Look-ahead", _ms(values.get("lookahead_ms"), "as in training")),
        ("Decoder wait", _chunks(values.get("wait_chunks"))),
        ("Left context", _ms(values.get("left_ms"), "as in training")),
        ("Pauses that end a segment", _ms(values.get("pause_ms"), "none before half of the model's positions")),
        ("Segment size", _ms(values.get("segment_ms"), "?")),
        ("First segment", _ms(values.get("first_segment_ms"), "as the others")),
        ("Recogniser", results.scores.get("recogniser") or "none"),
        ("Computed on", _computer(values)),
        ("Vocoder", _vocoder(values)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in (values.get("versions") or {}).items())),
    ]
    signatures = results.row(results.main_chunk).get("signatures") or {}
    pairs += [(f"Signature of {describe(name).label}", text) for name, text in signatures.items() if text]
    return [(name, value) for name, value in pairs if value]


def _file(entry: dict[str, Any] | None) -> str:
    if not entry:
        return ""
    digest = entry.get("sha256")
    return f"{entry.get('path', '?')}" + (f" (sha256 {digest[:12]}…)" if digest else "")


def _ms(value: float | str | None, otherwise: str) -> str:
    return otherwise if value is None else value if isinstance(value, str) else f"{value:g} ms"


def _chunks(number: int | None) -> str:
    return "as in training" if number is None else f"{number} chunk{'s' * (number != 1)}"


def _computer(values: dict[str, Any]) -> str:
    threads = values.get("threads")
    parts = [values.get("device"), values.get("dtype"), f"{threads} thread{'s' * (threads != 1)}" if threads else None]
    return ", ".join(str(part) for part in parts if part)


def _vocoder(values: dict[str, Any]) -> str:
    if values.get("target_type") != "speech":
        return ""
    vocoder = values.get("vocoder") or "the model's"
    name = _file(vocoder) if isinstance(vocoder, dict) else str(vocoder)
    held = values.get("synthesis_lookahead")
    return name if held is None else f"{name}; right context {held} unit frames of 20 ms"
