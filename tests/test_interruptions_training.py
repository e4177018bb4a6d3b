"""``nast-s2x train`` and the plugin of fairseq: killed, on a full disk, and alone after their parent has ended."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_runs import tensors
from killed import count_operations, in_child, killed_before, with_file_limit
from plugin_data import make_data_folder

from nast_s2x.cli.main import main
from nast_s2x.files import locked

pytest.importorskip("fairseq")
from plugin_runs import train  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes and files as Linux has them")
FLAGS = ("--arch", "nast_s2t_tiny", "--max-update", "4", "--save-interval-updates", "2", "--max-tokens", "400")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_folder(tmp_path_factory.mktemp("data") / "d", train=6, valid=1, units=False)


def run(data: Path, save: Path) -> None:
    """A training of four updates, with checkpoints after two of them."""
    train(data, save, *FLAGS)


@pytest.fixture(scope="module")
def expected(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The checkpoints of a training that nothing happens to."""
    save = tmp_path_factory.mktemp("whole")
    run(data, save)
    found = checkpoints(save)
    assert {"checkpoint_last.pt", "checkpoint_best.pt"} < found.keys()
    return found


def checkpoints(save: Path) -> dict[str, Any]:
    """Parameters and optimizer of every checkpoint; an error where one is damaged."""
    found = {}
    for path in sorted(save.glob("*.pt")):
        state = tensors(path.read_bytes())
        found[path.name] = {name: value for name, value in state.items() if name.startswith(("/model", "/last_opt"))}
    return found


def drawn(request: pytest.FixtureRequest, count: int, most: int) -> list[int]:
    if request.config.getoption("--slow"):
        return list(range(count))
    return sorted(random.Random(request.node.name).sample(range(count), min(count, most)))


def test_killed_before_any_file_operation(
    data: Path, expected: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Every checkpoint is whole at any moment, and the next training ends with the same ones."""
    operations = count_operations(partial(run, data, tmp_path / "count"), tmp_path / "count")
    assert sum(path.endswith(".tmp") for path in operations) >= 4
    for number in drawn(request, len(operations), 3):
        save = tmp_path / str(number)
        assert killed_before(partial(run, data, save), save, number).was_killed
        checkpoints(save)
        assert in_child(partial(run, data, save)).status == 0
        assert checkpoints(save) == expected, number
        assert not list(save.glob("*.tmp"))


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "full"])
def test_a_checkpoint_that_is_not_written_to_its_end(
    data: Path, expected: dict[str, Any], tmp_path: Path, kill: bool, request: pytest.FixtureRequest
) -> None:
    save = tmp_path / "save"
    run(data, save)
    size = (save / "checkpoint_last.pt").stat().st_size
    shutil.rmtree(save)
    for number, share in enumerate((0.02, 0.3, 0.6, 0.98)):
        if number == 1 or request.config.getoption("--slow"):
            outcome = with_file_limit(partial(failing, partial(run, data, save)), round(share * size), kill)
            assert outcome.was_killed if kill else "[Errno 27] File too large: " in outcome.output, outcome
            checkpoints(save)
    assert in_child(partial(run, data, save)).status == 0
    assert checkpoints(save) == expected


def failing(action: Callable[[], object]) -> int:
    """Run an action that fails with an ``OSError``, which is printed."""
    try:
        action()
    except OSError as error:
        print(error)
        return 1
    return 0


# ---- the command

RECIPE = "processes: {processes}\nstages: {{one: {{lr: 1}}}}"
PROGRAM = """#!{python}
import os, sys, time
sys.path.insert(0, {root!r})
from nast_s2x.processes import follow_parent
follow_parent()
print("begun", os.getpid(), flush=True)
{rest}
"""


def fake_command(folder: Path, rest: str, processes: int = 1) -> list[str]:
    """``nast-s2x train`` as a program, where fairseq-train does ``rest``."""
    program = folder / "fairseq-train"
    root = str(Path(__file__).resolve().parent.parent)
    program.write_text(PROGRAM.format(python=sys.executable, root=root, rest=rest))
    program.chmod(0o755)
    (folder / "r.yaml").write_text(RECIPE.format(processes=processes))
    (folder / "config.yaml").write_text("{}")
    words = ["train", str(folder / "r.yaml"), "--data", str(folder), "--save", str(folder / "save")]
    code = (
        f"import sys; sys.path.insert(0, {root!r}); from nast_s2x.training import launch; "
        f"launch._fairseq_train = lambda: {str(program)!r}; from nast_s2x.cli.main import main; "
        f"sys.exit(main({words!r}))"
    )
    return [sys.executable, "-c", code]


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


def has_ended(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


def begun(log: Path) -> int | None:
    words = log.read_text().split() if log.is_file() else []
    return int(words[words.index("begun") + 1]) if "begun" in words[:-1] else None


@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_ends_with_the_command_that_started_it(tmp_path: Path, processes: int) -> None:
    command = fake_command(tmp_path, "time.sleep(100)", processes)
    logs = [tmp_path / "save" / "one" / name for name in ("train.log", "rank1.log")[:processes]]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = [wait_for(partial(begun, log), f"{log}: nothing has begun") for log in logs]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for child in children:
        wait_for(partial(has_ended, child), "it lives on", 10)
    with locked(tmp_path / "save"):
        pass


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    """The training is not stopped by it: what it prints is read to the end. Then the error is told."""
    command = fake_command(tmp_path, f"print('x' * 1000000); open({str(tmp_path / 'done')!r}, 'w')")
    limited = ["prlimit", "--fsize=100000", *command]
    outcome = subprocess.run(limited, capture_output=True, text=True, check=False, timeout=100)
    assert outcome.returncode == 1 and (tmp_path / "done").exists()
    assert outcome.stderr.splitlines()[-1] == (
        f"nast-s2x train: error: [Errno 27] File too large: '{tmp_path / 'save' / 'one' / 'train.log'}'"
    )
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def has_written(process: subprocess.Popen[bytes], log: Path, lines: int) -> bool:
    """Whether the log has so many lines, or the process has ended."""
    return process.poll() is not None or (log.is_file() and log.read_text().count("\n") >= lines)


@pytest.mark.slow
@pytest.mark.parametrize("only_parent", [True, False], ids=["the command alone", "all processes"])
def test_the_command_is_killed_again_and_again(
    data: Path, expected: dict[str, Any], tmp_path: Path, only_parent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At drawn lines of its output; then it ends with the checkpoints of an uninterrupted one."""
    from plugin_runs import TINY

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums depend on it
    (tmp_path / "r.yaml").write_text("stages: {one: {arch: nast_s2t_tiny}}")
    flags = [*TINY, *FLAGS, "--restore-file", "checkpoint_last.pt"]
    words = ["train", str(tmp_path / "r.yaml"), "--data", str(data), "--save", str(tmp_path / "save"), "--", *flags]
    log = tmp_path / "save" / "one" / "train.log"
    for lines in random.Random(7).sample(range(20, 60), 4):
        wanted = lines + (log.read_text().count("\n") if log.is_file() else 0)
        command = [sys.executable, "-m", "nast_s2x.cli.main", *words]
        process = subprocess.Popen(command, stdout=-3, stderr=-3, start_new_session=True)
        wait_for(partial(has_written, process, log, wanted), "it prints nothing", 120)
        if only_parent:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        checkpoints(tmp_path / "save" / "one")
    assert main(words) == 0
    assert checkpoints(tmp_path / "save" / "one") == expected
