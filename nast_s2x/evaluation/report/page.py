"""The page of an evaluation: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nast_s2x import __version__
from nast_s2x.evaluation import published
from nast_s2x.evaluation.report import curves
from nast_s2x.evaluation.report.glossary import describe
from nast_s2x.evaluation.report.html import data_uri, policy
from nast_s2x.evaluation.report.results import Results, sentence_score
from nast_s2x.evaluation.report.tables import chunk_name, figures, settings, tiles
from nast_s2x.evaluation.report.talks import talks
from nast_s2x.evaluation.report.utterances import Shown, article
from nast_s2x.texts import printable

_SECTIONS = (
    ("curves", "Quality and latency"),
    ("figures", "All figures"),
    ("utterances", "Utterances"),
    ("settings", "Settings"),
)
_LONG_SECTIONS = (_SECTIONS[0], ("talks", "Recordings"), _SECTIONS[1], _SECTIONS[3])
_LANGUAGES = (("from", "source_lang"), ("to", "target_lang"))


def page(results: Results, pictures: Mapping[str, bytes], utterances: Sequence[Sequence[Shown]]) -> str:
    """Fill the template ``report.html.j2``; every text is escaped, and a policy lets nothing else run.

    Args:
        results: the evaluation.
        pictures: figure of latency -> picture of its curves on white, a PNG file.
        utterances: the utterances to show, each at every chunk size.
    Returns:
        the HTML of the page.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("nast_s2x.evaluation", "report")

    def text(value: Any) -> Any:
        """Show control characters; markup is made here."""
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=text)

    def own(name: str) -> str:
        """Return the text of a file of this package, with the line ends that browsers hash."""
        return loader.get_source(environment, name)[0].replace("\r\n", "\n")

    style, script = own("page.css") + _choice_style(results.chunks), own("page.js")
    texts = results.source_texts() if utterances else {}
    return environment.get_template("report.html.j2").render(
        title=f"Evaluation of {Path(str((results.settings.get('model') or {}).get('path', 'a model'))).name}",
        subtitle=_subtitle(results),
        # Style and script hold no text of the evaluation, so they need no escaping.
        policy=policy(style, script),
        style=Markup(style),
        script=Markup(script),
        sections=_LONG_SECTIONS if results.is_long_form else _SECTIONS,
        talks=talks(results),
        tiles=tiles(results),
        notes=results.scores.get("notes") or (),
        published=_published_note(results),
        curves=_curves(results, pictures),
        chunk_names=[chunk_name(chunk) for chunk in results.chunks],
        figures=figures(results),
        selection=_selection(results, utterances) if utterances else "",
        empty=_empty(results) if utterances else (),
        choices=[
            {"chunk": chunk, "name": chunk_name(chunk), "checked": chunk == results.main_chunk}
            for chunk in results.chunks
        ],
        articles=[
            article(number, versions, results.main_chunk, texts.get(versions[0].log.id))
            for number, versions in enumerate(utterances, 1)
        ],
        settings=settings(results),
        version=__version__,
    )


def _subtitle(results: Results) -> str:
    model, row = results.settings.get("model") or {}, results.row(results.main_chunk)
    languages = ", ".join(f"{name} {model[key]}" for name, key in _LANGUAGES if model.get(key))
    kind = f"Simultaneous speech-to-{results.target_type} translation"
    note = " The model is an example, trained on a small corpus." if model.get("example") else ""
    counted = "segments of long recordings" if results.is_long_form else "utterances"
    return f"{kind}{f' ({languages})' if languages else ''}, {row['utterances']} {counted}.{note}"


def _curves(results: Results, pictures: Mapping[str, bytes]) -> list[dict[str, str]]:
    """Return each picture in light and dark colours, for the browser to choose from, with its description."""
    rows, target, label = results.rows, results.target_type, quality_label(results)
    found = []
    for latency, picture in pictures.items():
        lines = curves.curves_of(rows, target, latency)
        found.append(
            {
                "light": data_uri(picture, "image/png"),
                "dark": data_uri(curves.picture(lines, latency, label, curves.DARK), "image/png"),
                "words": _alternative(lines, latency, label),
                "caption": f"{describe(latency).label}: {describe(latency).meaning}",
            }
        )
    return found


def quality_label(results: Results) -> str:
    """Return the label of the vertical axis."""
    names = curves.qualities(results.rows, results.target_type)
    return "ASR-BLEU" if names and names[0].startswith("ASR") else "BLEU"


def _published_note(results: Results) -> str:
    own = "Filled points: this evaluation, one point for each chunk size. Dotted lines: the same with computing time."
    if results.is_long_form:
        return own  # nothing is published on long recordings
    data = dict.fromkeys(point.data for point in published.POINTS if point.target_type == results.target_type)
    offline = [
        f"{value:.2f} {describe(quality).label} ({name})"
        for quality in curves.qualities(results.rows, results.target_type)
        for name, value in published.offline(results.target_type, quality).items()
    ]
    return (
        f"{own} Hollow grey points: published results of NAST-S2X on {' and '.join(data)}, {published.SOURCE}: other "
        "data and other models, for orientation only, not measured here."
        + (f" Published offline: {', '.join(offline)}." if offline else "")
    )


def _alternative(lines: Sequence[curves.Curve], latency: str, label: str) -> str:
    """Describe a picture in words, with all measured points."""
    measured = [
        f"{curve.label}: " + ", ".join(f"{chunk_name(chunk)} {y:.1f} at {x:.0f}" for chunk, x, y in curve.points)
        for curve in lines
        if curve.kind == "measured"
    ]
    also = " Published points of other data are shown too." if any(line.kind == "published" for line in lines) else ""
    return f"{label} against {describe(latency).label} ({describe(latency).unit}). {'. '.join(measured)}.{also}"


def _choice_style(chunks: Sequence[str]) -> str:
    """Return a style that shows the chosen chunk size only; browsers without ``:has`` show all."""
    # By number: folders with logs written by SimulEval may have any name.
    shown = ",".join(f"#utterances:has(#chunk-{n}:checked) .panel-{n}" for n in range(len(chunks)))
    return (
        "@media screen{@supports selector(:has(*)){fieldset.chunks{display:block}"
        f"#utterances .panel{{display:none}}{shown}{{display:block}}}}}}"
    )


def _selection(results: Results, utterances: Sequence[Sequence[Shown]]) -> str:
    """Describe how the utterances on the page were chosen."""
    main = next(version for version in utterances[0] if version.chunk == results.main_chunk)
    ranking = f"sentence {describe(sentence_score(main.scores)[0]).label}"
    total = results.row(results.main_chunk)["utterances"]
    return (
        f"{len(utterances)} of {total}, evenly spread from the best to the worst by {ranking} at "
        f"{chunk_name(results.main_chunk)}. Times are from the start of the source, without computing time."
    )


def _empty(results: Results) -> list[str]:
    """Return a line for each chunk size with empty outputs: the names of their utterances."""
    found = []
    for row in results.rows:
        if row["empty"]:
            names = [str(utterance.id or utterance.index) for utterance in results.log(row["chunk"]) if utterance.empty]
            found.append(f"{chunk_name(row['chunk'])}: {', '.join(names)}")
    return found
