"""What ``translate --speech`` and ``generate --speech`` share: flags, the voice, names of files, sound files."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nast_s2x.inference.bundle import System
    from nast_s2x.vocoder.streaming import SynthesisWindow

DEFAULT_FOLDER = "translated"


def add_speech_flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """``--speech --vocoder --synthesis-lookahead``, as a group that a subcommand adds its own to."""
    group = parser.add_argument_group("speech")
    group.add_argument("--speech", action="store_true", help="speak the translation (the system needs a voice)")
    group.add_argument(
        "--vocoder", metavar="DIR", help="unit vocoder: a folder or a released checkpoint (default: the bundle's)"
    )
    group.add_argument(
        "--synthesis-lookahead",
        type=int,
        metavar="R",
        help="unit frames of 20 ms that the voice holds back as right context while the stream goes on (default: 5)",
    )
    return group


def check_speech_flags(args: argparse.Namespace, flags: Sequence[str]) -> None:
    """Refuse flags that mean nothing without ``--speech``.

    Args:
        flags: those of the subcommand itself, as written.
    Raises:
        ValueError: names the first such flag.
    """
    for flag in ("--vocoder", "--synthesis-lookahead", *flags):
        value = getattr(args, flag[2:].replace("-", "_"))
        if not args.speech and value is not None and value is not False:  # 0 is a value
            raise ValueError(f"{flag} needs --speech")


def open_voice(args: argparse.Namespace, bundle: System) -> SynthesisWindow | None:
    """How to speak, and the voice of ``--vocoder`` in the bundle; ``None`` without ``--speech``.

    Raises:
        FileNotFoundError, ValueError: there is no voice, or it is one for other units.
    """
    from nast_s2x.vocoder.streaming import SynthesisWindow

    if not args.speech:
        return None
    if args.vocoder is not None:
        bundle.take_voice(args.vocoder)
    bundle.voice()
    frames = args.synthesis_lookahead
    return SynthesisWindow() if frames is None else SynthesisWindow(lookahead_frames=frames)


def file_names(names: Sequence[str]) -> list[str]:
    """A file name for each of ``names``, in order: without folders, all different.

    The second of equal ones gets ``-2`` and so on, whatever letters are large or small (disks differ in that).
    """
    chosen: list[str] = []
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^\w.+@=,-]+", "_", name).lstrip(".") or "_"
        candidate, number = plain, 1
        while candidate.casefold() in taken:
            number += 1
            candidate = f"{plain}-{number}"
        taken.add(candidate.casefold())
        chosen.append(candidate)
    return chosen


def protect_sources(outputs: Mapping[Path, str], sources: Sequence[str | Path]) -> None:
    """Refuse to write over what is read.

    Args:
        outputs: each file that will be written, and the flag that names its folder.
    Raises:
        ValueError: names the file.
    """
    read = {Path(source).resolve() for source in sources}
    for path, flag in outputs.items():
        if path.resolve() in read:
            raise ValueError(f"{path} is one of the recordings: name another folder with {flag}")
