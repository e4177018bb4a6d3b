"""``nast-s2x user-dir``: where the plug-in for fairseq and SimulEval lies."""

from __future__ import annotations

import argparse

from nast_s2x.resources import USER_DIR


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        "user-dir",
        help="print the folder to give to fairseq's and SimulEval's --user-dir",
        description='Print the installed package folder, for fairseq-train ... --user-dir "$(nast-s2x user-dir)".',
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the folder."""
    print(USER_DIR)
    return 0
