"""``nast-s2x compare``: evaluations side by side, with significance."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand ``compare``."""
    parser = subparsers.add_parser(
        "compare",
        help="set evaluations side by side, with significance",
        description="Compares scored evaluations of the same references at every chunk size that all of them have. "
        "The others are tested against the first by sacrebleu's paired bootstrap, on BLEU, chrF and, where one "
        "recogniser was used for all, ASR-BLEU.",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="evaluations (two or more), the first is the baseline"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write compare.json, compare.csv and compare.png into this folder"
    )
    parser.add_argument(
        "--samples", type=int, default=1000, metavar="N", help="resamples of the bootstrap (default: %(default)s)"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the comparison, and write it if asked to."""
    from nast_s2x.evaluation.compare import compare, format_table, write

    comparison = compare(args.folders, args.samples)
    print(format_table(comparison))
    if args.output is not None:
        for path in write(comparison, args.output):
            print(path)
    return 0
