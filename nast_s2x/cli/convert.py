"""``nast-s2x convert``: a manifest from a corpus as it was downloaded."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from nast_s2x.cli.system import log_problems, log_stderr
from nast_s2x.errors import ConfigError, ManifestError

if TYPE_CHECKING:
    from nast_s2x.corpus.converters import ConvertReport

DESCRIPTION = """\
Write a manifest for `nast-s2x prepare` from a corpus as it was downloaded.
  cvss-c        folder of CVSS-C and folder of Common Voice 4 (with validated.tsv and clips), in any order
  covost2       folder of covost_v2.SRC_TGT.tsv and folder of Common Voice 4
  common-voice  folder of Common Voice; no translations, for recognisers
  must-c        folder SRC-TGT, or the one that holds it
  mtedx         folder SRC-TGT, or the one that holds it
  europarl-st   folder of the release; recordings converted from m4a first
  fleurs        folder of the language folders
  parquet       files or folders in the audio layout of the Hugging Face Hub
  lhotse        cuts*.jsonl, or supervisions*.jsonl and recordings*.jsonl (.gz too)
  fairseq-s2t   data folder of fairseq's speech_to_text or speech_to_speech
DIR holds manifest.tsv, left_out.tsv (every row left out, with place and reason) and convert.json (the report)."""
_FIELDS = (
    "audio, src_text, tgt_text, tgt_speech, tgt_audio, id, speaker (parquet); tgt_text, tgt_speech, split (lhotse)"
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    from nast_s2x.corpus.converters import CORPORA

    parser = subparsers.add_parser(
        "convert",
        help="write a manifest from a published corpus",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", metavar="CORPUS", choices=list(CORPORA), help="one of the names above")
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path, help="the corpus as it was downloaded")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder of the manifest")
    parser.add_argument("--source-lang", metavar="LANG", default="", help="language of the recordings")
    parser.add_argument("--target-lang", metavar="LANG", default="", help="language of the translations")
    parser.add_argument(
        "--column", metavar="FIELD=NAME", action="append", default=[], help=f"column of a field: {_FIELDS}"
    )
    parser.add_argument("--limit", metavar="N", type=int, help="rows of each split, at most")
    parser.add_argument("--strict", action="store_true", help="stop at the first row that cannot be used")
    parser.add_argument("--overwrite", action="store_true", help="replace an older conversion")
    parser.add_argument("--jobs", metavar="N", type=int, help="threads that read headers (default: one per CPU)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Convert and print the report."""
    from nast_s2x.corpus.converters import ConvertOptions, convert

    pairs = [text.partition("=") for text in args.column]
    if any(not (name and sign and column) for name, sign, column in pairs):
        raise ConfigError(f"--column must be FIELD=NAME, not {' '.join(args.column)}")
    options = ConvertOptions(args.source_lang, args.target_lang, {name: column for name, _, column in pairs})
    try:
        report = convert(
            args.corpus, args.folders, args.output, options,
            limit=args.limit, strict=args.strict, overwrite=args.overwrite, jobs=args.jobs, progress=not args.quiet,
        )  # fmt: skip
    except ManifestError as error:
        log_problems(error.problems)
        raise
    if args.json:
        print(json.dumps(asdict(report), ensure_ascii=False))
    else:
        _print_report(report, args.output)
    return 0


def _print_report(report: ConvertReport, output: Path) -> None:
    for kind, count in report.left_out.items():
        log_stderr(f"left out, {kind}: {count}")
        log_problems(f"  {example}" for example in report.examples[kind])
    for note in report.notes:
        print(f"note: {note}")
    for split, rows in report.rows.items():
        target = f", {report.target_hours[split]:.2f} hours of translations" if split in report.target_hours else ""
        print(f"{split}: {rows} rows, {report.hours[split]:.2f} hours{target}")
    total = sum(report.left_out.values())
    print(f"{output / 'manifest.tsv'}: {sum(report.rows.values())} rows, {total} left out (left_out.tsv)")
