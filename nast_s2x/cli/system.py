"""Flags shared by the subcommands that run a trained system."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from nast_s2x.device import DTYPES
from nast_s2x.errors import ConfigError
from nast_s2x.texts import printable_lines

if TYPE_CHECKING:
    from nast_s2x.chunking import ChunkPolicy
    from nast_s2x.inference.system import System


def add_system_flags(parser: argparse.ArgumentParser, default_chunk: str, required: bool = True) -> None:
    """Add ``--model --data --chunk-ms --lookahead-ms --wait-chunks --left-ms --pause-ms --device --dtype --threads``.

    Args:
        default_chunk: default of ``--chunk-ms``, for the help.
        required: ``--model`` must be given.
    """
    group = parser.add_argument_group("system")
    group.add_argument("--model", "-m", required=required, metavar="BUNDLE", help="bundle folder, or checkpoint file")
    group.add_argument(
        "--data", metavar="DIR", help="data folder of a checkpoint (default: the folder it lies in); not for bundles"
    )
    group.add_argument("--chunk-ms", metavar="MS", help=f"chunk size in ms, or offline (default: {default_chunk})")
    group.add_argument("--lookahead-ms", type=int, metavar="MS", help="right context in ms (default: as in training)")
    group.add_argument(
        "--wait-chunks",
        type=int,
        metavar="N",
        help="chunks by which the decoders follow the encoder (default: as in training)",
    )
    group.add_argument(
        "--left-ms",
        type=_left_context,
        metavar="MS",
        help="past audio in ms that stays visible at least, or unlimited (default: as in training; of several left "
        "contexts the longest limited one)",
    )
    group.add_argument(
        "--pause-ms",
        type=int,
        metavar="MS",
        help="translate each part between pauses of this length by itself; for models that were trained on single "
        "sentences (default: only a model whose positions end gets parts, of at least half of its positions)",
    )
    group.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    group.add_argument(
        "--dtype",
        choices=list(DTYPES),
        default="fp32",
        help="number type of the network (default: fp32); bf16 is faster where the device has bf16 matrix units, int8 "
        "on other CPUs",
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's own choice)")


def add_language_flag(parser: argparse.ArgumentParser | argparse._ArgumentGroup, default: str) -> None:
    """Add ``--target-lang``, which chooses words or characters and sacreBLEU's tokenizer."""
    parser.add_argument(
        "--target-lang",
        metavar="CODE",
        help="language of the output. Chinese (zh), Japanese (ja), Thai, Lao, Khmer, Burmese and Tibetan are measured "
        f"in characters, all others in words (default: {default})",
    )


def _left_context(text: str) -> int | str:
    if text == "unlimited":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be milliseconds or unlimited, not {text!r}") from None


def open_system(args: argparse.Namespace, prefer_offline: bool) -> tuple[System, ChunkPolicy]:
    """Load the system of the flags and choose the chunk policy; prints notes for the user to stderr.

    Args:
        prefer_offline: use the offline policy by default where the model was trained for it.
    Raises:
        FileNotFoundError, NastError: no system there, or flags that do not fit it.
    """
    import torch

    from nast_s2x.device import parse_dtype
    from nast_s2x.inference.loading import load_system

    if args.threads is not None:
        if args.threads < 1:
            raise ConfigError(f"--threads must be at least 1, got {args.threads}")
        torch.set_num_threads(args.threads)
    system = load_system(args.model, args.data, args.device, parse_dtype(args.dtype))
    if args.pause_ms is not None:
        system = replace(system, pause_ms=args.pause_ms)
    policy = system.policy(args.chunk_ms, args.lookahead_ms, args.wait_chunks, args.left_ms, prefer_offline)
    for note in system.notes():
        log_stderr(f"note: {note}")
    untrained = system.training_note(policy)
    log_stderr(f"note: {untrained}" if untrained else f"policy: {policy}")
    return system, policy


def log_stderr(message: str) -> None:
    """Print a message to stderr, control characters in it as visible escapes."""
    print(printable_lines(message), file=sys.stderr, flush=True)


def log_problems(problems: Iterable[object]) -> None:
    """Print bad rows to stderr, a line each."""
    for problem in problems:
        log_stderr(" ".join(str(problem).split("\n")))
