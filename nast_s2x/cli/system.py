"""Flags shared by the subcommands that run a trained system."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from nast_s2x.device import DTYPES

if TYPE_CHECKING:
    from nast_s2x.chunking import ChunkGeometry
    from nast_s2x.inference.bundle import System


def add_system_flags(parser: argparse.ArgumentParser, default_chunk: str) -> None:
    """``--model --data --chunk-ms --lookahead-ms --wait-chunks --device --dtype --threads``."""
    group = parser.add_argument_group("system")
    group.add_argument("--model", "-m", required=True, metavar="BUNDLE", help="bundle folder, or checkpoint file")
    group.add_argument(
        "--data", metavar="DIR", help="data folder of a checkpoint (default: the folder it lies in); not for bundles"
    )
    group.add_argument("--chunk-ms", metavar="MS", help=f"chunk size in ms, or offline (default: {default_chunk})")
    group.add_argument("--lookahead-ms", type=int, metavar="MS", help="right context in ms (default: as in training)")
    group.add_argument(
        "--wait-chunks", type=int, metavar="N", help="chunks the decoders stay behind (default: as in training)"
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


def open_system(args: argparse.Namespace, offline_default: bool) -> tuple[System, ChunkGeometry]:
    """Load the system that the flags name, and the geometry; tells on stderr what users should know about it."""
    import torch

    from nast_s2x.device import parse_dtype
    from nast_s2x.inference.bundle import load_system
    from nast_s2x.inference.geometries import describe

    if args.threads is not None:
        if args.threads < 1:
            raise ValueError(f"--threads must be at least 1, got {args.threads}")
        torch.set_num_threads(args.threads)
    bundle = load_system(args.model, args.data, args.device, parse_dtype(args.dtype))
    geometry = bundle.trained.choose(args.chunk_ms, args.lookahead_ms, args.wait_chunks, offline_default)
    if bundle.example:
        say(f"this is an example system that knows only its own small world: {bundle.example}")
    note = bundle.trained.note(geometry)
    say(f"note: {note}" if note else f"geometry: {describe(geometry)}")
    return bundle, geometry


def say(message: str) -> None:
    """Tell something beside the results: on stderr."""
    print(message, file=sys.stderr, flush=True)
