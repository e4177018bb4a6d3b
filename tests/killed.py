"""Processes that are killed, stopped or limited while they write files, for tests of interruptions.

Each attack runs in a forked child, which has what the test has imported. File operations are those of Python's audit
hooks; writes of a file are cut at any byte by the limit of file sizes.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KILLED, _DONE, _FAILED = 9, 0, 111
_FOLDER_ARGUMENT = {"os.rename": (2, 3), "os.remove": (1,), "os.rmdir": (1,), "os.mkdir": (2,), "os.chmod": (2,)}
"""Audit events of file operations -> place of the folder descriptor for each of their paths, which come first."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
Action = Callable[[], object]


@dataclass(frozen=True)
class Outcome:
    """How a child has ended: exit status, or minus the number of the signal; and what it has printed."""

    status: int
    output: str
    errors: str

    @property
    def was_killed(self) -> bool:
        """Whether it was killed, not ended by itself."""
        return self.status in (_KILLED, -signal.SIGXFSZ, -signal.SIGKILL)


# File operations


def operations(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """Paths that an audit event is about to change; none for events that change no file."""
    if event == "open":
        path, _, flags = arguments
        return [_absolute(path)] if isinstance(flags, int) and flags & _WRITING and not isinstance(path, int) else []
    if event == "os.truncate":
        return [_absolute(arguments[0])]
    if event not in _FOLDER_ARGUMENT:
        return []
    places = _FOLDER_ARGUMENT[event]
    return [_absolute(path, arguments[place]) for path, place in zip(arguments, places)]


def _absolute(path: Any, folder: int = -1) -> str:
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    root = os.readlink(f"/proc/self/fd/{folder}") if isinstance(folder, int) and folder >= 0 else os.getcwd()
    return os.path.join(root, os.fsdecode(path))


def _watch(folder: Path, seen: Callable[[int, str], None]) -> None:
    """Call ``seen`` with number and path before each file operation below ``folder`` in this process, for ever.

    The exchange of two folders is made by a function of the C library; looking it up counts as an operation.
    """
    count, inside = 0, False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count, inside
        if inside:
            return
        inside = True
        try:
            if event == "ctypes.dlsym":
                is_exchange = arguments[1] in ("renameat2", "renamex_np") and folder != Path("/")
                paths = [str(folder)] if is_exchange else []
            else:
                paths = [path for path in operations(event, arguments) if Path(path).is_relative_to(folder)]
            if paths:
                seen(count, paths[0])
                count += 1
        finally:
            inside = False

    sys.addaudithook(hook)


# Children


def in_child(action: Action, before: Action = lambda: None) -> Outcome:
    """Run ``before`` and ``action`` in a forked child; the exit status is what ``action`` returns, 0 if not an int."""
    return _started(action, before).wait()


class Child:
    """A running child, see :func:`held_at`."""

    def __init__(self, process: int, out: int, err: int) -> None:
        self.process, self._streams = process, {out: bytearray(), err: bytearray()}

    def wait(self) -> Outcome:
        """Read what it prints until it has ended."""
        streams = self._streams
        waiting = set(streams)
        while waiting:
            for stream in select.select(list(waiting), [], [])[0]:
                data = os.read(stream, 1 << 16)
                streams[stream] += data
                if not data:
                    waiting.remove(stream)
        for stream in streams:
            os.close(stream)
        status = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        out, err = (bytes(data).decode("utf-8", "replace") for data in streams.values())
        assert status != _FAILED, f"the action failed:\n{err}"
        return Outcome(status, out, err)


def _started(action: Action, before: Action) -> Child:
    out, err = os.pipe(), os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        os.close(out[0])
        os.close(err[0])
        _run(action, before, out[1], err[1])
    os.close(out[1])
    os.close(err[1])
    return Child(process, out[0], err[0])


def _run(action: Action, before: Action, out: int, err: int) -> None:
    status = _FAILED
    try:
        faulthandler.disable()
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
        before()
        result = action()
        status = result if isinstance(result, int) else _DONE
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else _FAILED
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


# Attacks


def count_operations(action: Action, folder: Path) -> list[str]:
    """Paths of all file operations below ``folder``, one after the other."""
    reader, writer = os.pipe()

    def watch() -> None:
        os.close(reader)
        _watch(folder, lambda number, path: void(os.write(writer, path.encode() + b"\n")))

    child = _started(action, watch)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        paths = file.read().splitlines()
    outcome = child.wait()
    assert outcome.status == _DONE, outcome
    return paths


def void(_: object) -> None:
    """Drop a value."""


def killed_before(action: Action, folder: Path, number: int) -> Outcome:
    """Run ``action`` in a child that is killed just before its file operation ``number`` (from 0) below ``folder``."""

    def seen(count: int, path: str) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return in_child(action, lambda: _watch(folder, seen))


def killed_before_each_write(action: Action, folder: Path, limit: int = 200) -> Iterator[int]:
    """Run ``action`` in processes that are killed just before their first, second, ... file operation below ``folder``.

    Yields the number of operations done after each such process; ends when a process reached the end of ``action``.
    The caller restores the state before the next one.
    """
    for count in range(limit):
        outcome = killed_before(action, folder, count)
        if not outcome.was_killed:
            return
        yield count
    raise AssertionError(f"more than {limit} file operations")


def with_file_limit(action: Action, size: int, kill: bool) -> Outcome:
    """Run ``action`` in a child whose files cannot grow beyond ``size`` bytes.

    Args:
        kill: a longer write kills the child in the middle; else it is an error, as on a full disk.
    """

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kill else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    return in_child(action, limit)


@contextmanager
def held_at(action: Action, folder: Path, number: int) -> Iterator[Child]:
    """Run ``action`` in a child that stops just before its file operation ``number``; it goes on after the block."""
    told, tell = os.pipe()
    go, let = os.pipe()

    def seen(count: int, path: str) -> None:
        if count == number:
            os.write(tell, b"x")
            os.read(go, 1)

    def watch() -> None:
        os.close(let)
        os.close(told)
        _watch(folder, seen)

    child = _started(action, watch)
    os.close(tell)
    os.close(go)
    try:
        assert os.read(told, 1) == b"x", f"no operation {number}: {child.wait()}"
        yield child
    finally:
        os.close(told)
        os.close(let)


def changed_paths(action: Action, before: Action = lambda: None) -> tuple[Outcome, list[str]]:
    """Run ``action`` in a child; returns the paths of all its file operations anywhere."""
    reader, writer = os.pipe()

    def watch() -> None:
        os.close(reader)
        before()
        _watch(Path("/"), lambda number, path: void(os.write(writer, path.encode() + b"\n")))

    child = _started(action, watch)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as file:
        paths = file.read().splitlines()
    return child.wait(), paths


def become_other_user() -> None:
    """Of root, another user, who may not write what root has made."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def as_other_user(action: Action) -> Outcome:
    """Run ``action`` in a child that may not write what root has made."""
    return in_child(action, become_other_user)
