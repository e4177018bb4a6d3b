"""Reports of an evaluation: curves as CSV and PNG, and one self-contained page."""

from __future__ import annotations

from pathlib import Path

from nast_s2x.errors import NastError
from nast_s2x.files import write_atomic


def write(folder: Path, shown: int = 5) -> list[Path]:
    """Write ``curves.csv``, ``quality_latency_*.png`` and ``report.html`` into the folder of a scored evaluation.

    Args:
        folder: folder of the evaluation, with ``scores.json`` and, per chunk size, the log and scores of utterances.
        shown: number of utterances on the page, evenly spread from the best to the worst sentence BLEU.
    Returns:
        the files written, the page last.
    Raises:
        FileNotFoundError: scores, a log, or a sound file is missing; names the file. Nothing is written then.
        ValueError: damaged files, scores of another format, a negative ``shown``.
    """
    from nast_s2x.evaluation.report import curves
    from nast_s2x.evaluation.report.page import page, quality_label
    from nast_s2x.evaluation.report.results import load_results, spread
    from nast_s2x.evaluation.report.utterances import collect

    if shown < 0:
        raise NastError(f"`shown`, the number of utterances on the page, must be 0 or more, got {shown}")
    folder = Path(folder)
    results = load_results(folder)
    shown = 0 if results.is_long_form else shown
    utterances = collect(results, spread(results.utterance_scores(results.main_chunk), shown))
    rows, target_type, label = results.rows, results.target_type, quality_label(results)
    pictures = {
        latency: curves.picture(curves.curves_of(rows, target_type, latency), latency, label)
        for latency in curves.pictures(rows, target_type)
    }
    html = page(results, pictures, utterances)
    curves.write_csv(folder / "curves.csv", rows, target_type)
    for latency, content in pictures.items():
        write_atomic(folder / f"quality_latency_{latency}.png", content)
    write_atomic(folder / "report.html", html)
    for old in folder.glob("quality_latency_*.png"):  # of figures that the scores have no longer
        if old.stem.removeprefix("quality_latency_") not in pictures:
            old.unlink()
    return [
        folder / "curves.csv",
        *(folder / f"quality_latency_{name}.png" for name in pictures),
        folder / "report.html",
    ]
