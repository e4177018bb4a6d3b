"""Every command that writes, where a file cannot grow: killed in the middle of a write, and on a full disk.

Each command of :mod:`command_runs` goes through each attack. A few places are drawn for each; ``--slow`` takes all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_runs import Command
from interruptions import World, check_error, check_no_torn_file, each_case, opened_world, sizes
from killed import Outcome, in_child, with_file_limit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes and files as Linux has them")

FULL = ("File too large", "No space left on device")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with opened_world() as made:
        yield made


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


@each_case
def test_files_that_cannot_grow(world: World, command: Command, with_old: bool, request: pytest.FixtureRequest) -> None:
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
        with small_disk(world.folder / "disk") as out:
            shutil.copytree(world.fresh(command, with_old), out, dirs_exist_ok=True)
            run = world.run(command, out)
            outcome = fill(out, 4096 * free, partial(in_child, run))
            if outcome.status != 0:
                check_error(command, outcome, FULL[1], ": '")
                check_kept(command, out, old, world.content(command))
            world.finish(command, out, run, free)


@contextmanager
def small_disk(folder: Path, size: str = "32m") -> Iterator[Path]:
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
    with open(disk / ".filling", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_bsize - free)
    try:
        return action()
    finally:
        (disk / ".filling").unlink()
