"""``nast-s2x score``: score the stored logs of an evaluation."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nast_s2x.cli.system import add_language_flag, log_stderr
from nast_s2x.errors import ConfigError

if TYPE_CHECKING:
    from nast_s2x.evaluation.comet import Comet
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
    parser.add_argument(
        "folder",
        metavar="DIR",
        help="output folder of nast-s2x evaluate or of SimulEval; or a log of long recordings: JSON lines of "
        "simulstream, or in SimulEval's form as OmniSTEval reads them, one line a recording",
    )
    group = parser.add_argument_group("a log of long recordings")
    group.add_argument("--segments", metavar="YAML", help="list of {wav, offset, duration} in seconds, one a sentence")
    group.add_argument("--target", metavar="REFS", help="references, one a line, in the order of --segments")
    group.add_argument(
        "--output", "-o", metavar="DIR", help="folder of the results; logs of the same segments may share one"
    )
    group.add_argument(
        "--chunk-ms",
        metavar="NAME",
        help="name of its row, such as 320, under which `compare` finds it (default: the name of the file); also of "
        "SimulEval's log in DIR itself (default: the name of DIR)",
    )
    group.add_argument(
        "--cumulative-elapsed",
        action="store_true",
        help="`elapsed` adds all computing since the start, as SimulEval writes it: count that since the word before "
        "only",
    )
    parser.add_argument(
        "--recogniser",
        metavar="SPEC",
        help="for ASR-BLEU: bundle:DIR, faster-whisper:MODEL or wav2vec2:DIR (default: stored transcripts, if any)",
    )
    parser.add_argument(
        "--device", default="cpu", help="device of recogniser and COMET: cpu, cuda or cuda:N (default: cpu)"
    )
    add_language_flag(parser, "that of the run or of the previous scores")
    group = parser.add_argument_group("COMET")
    group.add_argument("--comet", type=Path, metavar="DIR", help="folder of a COMET model (with a checkpoint)")
    group.add_argument(
        "--comet-command",
        default="comet-score",
        metavar="PROGRAM",
        help="comet-score of an environment with unbabel-comet (default: %(default)s)",
    )
    group.add_argument(
        "--source-text",
        type=Path,
        metavar="FILE",
        help="transcripts of the source, one a line, in the order of the references (default: those of the manifest)",
    )
    parser.add_argument("--no-report", action="store_true", help="scores only: no pictures, no report.html")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON instead of the table")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Score, print the main figures, write the report; returns the exit status."""
    from nast_s2x.evaluation.score_files import table
    from nast_s2x.evaluation.scoring import score
    from nast_s2x.files import locked

    comet = _comet(args)
    folder = _import_log(args) if Path(args.folder).is_file() else _folder(args)
    name = args.chunk_ms if folder == Path(args.folder) else None  # import_log has named the row of a log
    with locked(folder):
        scores = score(folder, _recogniser(args), sys.stderr.isatty(), args.target_lang, name)
        if comet is not None:
            from nast_s2x.evaluation.comet import add_comet

            scores = add_comet(folder, comet, args.source_text)
        print(json.dumps(scores, ensure_ascii=False) if args.json else table(scores))
        if args.no_report:
            return 0
        from nast_s2x.evaluation import report

        log_stderr(f"report: {report.write(folder)[-1]}")
    return 0


_LOG_FLAGS = ("segments", "target", "output")


def _folder(args: argparse.Namespace) -> Path:
    folder = Path(args.folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder or log")
    for flag in (*_LOG_FLAGS, "cumulative_elapsed"):
        if getattr(args, flag):
            raise ConfigError(f"--{flag.replace('_', '-')} is for a log, but {folder} is a folder")
    return folder


def _import_log(args: argparse.Namespace) -> Path:
    """Put the log into the folder of a long-form evaluation; returns the folder."""
    from nast_s2x.evaluation.longform import import_log

    missing = [flag for flag in _LOG_FLAGS if getattr(args, flag) is None]
    if missing:
        folder = Path(args.folder).parent
        raise ConfigError(
            f"{args.folder} is a log: for one of long recordings give --segments, --target and --output "
            f"(--{missing[0]} is missing), for SimulEval's of single utterances its folder, {folder}"
        )
    log, output = Path(args.folder), Path(args.output)
    files = (Path(args.segments), Path(args.target))
    import_log(log, output, *files, args.chunk_ms or log.stem, args.target_lang, args.cumulative_elapsed)
    return output


def _comet(args: argparse.Namespace) -> Comet | None:
    """The model and program of COMET; called before anything runs, so that errors are reported early."""
    if args.comet is None:
        if args.source_text is not None:
            raise ConfigError("--source-text needs --comet")
        return None
    if args.source_text is not None and not args.source_text.is_file():
        raise FileNotFoundError(f"{args.source_text}: no such file")
    from nast_s2x.evaluation.comet import Comet

    return Comet.find(args.comet, args.comet_command, 0 if args.device == "cpu" else 1)


def _recogniser(args: argparse.Namespace) -> Recogniser | None:
    if args.recogniser is None:
        return None
    from nast_s2x.evaluation.settings import SETTINGS, read_settings
    from nast_s2x.recognisers import open_recogniser

    language = None
    if (Path(args.folder) / SETTINGS).is_file():
        language = read_settings(args.folder)["model"]["target_lang"]
    return open_recogniser(args.recogniser, args.device, language)
