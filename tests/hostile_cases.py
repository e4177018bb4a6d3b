"""Cases: a hostile file and a command that reads it."""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from hostile_runs import Outcome, clear, run_command
from hostile_stage import Target, copied, good

from nast_s2x.cli.main import SUBCOMMANDS


@dataclass(frozen=True)
class Case:
    """A hostile file and the command that reads it; ``name`` is its seed."""

    name: str
    target: Target
    content: bytes
    command: str


_OPTIONAL = ("scipy.signal", "sacrebleu", "matplotlib.pyplot", "pyarrow.parquet", "sklearn.cluster")
_MODULES = (
    *("inference.loading", "inference.engine", "corpus.prepare", "corpus.converters.run", "evaluation.run"),
    *("evaluation.scoring", "evaluation.compare", "evaluation.report.page", "units.extract", "vocoder.files"),
    *("vocoder.training.run", "checkpoints.fairseq", "training.recipe"),
)


def load_commands() -> None:
    """Import what the commands need, so that no case has to."""
    torch.set_num_threads(1)  # a process that has used several cannot be forked: the copy waits for the others
    for name in _OPTIONAL:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    for module, _ in SUBCOMMANDS.values():
        importlib.import_module(module)
    for module in _MODULES:
        importlib.import_module(f"nast_s2x.{module}")


def draw(stage: Path, targets: Sequence[Target], count: int, seed: int) -> Iterator[Case]:
    """``count`` cases: the targets in turn, each with a file and a command that follow from its seed alone."""
    for number in range(seed, seed + count):
        rng = Random(number)
        target = targets[number % len(targets)]
        content = target.mutation(good(stage, target), rng)
        yield Case(f"case-{number}", target, content, rng.choice(target.commands))


def stored(folder: Path, targets: Sequence[Target]) -> Iterator[Case]:
    """The cases kept in a folder."""
    by_file = {target.file: target for target in targets}
    for path in sorted(folder.glob("*/case.json")):
        values = json.loads(path.read_text())
        if values["file"] in by_file:
            content = path.with_name("content").read_bytes()
            yield Case(path.parent.name, by_file[values["file"]], content, values["command"])


def run_case(stage: Path, folder: Path, case: Case) -> Outcome:
    """Run a case in ``folder``, which is emptied first."""
    clear(folder)
    copied(stage, folder, case.target, case.content)
    return run_command(case.command.split(), folder, case.target.names(), case.target.may_start)
