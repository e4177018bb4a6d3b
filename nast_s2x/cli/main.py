"""Entry point of ``nast-s2x SUBCOMMAND``.

Only the module of the given subcommand is imported: a missing optional package (fairseq, SimulEval, sacrebleu) affects
that subcommand alone, and ``nast-s2x --help`` is fast.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from nast_s2x import __version__
from nast_s2x.errors import NastError
from nast_s2x.texts import printable_lines

#: subcommand -> (module with ``add_parser(subparsers)``, one line of help)
SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "user-dir": ("nast_s2x.cli.user_dir", "print the folder for --user-dir of fairseq and SimulEval"),
    "doctor": ("nast_s2x.cli.doctor", "report the version and state of every dependency"),
    "convert": ("nast_s2x.cli.convert", "write a manifest from a published corpus"),
    "export-manifest": ("nast_s2x.cli.export_manifest", "write a manifest as lhotse's JSONL"),
    "prepare": ("nast_s2x.cli.prepare", "turn a manifest of recordings and texts into a data folder for training"),
    "units": ("nast_s2x.cli.units", "make units of recordings: fit centroids, extract units, convert k-means models"),
    "vocoder": ("nast_s2x.cli.vocoder", "turn units into sound files, or train a vocoder"),
    "train": ("nast_s2x.cli.train", "train the stages of a recipe with fairseq-train"),
    "average": ("nast_s2x.cli.average", "average the weights of several checkpoints"),
    "download": ("nast_s2x.cli.download", "turn a released model into a bundle"),
    "export": ("nast_s2x.cli.export", "turn a checkpoint into a self-contained bundle"),
    "generate": ("nast_s2x.cli.generate", "translate a manifest or audio files offline, in batches"),
    "translate": ("nast_s2x.cli.translate", "translate recordings as streams, printing words as they come"),
    "live": ("nast_s2x.cli.live", "translate a microphone: captions in the terminal, and speech"),
    "serve": ("nast_s2x.cli.serve", "translate for many clients over WebSockets"),
    "evaluate": ("nast_s2x.cli.evaluate", "run a system over a test set at several chunk sizes and score it"),
    "score": ("nast_s2x.cli.score", "score the logs of an evaluation again"),
    "compare": ("nast_s2x.cli.compare", "set evaluations side by side, with significance"),
    "intelligibility": ("nast_s2x.cli.intelligibility", "word errors of a vocoder's and a model's speech"),
    "benchmark": ("nast_s2x.cli.benchmark", "measure speed and memory"),
}

#: Environment variable; with any value, errors that are shown in one line otherwise are shown with their traceback.
TRACEBACK_VARIABLE = "NAST_S2X_TRACEBACK"


def build_parser(subcommand: str | None = None) -> argparse.ArgumentParser:
    """Build the parser; only the module of ``subcommand`` is imported, the others have no flags."""
    parser = argparse.ArgumentParser(
        prog="nast-s2x", description="Non-autoregressive simultaneous speech-to-any translation."
    )
    parser.add_argument("--version", action="version", version=f"nast-s2x {__version__}")
    subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    for name, (module, line) in SUBCOMMANDS.items():
        if name == subcommand:
            importlib.import_module(module).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=line)
    return parser


def _first_word(argv: Sequence[str]) -> str | None:
    return next((word for word in argv if not word.startswith("-")), None)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 done, 1 failed, 2 wrong usage, 130 interrupted)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    name = _first_word(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names may not be UTF-8, and the encoding of a terminal may lack letters.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        parser = build_parser(name if name in SUBCOMMANDS else None)
        args = _parse(parser, argv, name)
        status = int(args.func(args) or 0)
        sys.stdout.flush()  # an error of the flush at exit could not be handled
        return status
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "nast_s2x" or os.environ.get(TRACEBACK_VARIABLE):
            raise
        return _fail(name, f"needs the Python package '{error.name}', which is not installed; see `nast-s2x doctor`")
    except BrokenPipeError:
        # The reader (head, less) has ended. The flush at exit must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _fail(name, "interrupted", status=130)
    except (NastError, OSError) as error:
        # Anything else is a bug, here or in a library, and shows its traceback.
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        return _fail(name, str(error))


def _parse(parser: argparse.ArgumentParser, argv: list[str], name: str | None) -> argparse.Namespace:
    """Parse the command line; where the module has ``TAKES_REST``, words behind ``--`` become ``args.rest``."""
    if name not in SUBCOMMANDS or not getattr(importlib.import_module(SUBCOMMANDS[name][0]), "TAKES_REST", False):
        return parser.parse_args(argv)
    end = argv.index("--") if "--" in argv else len(argv)
    args = parser.parse_args(argv[:end])
    args.rest = argv[end + 1 :]
    return args


def _fail(name: str | None, message: str, status: int = 1) -> int:
    line = printable_lines(" ".join(message.split()))  # messages of libraries may have several lines
    print(f"nast-s2x{f' {name}' if name else ''}: error: {line}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
