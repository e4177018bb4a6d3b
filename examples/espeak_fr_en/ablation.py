#!/usr/bin/env python3
"""Trains the ablation's variants (configs/ablation.yaml), exports and evaluates them, and writes their table.

python examples/espeak_fr_en/ablation.py --corpus CORPUS --data DATA --save SAVE --output OUTPUT

CORPUS is a folder made by build.py, DATA its data folder (`nast-s2x prepare`). Checkpoints go to SAVE, bundles and
evaluations on the corpus's test split to OUTPUT, with ablation.md and ablation.json. The same command again goes on
where it was interrupted: stages that are trained and utterances that are evaluated are not done twice.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
CHUNKS = ("320", "640", "1280", "offline")
#: What each stage of the recipe that counts as a variant stands for; the first is what the others are held against.
VARIANTS = {
    "multi": "one model for all chunk sizes, look-ahead as long as the chunk, CTC",
    "nmla": "as multi, the last 300 updates with NMLA in place of CTC",
    "single": "as multi, trained with chunks of 320 ms alone",
    "nolook": "as multi, without look-ahead",
}
#: What has to be equal where figures of several evaluations are set side by side.
SAME = ("source", "target", "num_utterances", "target_type", "segment_ms", "first_segment_ms", "versions")
INTRODUCTION = """# Ablation

Four small speech-to-text models of the synthetic corpus that differ in one thing each (`configs/ablation.yaml`):

{variants}

All start from the same speech recognition (stage 0 of `configs/tiny_espeak.yaml`, multi-chunk with look-ahead, 1000
updates) and get {updates} updates with one seed, about a fifth of what the example's bundle got: figures say which
choice is better at this budget, not how good a model can become. {utterances} test sentences, SimulEval {simuleval},
segments of {segment} ms; latencies are milliseconds of source audio, not computation-aware. ± is half of the 95 %
interval; p is of the paired bootstrap ({samples} resamples) against {baseline} at the same chunk size, and knows
nothing of what another seed would give. † marks chunk sizes that a model was not trained for.
"""


@dataclass(frozen=True)
class Row:
    """Scores of a variant at one chunk size; latencies in ms.

    Attributes:
        trained: the model was trained with this chunk size.
        BLEU_ci: half of the 95 % interval, by bootstrap.
        BLEU_p: of the paired bootstrap against the first variant; None for that one, and where outputs are equal.
        empty: utterances without any output.
    """

    chunk: str
    trained: bool
    BLEU: float
    BLEU_ci: float
    BLEU_p: float | None
    AL: float
    LAAL: float
    StartOffset: float
    empty: int


@dataclass(frozen=True)
class Variant:
    """A variant's training, as its bundle tells it, and its scores in order of chunk size."""

    name: str
    what: str
    updates: int
    chunk_ms: tuple[str, ...]
    lookahead_ms: str
    rows: tuple[Row, ...]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder made by build.py")
    parser.add_argument("--data", type=Path, required=True, help="data folder made of it by `nast-s2x prepare`")
    parser.add_argument("--save", type=Path, required=True, help="where checkpoints go")
    parser.add_argument("--output", type=Path, required=True, help="where bundles, evaluations and the table go")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run nothing")
    return parser.parse_args(arguments)


def commands(corpus: Path, data: Path, save: Path, output: Path) -> list[list[str]]:
    """Training, then export and evaluation of each variant, then their comparison."""
    found = [["bash", "scripts/train.sh", "ablation", "--data", str(data), "--save", str(save)]]
    for name in VARIANTS:
        bundle = output / "bundles" / name
        checkpoint = save / name / "checkpoint_last.pt"
        found.append(["nast-s2x", "export", str(checkpoint), "--data", str(data), "--half", "--output", str(bundle)])
        evaluate = ["nast-s2x", "evaluate", "--model", str(bundle), "--chunk-ms", ",".join(CHUNKS)]
        for side in ("source", "target"):
            evaluate += [f"--{side}", str(corpus / f"test.{side}.txt")]
        evaluate += ["--threads", "1", "--workers", "2", "--output", str(output / "evaluations" / name)]
        found.append(evaluate)
    folders = [str(output / "evaluations" / name) for name in VARIANTS]
    found.append(["nast-s2x", "compare", *folders, "--output", str(output / "comparison")])
    return found


def check(corpus: Path, data: Path) -> None:
    """What is missing is told before hours are spent on it.

    Raises:
        FileNotFoundError: a list of the corpus, or the data folder's configuration.
    """
    for path in (corpus / "test.source.txt", corpus / "test.target.txt", data / "config.yaml"):
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}: see the docstring for what --corpus and --data are")


def run(command: list[str]) -> None:
    """Run a command in the repository's root with this Python.

    Raises:
        RuntimeError: it failed.
    """
    program = [sys.executable, "-m", "nast_s2x.cli.main"] if command[0] == "nast-s2x" else command[:1]
    print("== " + shlex.join(command), flush=True)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    status = subprocess.run([*program, *command[1:]], cwd=ROOT, env={**os.environ, "PYTHONPATH": path}).returncode
    if status:
        raise RuntimeError(f"exit status {status} of: {shlex.join(command)}")


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_variant(name: str, output: Path, compared: dict[str, dict[str, Any]]) -> tuple[Variant, dict[str, Any]]:
    """A variant's scores, and the settings of its evaluation.

    Args:
        compared: chunk size -> this variant's entry in the comparison.
    Raises:
        OSError, ValueError: the bundle or the scores are not there, or a chunk size is missing.
    """
    config = read_json(output / "bundles" / name / "config.json")
    path = output / "evaluations" / name / "scores.json"
    scores = read_json(path)
    trained = tuple(str(chunk) for chunk in config["geometries"]["chunk_ms"])
    by_chunk = {row["chunk"]: row for row in scores["rows"]}
    if missing := [chunk for chunk in CHUNKS if chunk not in by_chunk or chunk not in compared]:
        raise ValueError(f"{path} or the comparison has no chunk size {', '.join(missing)}")
    rows = tuple(_row(by_chunk[chunk], compared[chunk], chunk in trained) for chunk in CHUNKS)
    lookahead = str(config["geometries"]["lookahead_ms"])
    return Variant(name, VARIANTS[name], config["origin"]["updates"], trained, lookahead, rows), scores["settings"]


