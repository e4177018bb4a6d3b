"""Runs of recipes: one ``fairseq-train`` for each stage, on one or several processes."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import IO

from nast_s2x.errors import ConfigError, NastError
from nast_s2x.files import append, locked, write_atomic
from nast_s2x.processes import PARENT, cpu_count
from nast_s2x.resources import USER_DIR
from nast_s2x.training.cluster import launcher, node_rank
from nast_s2x.training.output import StageOutput, last_lines
from nast_s2x.training.recipe import Recipe, Stage

FINISHED = "finished"
"""File in a stage's folder once the stage has run to its end."""
LOG = "train.log"
"""Log of rank 0 in a stage's folder."""
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Run:
    """How a recipe is run.

    Attributes:
        data: folder made by ``nast-s2x prepare``.
        save: folder of the run; each stage has a folder in it.
        stages: names of stages; empty: all.
        processes: data-parallel processes on a CPU; ``None``: the recipe's.
        gpus: GPUs of each machine, one process each, started by PyTorch's launcher; ``None``: without it.
        nodes: machines; the same run is started on each.
        variables: values of the recipe's variables.
        flags: further arguments of ``fairseq-train``; they replace the recipe's.
    """

    data: Path
    save: Path
    stages: Sequence[str] = ()
    processes: int | None = None
    gpus: int | None = None
    nodes: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)
    flags: Sequence[str] = ()


def commands(recipe: Recipe, run: Run) -> Iterator[tuple[Stage, list[str]]]:
    """Each stage of a run with its command.

    Raises:
        ConfigError: an unknown stage or variable, a data folder without ``config.yaml``.
    """
    if not (run.data / "config.yaml").is_file():
        raise ConfigError(f"{run.data} has no config.yaml: make the data folder with `nast-s2x prepare`")
    values = recipe.values(run.data, run.save, run.variables)
    for stage in recipe.chosen(run.stages):
        head = ["fairseq-train", str(run.data), "--user-dir", str(USER_DIR), "--save-dir", str(run.save / stage.name)]
        yield stage, [*head, *stage.arguments(values), *run.flags]


def run_recipe(recipe: Recipe, run: Run, report: Callable[[str], None], dry_run: bool = False) -> None:
    """Run the stages of a recipe, one after the other.

    A finished stage is skipped; an interrupted one continues from its last checkpoint. The flags of all stages are
    checked before the first one runs.

    Args:
        report: called with each line for the user: stages, validations, warnings; progress goes to stderr, and all
            output of ``fairseq-train`` to the stage's log. If it raises an ``OSError``, output is only logged from then
            on.
        dry_run: report the commands only.
    Raises:
        ConfigError: wrong arguments; a stage that continues a checkpoint which is not there; another run in the folder.
        NastError: ``fairseq-train`` is not installed, or ended with an error.
    """
    processes = recipe.processes if run.processes is None else run.processes
    if processes < 1:
        raise ConfigError(f"--processes must be at least 1, got {processes}")
    head, node = _launcher(run)
    processes = 1 if head else processes
    # Machines share the folder: the first one holds the lock and marks what is finished.
    with contextlib.nullcontext() if dry_run or node else locked(run.save):
        for stage, command in list(commands(recipe, run)):
            folder = run.save / stage.name
            if (folder / FINISHED).is_file() and not dry_run:
                report(f"== stage {stage.name} is finished; remove {folder / FINISHED} to train it further")
                continue
            if dry_run:
                report(f"== stage {stage.name}")
                report(shlex.join([*head, *command[1:]] if head else command))
                continue
            _check_continued(folder, stage.name, command)
            report(f"== stage {stage.name}, log: {folder / LOG}")
            folder.mkdir(parents=True, exist_ok=True)
            output = StageOutput(stage.name, command, report)
            begun = time.monotonic()
            log = f"node{node}.log" if node else LOG
            start = head or [_fairseq_train()]
            _run(folder, [*start, *command[1:]], processes, output, log)
            if not node:
                write_atomic(folder / FINISHED, "")
            best = f", {output.best}" if output.best else ""
            report(f"{stage.name}: finished after {_duration(time.monotonic() - begun)}{best}")


