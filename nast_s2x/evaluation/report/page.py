"""The page: one HTML file that needs nothing else, to look at and listen to an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from nast_s2x import __version__
from nast_s2x.evaluation import published
from nast_s2x.evaluation.report import curves
from nast_s2x.evaluation.report.glossary import describe
from nast_s2x.evaluation.report.html import data_uri
from nast_s2x.evaluation.report.results import Results, sentence_score
from nast_s2x.evaluation.report.tables import chunk_name, figures_table, settings, tiles
from nast_s2x.evaluation.report.utterances import Shown, article

_HERE = Path(__file__).parent
_SIZE = "@size@"


def page(results: Results, pictures: Mapping[str, bytes], utterances: Sequence[Sequence[Shown]]) -> str:
    """The whole page.

    Args:
        results: the evaluation.
        pictures: figure of latency -> the picture of its curves on white, a PNG file.
        utterances: those to show, each at every chunk size.
    Returns:
        HTML.
    """
    title = f"Evaluation of {Path(str((results.settings.get('model') or {}).get('path', 'a model'))).name}"
    sections = [
        ("curves", "Quality and latency", _curves(results, pictures)),
        ("figures", "All figures", figures_table(results)),
        ("utterances", "Utterances", _utterances(results, utterances)),
        ("settings", "What was run", settings(results)),
    ]
    links = "".join(f'<li><a href="#{name}">{escape(heading)}</a></li>' for name, heading, _ in sections)
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-heading"><h2 id="{name}-heading">{escape(heading)}</h2>'
        f"{content}</section>"
        for name, heading, content in sections
    )
    style = (_HERE / "page.css").read_text(encoding="utf-8") + _choice_style(results.chunks)
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    html = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{style}</style></head>'
        f'<body><a class="skip" href="#main">Skip to the results</a>'
        f'<header><h1>{escape(title)}</h1><p class="lead">{escape(_subtitle(results))}</p>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>'
        f'<main id="main">{tiles(results)}{_notes(results)}{body}</main>'
        f"<footer><p>Written by nast-s2x {escape(__version__)}. {_SIZE}</p></footer>"
        f"<script>{script}</script></body></html>\n"
    )
    size = f"This page is one file of {len(html.encode()) / 1e6:.1f} MB, sounds included; it needs no network."
    return html.replace(_SIZE, size)


def _notes(results: Results) -> str:
    """What the scores say of themselves."""
    notes = "".join(f"<li>{escape(note)}</li>" for note in results.scores.get("notes") or ())
    return f'<aside class="notes" aria-label="Notes"><ul>{notes}</ul></aside>' if notes else ""


def _subtitle(results: Results) -> str:
    model, row = results.settings.get("model") or {}, results.row(results.main_chunk)
    languages = ", ".join(f"{name} {model[key]}" for name, key in _LANGUAGES if model.get(key))
    kind = f"Simultaneous speech-to-{results.target_type} translation"
    note = " The model is an example that shows the way, not a product." if model.get("example") else ""
    return f"{kind}{f' ({languages})' if languages else ''}, {row['utterances']} utterances.{note}"


_LANGUAGES = (("from", "source_lang"), ("to", "target_lang"))


def _curves(results: Results, pictures: Mapping[str, bytes]) -> str:
    """The pictures in light and dark; the browser takes the one that fits."""
    rows, target = results.rows, results.target_type
    figures = []
    for latency, picture in pictures.items():
        lines, label = curves.curves_of(rows, target, latency), quality_label(results)
        light = data_uri(picture, "image/png")
        dark = data_uri(curves.picture(lines, latency, label, curves.DARK), "image/png")
        meaning, words = describe(latency).meaning, escape(_alternative(lines, latency, label))
        figures.append(
            f'<figure><picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
            f'<img src="{light}" width="768" height="752" alt="{words}"></picture>'
            f"<figcaption>{escape(f'{describe(latency).label}: {meaning}')}</figcaption></figure>"
        )
    if not figures:
        return "<p>No figure of latency and quality was measured together, so there is no curve.</p>"
    css = "curves wide" if len(figures) % 2 == 0 else "curves"
    return f'<p>{escape(_published_note(results))}</p><div class="{css}">{"".join(figures)}</div>'


def quality_label(results: Results) -> str:
    """What the vertical axis shows."""
    names = curves.qualities(results.rows, results.target_type)
    return "ASR-BLEU" if names and names[0].startswith("ASR") else "BLEU"


def _published_note(results: Results) -> str:
    data = dict.fromkeys(point.data for point in published.POINTS if point.target_type == results.target_type)
    offline = [
        f"{value:.2f} {describe(quality).label} ({name})"
        for quality in curves.qualities(results.rows, results.target_type)
        for name, value in published.offline(results.target_type, quality).items()
    ]
    return (
        "Filled points are measured here, one for each chunk size; the dotted line beside them counts computing time. "
        f"Hollow grey points are published results of NAST-S2X on {' and '.join(data)}, {published.SOURCE}: other data "
        "and other models, for orientation only, not measured here."
        + (f" Published offline: {', '.join(offline)}." if offline else "")
    )


def _alternative(lines: Sequence[curves.Curve], latency: str, label: str) -> str:
    """The picture in words: measured points in full."""
    measured = [
        f"{curve.label}: " + ", ".join(f"{chunk_name(chunk)} {y:.1f} at {x:.0f}" for chunk, x, y in curve.points)
        for curve in lines
        if curve.kind == "measured"
    ]
    also = " Published points of other data lie beside it." if any(line.kind == "published" for line in lines) else ""
    return f"{label} against {describe(latency).label} ({describe(latency).unit}). {'. '.join(measured)}.{also}"


def _choice_style(chunks: Sequence[str]) -> str:
    """Only the chosen chunk size is shown, where the browser can look into a section; else all are."""
    # By number: the names of chunk sizes may hold anything where the logs are SimulEval's alone.
    shown = ",".join(f"#utterances:has(#chunk-{n}:checked) .panel-{n}" for n in range(len(chunks)))
    return (
        "@media screen{@supports selector(:has(*)){fieldset.chunks{display:block}"
        f"#utterances .panel{{display:none}}{shown}{{display:block}}}}}}"
    )


def _utterances(results: Results, utterances: Sequence[Sequence[Shown]]) -> str:
    """A choice of chunk size, and the utterances."""
    if not utterances:
        return "<p>None is shown.</p>"
    options = "".join(
        f'<label><input type="radio" name="chunk" id="chunk-{number}" value="{escape(chunk)}"'
        f"{' checked' * (chunk == results.main_chunk)}>{escape(chunk_name(chunk))}</label>"
        for number, chunk in enumerate(results.chunks)
    )
    main = next(version for version in utterances[0] if version.chunk == results.main_chunk)
    ranking = f"sentence {describe(sentence_score(main.scores)[0]).label}"
    total = results.row(results.main_chunk)["utterances"]
    intro = (
        f"{len(utterances)} of {total}, evenly spread from the best to the worst by {ranking} at "
        f"{chunk_name(results.main_chunk)}. Times count from the start of the source; computing time is left out."
    )
    texts = results.source_texts()
    articles = "".join(
        article(number, versions, results.main_chunk, texts.get(versions[0].log.id))
        for number, versions in enumerate(utterances, 1)
    )
    return (
        f"<p>{escape(intro)}</p>{_empty(results)}"
        f'<fieldset class="chunks"><legend>Chunk size</legend><div class="options">{options}</div></fieldset>{articles}'
    )


def _empty(results: Results) -> str:
    """Names of the utterances for which nothing came out."""
    parts = []
    for row in results.rows:
        if row["empty"]:
            names = [str(utterance.id or utterance.index) for utterance in results.log(row["chunk"]) if utterance.empty]
            parts.append(f"<li>{escape(chunk_name(row['chunk']))}: {escape(', '.join(names))}</li>")
    return f'<div><p class="warning">Empty outputs</p><ul>{"".join(parts)}</ul></div>' if parts else ""
