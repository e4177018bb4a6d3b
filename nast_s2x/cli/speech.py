"""Common part of ``translate --speech`` and ``generate --speech``: flags, vocoder, file names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nast_s2x.errors import ConfigError

if TYPE_CHECKING:
    from nast_s2x.inference.system import System
    from nast_s2x.vocoder.streaming import SynthesisWindow

DEFAULT_FOLDER = "translated"


def add_speech_flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add ``--speech``, ``--vocoder`` and ``--synthesis-lookahead``; returns their group, for further flags."""
    group = parser.add_argument_group("speech")
    group.add_argument("--speech", action="store_true", help="also produce speech (the system needs a vocoder)")
    group.add_argument(
        "--vocoder", metavar="DIR", help="unit vocoder: a folder or a released checkpoint (default: the bundle's)"
    )
    group.add_argument(
        "--synthesis-lookahead",
        type=int,
        metavar="R",
        help="right context of the vocoder in a stream, in unit frames of 20 ms (default: 5, or the vocoder's own)",
    )
    return group


def check_speech_flags(args: argparse.Namespace, flags: Sequence[str]) -> None:
    """Refuse flags for speech without ``--speech``, and ``--speech`` for a model without unit decoder.

    Args:
        args: parsed arguments with ``model`` and the flags of :func:`add_speech_flags`.
        flags: further flags of the subcommand that need ``--speech``, such as ``"--output"``.

    Raises:
        ConfigError: names the model or the flag.
    """
    from nast_s2x.inference.bundle import has_unit_decoder

    if args.speech and has_unit_decoder(args.model) is False:
        raise ConfigError(f"{args.model}: the model has no unit decoder: it produces text only, without --speech")
    for flag in ("--vocoder", "--synthesis-lookahead", *flags):
        value = getattr(args, flag[2:].replace("-", "_"))
        if not args.speech and value is not None and value is not False:  # 0 is a value
            raise ConfigError(f"{flag} needs --speech")


def with_speech(args: argparse.Namespace, system: System) -> tuple[System, SynthesisWindow | None]:
    """The system with the vocoder of ``--vocoder``, and the synthesis window; ``None`` without ``--speech``.

    Raises:
        FileNotFoundError, NastError: no vocoder, one for other units, or a look-ahead that it cannot have.
    """
    from nast_s2x.vocoder.streaming import SynthesisWindow

    if not args.speech:
        return system, None
    if args.vocoder is not None:
        system = system.with_vocoder(args.vocoder)
    return system, SynthesisWindow.of(system.require_vocoder(), args.synthesis_lookahead)