def _row(scored: dict[str, Any], compared: dict[str, Any], trained: bool) -> Row:
    bleu, tested = scored["quality"]["BLEU"], compared["significance"]["BLEU"]
    if abs(bleu - tested["score"]) > 0.005:
        raise ValueError(f"{compared['name']}, chunk size {scored['chunk']}: scores and comparison are of two runs")
    latency = {name: round(float(scored["latency"][name]), 1) for name in ("AL", "LAAL", "StartOffset")}
    return Row(
        chunk=scored["chunk"],
        trained=trained,
        BLEU=round(bleu, 2),
        BLEU_ci=round(tested["ci"], 2),
        BLEU_p=None if tested["p_value"] is None else round(tested["p_value"], 4),
        empty=scored["empty"],
        **latency,
    )


def read_all(output: Path) -> tuple[list[Variant], dict[str, Any]]:
    """All variants, and what their evaluations have in common.

    Raises:
        ValueError: variants of unequal budgets, or evaluated on different things; see also :func:`read_variant`.
    """
    comparison = read_json(output / "comparison" / "compare.json")
    compared: dict[str, dict[str, Any]] = {name: {} for name in VARIANTS}
    for row in comparison["rows"]:
        for entry in row["systems"]:
            compared[entry["name"]][row["chunk"]] = entry
    read = [read_variant(name, output, compared[name]) for name in VARIANTS]
    first, common = read[0]
    for variant, settings in read[1:]:
        if variant.updates != first.updates:
            raise ValueError(f"{variant.name} got {variant.updates} updates, {first.name} {first.updates}")
        if differing := [key for key in SAME if settings[key] != common[key]]:
            raise ValueError(f"the evaluations of {variant.name} and {first.name} differ in {', '.join(differing)}")
    common = {key: common[key] for key in ("num_utterances", "segment_ms", "first_segment_ms", "versions")}
    return [variant for variant, _ in read], {**common, "resamples": comparison["samples"]}


def quality_cell(row: Row) -> str:
    """BLEU with its interval, and p where it was tested."""
    return f"{row.BLEU:.1f} ±{row.BLEU_ci:.1f}" + ("" if row.BLEU_p is None else f", p {row.BLEU_p:.3f}")


def latency_cell(row: Row) -> str:
    """Average lagging and the time of the first word."""
    return f"{row.AL:.0f} / {row.StartOffset:.0f}"


def table(variants: list[Variant], title: str, cell: Callable[[Row], str]) -> str:
    """A Markdown table, a line a variant and a column a chunk size."""
    lines = [f"| {title} | " + " | ".join(chunk if chunk == "offline" else f"{chunk} ms" for chunk in CHUNKS) + " |"]
    lines.append("|---|" + "---|" * len(CHUNKS))
    for variant in variants:
        cells = (cell(row) + ("" if row.trained else " †") for row in variant.rows)
        lines.append(f"| {variant.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def page(variants: list[Variant], settings: dict[str, Any]) -> str:
    """The text of ablation.md."""
    introduction = INTRODUCTION.format(
        variants="\n".join(f"* **{variant.name}**: {variant.what}" for variant in variants),
        updates=variants[0].updates,
        utterances=settings["num_utterances"],
        simuleval=settings["versions"]["simuleval"],
        segment=settings["segment_ms"],
        samples=settings["resamples"],
        baseline=variants[0].name,
    )
    empty = sum(row.empty for variant in variants for row in variant.rows)
    shown = [shlex.join(command) for command in commands(*map(Path, ("CORPUS", "DATA", "SAVE", "OUTPUT")))]
    parts = (
        introduction,
        table(variants, "BLEU", quality_cell),
        table(variants, "AL / StartOffset (ms)", latency_cell),
        f"Empty translations in all cells together: {empty}.\n",
        "## The commands\n",
        "`python examples/espeak_fr_en/ablation.py --corpus CORPUS --data DATA --save SAVE --output OUTPUT` runs:\n",
        "".join(f"    {line}\n" for line in shown),
    )
    return "\n".join(parts)


def write(output: Path) -> None:
    """Write ablation.json and ablation.md from the evaluations."""
    variants, settings = read_all(output)
    content = {"format": 1, "settings": settings, "variants": [asdict(variant) for variant in variants]}
    (output / "ablation.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (output / "ablation.md").write_text(page(variants, settings), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Command line; 1 and a line on stderr where something is wrong."""
    args = parse_arguments(arguments)
    try:
        check(args.corpus, args.data)
        places = [path.resolve() for path in (args.corpus, args.data, args.save, args.output)]
        for command in commands(*places):
            print(shlex.join(command)) if args.dry_run else run(command)
        if not args.dry_run:
            write(args.output)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"ablation.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
