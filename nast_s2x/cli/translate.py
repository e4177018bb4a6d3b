"""``nast-s2x translate``: recordings played as streams; words are printed as they become final."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nast_s2x.cli.system import add_system_flags, open_system, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nast_s2x.inference.streaming import Emission, StreamingTranslator


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand to the console command's parser."""
    parser = subparsers.add_parser(
        "translate",
        help="translate recordings as streams, printing words as they come",
        description="Play recordings into the translator piece by piece and print each emission with the source time "
        "at which it was possible.",
    )
    parser.add_argument("audio", nargs="+", metavar="AUDIO", help="audio file (wav, flac, ogg, mp3) of any sample rate")
    parser.add_argument("--offline", action="store_true", help="the same as --chunk-ms offline")
    parser.add_argument("--piece-ms", type=float, default=40.0, metavar="MS", help="length of a piece (default: 40)")
    parser.add_argument("--real-time", action="store_true", help="play at the speed of speech")
    parser.add_argument("--units", action="store_true", help="print speech units too")
    parser.add_argument("--json", action="store_true", help="one JSON object an emission, with computing time")
    add_system_flags(parser, default_chunk="320 if the model was trained for it, else its smallest chunk")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Translate each recording; returns the exit status (1 if a recording could not be translated)."""
    from nast_s2x.inference.streaming import StreamingTranslator

    if args.piece_ms <= 0:
        raise ValueError(f"--piece-ms must be positive, got {args.piece_ms}")
    if args.offline:
        if args.chunk_ms not in (None, "offline"):
            raise ValueError(f"--offline and --chunk-ms {args.chunk_ms} contradict each other")
        args.chunk_ms = "offline"
    bundle, geometry = open_system(args, offline_default=False)
    translator = StreamingTranslator(bundle, geometry, with_units=args.units)
    failures = 0
    for path in args.audio:
        translator.reset()
        try:
            _translate_file(translator, Path(path), args)
        except ValueError as error:
            say(f"{path}: {error}")
            failures += 1
    return 1 if failures else 0


def _translate_file(translator: StreamingTranslator, path: Path, args: argparse.Namespace) -> None:
    if not args.json:
        print(f"# {path}")
    clock = _Clock(args.real_time)
    words: list[str] = []
    for piece, rate, heard_ms in _pieces(path, args.piece_ms):
        clock.wait_for(heard_ms)
        with clock:
            emissions = translator.push(piece, rate)
        words += _show(emissions, path, clock, args)
    with clock:
        emissions = translator.finish()
    words += _show(emissions, path, clock, args)
    if not args.json:
        print(f"= {' '.join(words)}", flush=True)


def _pieces(path: Path, piece_ms: float) -> Iterator[tuple[NDArray[np.float32], int, float]]:
    """Pieces (n, channels) of a recording, its rate, and the milliseconds heard at the end of each piece."""
    import soundfile

    from nast_s2x.frontend.audio import AudioError

    if not path.is_file():
        raise AudioError("no such audio file")
    try:
        with soundfile.SoundFile(path) as file:
            heard, rate = 0, file.samplerate
            for piece in file.blocks(max(1, round(piece_ms * rate / 1000)), dtype="float32", always_2d=True):
                heard += len(piece)
                yield piece, rate, 1000.0 * heard / rate
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(f"cannot be read as audio ({error})") from error


class _Clock:
    """Computing time of the pushes (as a context), and pacing at the speed of speech."""

    def __init__(self, real_time: bool) -> None:
        self.real_time = real_time
        self.started = time.monotonic()
        self.compute_ms = 0.0

    def __enter__(self) -> _Clock:
        self._entered = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.compute_ms += 1000 * (time.perf_counter() - self._entered)

    @property
    def elapsed_ms(self) -> float:
        return 1000 * (time.monotonic() - self.started)

    def wait_for(self, heard_ms: float) -> None:
        """Sleep until ``heard_ms`` of the source would have been heard."""
        if self.real_time:
            time.sleep(max(0.0, (heard_ms - self.elapsed_ms) / 1000))


def _show(emissions: list[Emission], path: Path, clock: _Clock, args: argparse.Namespace) -> list[str]:
    """Print emissions; return their words."""
    for emission in emissions:
        if args.json:
            print(json.dumps(_as_json(emission, path, clock, args.units), ensure_ascii=False), flush=True)
        elif emission.text or (args.units and emission.units):
            units = f"\t[{' '.join(map(str, emission.units))}]" if args.units else ""
            print(f"{emission.source_ms / 1000:8.2f} s  {emission.text}{units}", flush=True)
    return [emission.text for emission in emissions if emission.text]


def _as_json(emission: Emission, path: Path, clock: _Clock, units: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "audio": str(path),
        "chunk": emission.chunk,
        "source_ms": round(emission.source_ms, 3),
        "text": emission.text,
        "tokens": emission.tokens,
        "final": emission.final,
        "compute_ms": round(clock.compute_ms, 3),
        "elapsed_ms": round(clock.elapsed_ms, 3),
    }
    return entry | {"units": emission.units} if units else entry
