"""Comparison of evaluations, with the significance of their differences in quality.

Significance is tested by sacreBLEU's paired bootstrap (Koehn, "Statistical Significance Tests for Machine Translation
Evaluation", EMNLP 2004) against the first evaluation.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nast_s2x.errors import NastError
from nast_s2x.evaluation.cells import csv_cell
from nast_s2x.evaluation.report import curves
from nast_s2x.evaluation.report.glossary import describe, shown
from nast_s2x.evaluation.report.results import Results, load_results
from nast_s2x.files import json_text, write_atomic
from nast_s2x.metrics.quality import metric
from nast_s2x.metrics.text import normalise
from nast_s2x.texts import printable

FORMAT = 1
SAMPLES = 1000
_COMPARED_SETTINGS = (
    *("source", "lookahead_ms", "wait_chunks", "left_ms", "pause_ms", "segment_ms", "first_segment_ms"),
    *("synthesis_lookahead", "device", "dtype", "threads"),
)
"""Settings that influence latency or quality besides the model; differences in them are noted."""


@dataclass(frozen=True)
class _System:
    name: str
    results: Results


def compare(folders: Sequence[Path], samples: int = SAMPLES) -> dict[str, Any]:
    """Compare scored evaluations of the same references.

    Args:
        folders: folders of two or more evaluations; the others are tested against the first.
        samples: number of resamples of the bootstrap.
    Returns:
        ``{"format", "target_type", "baseline", "samples", "systems": [{"name", "folder", "model", "recogniser"}],
        "notes": [...], "rows": [...]}`` with one row for each chunk size that all have: ``{"chunk", "signatures":
        {figure: ...}, "systems": [{"name", "utterances", "empty", "significance": {figure: {"score", "mean", "ci",
        "p_value"}}, "quality", "latency", "cost"}]}``. ``mean`` and ``ci`` (half the width of the 95 % interval) come
        from the bootstrap; ``p_value`` is None for the first evaluation and for outputs equal to its outputs. A figure
        of quality that some evaluation lacks is not tested.
    Raises:
        FileNotFoundError: not a scored evaluation.
        ValueError: fewer than two folders, fewer than 1 resample, different target types, no common chunk size,
            different references.
    """
    if len(folders) < 2:
        raise NastError(f"a comparison needs at least two evaluations, got {len(folders)}")
    if samples < 1:
        raise NastError(f"the bootstrap needs at least 1 resample, got {samples}")
    loaded = [load_results(Path(folder)) for folder in folders]
    systems = [_System(name, results) for name, results in zip(unique_names(folders), loaded)]
    first = systems[0]
    for system in systems[1:]:
        expected, found = first.results.target_type, system.results.target_type
        if found != expected:
            raise NastError(f"{system.results.folder} evaluates {found}, {first.results.folder} {expected}")
        if system.results.rules != first.results.rules:
            kinds = " and ".join(
                f"{r.unit}s, tokenizer {r.tokenizer}" for r in (first.results.rules, system.results.rules)
            )
            raise NastError(f"{first.results.folder} and {system.results.folder} count differently ({kinds})")
    chunks = [chunk for chunk in first.results.chunks if all(chunk in system.results.chunks for system in systems)]
    if not chunks:
        text = "; ".join(f"{system.results.folder}: {', '.join(system.results.chunks)}" for system in systems)
        raise NastError(
            f"the evaluations have no chunk size in common ({text}); `nast-s2x score --chunk-ms NAME` names a log of "
            "another program"
        )
    notes = _notes(systems)
    return {
        "format": FORMAT,
        "target_type": first.results.target_type,
        "baseline": first.name,
        "samples": samples,
        "systems": [_described(system) for system in systems],
        "notes": notes,
        "rows": [_row(systems, chunk, samples) for chunk in chunks],
    }


def unique_names(folders: Sequence[Path]) -> list[str]:
    """Return a unique name for each folder: its name; if that is not unique, also its parents, or a number.

    Example:
        >>> unique_names([Path("a/test"), Path("b/test"), Path("dev")])
        ['a/test', 'b/test', 'dev']
    """
    parts = [Path(folder).resolve().parts for folder in folders]
    names = [path[-1] for path in parts]
    if len(set(parts)) < len(parts):
        parts = [path[-1:] for path in parts]  # the same folder twice: parents do not make the names unique
    for depth in range(2, max(map(len, parts)) + 1):
        if len(set(names)) == len(names):
            break
        names = ["/".join(path[-depth:]) if names.count(name) > 1 else name for path, name in zip(parts, names)]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: number + 1].count(name)})"
        for number, name in enumerate(names)
    ]


def _described(system: _System) -> dict[str, Any]:
    scores = system.results.scores
    model = (system.results.settings.get("model") or {}).get("path")
    folder = str(system.results.folder)
    return {"name": system.name, "folder": folder, "model": model, "recogniser": scores.get("recogniser")}


def _notes(systems: Sequence[_System]) -> list[str]:
    """Return a note for each setting in which the evaluations differ, and for each log of another program."""
    ours = [system for system in systems if system.results.settings]
    notes = [
        f"{system.name}: a log of another program, its settings are not known"
        for system in systems
        if system not in ours
    ]
    for name in _COMPARED_SETTINGS:
        values = [system.results.settings.get(name) for system in ours]
        values = [value.get("sha256") if isinstance(value, dict) else value for value in values]
        if any(value != values[0] for value in values):
            text = ", ".join(f"{system.name}: {_format_value(value)}" for system, value in zip(ours, values))
            notes.append(f"{name} differs ({text})")
    recognisers = {system.results.scores.get("recogniser") for system in systems}
    if len(recognisers) > 1:
        text = ", ".join(f"{system.name}: {system.results.scores.get('recogniser')}" for system in systems)
        notes.append(f"recogniser differs ({text}): ASR-BLEU is not tested")
    return notes


def _format_value(value: Any) -> str:
    """Format a setting for a note: digests are shortened."""
    if value is None:
        return "not set"
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def _row(systems: Sequence[_System], chunk: str, samples: int) -> dict[str, Any]:
    """Compare the systems at one chunk size."""
    references, outputs = _texts(systems, chunk)
    unit = systems[0].results.rules.unit
    figures: dict[str, dict[str, Any]] = {}
    if any(text for texts in outputs for text in texts):
        # Logs of speech written by SimulEval hold no words: their BLEU is not known.
        known = [name for name in ("BLEU", "chrF") if all(_has_quality(system, chunk, name) for system in systems)]
        figures = {name: {"outputs": outputs, "references": references} for name in known}
    transcripts = _transcripts(systems, chunk)
    if transcripts is not None:
        figures["ASR_BLEU"] = {"outputs": transcripts, "references": [normalise(text, unit) for text in references]}
    tests = {
        name: _paired(name, samples=samples, tokenizer=systems[0].results.rules.tokenizer, **texts)
        for name, texts in figures.items()
    }
    entries = []
    for number, system in enumerate(systems):
        row = system.results.row(chunk)
        entries.append(
            {
                "name": system.name,
                "utterances": row["utterances"],
                "empty": row["empty"],
                "significance": {name: results[number] for name, (_, results) in tests.items()},
                "quality": row["quality"],
                "latency": row["latency"],
                "cost": row["cost"],
            }
        )
    return {"chunk": chunk, "signatures": {name: text for name, (text, _) in tests.items()}, "systems": entries}


def _has_quality(system: _System, chunk: str, name: str) -> bool:
    return system.results.row(chunk)["quality"].get(name) is not None


def _texts(systems: Sequence[_System], chunk: str) -> tuple[list[str], list[list[str]]]:
    """Return the references and the outputs of each system.

    Raises:
        NastError: the systems have different references.
    """
    texts = [system.results.texts(chunk) for system in systems]
    references = texts[0][0]
    for system, (others, _) in zip(systems[1:], texts[1:]):
        if others != references:
            places = zip(references, others)
            place = next((i for i, (a, b) in enumerate(places) if a != b), min(len(references), len(others)))
            raise NastError(
                f"{system.results.place(chunk)} and {systems[0].results.place(chunk)} have different references "
                f"({len(others)} and {len(references)} utterances; the first difference is at index {place})"
            )
    return references, [outputs for _, outputs in texts]


def _transcripts(systems: Sequence[_System], chunk: str) -> list[list[str]] | None:
    """Return the normalised transcripts of each system; ``None`` unless all are known and of one recogniser."""
    identities = {system.results.scores.get("recogniser") for system in systems}
    if systems[0].results.target_type != "speech" or len(identities) > 1 or None in identities:
        return None
    transcripts = [[entry.get("transcript") for entry in system.results.utterance_scores(chunk)] for system in systems]
    if any(text is None for texts in transcripts for text in texts):
        return None
    unit = systems[0].results.rules.unit
    return [[normalise(text, unit) for text in texts] for texts in transcripts]


def _paired(
    figure: str, outputs: Sequence[Sequence[str]], references: Sequence[str], samples: int, tokenizer: str
) -> tuple[str, list[dict[str, float | None]]]:
    """Run sacreBLEU's paired bootstrap; returns the signature and the result of each system."""
    from sacrebleu.significance import PairedTest

    named = [(str(number), list(texts)) for number, texts in enumerate(outputs)]
    test = PairedTest(named, {figure: metric(figure, tokenizer)}, [list(references)], test_type="bs", n_samples=samples)
    signatures, scores = test()
    results = next(values for name, values in scores.items() if name != "System")
    found = []
    for texts, result in zip(outputs, results):
        # For equal outputs sacreBLEU returns the smallest possible p-value, as for a certain difference.
        same = list(texts) == list(outputs[0])
        values = {"score": result.score, "mean": result.mean, "ci": result.ci, "p_value": result.p_value}
        values["p_value"] = None if same else values["p_value"]
        found.append({name: None if value is None else float(value) for name, value in values.items()})
    return str(next(iter(signatures.values()))), found


