"""Processes that end while they write files, as if killed, for tests of atomic and resumable writing."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

_WRITES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "ctypes.dlsym"}
_KILLED, _DONE, _FAILED = 9, 0, 1


def killed_before_each_write(action: Callable[[], object], folder: Path, limit: int = 200) -> Iterator[int]:
    """Run ``action`` in processes that end just before their first, second, ... file operation below ``folder``.

    Yields the number of operations done after each such process; ends when a process reached the end of ``action``.
    The caller restores the state before the next one.
    """
    for count in range(limit):
        process = os.fork()
        if process == 0:
            os._exit(_run(action, str(folder), count))
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert status != _FAILED, "the action failed, see its traceback above"
        if status == _DONE:
            return
        yield count
    raise AssertionError(f"more than {limit} file operations")


def _run(action: Callable[[], object], folder: str, count: int) -> int:
    left = count

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event not in _WRITES or (event != "ctypes.dlsym" and folder not in str(arguments[0])):
            return
        if left == 0:
            os._exit(_KILLED)
        left -= 1

    sys.addaudithook(hook)
    try:
        action()
    except BaseException:
        traceback.print_exc()
        return _FAILED
    return _DONE
