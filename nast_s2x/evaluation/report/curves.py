"""Curves of quality against latency over the chunk sizes, as CSV and as pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nast_s2x.evaluation import published
from nast_s2x.evaluation.cells import csv_cell
from nast_s2x.evaluation.report.glossary import CA_SUFFIX, describe
from nast_s2x.files import open_atomic
from nast_s2x.texts import printable

LATENCIES = {
    "text": ("AL", "LAAL", "StartOffset", "LongYAAL", "LongLAAL"),
    "speech": ("StartOffset", "AL_words", "LAAL_words", "AL_chunks_vs_words", "LongYAAL", "LongLAAL"),
}
"""Target type -> figures of latency that get a picture, in this order."""
LONG_LATENCIES = ("LongYAAL", "LongLAAL")
"""The same of long recordings, text or speech; nothing is published on them."""
QUALITIES = {"text": ("BLEU",), "speech": ("ASR_BLEU", "ASR_BLEU_silence", "BLEU")}
"""Target type -> figures of quality; BLEU of the text output of a speech system is drawn without a recogniser only."""
COLUMNS = ("origin", "data", "chunk", "quality", "quality_value", "latency", "latency_value", "source")
PUBLISHED_LABEL = "published (other data), for orientation"
AWARE_LABEL = "dotted: with computing time"
MARKERS = "osD^v"


@dataclass(frozen=True)
class Palette:
    """Colours of a picture."""

    paper: str
    ink: str
    faint: str
    published: str
    series: tuple[str, ...]


LIGHT = Palette("#ffffff", "#1b1f24", "#d9dee3", "#6b7480", ("#0b5cad", "#b8430b", "#1a7f4b", "#7b3fa0", "#8a6d00"))
DARK = Palette("#171b21", "#e8ebee", "#39414b", "#98a2ae", ("#6cb4ff", "#ff9d66", "#5fd39a", "#cf9cf0", "#e2c14e"))


@dataclass(frozen=True)
class Curve:
    """One line of a picture.

    Attributes:
        label: text in the legend.
        points: (chunk size, latency, quality) of each point, in order of chunk size.
        kind: ``measured``, ``computation-aware`` or ``published``.
        colour: index of colour and marker.
    """

    label: str
    points: tuple[tuple[str, float, float], ...]
    kind: str = "measured"
    colour: int = 0


def qualities(rows: Sequence[dict[str, Any]], target_type: str) -> list[str]:
    """Return the figures of quality to draw: those that some row has; for speech, BLEU only without ASR-BLEU."""
    there = [name for name in QUALITIES[target_type] if any(row["quality"].get(name) is not None for row in rows)]
    return [name for name in there if name != "BLEU"] or there


def latencies(rows: Sequence[dict[str, Any]], target_type: str) -> tuple[str, ...]:
    """Return the figures of latency that may get a picture."""
    return LONG_LATENCIES if "LongYAAL" in rows[0]["latency"] else LATENCIES[target_type]


def measured(rows: Sequence[dict[str, Any]], quality: str, latency: str) -> tuple[tuple[str, float, float], ...]:
    """Return (chunk size, latency, quality) of the rows that have both figures."""
    pairs = [(row["chunk"], row["latency"].get(latency), row["quality"].get(quality)) for row in rows]
    return tuple((chunk, x, y) for chunk, x, y in pairs if x is not None and y is not None)


def curves_of(rows: Sequence[dict[str, Any]], target_type: str, latency: str) -> list[Curve]:
    """Return the curves of a picture: measured, then computation-aware, then published ones."""
    curves = []
    for colour, quality in enumerate(qualities(rows, target_type)):
        label = describe(quality).label
        curves.append(Curve(f"{label}, measured", measured(rows, quality, latency), "measured", colour))
        aware = measured(rows, quality, latency + CA_SUFFIX)
        curves.append(Curve(AWARE_LABEL, aware, "computation-aware", colour))
        for offset, (data, points) in enumerate(published.points(target_type, quality, latency).items()):
            curves.append(Curve(f"{label}, {data}, {PUBLISHED_LABEL}", tuple(points), "published", colour + offset))
    kinds = ("measured", "computation-aware", "published")
    return sorted((curve for curve in curves if curve.points), key=lambda curve: kinds.index(curve.kind))


def write_csv(path: Path, rows: Sequence[dict[str, Any]], target_type: str) -> None:
    """Write a line for every point of every curve, and for offline results published without a latency."""
    with open_atomic(path) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for quality in qualities(rows, target_type):
            for base in latencies(rows, target_type):
                for latency in (base, base + CA_SUFFIX):
                    for chunk, x, y in measured(rows, quality, latency):
                        _write(writer, ("measured", "", chunk, quality, y, latency, x, ""))
                    for data, points in published.points(target_type, quality, latency).items():
                        for chunk, x, y in points:
                            _write(writer, ("published", data, chunk, quality, y, latency, x, published.SOURCE))
            for data, value in published.offline(target_type, quality).items():
                _write(writer, ("published", data, "offline", quality, value, "", "", published.SOURCE))


def _write(writer: Any, row: Sequence[Any]) -> None:
    writer.writerow([csv_cell(value) for value in row])


def pictures(rows: Sequence[dict[str, Any]], target_type: str) -> list[str]:
    """Return the figures of latency for which some row has a figure of quality too."""
    return [
        latency
        for latency in latencies(rows, target_type)
        if any(measured(rows, quality, latency) for quality in qualities(rows, target_type))
    ]


def picture(curves: Sequence[Curve], latency: str, quality_label: str, palette: Palette = LIGHT) -> bytes:
    """Draw curves of quality against one figure of latency; arguments and result as :func:`panels`."""
    return panels([(latency, curves)], quality_label, palette)


def panels(parts: Sequence[tuple[str, Sequence[Curve]]], quality_label: str, palette: Palette = LIGHT) -> bytes:
    """Draw curves of quality against figures of latency, side by side.

    Args:
        parts: (name of a latency in ``scores.json``, its curves), at least one; published points are drawn hollow.
        quality_label: label of the vertical axis.
        palette: colours.
    Returns:
        a PNG file.
    """
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    figure = Figure(figsize=(4.8 * len(parts), 4.7), dpi=160, layout="constrained", facecolor=palette.paper)
    entries: dict[str, Any] = {}  # the first line of each label
    for number, (latency, curves) in enumerate(parts, 1):
        axes = figure.add_subplot(1, len(parts), number, facecolor=palette.paper)
        for curve in curves:
            entries.setdefault(curve.label, _draw(axes, curve, palette))
        described = describe(latency)
        axes.set_xlabel(f"{described.label} ({described.unit})" if described.unit else described.label)
        axes.set_ylabel(quality_label)
        axes.set_title(f"{quality_label} against {described.label}", fontsize=11, loc="left", color=palette.ink)
        _style(axes, palette)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names of folders may hold "$"
    labels = [_label(label, 100) for label in entries]
    legend = figure.legend([*entries.values()], labels, fontsize=8, frameon=False, loc="outside lower left")
    for text in legend.get_texts():
        text.set_color(palette.ink)
        text.set_parse_math(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _label(text: str, letters: int) -> str:
    """Return at most so many letters of a text; names of folders may be longer than the picture is wide."""
    text = printable(text)
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _draw(axes: Any, curve: Curve, palette: Palette) -> Any:
    """Draw one curve; returns its line."""
    xs, ys = [x for _, x, _ in curve.points], [y for _, _, y in curve.points]
    colour, marker = palette.series[curve.colour % len(palette.series)], MARKERS[curve.colour % len(MARKERS)]
    if curve.kind == "published":
        colour = palette.published
        style = {"linewidth": 1, "linestyle": (0, (4, 3)), "markerfacecolor": palette.paper, "markersize": 5}
    elif curve.kind == "computation-aware":
        style = {"linewidth": 1.2, "linestyle": ":", "markersize": 2.5}
    else:
        style = {"linewidth": 2, "markersize": 6, "zorder": 3}
    (line,) = axes.plot(xs, ys, marker=marker, color=colour, **style)
    if curve.kind == "computation-aware":
        return line  # the chunk sizes are written beside the measured points
    for chunk, x, y in curve.points:
        place = (4, 5) if curve.kind == "published" else (6, -10)
        how = {"xytext": place, "textcoords": "offset points", "fontsize": 8, "color": colour, "zorder": 4}
        axes.annotate(_label(chunk, 20), (x, y), **how)
    return line


def _style(axes: Any, palette: Palette) -> None:
    axes.grid(color=palette.faint, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.margins(0.09, 0.12)
    axes.tick_params(colors=palette.ink, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(palette.published)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(palette.ink)
