"""``nast-s2x user-dir``: folder of the fairseq and SimulEval plugin."""

from __future__ import annotations

import argparse

from nast_s2x.resources import USER_DIR


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        "user-dir",
        help="print the folder for --user-dir of fairseq and SimulEval",
        description='Print the folder of the installed package: fairseq-train ... --user-dir "$(nast-s2x user-dir)".',
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the folder."""
    print(USER_DIR)
    return 0
