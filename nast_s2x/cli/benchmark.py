"""``nast-s2x benchmark``: speed and memory of one part of the library, mostly beside a reference implementation."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable

from nast_s2x.device import DTYPES
from nast_s2x.errors import ConfigError

# part: (module of nast_s2x.benchmarks, function, help); a module is imported when its part is run.
_PARTS = {
    "streaming": ("streaming", "run_streaming", "a stream with caches, and the offline forward on every prefix"),
    "voice": ("speech", "run_voice", "streaming speech to speech, stage by stage"),
    "serving": ("serving", "run_serving", "many streams at once, with audio that arrives in real time"),
    "load": ("load", "run_load", "a server under sessions in real time and clients that misbehave: nothing is lost"),
    "nmla": ("losses", "run_nmla", "NMLA in linear time, and over all pairs of slots"),
    "alignment": ("losses", "run_alignment", "batched Viterbi alignment, and plain Python"),
    "training": ("training", "run_training", "one training step: time, memory, operations, host reads"),
    "vocoder-training": ("vocoder", "run_vocoder_training", "one update of a vocoder's training: time, memory"),
    "prepare": ("prepare", "run_prepare", "a data folder from a made corpus of many rows: rows per second, memory"),
    "attention": ("streaming", "run_attention", "relative-position attention, and its form with all pairs"),
    "autoregressive": (
        "autoregressive",
        "run_autoregressive",
        "speech to units in one pass, and by fairseq's s2ut_transformer unit by unit (needs fairseq)",
    ),
}
_DEFAULT_SECONDS = 15.0
_LOAD_SECONDS = 300.0


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand ``benchmark``."""
    parser = subparsers.add_parser(
        "benchmark",
        help="measure speed and memory",
        description="Measure speed and memory of one part of the library, where there is a reference both in one run.",
        epilog="; ".join(f"{name}: {text}" for name, (_, _, text) in _PARTS.items()),
    )
    parser.add_argument("part", choices=list(_PARTS), help="what to measure")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--preset", default="base", help="network size: base or tiny (default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=_several(float),
        metavar="S[,S...]",
        help=f"source length in s (default: {_DEFAULT_SECONDS:g}); autoregressive takes several (default: 2,5,10,20); "
        f"of load the whole time (default: {_LOAD_SECONDS:g})",
    )
    parser.add_argument("--chunk-ms", default="320", help="chunk size in ms, or offline (default: %(default)s)")
    parser.add_argument("--threads", type=_positive(int), default=2, help="torch threads (default: %(default)s)")
    parser.add_argument(
        "--batch",
        type=_several(int),
        metavar="N[,N...]",
        help="sentences (default: 4 nmla, 16 alignment, 1 attention); autoregressive takes several (default: 1,16)",
    )
    parser.add_argument("--slots", type=_positive(int), help="slots per sentence (default: 600 nmla and alignment)")
    parser.add_argument("--vocab", type=_positive(int), help="number of labels (default: 1005 nmla, 1004 alignment)")
    parser.add_argument("--targets", type=_positive(int), help="labels of a target (default: 250 nmla, 200 alignment)")
    parser.add_argument(
        "--playback-buffer-ms",
        type=_positive(float),
        default=250.0,
        metavar="MS",
        help="voice: start delay of the second playback; the first has none (default: %(default)s)",
    )
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp32", help="number type (default: fp32)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    group = parser.add_argument_group("training")
    group.add_argument(
        "--frames", type=_positive(int), default=40_000, help="feature frames of a batch (default: %(default)s)"
    )
    group.add_argument("--loss", choices=("nmla", "ctc"), default="nmla", help="loss of text and units (default: nmla)")
    group = parser.add_argument_group("serving")
    group.add_argument(
        "--streams", type=_several(int), default=(1, 8, 32), metavar="N[,N...]", help="streams (default: 1,8,32)"
    )
    group.add_argument("--left-ms", type=_positive(int), default=10_000, help="left context in ms (default: 10000)")
    group.add_argument("--speech", action="store_true", help="also the waveform, by a vocoder of the published size")
    group.add_argument("--capacity", action="store_true", help="search the largest number of streams in real time")
    group = parser.add_argument_group("load")
    group.add_argument("--model", "-m", metavar="BUNDLE", help="bundle folder that is served")
    group.add_argument(
        "--sessions", type=_positive(int), default=32, metavar="N", help="healthy sessions (default: %(default)s)"
    )
    group.add_argument("--recordings", metavar="DIR", help="what they say (default: recordings beside the bundle)")
    group = parser.add_argument_group("prepare")
    group.add_argument("--rows", type=_positive(int), metavar="N", help="rows of the made corpus (default: 200000)")
    group.add_argument("--jobs", type=_positive(int), metavar="N", help="processes (default: one per CPU)")
    group.add_argument(
        "--features", choices=("zip", "npy", "audio"), default="zip", help="form of the features (default: zip)"
    )
    _add_autoregressive_flags(parser)
    parser.set_defaults(func=run)


def _add_autoregressive_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("autoregressive")
    group.add_argument("--beams", type=_several(int), metavar="N[,N...]", help="beam sizes (default: 1,10)")
    group.add_argument("--quick", action="store_true", help="by default only 2 and 10 s, batch size 1")
    group.add_argument(
        "--units-per-second",
        type=_positive(float),
        default=25.0,
        metavar="N",
        help="units per second of speech, repeated units merged (default: %(default)s; the example corpus has 18)",
    )
    group.add_argument(
        "--decoder-layers",
        type=_positive(int),
        metavar="N",
        help="decoder layers of the autoregressive model (default: as many as the unit decoder has)",
    )
    group.add_argument(
        "--autoregressive-dtype",
        choices=("fp32", "bf16", "fp16"),
        help="number type of the autoregressive model (default: that of --dtype, fp32 for int8)",
    )


def _several(kind: type[int] | type[float]) -> Callable[[str], tuple[int | float, ...]]:
    one = _positive(kind)

    def convert(text: str) -> tuple[int | float, ...]:
        return tuple(one(word) for word in text.split(","))

    convert.__name__ = "list of numbers"
    return convert


def _take_one(args: argparse.Namespace) -> None:
    """Replace the lists of ``--seconds`` and ``--batch`` by their only values, for parts that measure one case."""
    for name in ("seconds", "batch"):
        values = getattr(args, name)
        if values and len(values) > 1:
            raise ConfigError(f"takes one --{name}, got {','.join(f'{value:g}' for value in values)}")
        setattr(args, name, values[0] if values else None)
    args.seconds = args.seconds or (_LOAD_SECONDS if args.part == "load" else _DEFAULT_SECONDS)


def _positive(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    def convert(text: str) -> int | float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
        return value

    convert.__name__ = "number"  # argparse names it in "invalid number value"
    return convert


def run(args: argparse.Namespace) -> int:
    """Run one part and print its figures; returns the exit status, 1 if the part has found ``problems``."""
    module, function, _ = _PARTS[args.part]
    if args.part != "autoregressive":
        _take_one(args)
    result = getattr(importlib.import_module(f"nast_s2x.benchmarks.{module}"), function)(args)
    if args.json:
        print(json.dumps(result))
    else:
        if isinstance(result.get("rows"), list):
            for row in result.pop("rows"):
                print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
        width = max(map(len, result))
        for name, value in result.items():
            print(f"{name:<{width}}  {value}")
    return 1 if result.get("problems") else 0
