"""``nast-s2x live``: a microphone translated into captions in the terminal and, with a voice, into speech."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from nast_s2x.cli.serve import read_tokens
from nast_s2x.cli.system import add_system_flags, log_stderr, open_system
from nast_s2x.errors import ConfigError
from nast_s2x.texts import printable
from nast_s2x.writing import split_runs, width

if TYPE_CHECKING:
    from nast_s2x.frontend.microphone import Loudspeaker, Microphone
    from nast_s2x.inference.streaming import TranslationStream
    from nast_s2x.serving.client import Answer, Client

PIECE_MS = 40.0
_ONLY_HERE = ("data", "lookahead_ms", "wait_chunks", "left_ms", "pause_ms", "threads", "vocoder")
"""Flags of a system that is loaded in this process."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand ``live``."""
    parser = subparsers.add_parser(
        "live",
        help="translate a microphone: captions in the terminal, and speech",
        description="Translate what a microphone captures while it is spoken: captions in the terminal (where the "
        "output is no terminal, a line for each emission) and, with --voice, speech from the loudspeaker. Ctrl-C ends "
        "the source and prints the rest. With --server the translation is made by `nast-s2x serve`. Needs the extra "
        "live.",
    )
    parser.add_argument("--server", metavar="URL", help="a server, such as ws://localhost:8080 or https://example.org")
    parser.add_argument("--token", metavar="TOKEN", help="token of the server")
    parser.add_argument("--token-file", metavar="FILE", help="file with the token of the server in its first line")
    parser.add_argument(
        "--input", metavar="FILE", help="a sound file instead of the microphone, at the speed of speech"
    )
    parser.add_argument("--device-in", type=int, metavar="N", help="microphone (`python -m sounddevice` lists devices)")
    parser.add_argument("--device-out", type=int, metavar="N", help="loudspeaker of --voice")
    parser.add_argument("--voice", action="store_true", help="play the translation's speech; use headphones")
    parser.add_argument("--vocoder", metavar="DIR", help="unit vocoder of the speech (default: the bundle's)")
    parser.add_argument("--output", "-o", metavar="FILE.wav", help="keep the translation's speech in this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object per emission, and one at the end")
    add_system_flags(parser, "320 if trained for, else the smallest; of a server: its own", required=False)
    parser.set_defaults(func=run)


class Clock:
    """Time and waiting, of the machine."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def run(args: argparse.Namespace, clock: Clock | None = None) -> int:
    """Translate until the file ends or Ctrl-C is given; returns the exit status."""
    _check(args)
    from nast_s2x.files import locked

    with contextlib.ExitStack() as opened:
        if args.output is not None:
            opened.enter_context(locked(args.output))
        # First what needs no model: its errors are reported before the model is loaded.
        loudspeaker = opened.enter_context(_loudspeaker(args.device_out)) if args.voice else None
        translator: _Here | _There = _There(args, opened) if args.server else _Here(args)
        show = _Show(args, loudspeaker, clock or Clock())
        stop = opened.enter_context(_stopped_by_interrupt())
        source: _File | Microphone
        if args.input is not None:
            source = _File(Path(args.input), show.clock, show.begun)
        else:
            source = opened.enter_context(_microphone(args.device_in))
            log_stderr("listening; Ctrl-C ends")
        try:
            for samples, rate in source.pieces(lambda: stop.is_set):
                show.source_ms += 1000 * len(samples) / rate
                show.answers(translator.push(samples, rate))
            show.answers(translator.finish())
            show.drain()
        finally:
            show.end(source)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse flags that do not go together.

    Raises:
        ConfigError: names the flag.
    """
    if (args.model is None) == (args.server is None):
        raise ConfigError("needs either --model BUNDLE or --server URL")
    if args.server is None:
        given = [name for name in ("token", "token_file") if getattr(args, name) is not None]
    else:
        given = [name for name in _ONLY_HERE if getattr(args, name) is not None]
    if given:
        needed = "--server" if args.server is None else "--model"
        raise ConfigError(f"--{given[0].replace('_', '-')} needs {needed}")
    if args.server is not None and args.chunk_ms is not None and not args.chunk_ms.isdigit():
        raise ConfigError(f"--chunk-ms of a server must be a whole number of ms, but is {args.chunk_ms}")
    if args.input is not None and args.device_in is not None:
        raise ConfigError("--input and --device-in contradict each other")
    if args.device_out is not None and not args.voice:
        raise ConfigError("--device-out needs --voice")
    if args.vocoder is not None and not (args.voice or args.output):
        raise ConfigError("--vocoder needs --voice or --output")
    if args.input is not None and args.output is not None and Path(args.input).resolve() == Path(args.output).resolve():
        raise ConfigError(f"--output would overwrite {args.input}")


def _loudspeaker(device: int | None) -> Loudspeaker:
    from nast_s2x.frontend.microphone import Loudspeaker

    return Loudspeaker(device)


def _microphone(device: int | None) -> Microphone:
    from nast_s2x.frontend.microphone import Microphone

    return Microphone(device, PIECE_MS)


class _Flag:
    is_set = False


@contextlib.contextmanager
def _stopped_by_interrupt() -> Iterator[_Flag]:
    """A flag that the first Ctrl-C sets, so that no computation is broken off; the second one interrupts."""
    flag = _Flag()

    def handle(number: int, frame: FrameType | None) -> None:
        if flag.is_set:
            raise KeyboardInterrupt
        flag.is_set = True

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)


