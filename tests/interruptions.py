"""Runs of the commands of :mod:`command_runs` for tests of interruptions: what is expected, drawn cases, checks."""

from __future__ import annotations

import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_runs import COMMANDS, Command, make_inputs
from killed import Outcome, count_operations, in_child

from nast_s2x.checkpoints import download
from nast_s2x.corpus import packing

COMPLETE = re.compile(r"already (holds|exists)|exists: choose")
"""What a command says of a result that is complete, without ``--overwrite``."""


class World:
    """Inputs, and what each command makes of them when nothing happens to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inputs = make_inputs(folder / "in")
        self._operations: dict[tuple[str, bool], list[str]] = {}
        self._made: dict[tuple[str, str], Path] = {}
        self._count = 0

    def fresh(self, command: Command, with_old: bool) -> Path:
        """A new folder ``OUT``, with the older result of the command in it, if asked for."""
        self._count += 1
        out = self.folder / f"out{self._count}"
        if with_old:
            shutil.copytree(self._of(command, "old"), out)
        else:
            out.mkdir()
            command.before(self.inputs, out)
        return out

    def content(self, command: Command, what: str = "new") -> dict[str, Any]:
        """The content of an uninterrupted run's result, of an older one (``old``), or of no run (``nothing``)."""
        return command.content(self._of(command, what))

    def run(self, command: Command, out: Path) -> Callable[[], int]:
        """The command as an action; with ``--overwrite`` where there is an older result."""
        flags = command.new if command.content(out) else [flag for flag in command.new if flag != "--overwrite"]
        return partial(command.run, self.inputs, out, flags)

    def operations(self, command: Command, with_old: bool) -> list[str]:
        """Paths of the file operations of a run."""
        key = (command.name, with_old)
        if key not in self._operations:
            out = self.fresh(command, with_old)
            paths = count_operations(self.run(command, out), out)
            self._operations[key] = [str(Path(path).relative_to(out)) for path in paths]
        return self._operations[key]

    def finish(self, command: Command, out: Path, run: Callable[[], int], what: object) -> None:
        """Run the command again and compare; removes ``out``."""
        outcome = in_child(run)
        assert outcome.status == 0 or COMPLETE.search(outcome.errors), (what, outcome)
        found, expected = command.content(out), self.content(command)
        differing = sorted(
            name for name in found.keys() | expected.keys() if found.get(name, "-") != expected.get(name, "-")
        )
        assert not differing, (what, differing)
        shutil.rmtree(out, ignore_errors=True)  # it may be the place of a mounted disk

    def _of(self, command: Command, what: str) -> Path:
        key = (command.name, what)
        if key not in self._made:
            self._made[key] = out = self.fresh(command, with_old=False)
            if what != "nothing":
                assert command.run(self.inputs, out, command.old if what == "old" else command.new) == 0
        return self._made[key]


@contextmanager
def opened_world() -> Iterator[World]:
    """A :class:`World` in a folder that other users may read; it is removed at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="nast-interruptions-"))
    folder.chmod(0o755)
    part_size, packing.PART_SIZE = packing.PART_SIZE, 2
    releases = dict(download.RELEASES)
    try:
        yield World(folder)
    finally:
        packing.PART_SIZE = part_size
        download.RELEASES.update(releases)
        shutil.rmtree(folder)


def cases(all_of_them: bool) -> list[Any]:
    """Each command, and whether an older result is there: with ``--slow`` both, else the one that is more."""
    found = []
    for command in COMMANDS:
        for with_old in (False, True) if command.old is not None else (False,):
            is_slow = command.is_slow or (all_of_them and not with_old and command.old is not None)
            marks = [pytest.mark.slow] if is_slow else []
            if all_of_them:
                found.append(pytest.param(command, with_old, marks=marks, id=_name(command, with_old)))
            elif not with_old:
                found.append(pytest.param(command, marks=marks, id=_name(command, with_old)))
    return found


def _name(command: Command, with_old: bool) -> str:
    return command.name.replace(" ", "-") + ("-over-old" if with_old else "")


each_command = pytest.mark.parametrize("command", cases(all_of_them=False))
each_case = pytest.mark.parametrize(("command", "with_old"), cases(all_of_them=True))


def is_slow(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--slow"))


def drawn(request: pytest.FixtureRequest, command: Command, count: int, most: int) -> list[int]:
    """Up to ``most`` of the numbers below ``count``, the same in every run; with ``--slow`` all."""
    if is_slow(request):
        return list(range(count))
    return sorted(random.Random(f"{request.node.name} {command.name}").sample(range(count), min(most, count)))


def sizes(request: pytest.FixtureRequest, content: dict[str, Any], most: int) -> list[int]:
    """Limits of file size at which a run cannot write its largest file."""
    largest = max(len(value) for value in content.values() if isinstance(value, bytes))
    random_ = random.Random(request.node.name)
    return [round(largest ** random_.random()) - 1 for _ in range(20 * most if is_slow(request) else most)]


def check_no_torn_file(command: Command, out: Path, *contents: dict[str, Any]) -> None:
    """Each visible file is as a whole run has left it, but for those that hold the state of a run."""
    for path in out.rglob("*"):
        name = path.relative_to(out)
        if path.is_dir() or any(part.startswith(".") for part in name.parts) or path.name in command.state:
            continue
        value = command.readers.get(path.name, bytes)(path.read_bytes())
        assert any(content.get(name.as_posix()) == value for content in contents), f"{name} is cut short"


def check_error(command: Command, outcome: Outcome, *words: str) -> None:
    """The command has ended with an error, which is its last line."""
    assert outcome.status in (1, 2), outcome
    assert "Traceback" not in outcome.errors, outcome.errors
    last = outcome.errors.splitlines()[-1]
    assert last.startswith(f"nast-s2x {command.words[0]}: error: "), outcome.errors
    assert outcome.errors.count(": error: ") == 1, outcome.errors
    for word in words:
        assert word in last, (word, last)
