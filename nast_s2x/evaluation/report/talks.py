"""Long recordings on the page: a timeline of segments with the delay of each, and a table of the measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nast_s2x.evaluation.report.glossary import CA_SUFFIX, describe, shown
from nast_s2x.evaluation.report.html import escaped
from nast_s2x.evaluation.report.results import Results
from nast_s2x.evaluation.report.tables import chunk_name

WIDTH, LEFT, RIGHT = 960, 64, 12
BAND, PLOT = 22, 150
"""Heights in px of the band of segments and of the plot of delays."""
_BOTTOM = BAND + 16 + PLOT
FIGURE = "LongYAAL"
_MEASURES = ("LongYAAL", "LongLAAL", "StreamLAAL")
_SPOKEN_QUALITY = ("ASR_BLEU", "ASR_BLEU_silence", "ASR_WER")
_PLAYBACK = ("StartOffset", "EndOffset", "GapNum", "GapMean", "GapSum")


def talks(results: Results) -> list[dict[str, Any]]:
    """Return name, sentence, timeline (SVG) and table of each recording; empty for other evaluations.

    The timeline is that of the chunk size which the page shows first.
    """
    if not results.is_long_form:
        return []
    chunk = results.main_chunk
    found = []
    for number, talk in enumerate(results.row(chunk)["recordings"]):
        name = Path(str(talk["recording"])).name
        segments = [entry for entry in results.utterance_scores(chunk) if entry["recording"] == talk["recording"]]
        found.append(
            {
                "name": name,
                "words": _growth(talk, chunk),
                "label": f"Segments and delay over the length of {name}",
                "timeline": _svg(f"talk-{number}", name, segments, float(talk["source_ms"])),
                "table": _table(results, number),
            }
        )
    return found


def _growth(talk: dict[str, Any], chunk: str) -> str:
    growth = talk.get("growth")
    start = f"{describe(FIGURE).label} of each segment at {chunk_name(chunk)}; dotted: with computing time."
    if growth is None:
        return start
    return (
        f"{start} By the straight line of least squares it changes by {shown(FIGURE, growth)} ms in a minute of source."
    )


def _table(results: Results, number: int) -> dict[str, Any]:
    """Measures of a recording: a line for each chunk size."""
    spoken, playback = (_SPOKEN_QUALITY, _PLAYBACK) if results.target_type == "speech" else ((), ())
    names = (*spoken, "BLEU", "chrF", *_MEASURES, *(name + CA_SUFFIX for name in _MEASURES), *playback)
    rows = []
    for row in results.rows:
        talk = row["recordings"][number]
        figures = talk["quality"] | talk["latency"]
        cells = [str(talk["segments"]), str(talk["empty"]), *(shown(name, figures.get(name)) for name in names)]
        rows.append([chunk_name(row["chunk"]), *cells])
    header = ["Chunk size", "Segments", "Without output", *(describe(name).label for name in names)]
    return {"caption": "Measures of this recording", "header": header, "rows": rows}


@dataclass(frozen=True)
class _Scale:
    """Times (0 to ``total`` ms) and delays (``low`` to ``high`` ms) as coordinates in px."""

    total: float
    low: float
    high: float

    def x(self, time_ms: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * time_ms / self.total

    def y(self, delay_ms: float) -> float:
        return _BOTTOM - PLOT * (delay_ms - self.low) / (self.high - self.low)


def _svg(name: str, title: str, segments: Sequence[dict[str, Any]], source_ms: float) -> Any:
    """Band of segments above the plot of their delays; every text is escaped."""
    from markupsafe import Markup

    series = {suffix: _points(segments, FIGURE + suffix) for suffix in ("", CA_SUFFIX)}
    values = [0.0, *(value for points in series.values() for _, value in points)]
    total = max([source_ms, *(entry["offset_ms"] + entry["source_ms"] for entry in segments)])
    scale = _Scale(total, min(values), max(max(values), min(values) + 1.0))
    size = f'viewBox="0 0 {WIDTH} {_BOTTOM + 34}" role="img" aria-labelledby="{name}-title"'
    words = f"{escaped(title)}: {len(segments)} segments in {total / 1000:.0f} s"
    parts = [f'<svg class="timeline" id="{name}" {size}><title id="{name}-title">{words}</title>']
    parts += [*_band(segments, scale), *_axes(scale)]
    for suffix, points in series.items():
        if points:
            line = "L".join(f"{scale.x(time):.1f} {scale.y(value):.1f}" for time, value in points)
            parts.append(f'<path class="delay{" delay-ca" if suffix else ""}" d="M{line}"/>')
    for time, value in series[""]:
        parts.append(f'<circle class="moment" cx="{scale.x(time):.1f}" cy="{scale.y(value):.1f}" r="3"/>')
    return Markup("".join(parts) + "</svg>")


def _band(segments: Sequence[dict[str, Any]], scale: _Scale) -> list[str]:
    parts = []
    for place, entry in enumerate(segments):
        left, right = scale.x(entry["offset_ms"]), scale.x(entry["offset_ms"] + entry["source_ms"])
        output = entry["text"] if entry.get("transcript") is None else entry["transcript"]
        about = escaped(f"{entry['offset_ms'] / 1000:.1f} s: {output or 'no output'}")
        area = f'x="{left:.1f}" y="4" width="{max(1.0, right - left):.1f}" height="{BAND}"'
        parts.append(f'<rect class="chunk{" odd" * (place % 2)}" {area}><title>{about}</title></rect>')
    return parts


def _axes(scale: _Scale) -> list[str]:
    parts = []
    for value in (scale.low, (scale.low + scale.high) / 2, scale.high):
        height = scale.y(value)
        parts.append(f'<path class="tick" d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}"/>')
        place = f'x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end"'
        parts.append(f'<text class="label" {place}>{value:.0f} ms</text>')
    for step, anchor in enumerate(("start", "middle", "middle", "middle", "end")):
        time_ms = scale.total * step / 4
        place = f'x="{scale.x(time_ms):.1f}" y="{_BOTTOM + 18}" text-anchor="{anchor}"'
        parts.append(f'<text class="label" {place}>{_clock(time_ms)}</text>')
    return parts


def _points(segments: Sequence[dict[str, Any]], figure: str) -> list[tuple[float, float]]:
    """(middle of the segment in ms, its delay in ms) of the segments that have one."""
    pairs = [(entry["offset_ms"] + entry["source_ms"] / 2, entry["latency"].get(figure)) for entry in segments]
    return [(time, value) for time, value in pairs if value is not None]


def _clock(time_ms: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(round(time_ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
