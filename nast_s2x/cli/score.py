"""``nast-s2x score``: score the stored logs of an evaluation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nast_s2x.cli.system import log_stderr

if TYPE_CHECKING:
    from nast_s2x.recognisers import Recogniser


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand to the console command's parser."""
    parser = subparsers.add_parser(
        "score",
        help="score the logs of an evaluation again",
        description="Score the stored logs of an evaluation; writes scores.json, scores.csv, utterances.jsonl and the "
        "report. Logs written by SimulEval are read too (DIR/instances.log or DIR/*/instances.log); SimulEval need not "
        "be installed.",
    )
    parser.add_argument("folder", metavar="DIR", help="output folder of nast-s2x evaluate or of SimulEval")
    parser.add_argument(
        "--recogniser",
        metavar="SPEC",
        help="for ASR-BLEU: bundle:DIR, faster-whisper:MODEL or wav2vec2:DIR (default: stored transcripts, if any)",
    )
    parser.add_argument("--device", default="cpu", help="device of the recogniser: cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--no-report", action="store_true", help="scores only: no pictures, no report.html")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Score, print the main figures, write the report; returns the exit status."""
    from nast_s2x.evaluation.scoring import score, table

    folder = Path(args.folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    scores = score(folder, _recogniser(args), progress=sys.stderr.isatty())
    print(table(scores))
    if args.no_report:
        return 0
    from nast_s2x.evaluation import report

    log_stderr(f"report: {report.write(folder)[-1]}")
    return 0


def _recogniser(args: argparse.Namespace) -> Recogniser | None:
    if args.recogniser is None:
        return None
    from nast_s2x.evaluation.settings import SETTINGS, read_settings
    from nast_s2x.recognisers import open_recogniser

    language = None
    if (Path(args.folder) / SETTINGS).is_file():
        language = read_settings(args.folder)["model"]["target_lang"]
    return open_recogniser(args.recogniser, args.device, language)
