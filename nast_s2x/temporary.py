"""Temporary files and folders, which become others by renaming: in use, left by killed processes, named in errors.

Imports no torch and no numpy.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Container, Iterator
from pathlib import Path

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LEFTOVER = re.compile(r"\.(.+)\.\d+-\d+\.(part|old)")
"""Names of temporary files and folders: that of what they become, process and thread, and whether they are new."""


@contextlib.contextmanager
def naming_file(path: str | os.PathLike[str], temporary: Path | None = None) -> Iterator[None]:
    """Let errors of a full disk, which name no file, name ``path``, and errors that name ``temporary`` too."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _NO_ROOM:
            error.filename = os.fspath(path)
        elif temporary is not None and isinstance(error.filename, str):
            error.filename = error.filename.replace(os.fspath(temporary), os.fspath(path), 1)
        raise


def beside(path: Path, ending: str) -> Path:
    """Name of a temporary file that becomes ``path`` (``ending`` part), or that it was before (old)."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.{ending}")


@contextlib.contextmanager
def claimed(temporary: Path, create: Callable[[], int]) -> Iterator[int]:
    """Create a temporary file or folder, and lock it until the block ends, as a sign that it is in use.

    The lock ends with the process. Without :mod:`fcntl` there is none, and leftovers are not removed.

    Args:
        create: creates and opens it.
    """
    while True:
        opened = create()
        try:
            if sys.platform != "win32":
                import fcntl

                with contextlib.suppress(OSError):  # file systems without locks
                    fcntl.flock(opened, fcntl.LOCK_EX)
                if not is_still(opened, temporary):  # removed by another process before it was locked
                    continue
            yield opened
            return
        finally:
            os.close(opened)


def is_still(opened: int, path: Path) -> bool:
    """Whether ``path`` is the file that is open."""
    try:
        return os.path.samestat(os.fstat(opened), os.stat(path))
    except FileNotFoundError:
        return False


def remove_leftovers(folder: Path, names: Container[str] | None = None) -> None:
    """Remove what killed processes have left of files and folders that they were about to write.

    Args:
        names: of those directly in ``folder``; ``None``: all, at any depth.
    """
    if sys.platform == "win32" or not folder.is_dir():
        return
    for path, folders, files in os.walk(folder):
        found = [(match, name) for name in (*folders, *files) if (match := _LEFTOVER.fullmatch(name))]
        for match, name in found:
            if names is None or match[1] in names:
                _remove_leftover(Path(path, name), Path(path, match[1]), match[2])
        if names is not None:
            folders.clear()


def _remove_leftover(leftover: Path, path: Path, ending: str) -> None:
    """Remove a temporary file or folder that nobody uses; an old folder whose successor is missing gets its name."""
    import fcntl

    with contextlib.suppress(OSError):
        opened = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it is in use
            if ending == "old" and not path.exists():
                os.rename(leftover, path)
            elif leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
        finally:
            os.close(opened)