def table(comparison: dict[str, Any]) -> list[dict[str, str | float | None]]:
    """Return one flat entry per chunk size and system; ``BLEU_ci`` and ``BLEU_p`` are interval and p-value of BLEU."""
    lines = []
    for row in comparison["rows"]:
        for entry in row["systems"]:
            line: dict[str, Any] = {"chunk": row["chunk"], "system": entry["name"]}
            line |= {"utterances": entry["utterances"], "empty": entry["empty"]}
            line |= entry["quality"]
            for name, result in entry["significance"].items():
                line |= {name: result["score"], f"{name}_ci": result["ci"], f"{name}_p": result["p_value"]}
            lines.append(line | entry["latency"] | entry["cost"])
    names = dict.fromkeys(name for line in lines for name in line)
    there = [name for name in names if any(line.get(name) is not None for line in lines)]
    return [{name: line.get(name) for name in there} for line in lines]


def picture(comparison: dict[str, Any]) -> bytes:
    """Draw quality against latency: a curve for each system, a panel for each figure of latency.

    Returns:
        a PNG file.
    Raises:
        ValueError: no system has both a figure of quality and one of latency.
    """
    target = comparison["target_type"]
    by_system = {
        system["name"]: [
            entry | {"chunk": row["chunk"]}
            for row in comparison["rows"]
            for entry in row["systems"]
            if entry["name"] == system["name"]
        ]
        for system in comparison["systems"]
    }
    everything = [row for rows in by_system.values() for row in rows]
    quality = next(iter(curves.qualities(everything, target)), None)
    panels = []
    for latency in curves.LATENCIES[target] if quality else ():
        lines = [
            curves.Curve(name, curves.measured(rows, quality, latency), colour=number)
            for number, (name, rows) in enumerate(by_system.items())
        ]
        if any(line.points for line in lines):
            panels.append((latency, [line for line in lines if line.points]))
    if not panels:
        raise NastError("no figure of quality and latency to draw")
    return curves.panels(panels, describe(quality).label)