class _File:
    """A sound file as a source: each piece comes when its last sample would have been spoken."""

    def __init__(self, path: Path, clock: Clock, begun: float) -> None:
        self._path, self._clock, self._begun = path, clock, begun

    def pieces(self, stopped: Callable[[], bool]) -> Iterator[tuple[NDArray[np.float32], int]]:
        """(samples (n, channels), rate) of each piece, until the end or ``stopped()``."""
        from nast_s2x.frontend.audio import audio_pieces

        seconds = 0.0
        for samples, rate in audio_pieces(self._path, PIECE_MS):
            seconds += len(samples) / rate
            self._clock.sleep(max(0.0, seconds - (self._clock.now() - self._begun)))
            yield samples, rate
            if stopped():
                return


class _Here:
    """Translates in this process."""

    def __init__(self, args: argparse.Namespace) -> None:
        system, policy = open_system(args, prefer_offline=False)
        speech = bool(args.voice or args.output)
        if args.vocoder is not None:
            system = system.with_vocoder(args.vocoder)
        if speech:
            system.require_vocoder()
        self._stream: TranslationStream = system.stream(policy, with_units=speech, with_speech=speech)

    def push(self, samples: NDArray[np.float32], rate: int) -> list[Answer]:
        """Translate the next piece."""
        return self._answers(samples, rate, False)

    def finish(self) -> list[Answer]:
        """The rest."""
        return self._answers(np.zeros(0, np.float32), None, True)

    def _answers(self, samples: NDArray[np.float32], rate: int | None, final: bool) -> list[Answer]:
        from nast_s2x.serving.client import Answer

        answers = []
        for emission in self._stream.push(samples, rate, final):
            answers.append(Answer(emission.delta, emission.waveform, emission.final))
        return answers


class _There:
    """Has the source translated by a server."""

    def __init__(self, args: argparse.Namespace, opened: contextlib.ExitStack) -> None:
        from nast_s2x.serving.client import Client

        if args.token is not None and args.token_file is not None:
            raise ConfigError("--token and --token-file contradict each other")
        token = read_tokens(Path(args.token_file))[0] if args.token_file is not None else args.token
        settings: dict[str, Any] = {"voice": True} if args.voice or args.output else {}
        if args.chunk_ms is not None:
            settings["chunk_ms"] = int(args.chunk_ms)
        self._client: Client = opened.enter_context(Client(args.server, token, **settings))
        self.push, self.finish = self._client.push, self._client.finish


class _Show:
    """Prints, plays and keeps what comes.

    Attributes:
        source_ms: of the source so far.
    """

    def __init__(self, args: argparse.Namespace, loudspeaker: Loudspeaker | None, clock: Clock) -> None:
        self.args, self.clock, self.begun = args, clock, clock.now()
        self.source_ms = 0.0
        self._loudspeaker = loudspeaker
        self._voice: list[NDArray[np.float32]] = []
        self._captions = None if args.json else Captions(sys.stdout)

    def answers(self, answers: Iterable[Answer]) -> None:
        """Take what has come."""
        for answer in answers:
            count = 0 if answer.waveform is None else len(answer.waveform)
            if self._captions is not None:
                self._captions.add(answer.text)
            elif answer.text or count or answer.final:
                entry = {
                    "text": answer.text.strip(),
                    "delta": answer.text,
                    "source_ms": round(self.source_ms, 3),
                    "elapsed_ms": round(1000 * (self.clock.now() - self.begun), 3),
                    "samples": count,
                    "final": answer.final,
                }
                print(json.dumps(entry, ensure_ascii=False), flush=True)
            if answer.waveform is not None and count:
                if self.args.output is not None:
                    self._voice.append(answer.waveform)
                if self._loudspeaker is not None:
                    self._loudspeaker.write(answer.waveform)

    def drain(self) -> None:
        """Wait until the speech was played."""
        if self._loudspeaker is not None:
            self._loudspeaker.drain()

    def end(self, source: _File | Microphone) -> None:
        """Write the sound file, and say what was lost."""
        from nast_s2x.frontend.audio import write_wav

        if self._captions is not None:
            self._captions.end()
        if self.args.output is not None:
            write_wav(self.args.output, np.concatenate([np.zeros(0, np.float32), *self._voice]))
        figures: dict[str, Any] = {"source_ms": round(self.source_ms, 3)}
        if not isinstance(source, _File):
            figures |= {"lost_ms": round(1000 * source.lost / source.rate, 3), "overflows": source.overflows}
        if self._loudspeaker is not None:
            figures |= {"underruns": self._loudspeaker.underruns, "underflows": self._loudspeaker.underflows}
        if self.args.json:
            print(json.dumps({"summary": figures}), flush=True)
        if figures.get("lost_ms"):
            log_stderr(f"{figures['lost_ms']:.0f} ms of sound were lost: the translation is slower than the speech")
        if figures.get("overflows"):
            log_stderr(f"the microphone has lost sound {figures['overflows']} times: the machine is too busy")


class Captions:
    """Words on a terminal, as one text that grows and is wrapped at the width; else a line for each emission."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._column = 0

    def add(self, text: str) -> None:
        """Print text that is final, with the space before it; a line is broken where the text may be cut."""
        if not self._is_terminal:
            if text.strip():
                print(printable(text.strip()), file=self._out, flush=True)
            return
        glued, columns = not text.startswith(" "), shutil.get_terminal_size().columns
        for word in printable(text).split():
            for run in split_runs(word):
                space = "" if glued or not self._column else " "
                if self._column and self._column + width(space + run) > columns:
                    space, self._column = "\n", 0
                self._out.write(space + run)
                self._column += width(space + run)
                glued = True
            glued = False
        self._out.flush()

    def end(self) -> None:
        """End the line."""
        if self._column:
            print(file=self._out, flush=True)
