"""``nast-s2x average``: the mean of several checkpoints' weights."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nast_s2x.errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand to the console command's parser."""
    parser = subparsers.add_parser(
        "average",
        help="average the weights of several checkpoints",
        description="Average the weights of checkpoints of one model (summed in float64). The output works wherever a "
        "checkpoint does: fairseq-train --finetune-from-model, nast-s2x export, --model.",
    )
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="fairseq checkpoint file")
    parser.add_argument("--output", "-o", required=True, metavar="FILE", help="checkpoint file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the output file if it exists")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write the average; returns the exit status."""
    from nast_s2x.checkpoints.fairseq import average_checkpoints
    from nast_s2x.files import locked

    with locked(args.output):
        if Path(args.output).exists() and not args.overwrite:
            raise ConfigError(f"{args.output} already exists: choose another output file, or pass --overwrite")
        average_checkpoints(args.checkpoints, args.output)
    print(f"averaged {len(args.checkpoints)} checkpoints into {args.output}", file=sys.stderr)
    return 0