def write(comparison: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``compare.json``, ``compare.csv`` and ``compare.png``; the folder is created if needed.

    Returns:
        the files.
    Raises:
        ValueError: as :func:`picture`; nothing is written then.
    """
    drawn = picture(comparison)
    lines = table(comparison)
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in line.items()} for line in lines)
    contents = {
        "compare.json": (json_text(comparison, indent=2) + "\n").encode(),
        "compare.csv": stream.getvalue().encode(),
        "compare.png": drawn,
    }
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]


def format_table(comparison: dict[str, Any]) -> str:
    """Format the comparison as a text table: quality with p-values, then latency and cost."""
    latencies = (
        "StartOffset",
        "StreamLAAL",
        *curves.LATENCIES[comparison["target_type"]],
        "GapSum",
        "real_time_factor",
    )
    lines = []
    for row in table(comparison):
        cells = {"chunk": printable(str(row["chunk"])), "system": printable(str(row["system"]))}
        for name in ("BLEU", "chrF", "ASR_BLEU"):
            if row.get(name) is not None:
                cells[name] = shown(name, row[name]) + _tested(row, name, row["system"] == comparison["baseline"])
        cells |= {name: shown(name, row[name]) for name in latencies if name in row}
        lines.append(cells | ({"empty": str(row["empty"])} if row["empty"] else {}))
    names = list(dict.fromkeys(name for cells in lines for name in cells))
    widths = {name: max(len(name), *(len(cells.get(name, "")) for cells in lines)) for name in names}
    shown_lines = ["  ".join(f"{name:<{widths[name]}}" for name in names)]
    shown_lines += ["  ".join(f"{cells.get(name, ''):<{widths[name]}}" for name in names) for cells in lines]
    rule = (
        f"±: half of the 95 % interval; p: paired bootstrap with {comparison['samples']} resamples "
        f"against {printable(comparison['baseline'])}; =: equal outputs"
    )
    return "\n".join([*(line.rstrip() for line in shown_lines), rule, *map(printable, comparison["notes"])])


def _tested(row: dict[str, Any], name: str, is_baseline: bool) -> str:
    """``" ±1.20 p=0.034"`` after a score."""
    if row.get(f"{name}_ci") is None:
        return ""
    p_value = row.get(f"{name}_p")
    test = "" if is_baseline else " =" if p_value is None else f" p={p_value:.3f}"
    return f" ±{row[f'{name}_ci']:.2f}{test}"
