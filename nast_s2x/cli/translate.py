"""``nast-s2x translate``: recordings translated as streams; words are printed as they become final."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nast_s2x.cli.speech import DEFAULT_FOLDER, add_speech_flags, check_speech_flags, with_speech
from nast_s2x.cli.system import add_system_flags, log_stderr, open_system
from nast_s2x.errors import ConfigError, NastError

if TYPE_CHECKING:
    from nast_s2x.inference.recorder import PlaybackRecorder
    from nast_s2x.inference.streaming import Emission, TranslationStream


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand to the console command's parser."""
    parser = subparsers.add_parser(
        "translate",
        help="translate recordings as streams, printing words as they come",
        description="Translate recordings as streams, piece by piece, and print each emission and the amount of source "
        "audio it required. With --speech also write NAME.wav (the translation), NAME.stereo.wav (left the recording, "
        "right the translation at the times it was available) and NAME.srt (its text as captions).",
    )
    parser.add_argument("audio", nargs="+", metavar="AUDIO", help="audio file (wav, flac, ogg, mp3) of any sample rate")
    parser.add_argument("--offline", action="store_true", help="the same as --chunk-ms offline")
    parser.add_argument("--piece-ms", type=float, default=40.0, metavar="MS", help="length of a piece (default: 40)")
    parser.add_argument("--real-time", action="store_true", help="read each recording at the speed of speech")
    parser.add_argument("--units", action="store_true", help="print speech units too")
    parser.add_argument(
        "--transcript",
        action="store_true",
        help="print the words of the source too, in front of the translation; from the model's recognition head",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per emission, with computing time")
    _add_listening_flags(parser)
    add_system_flags(parser, default_chunk="320 if the model was trained for it, else its smallest chunk")
    parser.set_defaults(func=run)


def _add_listening_flags(parser: argparse.ArgumentParser) -> None:
    group = add_speech_flags(parser)
    group.add_argument("--output", "-o", metavar="DIR", help=f"folder of the files (default: {DEFAULT_FOLDER})")
    group.add_argument(
        "--playback-buffer-ms",
        type=float,
        metavar="MS",
        help="delay of the start of playback, which closes gaps between pieces of speech (default: 0)",
    )
    group.add_argument(
        "--computation-aware",
        action="store_true",
        help="count speech as available once it is computed, not once its source is read; times vary between runs",
    )


def run(args: argparse.Namespace) -> int:
    """Translate each recording; returns the exit status (1 if a recording could not be translated)."""
    if not math.isfinite(args.piece_ms) or args.piece_ms <= 0:
        raise ConfigError(f"--piece-ms must be a positive number, got {args.piece_ms:g}")
    if args.offline:
        if args.chunk_ms not in (None, "offline"):
            raise ConfigError(f"--offline and --chunk-ms {args.chunk_ms} contradict each other")
        args.chunk_ms = "offline"
    check_speech_flags(args, ("--output", "--playback-buffer-ms", "--computation-aware"))
    names = _output_names(args)
    system, policy = open_system(args, prefer_offline=False)
    system, synthesis = with_speech(args, system)
    if args.transcript and system.has_recognition is None:
        log_stderr("note: it is not recorded whether the recognition head of this model was trained")
    failures = 0
    for path, name in zip(args.audio, names):
        stream = system.stream(
            policy,
            with_units=args.units,
            with_speech=args.speech,
            synthesis=synthesis,
            with_transcript=args.transcript,
        )
        with _locked_outputs(args, name):
            try:
                _translate_file(stream, Path(path), name, args)
            except NastError as error:
                log_stderr(str(error) if str(error).startswith(f"{path}:") else f"{path}: {error}")
                failures += 1
    return 1 if failures else 0


@contextlib.contextmanager
def _locked_outputs(args: argparse.Namespace, name: str) -> Iterator[None]:
    """The lock of a recording's output files; none without ``--speech``."""
    if not args.speech:
        yield
        return
    from nast_s2x.files import locked
    from nast_s2x.inference.recorder import output_paths
    from nast_s2x.temporary import remove_leftovers

    first, *others = output_paths(Path(args.output), name)
    with locked(first):
        remove_leftovers(first.parent, {path.name for path in others})
        yield


def _output_names(args: argparse.Namespace) -> list[str]:
    """File names of the recordings' outputs; also checks the output files and the start delay."""
    from nast_s2x.inference.speech_folder import file_names, protect_sources

    names = file_names([Path(path).stem for path in args.audio])
    if args.speech:
        from nast_s2x.inference.recorder import PlaybackRecorder, output_paths

        PlaybackRecorder(args.playback_buffer_ms or 0.0)  # checks the value
        args.output = args.output or DEFAULT_FOLDER
        outputs = {path: "--output" for name in names for path in output_paths(Path(args.output), name)}
        protect_sources(outputs, args.audio)
    return names


def _translate_file(stream: TranslationStream, path: Path, name: str, args: argparse.Namespace) -> None:
    from nast_s2x.frontend.audio import audio_pieces

    if not args.json:
        print(f"# {path}")
    show = _Show(path, args)
    try:
        source_ms = 0.0
        for piece, rate in audio_pieces(path, args.piece_ms):
            source_ms += 1000.0 * len(piece) / rate
            show.clock.wait_for(source_ms)
            with show.clock:
                emissions = stream.push(piece, rate)
            if show.recorder is not None:
                show.recorder.add_source(piece, rate)
            show.emissions(emissions)
        with show.clock:
            emissions = stream.push([], final=True)
        show.emissions(emissions)
        if not args.json:
            print(f"= {show.line(show.source_text, show.text)}", flush=True)
        _note_cuts(stream, path)
    except NastError:
        # What was translated before the recording became unreadable is kept.
        if show.recorder is not None and show.recorder.has_source:
            show.speech(name)
        raise
    show.speech(name)


def _note_cuts(stream: TranslationStream, path: Path) -> None:
    """Say where a long recording was cut without a pause: words there may be lost or broken."""
    from nast_s2x.chunking import FRAMES_PER_SECOND

    hard = [cut.frame for cut in stream.cuts if not cut.pause]
    if hard:
        times = ", ".join(f"{frame / FRAMES_PER_SECOND:.1f}" for frame in hard[:5]) + (", ..." if len(hard) > 5 else "")
        log_stderr(
            f"{path}: the positions of this model end, so it was translated in {len(stream.cuts) + 1} segments; "
            f"{len(hard)} of the cuts are not in a pause (at {times} s)"
        )


class _Clock:
    """Computing time of the pushes (as a context), and pacing at the speed of speech.

    Attributes:
        compute_ms: computing time so far.
        ready_ms: time when the results of the last push were available, from the start of the source. In real time it
            is measured; else the source is taken to arrive at the speed of speech, and a push to begin when its piece
            has arrived and the push before it has ended.
    """

    def __init__(self, real_time: bool) -> None:
        self.real_time = real_time
        self.started = time.monotonic()
        self.compute_ms = 0.0
        self.source_ms = 0.0
        self.ready_ms = 0.0

    def __enter__(self) -> _Clock:
        self._entered = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        cost = 1000 * (time.perf_counter() - self._entered)
        self.compute_ms += cost
        self.ready_ms = self.elapsed_ms if self.real_time else max(self.ready_ms, self.source_ms) + cost

    @property
    def elapsed_ms(self) -> float:
        """Time since the clock was made."""
        return 1000 * (time.monotonic() - self.started)

    def wait_for(self, source_ms: float) -> None:
        """Record that ``source_ms`` of the source have been read; in real time, wait until that time."""
        self.source_ms = source_ms
        if self.real_time:
            time.sleep(max(0.0, (source_ms - self.elapsed_ms) / 1000))


class _Show:
    """Prints the emissions of one recording, and collects its text and, with ``--speech``, its waveform."""

    def __init__(self, path: Path, args: argparse.Namespace) -> None:
        self.path, self.args = path, args
        self.clock = _Clock(args.real_time)
        self.text = self.source_text = ""
        self.recorder: PlaybackRecorder | None = None
        if args.speech:
            from nast_s2x.inference.recorder import PlaybackRecorder

            self.recorder = PlaybackRecorder(args.playback_buffer_ms or 0.0)

    def emissions(self, emissions: list[Emission]) -> None:
        """Print emissions, with units and speech according to the flags."""
        for emission in emissions:
            self.text += emission.delta
            self.source_text += emission.source_delta
            sound: dict[str, Any] = {}
            if self.recorder is not None:
                available = self.clock.ready_ms if self.args.computation_aware else emission.source_ms
                sound = self.recorder.add_emission(emission, available)
            if self.args.json:
                print(json.dumps(self._as_json(emission) | sound, ensure_ascii=False), flush=True)
            elif emission.text or emission.source_text or (self.args.units and emission.units):
                units = f"\t[{' '.join(map(str, emission.units))}]" if self.args.units else ""
                line = self.line(emission.source_text, emission.text)
                print(f"{emission.source_ms / 1000:8.2f} s  {line}{units}", flush=True)

    def line(self, source: str, text: str) -> str:
        """The translation, with ``--transcript`` behind the words of the source."""
        return f"{source} | {text}" if self.args.transcript else text

    def speech(self, name: str) -> None:
        """Write the recording's files and print what they hold; nothing without ``--speech``."""
        if self.recorder is None:
            return
        summary = self.recorder.write(Path(self.args.output), name)
        if self.args.json:
            print(json.dumps({"audio": str(self.path), "speech": summary}, ensure_ascii=False), flush=True)
        else:
            print(describe_speech(summary), flush=True)

    def _as_json(self, emission: Emission) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "audio": str(self.path),
            "chunk": emission.chunk,
            "source_ms": round(emission.source_ms, 3),
            "text": emission.text,
            "delta": emission.delta,
            "tokens": emission.tokens,
            "final": emission.final,
            "compute_ms": round(self.clock.compute_ms, 3),
            "elapsed_ms": round(self.clock.elapsed_ms, 3),
        }
        if self.args.transcript:
            entry |= {"source_text": emission.source_text, "source_delta": emission.source_delta}
        return entry | {"units": emission.units} if self.args.units else entry


def describe_speech(summary: dict[str, Any]) -> str:
    """Format what :meth:`PlaybackRecorder.write` returned as lines of text."""
    files = f"  {summary['stereo']} (left the source, right the translation)\n  {summary['wav']}\n  {summary['srt']}"
    if summary["start_ms"] is None:
        return f"speech: none\n{files}"
    gaps = "no gaps"
    if summary["gaps"]:
        noun = "gap" if summary["gaps"] == 1 else "gaps"
        gaps = f"{summary['gaps']} {noun}, mean {summary['gap_mean_ms']:.0f} ms, sum {summary['gap_sum_ms']:.0f} ms"
    return (
        f"speech: {summary['seconds']:.2f} s, from {summary['start_ms'] / 1000:.2f} s to "
        f"{summary['end_ms'] / 1000:.2f} s (the source ends at {summary['source_seconds']:.2f} s); {gaps}\n{files}"
    )
