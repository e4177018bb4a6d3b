"""``nast-s2x vocoder train``: train a unit vocoder."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from nast_s2x.cli.system import log_stderr

if TYPE_CHECKING:
    import torch


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser of ``nast-s2x vocoder``."""
    parser = subparsers.add_parser(
        "train",
        help="train a unit vocoder (HiFi-GAN) from a units manifest",
        description="Train a unit vocoder from recordings of one speaker and their units (`nast-s2x units extract`), "
        "with HiFi-GAN's losses and a duration loss. OUTPUT/vocoder is the vocoder of the last checkpoint. The same "
        "command resumes a stopped training. On several GPUs: torchrun --nproc-per-node N -m nast_s2x.cli.main vocoder "
        "train ...",
    )
    parser.add_argument(
        "manifest", help="units manifest (.tsv) with columns tgt_audio, tgt_durations and the recording"
    )
    parser.add_argument("--output", "-o", required=True, metavar="DIR", help="folder of checkpoint, log and vocoder")
    parser.add_argument(
        "--config", "-c", required=True, metavar="FILE", help="sizes and settings (configs/vocoder_*.json)"
    )
    parser.add_argument(
        "--audio-column", default="tgt_speech", metavar="NAME", help="column of the recordings (default: tgt_speech)"
    )
    parser.add_argument("--train-split", default="train", metavar="NAME", help="rows to train on (default: train)")
    parser.add_argument("--dev-split", default="dev", metavar="NAME", help="rows to evaluate on (default: dev)")
    parser.add_argument(
        "--num-units",
        type=int,
        metavar="K",
        help="number of units (default: num_units of MANIFEST.units.json, else num_embeddings of the configuration)",
    )
    for flag, what in (
        ("--max-updates", "length of the training"),
        ("--batch-size", "crops per update, over all processes"),
        ("--adversarial-from", "update from which the discriminators are trained and used"),
    ):
        parser.add_argument(flag, type=int, metavar="N", help=f"{what} (default: see the configuration)")
    parser.add_argument("--max-minutes", type=float, metavar="M", help="stop with a checkpoint after this time")
    parser.add_argument(
        "--save-every", type=int, default=500, metavar="N", help="updates between checkpoints (default: 500)"
    )
    parser.add_argument(
        "--log-every", type=int, default=50, metavar="N", help="updates between lines of train.log (default: 50)"
    )
    parser.add_argument(
        "--dev-recordings",
        type=int,
        default=8,
        metavar="N",
        help="dev recordings that are evaluated and written to OUTPUT/samples (default: 8)",
    )
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (default: cuda if available)")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--no-amp", action="store_true", help="float32 in place of mixed precision on CUDA (float16)")
    group.add_argument("--bf16", action="store_true", help="mixed precision in bfloat16, on CPUs too")
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read recordings (default: 0, none)"
    )
    parser.add_argument("--tensorboard", metavar="DIR", help="also write TensorBoard events")
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="seed of initial weights, crops and dropout (default: 1)"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit status."""
    import torch

    from nast_s2x.vocoder.training.data import read_units_manifest
    from nast_s2x.vocoder.training.run import RunOptions, joined_processes, train
    from nast_s2x.vocoder.training.settings import read_configuration
    from nast_s2x.vocoder.training.trainer import world

    device = _device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    config, settings = read_configuration(
        args.config,
        num_embeddings=_declared_units(Path(args.manifest)) if args.num_units is None else args.num_units,
        max_updates=args.max_updates,
        batch_size=args.batch_size,
        adversarial_from=args.adversarial_from,
    )
    manifest = read_units_manifest(
        args.manifest, config.num_embeddings, args.audio_column, (args.train_split, args.dev_split)
    )
    options = RunOptions(
        output=Path(args.output),
        seed=args.seed,
        device=str(device),
        amp=_mixed_precision(args, device),
        workers=args.workers,
        train_split=args.train_split,
        dev_split=args.dev_split,
        log_every=args.log_every,
        save_every=args.save_every,
        max_seconds=None if args.max_minutes is None else args.max_minutes * 60,
        dev_recordings=args.dev_recordings,
        tensorboard=None if args.tensorboard is None else Path(args.tensorboard),
    )
    with joined_processes(device):
        folder = train(config, settings, manifest, options)
        if world()[0] == 0:
            log_stderr(f"vocoder in {folder}")
    return 0


def _device(name: str) -> torch.device:
    import torch

    from nast_s2x.device import find_device

    device = find_device(name)
    if device.type == "cuda" and device.index is None:
        device = find_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(device)
    return device


def _declared_units(manifest: Path) -> int | None:
    """Number of units in the record that `nast-s2x units extract` writes beside the manifest, ``None`` without one."""
    from nast_s2x.corpus.manifest import unit_record

    return unit_record(manifest).get("num_units")


def _mixed_precision(args: argparse.Namespace, device: torch.device) -> torch.dtype | None:
    import torch

    if args.bf16:
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" and not args.no_amp else None
