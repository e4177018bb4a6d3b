"""Every command that writes, twice at once, and with folders that cannot be written.

Each command of :mod:`command_runs` goes through each attack. A few places are drawn for each; ``--slow`` takes all.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_runs import Command
from interruptions import World, check_error, drawn, each_command, opened_world
from killed import as_other_user, become_other_user, changed_paths, held_at, in_child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes and files as Linux has them")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with opened_world() as made:
        yield made


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
