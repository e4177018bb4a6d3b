"""``nast-s2x export-manifest``: a manifest as lhotse's JSONL."""

from __future__ import annotations

import argparse
from pathlib import Path

from nast_s2x.errors import ConfigError

DESCRIPTION = """\
Write the rows of MANIFEST as cuts of lhotse (one JSON object a line), for other toolkits. The translation is
custom.tgt_text of each supervision. `nast-s2x convert lhotse FILE` reads the file back."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        "export-manifest",
        help="write a manifest as lhotse's JSONL",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="manifest of recordings and texts")
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="cuts.jsonl or cuts.jsonl.gz")
    parser.add_argument("--split", metavar="NAME", help="rows of this split only")
    parser.add_argument("--source-lang", metavar="LANG", default="", help="language of the recordings")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write the cuts and print their number."""
    from nast_s2x.corpus.converters.lhotse_export import export_lhotse
    from nast_s2x.corpus.manifest import read_manifest
    from nast_s2x.files import locked

    if not args.output.name.endswith((".jsonl", ".jsonl.gz")):
        raise ConfigError(f"--output must end in .jsonl or .jsonl.gz, but is {args.output}")
    with locked(args.output):
        if args.output.exists() and not args.overwrite:
            raise ConfigError(f"{args.output} exists: choose another file, or pass --overwrite")
        table = read_manifest(args.manifest, required=("audio",), split=args.split, keep_extra=True, check_files=True)
        count = export_lhotse(table, args.output, args.source_lang)
    print(f"{args.output}: {count} cuts")
    return 0
