"""Commands on hostile files: each runs in a process of its own with limits, and everything it touches is recorded.

A process is forked after the imports, so a case takes a fraction of a second.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hostile_mutations import CANARY

OUTPUT = "out"
"""Folder, in that of a case, which a command may write to."""
MEMORY = 3 << 30
"""Bytes of address space that a command may take beyond those of the process that it is forked from."""
SECONDS = 60.0
_BUG = 70
_LONGEST_MESSAGE = 3000
_FORBIDDEN = {
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.startfile",
    "subprocess.Popen",
    "socket.connect",
    "pty.spawn",
}
_CHANGES = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "os.link",
    "os.symlink",
    "os.truncate",
    "shutil.rmtree",
}


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        status: exit status; negative: ended by this signal.
        error: what it wrote to standard error.
        seconds: wall time.
        peak: memory in MB.
        problem: why it is a failure; empty for an accepted or a refused file.
    """

    status: int
    error: str
    seconds: float
    peak: float
    problem: str

    @property
    def is_accepted(self) -> bool:
        """True where the file could be used."""
        return self.status == 0


def run_command(arguments: Sequence[str], folder: Path, names: Sequence[str], may_start: bool = False) -> Outcome:
    """Run ``nast-s2x`` in ``folder`` and judge what it did.

    A file may be accepted (status 0) or refused: status 1 or 2 and one line that says ``error:`` and one of ``names``,
    or lines that list bad rows. Anything else is a failure: a traceback, a signal, too much time or memory, a message
    of many lines, a program started, a file touched outside the output folder.

    Args:
        names: file and folder that hold what is hostile; the message must have one of them.
        may_start: the command starts processes of its own.
    """
    begin = time.monotonic()
    process = os.fork()
    if process == 0:
        _child(arguments, folder, may_start)
    status, usage = _wait(process, begin)
    error = (folder / "stderr").read_text("utf-8", errors="replace")
    problem = _judged(status, error, folder, names)
    return Outcome(status, error, time.monotonic() - begin, usage / 1024, problem)


def _wait(process: int, begin: float) -> tuple[int, int]:
    """Exit status, and largest resident memory in kB."""
    while True:
        done, status, usage = os.wait4(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss
        if time.monotonic() - begin > SECONDS:
            os.killpg(process, signal.SIGKILL)
            os.wait4(process, 0)
            return -signal.SIGALRM, 0
        time.sleep(0.01)


def _child(arguments: Sequence[str], folder: Path, may_start: bool) -> None:
    os.setpgid(0, 0)
    try:
        os.chdir(folder)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _watch(folder, may_start)
        from nast_s2x.cli.main import main

        status = main(list(arguments))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = _BUG
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _watch(folder: Path, may_start: bool) -> None:
    """Write what is started, and what is changed outside of the output folder, to ``touched``."""
    record = os.open(folder / "touched", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    temporary = [f"{tempfile.gettempdir()}/{name}" for name in ("tmp", "joblib", "torchinductor")]
    allowed = (str(folder / OUTPUT), "/dev/null", "/dev/shm", *temporary)
    busy = False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal busy
        if busy or event not in watched:
            return
        busy = True
        try:
            if event in _FORBIDDEN:
                if not may_start:
                    os.write(record, f"{event} {arguments[:2]!r}\n".encode())
                return
            if event == "open":
                path, mode, flags = arguments
                writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                if not writes or not isinstance(path, str | bytes):
                    return
            path = _absolute(arguments)
            if path and not path.startswith(allowed) and "__pycache__" not in path:
                os.write(record, f"{event} {path}\n".encode())
        finally:
            busy = False

    watched = _FORBIDDEN | _CHANGES | {"open"}
    sys.addaudithook(hook)


def _absolute(arguments: tuple[object, ...]) -> str:
    """Path of an event, empty for one by number; shutil.rmtree names files in open folders."""
    if not isinstance(arguments[0], str | bytes):
        return ""
    folder = arguments[-1] if isinstance(arguments[-1], int) and len(arguments) > 1 else -1
    here = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 and os.path.exists(f"/proc/self/fd/{folder}") else ""
    return os.path.abspath(os.path.join(here, os.fsdecode(arguments[0])))


def _judged(status: int, error: str, folder: Path, names: Sequence[str]) -> str:
    touched = (folder / "touched").read_text() if (folder / "touched").is_file() else ""
    if touched:
        return f"touched: {touched.splitlines()[0]}"
    if (folder / CANARY).exists() or (folder / OUTPUT / CANARY).exists():
        return "code was executed"
    if status == -signal.SIGALRM:
        return f"no end in {SECONDS:.0f} s"
    if status not in (0, 1, 2) or "Traceback (most recent call last)" in error:
        return f"status {status}: {(error.strip().splitlines() or ['no message'])[-1][:300]}"
    if status == 0:
        return ""
    lines = [line for line in error.replace("\r", "\n").split("\n") if line.strip()]
    messages = [line for line in lines if "error:" in line]
    if not any(name in error for name in names):
        return f"the message names none of {', '.join(names)}: {error.strip()[-300:]}"
    if len(messages) > 1 or (messages and lines[-1] is not messages[0] and not lines[-1].startswith(" ")):
        return f"more than one line: {error.strip()[-300:]}"
    if any(len(line) > _LONGEST_MESSAGE for line in lines):
        return f"a message of {max(map(len, lines))} characters"
    return ""


def clear(folder: Path) -> None:
    """Empty the folder of a case."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
