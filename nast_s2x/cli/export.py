"""``nast-s2x export``: a checkpoint becomes a bundle."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand to the console command's parser."""
    parser = subparsers.add_parser(
        "export",
        help="turn a checkpoint into a self-contained bundle",
        description="Make a bundle (one folder with weights, configuration, vocabulary, CMVN and a model card) from a "
        "checkpoint of this project or a released one. Several checkpoints are averaged.",
    )
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="fairseq checkpoint file")
    parser.add_argument(
        "--data", metavar="DIR", help="data folder of the training (default: the folder the checkpoint lies in)"
    )
    parser.add_argument("--output", "-o", required=True, metavar="BUNDLE", help="folder to write")
    parser.add_argument("--card", metavar="FILE", help="text of the model card (default: a generated one)")
    parser.add_argument(
        "--example", metavar="NOTE", help="mark the bundle as an example; NOTE says what it knows and what it does not"
    )
    parser.add_argument("--half", action="store_true", help="store float16 weights: half the size, computed in float32")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Export; returns the exit status."""
    from nast_s2x.inference.bundle import bundle_from_checkpoints

    card = ""
    if args.card is not None:
        if not Path(args.card).is_file():
            raise FileNotFoundError(f"--card: no such file {args.card}")
        card = Path(args.card).read_text(encoding="utf-8")
    bundle = bundle_from_checkpoints(args.checkpoints, args.data)
    bundle.card, bundle.example = card, args.example
    folder = bundle.save(args.output, half=args.half)
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    print(f"wrote {folder} ({size / 1e6:.1f} MB)", file=sys.stderr)
    return 0
