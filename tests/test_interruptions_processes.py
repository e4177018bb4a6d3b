"""Commands with worker processes, killed at drawn moments: all of their processes, or the command alone."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from command_runs import Command, json_lines, json_object, untimed_table
from random_system import make_bundle, make_signal

from nast_s2x.inference.bundle import save_bundle
from nast_s2x.units.centroids import Centroids
from nast_s2x.units.features import Mfcc

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux has them")
ROWS = 12
PREPARE = Command(
    "prepare", ["prepare", "IN/m.tsv", "--output", "OUT/out", "--vocab-size", "60", "--jobs", "2", "--quiet"],
    "out/.prepare/features.jsonl",
)  # fmt: skip
EXTRACT = Command(
    "units extract", ["units", "extract", "IN/m.tsv", "--centroids", "IN/c.safetensors", "--output", "OUT/units.tsv"]
    + ["--audio-column", "audio", "--jobs", "2", "--quiet"], "units.tsv.partial",
)  # fmt: skip
EVALUATE = Command(
    "evaluate", ["evaluate", "--manifest", "IN/m.tsv", "--model", "IN/bundle", "--output", "OUT/out", "--workers", "2"]
    + ["--chunk-ms", "320", "--no-report"], "out/320/unfinished.jsonl",
    readers={"instances.log": json_lines, "utterances.jsonl": json_lines, "scores.json": json_object,
             "scores.csv": untimed_table},
)  # fmt: skip
COMMANDS = [pytest.param(PREPARE), *(pytest.param(one, marks=pytest.mark.slow) for one in (EXTRACT, EVALUATE))]
CODE = (
    "import sys, nast_s2x.corpus.packing as p; p.PART_SIZE = 1; from nast_s2x.cli.main import main; "
    "sys.exit(main(sys.argv[1:]))"
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings that take the processes a moment each."""
    folder = tmp_path_factory.mktemp("inputs")
    lines = ["\t".join(("id", "audio", "src_text", "tgt_text", "split"))]
    for index in range(ROWS):
        soundfile.write(folder / f"{index}.wav", np.tile(make_signal(2.0, seed=index), 5), 16000)
        lines.append(f"u{index}\t{index}.wav\tun deux {index}\tone two {index}\ttrain")
    (folder / "m.tsv").write_text("\n".join(lines) + "\n")
    vectors = Mfcc()(make_signal(4.0, seed=50))
    Centroids(vectors[:: len(vectors) // 7][:8], Mfcc().describe()).save(folder / "c.safetensors")
    save_bundle(make_bundle(folder / "vocabulary"), folder / "bundle")
    return folder


def started(command: Command, inputs: Path, out: Path) -> subprocess.Popen[bytes]:
    out.mkdir(exist_ok=True)
    words = [word.replace("IN", str(inputs)).replace("OUT", str(out)) for word in command.words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *words], stdout=-3, stderr=-3, start_new_session=True, env=environment
    )


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def members(group: int) -> list[int]:
    """Processes of a process group."""
    found = subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def wait_for(condition: Any, what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.001)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_killed_while_its_processes_work(
    inputs: Path, command: Command, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert started(command, inputs, tmp_path / "whole").wait() == 0
    expected = command.content(tmp_path / "whole")
    out = tmp_path / "out"
    progress = out / command.output
    is_slow = request.config.getoption("--slow")
    moments = random.Random(command.name).sample(range(1, ROWS), 3 if is_slow else 1)
    for place, moment in enumerate(moments if is_slow else sorted(moments)):
        if is_slow:
            shutil.rmtree(out, ignore_errors=True)
        run = started(command, inputs, out)
        wait_for(partial(has_done, run, progress, moment), "it does nothing")
        assert run.poll() is None, "it had ended already"
        if place % 2:
            os.killpg(run.pid, signal.SIGKILL)
        else:
            run.kill()
        run.wait()
        wait_for(lambda group=run.pid: not members(group), "a process lives on")
        if is_slow:
            assert started(command, inputs, out).wait() == 0
            assert command.content(out) == expected
    assert started(command, inputs, out).wait() == 0
    assert command.content(out) == expected


def has_done(run: subprocess.Popen[bytes], progress: Path, lines: int) -> bool:
    return run.poll() is not None or lines_of(progress) >= lines
