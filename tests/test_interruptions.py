"""Every command that writes, killed before any of its file operations.

Each command of :mod:`command_runs` goes through each attack. A few places are drawn for each; ``--slow`` takes all.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import pytest
from command_runs import Command
from interruptions import World, check_no_torn_file, drawn, each_case, opened_world
from killed import killed_before

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes and files as Linux has them")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with opened_world() as made:
        yield made


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