def _launcher(run: Run) -> tuple[list[str], int]:
    """Words of PyTorch's launcher, none without it, and the number of this machine.

    Raises:
        ConfigError: flags that do not go together, see also :func:`~nast_s2x.training.cluster.launcher`.
    """
    if run.gpus is None:
        if run.nodes != 1:
            raise ConfigError("--nodes needs --gpus, the number of GPUs of each machine")
        return [], 0
    if run.processes is not None:
        raise ConfigError("--processes is for CPUs: give it or --gpus")
    return launcher(run.gpus, run.nodes, os.environ), node_rank(run.nodes, os.environ)


def _fairseq_train() -> str:
    """The script of this environment, or the one on the path."""
    beside = Path(sys.executable).with_name("fairseq-train")
    found = str(beside) if beside.is_file() else shutil.which("fairseq-train")
    if found is None:
        raise NastError("fairseq-train is not installed: run `bash scripts/install.sh train`, see `nast-s2x doctor`")
    return found


def _check_continued(folder: Path, stage: str, command: Sequence[str]) -> None:
    """Refuse a missing file of --continue-once: fairseq would train from scratch."""
    if (folder / "checkpoint_last.pt").is_file():
        return
    for flag, value in zip(command, command[1:]):
        if flag == "--continue-once" and not Path(value).is_file():
            raise ConfigError(f"stage {stage} continues {value}, which is not there: train the stage before it first")


def _run(folder: Path, command: list[str], processes: int, output: StageOutput, log: str) -> None:
    """Run a command as ``processes`` ranks. Each has a log; ``output`` reads that of rank 0 too. If one fails, all are
    ended; if this process ends, they end too."""
    environment = os.environ | {PARENT: str(os.getpid())}
    parallel = _parallel_flags(processes)
    if processes > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // processes)))
    names = [log, *(f"rank{rank}.log" for rank in range(1, processes))]
    unwritten: list[OSError] = []
    with contextlib.ExitStack() as stack:
        ranks = []
        for rank, name in enumerate(names):
            words = [*command, *parallel, *(["--distributed-rank", str(rank)] if parallel else [])]
            file = stack.enter_context(FileIO(folder / name, "a"))
            append(file, f"{shlex.join(words)}\n".encode())
            ranks.append(
                subprocess.Popen(
                    words,
                    stdout=subprocess.PIPE if rank == 0 else file,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    encoding="utf-8",
                    errors="replace",
                )
            )
            if rank == 0:
                shown = threading.Thread(target=_show, args=(ranks[0].stdout, file, output, unwritten), daemon=True)
                shown.start()
                stack.callback(shown.join, timeout=10)  # after the process has ended, before its log is closed
            stack.callback(_end, ranks[-1])
        failed, status = _wait(ranks)
    if unwritten:
        raise unwritten[0]
    if status:
        path = folder / names[failed]
        raise NastError(
            f"fairseq-train ended with status {status}, see {path}; the same command continues from the last "
            "checkpoint. The log ends with:\n" + "\n".join(last_lines(path))
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _parallel_flags(processes: int) -> list[str]:
    """Flags of data-parallel training on a CPU, without the rank; none for one process."""
    if processes == 1:
        return []
    # gloo and one process for each rank, because fairseq's own spawning does not work on CPUs.
    address = f"tcp://127.0.0.1:{_free_port()}"
    return [
        *("--distributed-world-size", str(processes), "--distributed-no-spawn", "--distributed-backend", "gloo"),
        *("--distributed-init-method", address, "--ddp-backend", "legacy_ddp"),
    ]


def _show(lines: IO[str] | None, log: FileIO, output: StageOutput, unwritten: list[OSError]) -> None:
    """Log each line and show what is for the user. The lines are read to their end whatever happens: a full pipe would
    stop the training. The first error of the log is added to ``unwritten``; then nothing more is logged."""
    assert lines is not None
    is_shown = True
    for line in lines:
        if not unwritten:
            try:
                append(log, line.encode())
            except OSError as error:
                unwritten.append(error)
        if is_shown:
            try:
                output.line(line)
            except (OSError, ValueError):  # a closed pipe or file, characters that the terminal does not have
                is_shown = False
    with contextlib.suppress(OSError, ValueError):
        output.close()


def _wait(ranks: Sequence[subprocess.Popen[str]]) -> tuple[int, int]:
    """Wait until all ranks have ended with status 0 or one has failed; returns a rank and its status.

    The others of a failed rank would wait for it without end.
    """
    while True:
        states = [rank.poll() for rank in ranks]
        for rank, state in enumerate(states):
            if state:
                return rank, state
        if None not in states:
            return 0, 0
        time.sleep(_POLL_SECONDS)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
