"""``nast-s2x benchmark``: each part measures two ways of doing the same work in one run."""

from __future__ import annotations

import argparse
import importlib
import json

# part: (module, function, help); the modules are imported only when their part runs.
_PARTS = {
    "streaming": ("nast_s2x.cli.benchmark_streaming", "run_streaming", "cached streaming against recomputed prefixes"),
    "voice": ("nast_s2x.cli.benchmark_voice", "run_voice", "streaming speech to speech, stage by stage"),
    "nmla": ("nast_s2x.cli.benchmark_losses", "run_nmla", "NMLA by linear recurrence against all pairs of slots"),
    "alignment": ("nast_s2x.cli.benchmark_losses", "run_alignment", "batched Viterbi alignment against plain Python"),
    "attention": ("nast_s2x.cli.benchmark_streaming", "run_attention", "relative-position attention"),
}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand ``benchmark``."""
    parser = subparsers.add_parser(
        "benchmark",
        help="measure speed and memory",
        description="Measures both ways of doing the same work in one run.",
        epilog="; ".join(f"{name}: {text}" for name, (_, _, text) in _PARTS.items()),
    )
    parser.add_argument("part", choices=list(_PARTS), help="what to measure")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--preset", default="base", help="network size: base or tiny (default: %(default)s)")
    parser.add_argument("--seconds", type=_positive(float), default=15.0, help="source length (default: %(default)s)")
    parser.add_argument("--chunk-ms", default="320", help="chunk size in ms, or offline (default: %(default)s)")
    parser.add_argument("--threads", type=_positive(int), default=2, help="torch threads (default: %(default)s)")
    parser.add_argument("--batch", type=_positive(int), help="sentences (default: 4 nmla, 16 alignment)")
    parser.add_argument("--slots", type=_positive(int), help="slots per sentence (default: 600 nmla and alignment)")
    parser.add_argument("--vocab", type=_positive(int), help="labels (default: 1005 nmla, 1004 alignment)")
    parser.add_argument("--targets", type=_positive(int), help="target labels (default: 250 nmla, 200 alignment)")
    parser.add_argument(
        "--playback-buffer-ms",
        type=_positive(float),
        default=250.0,
        metavar="MS",
        help="voice: start delay to compare with none (default: %(default)s)",
    )
    parser.set_defaults(func=run)


def _positive(kind: type[int] | type[float]):
    def convert(text: str) -> int | float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
        return value

    convert.__name__ = "number"  # argparse names it in "invalid number value"
    return convert


def run(args: argparse.Namespace) -> int:
    """Run one part and print its figures."""
    module, function, _ = _PARTS[args.part]
    try:
        result = getattr(importlib.import_module(module), function)(args)
    except ValueError as error:
        raise SystemExit(f"nast-s2x benchmark {args.part}: {error}") from error
    if args.json:
        print(json.dumps(result))
    else:
        width = max(map(len, result))
        for name, value in result.items():
            print(f"{name:<{width}}  {value}")
    return 0
