"""``nast-s2x export``: make a bundle from checkpoints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nast_s2x.errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand to the console command's parser."""
    parser = subparsers.add_parser(
        "export",
        help="turn a checkpoint into a self-contained bundle",
        description="Make a bundle (one folder with weights, configuration, vocabulary, CMVN, a model card and, with "
        "--vocoder, a vocoder) from a checkpoint of this project or a released one. Several checkpoints are averaged.",
    )
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="fairseq checkpoint file")
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="data folder of the training: config.yaml and the files that it names, vocabulary, SentencePiece model "
        "and gcmvn.npz (default: the folder of the checkpoint). The paths inside a checkpoint are not used",
    )
    parser.add_argument(
        "--vocoder",
        metavar="DIR",
        help="unit vocoder to put into the bundle: a folder of `nast-s2x vocoder train`, or a released checkpoint",
    )
    parser.add_argument(
        "--drop-repeats",
        type=int,
        default=0,
        metavar="N",
        help="remove sequences of up to N units that repeat the one before them; 0 (published, default) removes none",
    )
    parser.add_argument("--output", "-o", required=True, metavar="BUNDLE", help="folder to write")
    parser.add_argument("--card", metavar="FILE", help="text of the model card (default: a generated one)")
    parser.add_argument("--example", metavar="NOTE", help="mark the bundle as an example; NOTE describes its domain")
    parser.add_argument(
        "--half",
        action="store_true",
        help="store float16 weights (the vocoder's too): half the size, computed in float32",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is in the output folder")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Export; returns the exit status."""
    from dataclasses import replace

    from nast_s2x.files import check_output_folder, locked
    from nast_s2x.inference.bundle import save_bundle
    from nast_s2x.inference.description import CONFIG
    from nast_s2x.inference.loading import system_from_checkpoints
    from nast_s2x.labels import RepeatFilter, UnitLabels

    for path in map(Path, args.checkpoints):
        if (path / CONFIG).is_file():
            raise ConfigError(f"{path} is a bundle already: `export` makes bundles from checkpoints")
    card = "" if args.card is None else _read_card(Path(args.card))
    RepeatFilter(args.drop_repeats)  # checks the value before anything is read
    with locked(args.output):
        check_output_folder(args.output, "bundle", CONFIG, args.overwrite)
        system = system_from_checkpoints(args.checkpoints, args.data)
        if args.drop_repeats and system.units is None:
            raise ConfigError("--drop-repeats needs a model with a unit decoder; this one produces text only")
        if args.vocoder is not None:
            system = system.with_vocoder(args.vocoder)
        units = system.units and UnitLabels(system.units.num_units, system.units.hash, args.drop_repeats)
        system = replace(system, units=units, info=replace(system.info, card=card, example=args.example))
        folder = save_bundle(system, args.output, half=args.half)
    vocoder = f", vocoder {_megabytes(folder / 'vocoder')}" if system.vocoder is not None else ""
    print(f"wrote {folder} ({_megabytes(folder)}{vocoder})", file=sys.stderr)
    return 0


def _read_card(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"--card: no such file {path}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"--card must be UTF-8 text, but {path} is not (byte {error.start})") from None


def _megabytes(folder: Path) -> str:
    """Size of all files in a folder and below it."""
    return f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.1f} MB"
