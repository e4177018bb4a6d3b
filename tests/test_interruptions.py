"""Every command that writes, killed, on a full disk, twice at once, in folders that cannot be written.

Each command of :mod:`command_runs` goes through each attack. A few places are drawn for each; ``--slow`` takes all.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_runs import COMMANDS, Command, make_inputs
from killed import (
    Outcome,
    as_other_user,
    become_other_user,
    changed_paths,
    count_operations,
    held_at,
    in_child,
    killed_before,
    with_file_limit,
)

from nast_s2x.checkpoints import download
from nast_s2x.corpus import packing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes and files as Linux has them")

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
COMPLETE = re.compile(r"already (holds|exists)|exists: choose")
"""What a command says of a result that is complete, without ``--overwrite``."""
FULL = ("File too large", "No space left on device")


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
        shutil.rmtree(out)

    def _of(self, command: Command, what: str) -> Path:
        key = (command.name, what)
        if key not in self._made:
            self._made[key] = out = self.fresh(command, with_old=False)
            if what != "nothing":
                assert command.run(self.inputs, out, command.old if what == "old" else command.new) == 0
        return self._made[key]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """In a folder that other users may read."""
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


# ---- killed


@each_case
def test_killed_before_any_file_operation(
    world: World, command: Command, with_old: bool, request: pytest.FixtureRequest
) -> None:
    """The next run ends with the result of an uninterrupted one, and nothing is left beside it."""
    old = world.content(command, "old" if with_old else "nothing")
    for number in drawn(request, command, len(world.operations(command, with_old)), 1):
        out = world.fresh(command, with_old)
        run = world.run(command, out)
        assert killed_before(run, out, number).was_killed, number
        check_no_torn_file(command, out, old, world.content(command))
        world.finish(command, out, run, number)


@each_case
def test_killed_in_the_middle_of_a_write(
    world: World, command: Command, with_old: bool, request: pytest.FixtureRequest
) -> None:
    old = world.content(command, "old" if with_old else "nothing")
    for size in sizes(request, world.content(command), 1):
        out = world.fresh(command, with_old)
        run = world.run(command, out)
        outcome = with_file_limit(run, size, kill=True)
        assert outcome.was_killed or outcome.status == 0, (size, outcome)
        check_no_torn_file(command, out, old, world.content(command))
        world.finish(command, out, run, size)


@pytest.mark.slow
@each_case
def test_killed_several_times(world: World, command: Command, with_old: bool) -> None:
    """Each run goes on from what the killed one before has left."""
    count = len(world.operations(command, with_old))
    places = random.Random(command.name).choices(range(count), k=6)
    out = world.fresh(command, with_old)
    run = world.run(command, out)
    for number in places:
        killed_before(run, out, number)
    world.finish(command, out, run, places)


# ---- full disks


@each_case
def test_files_that_cannot_grow(
    world: World, command: Command, with_old: bool, request: pytest.FixtureRequest
) -> None:
    """An error in one line that names the file; what was there is still there; with room the result is right."""
    old = world.content(command, "old" if with_old else "nothing")
    for size in sizes(request, world.content(command), 1):
        out = world.fresh(command, with_old)
        run = world.run(command, out)
        outcome = with_file_limit(run, size, kill=False)
        if outcome.status != 0:
            check_error(command, outcome, FULL[0], f": '{tempfile.gettempdir()}/")
            check_kept(command, out, old, world.content(command))
        world.finish(command, out, run, size)


def check_kept(command: Command, out: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """After an error the older result is unchanged, or each of its files is an old or a new one."""
    for name, value in old.items() if command.is_whole else ():
        path = out / name
        assert path.is_dir() or command.readers.get(path.name, bytes)(path.read_bytes()) == value, name
    names = {path.relative_to(out).as_posix() for path in out.rglob("*")}
    assert {name.rstrip("/") for name in old} <= names
    check_no_torn_file(command, out, old, new)
    assert not [name for name in names if name.endswith((".part", ".lock"))]


@pytest.mark.slow
@each_case
def test_a_full_disk(world: World, command: Command, with_old: bool) -> None:
    """The same on a small file system that is really full, at the first write or at a later one."""
    old = world.content(command, "old" if with_old else "nothing")
    for free in (0, 1, 4, 16, 64, 256, 1024):
        with small_disk(world.folder / "disk") as disk:
            out = disk / "out"
            shutil.copytree(world.fresh(command, with_old), out)
            run = world.run(command, out)
            outcome = fill(disk, 4096 * free, partial(in_child, run))
            if outcome.status != 0:
                check_error(command, outcome, FULL[1], ": '")
                check_kept(command, out, old, world.content(command))
            world.finish(command, out, run, free)


@contextmanager
def small_disk(folder: Path, size: str = "32m") -> Iterator[Path]:
    import subprocess

    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, free: int, action: Callable[[], Outcome]) -> Outcome:
    """Run ``action`` while ``free`` bytes of the disk are left."""
    space = os.statvfs(disk)
    with open(disk / "filling", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_bsize - free)
    try:
        return action()
    finally:
        (disk / "filling").unlink()


# ---- two runs at once


@each_command
def test_two_runs_at_once(world: World, command: Command, request: pytest.FixtureRequest) -> None:
    """Whenever the second comes, it says who is at work, and the first is not disturbed."""
    paths = world.operations(command, with_old=False)
    lock = f".{Path(command.output).name}.lock"
    held = [number for number, path in enumerate(paths) if Path(path).name == lock]
    assert len(held) == 2, f"{lock} is not made and removed: {paths}"
    made = [number for number, path in enumerate(paths) if path.startswith(command.output.split("/")[0])]
    assert not made or Path(command.output).parent.name or held[0] < made[0], "something is written before the lock"
    places = drawn(request, command, held[1] - held[0] - 1, 1)[:8]
    for number in places:
        out = world.fresh(command, with_old=False)
        run = world.run(command, out)
        with held_at(run, out, held[0] + 1 + number) as first:
            before = command.content(out)
            second = in_child(run)
            check_error(command, second, f"process {first.process} on ", " is at work in ", str(out))
            assert command.content(out) == before
        outcome = first.wait()
        assert outcome.status == 0, outcome
        assert command.content(out) == world.content(command)


# ---- folders that cannot be written


@each_command
def test_read_only_output(world: World, command: Command) -> None:
    out = world.fresh(command, with_old=False)
    before = command.content(out)
    out.chmod(0o555)
    run = world.run(command, out)
    outcome = as_other_user(run)
    check_error(command, outcome, "Permission denied", str(out))
    assert re.search(rf"{re.escape(str(out))}/(?!\.)", outcome.errors), outcome.errors
    assert command.content(out) == before
    out.chmod(0o755)
    world.finish(command, out, run, "read-only")


@each_command
def test_nothing_is_written_elsewhere(world: World, command: Command, tmp_path: Path) -> None:
    """With inputs of another user. Temporary files are removed."""
    out = world.fresh(command, with_old=False)
    places = [world.folder / name for name in ("temporary", "work", "home")]
    for path in (*places, out, *out.rglob("*")):
        if path in places:
            path.mkdir(exist_ok=True)
        path.chmod(0o777 if path.is_dir() else 0o666)
    temporary, work, home = map(str, places)

    def elsewhere() -> None:
        become_other_user()
        os.chdir(work)
        os.environ |= {"HOME": home, "TMPDIR": temporary}
        tempfile.tempdir = temporary

    outcome, paths = changed_paths(world.run(command, out), elsewhere)
    assert outcome.status == 0, outcome
    allowed = (str(out), temporary, "/dev/null")
    assert not [path for path in paths if not path.startswith(allowed) and "__pycache__" not in path]
    assert not [path for place in places for path in place.rglob("*")]
    assert command.content(out) == world.content(command)
