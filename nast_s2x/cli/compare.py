"""``nast-s2x compare``: compare evaluations, with significance tests."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand ``compare``."""
    parser = subparsers.add_parser(
        "compare",
        help="set evaluations side by side, with significance",
        description="Compare scored evaluations with the same references at every chunk size that all of them have. "
        "The others are tested against the first by sacreBLEU's paired bootstrap on BLEU, chrF and, if all use the "
        "same recogniser, ASR-BLEU.",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="two or more evaluations; the first is the baseline"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for compare.json, compare.csv and compare.png"
    )
    parser.add_argument(
        "--samples", type=int, default=1000, metavar="N", help="resamples of the bootstrap (default: %(default)s)"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the comparison and, with ``--output``, write its files; returns the exit status."""
    from nast_s2x.evaluation.compare import compare, format_table, write
    from nast_s2x.files import locked

    with contextlib.nullcontext() if args.output is None else locked(args.output):
        comparison = compare(args.folders, args.samples)
        print(format_table(comparison))
        if args.output is not None:
            for path in write(comparison, args.output):
                print(path)
    return 0
