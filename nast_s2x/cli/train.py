"""``nast-s2x train``: the stages of a recipe, each a plain run of fairseq-train."""

from __future__ import annotations

import argparse
from pathlib import Path

from nast_s2x.errors import ConfigError

TAKES_REST = True
"""Words behind ``--`` are passed on as ``args.rest``."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand to the console command's parser."""
    parser = subparsers.add_parser(
        "train",
        help="train the stages of a recipe with fairseq-train",
        usage="nast-s2x train RECIPE --data DIR --save DIR [--stage NAME]... [--processes N | --gpus N [--nodes M]] "
        "[--set NAME=VALUE]... "
        "[--dry-run] [-- FLAGS...]",
        description="Run the stages of a recipe one after the other as plain fairseq-train. The same command "
        "again continues an interrupted run; finished stages are skipped. The progress, validation scores and two "
        "sample outputs are shown; SAVE/STAGE/train.log has all output of fairseq-train. FLAGS behind -- are passed to "
        "fairseq-train and replace those of the recipe.",
    )
    parser.add_argument(
        "recipe", metavar="RECIPE", help="YAML file, or the name of a bundled recipe such as tiny_espeak"
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="data folder made by `nast-s2x prepare`")
    parser.add_argument(
        "--save", required=True, metavar="DIR", help="folder of checkpoints and logs, one folder in it per stage"
    )
    parser.add_argument("--stage", action="append", default=[], metavar="NAME", help="only this stage; can be repeated")
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="data-parallel processes on the CPU (default: the recipe's); GPUs: see --gpus",
    )
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs of each machine, one process each (torchrun)")
    parser.add_argument(
        "--nodes",
        type=int,
        default=1,
        metavar="M",
        help="machines; the same command runs once on each, under SLURM by srun --ntasks-per-node 1 (default: 1)",
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="set a variable of the recipe")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run nothing")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit status."""
    from nast_s2x.texts import printable
    from nast_s2x.training import find_recipe, read_recipe, run_recipe
    from nast_s2x.training.launch import Run

    variables = dict(_variable(text) for text in args.set)
    run = Run(
        Path(args.data),
        Path(args.save),
        args.stage,
        args.processes,
        args.gpus,
        args.nodes,
        variables,
        args.rest,
    )
    recipe = read_recipe(find_recipe(args.recipe))
    run_recipe(recipe, run, lambda line: print(printable(line), flush=True), args.dry_run)
    return 0


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise ConfigError(f"--set takes NAME=VALUE, got {text!r}")
    return name, value
