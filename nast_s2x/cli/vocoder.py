"""``nast-s2x vocoder``: units to sound files, and the training of vocoders."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from nast_s2x.cli import vocoder_train
from nast_s2x.cli.system import log_problems, log_stderr
from nast_s2x.errors import ConfigError

_SYNTHESIZE = """\
Turn units into sound files (16 kHz, mono, 16 bit), one OUTPUT/ID.wav for each utterance. UNITS is one of
  a units manifest  columns id, tgt_audio (`nast-s2x units extract`)
  generate's JSON   `nast-s2x generate --json FILE`
  generate's lines  Unit-N and units; named Unit-N
  plain lines       units such as "71 12 993"; named line-000001, line-000002, ...
Bad lines are printed on stderr as FILE:LINE: reason and left out; the exit status is then 1. An utterance without
units gives a file without samples. OUTPUT/synthesis.tsv lists the files. The same command resumes a stopped run."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand to the console command's parser."""
    parser = subparsers.add_parser(
        "vocoder",
        help="turn units into sound files, or train a vocoder",
        description="Unit vocoder: speech units to a waveform.",
    )
    parts = parser.add_subparsers(
        dest="part", metavar="PART", required=True, help="synthesize or train; see PART --help"
    )
    _add_synthesize(parts)
    vocoder_train.add_parser(parts)


def _add_synthesize(parts: argparse._SubParsersAction) -> None:
    parser = parts.add_parser(
        "synthesize",
        help="turn units into sound files",
        description=_SYNTHESIZE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "vocoder", metavar="VOCODER", help="vocoder folder, bundle that holds one, or released checkpoint"
    )
    parser.add_argument("units", metavar="UNITS", help="file of units")
    parser.add_argument("--output", "-o", required=True, metavar="DIR", help="folder of the sound files")
    parser.add_argument(
        "--durations", action="store_true", help="use tgt_durations of the manifest instead of predicted durations"
    )
    parser.add_argument("--split", metavar="NAME", help="only rows of this split of the manifest")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="utterances a batch (default: 16)")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace sound files made from other units",
    )
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's own choice)")
    parser.set_defaults(func=synthesize)


def synthesize(args: argparse.Namespace) -> int:
    """Write the sound files; returns the exit status."""
    import torch

    from nast_s2x.device import find_device
    from nast_s2x.progress import progress_bar
    from nast_s2x.vocoder.checkpoint import load_vocoder
    from nast_s2x.vocoder.config import SAMPLE_RATE
    from nast_s2x.vocoder.files import LIST, read_utterances, synthesize_files

    for flag, value in (("--threads", args.threads), ("--batch-size", args.batch_size)):
        if value is not None and value < 1:
            raise ConfigError(f"{flag} must be at least 1, got {value}")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    vocoder = load_vocoder(args.vocoder, find_device(args.device))
    config = vocoder.config
    found = read_utterances(args.units, config.num_embeddings, config.unit_hash, args.durations, args.split)
    log_problems(found.problems)
    began = time.monotonic()
    with progress_bar(len(found.rows), "synthesizing", show=not args.no_progress) as bar:
        report = synthesize_files(vocoder, found.rows, args.output, args.batch_size, args.overwrite, bar.update)
    seconds = time.monotonic() - began
    kept = f", {report.kept} were there already" if report.kept else ""
    left_out = f", {len(found.problems)} bad lines left out" if found.problems else ""
    log_stderr(
        f"{report.written} sound files written{kept}{left_out}; {report.samples / SAMPLE_RATE:.1f} s of speech in "
        f"{seconds:.1f} s; list: {Path(args.output) / LIST}"
    )
    return 1 if found.problems else 0
