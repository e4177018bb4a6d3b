"""``nast-s2x download``: a released model becomes a bundle."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

DESCRIPTION = """\
Download a released model from the Hugging Face Hub, check it, and write a bundle (or, for vocoder-en, a vocoder).
  nast-s2x-320, nast-s2x-1280, nast-s2x-2560, nast-s2x-offline   French to English, speech to text and units
  vocoder-en                                                     English unit vocoder, no commercial use
The commit is pinned. An interrupted download is resumed by the same command. The licence is printed first."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    from nast_s2x.checkpoints.download import RELEASES

    parser = subparsers.add_parser(
        "download",
        help="turn a released model into a bundle",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", choices=list(RELEASES), help="one of the names above")
    parser.add_argument("--output", metavar="DIR", type=Path, help="folder to write (default: ./MODEL)")
    parser.add_argument(
        "--from", dest="folder", metavar="FOLDER", type=Path,
        help="take the files from this folder, in the layout of the repository, instead of the Hub",
    )  # fmt: skip
    parser.add_argument("--revision", metavar="COMMIT", help="full hash of another commit of the repository")
    parser.add_argument("--half", action="store_true", help="store float16 weights: half the size")
    parser.add_argument("--overwrite", action="store_true", help="replace an older result in the folder")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Fetch, check and convert; the licence goes to stderr."""
    from nast_s2x.inference.released import download

    output = args.output or Path(args.model)
    written = download(
        args.model, output, args.folder, revision=args.revision, half=args.half, overwrite=args.overwrite,
        tell=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    print(written)
    return 0
