"""Files: atomic writes, locks, digests. Imports no torch and no numpy."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import json
import math
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from nast_s2x.errors import ConfigError, NastError
from nast_s2x.temporary import beside, claimed, is_still, naming_file, remove_leftovers
from nast_s2x.texts import encodable

AnyPath = str | os.PathLike[str]


# Atomic files and folders

_LOCK = ".lock"


@contextlib.contextmanager
def open_atomic(path: AnyPath, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing that takes the place of ``path`` at the end of the block, or not at all after an error.

    Args:
        mode: ``"w"`` (UTF-8, newlines as written) or ``"wb"``.
    Raises:
        OSError: the file cannot be written, names ``path``; what was there is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    temporary = beside(path, "part")
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    with naming_file(path, temporary), claimed(temporary, lambda: os.open(temporary, flags, 0o666)) as claim:
        try:
            with open(temporary, mode, opener=lambda *_: os.dup(claim), **text) as file:
                yield file
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def replace_end(path: AnyPath, start: int, data: bytes) -> None:
    """Write ``data`` to a file from byte ``start`` on, and cut off what follows; the file is made if needed.

    For files of lines that only grow: of an interrupted write, a line without its end is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming_file(path), open(path, "r+b" if path.exists() else "w+b") as file:
        file.truncate(start)
        file.seek(start)
        file.write(data)


def append(file: io.FileIO, data: bytes) -> None:
    """Write all of ``data`` to the end of a log, at once.

    Raises:
        OSError: it cannot be written; names the file.
    """
    with naming_file(file.name):
        while data:
            data = data[file.write(data) or 0 :]


def write_atomic(path: AnyPath, content: str | bytes) -> None:
    """Write a file so that ``path`` holds either what it held before or all of ``content``. Folders are made."""
    with open_atomic(path, "wb" if isinstance(content, bytes) else "w") as file:
        file.write(content)


def write_json(path: AnyPath, values: Any, indent: int | None = None) -> None:
    """:func:`write_atomic` of :func:`json_text` with a newline at the end."""
    write_atomic(path, json_text(values, indent) + "\n")


def json_text(values: Any, indent: int | None = None, allow_nan: bool = True) -> str:
    """``values`` as JSON for a UTF-8 file: letters as they are, lone surrogates (as in names of files) as escapes."""
    return encodable(json.dumps(values, ensure_ascii=False, indent=indent, allow_nan=allow_nan))


@contextlib.contextmanager
def replace_folder(folder: AnyPath) -> Iterator[Path]:
    """Yield an empty temporary folder that takes the place of ``folder`` at the end of the block.

    After an error, or if the process ends early, ``folder`` is what it was before. Of a symbolic link, the folder that
    it points to is replaced. The exchange is one system call on Linux and macOS; elsewhere the old folder is renamed
    first and restored if the second renaming fails.
    """
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(folder, "part")

    def create() -> int:
        shutil.rmtree(temporary, ignore_errors=True)
        os.mkdir(temporary)
        return os.open(temporary, os.O_RDONLY)

    with naming_file(folder, temporary), claimed(temporary, create):
        try:
            yield temporary
            _take_place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _take_place(new: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(new, folder)
    elif _exchange(new, folder):
        shutil.rmtree(new)
    else:
        old = beside(folder, "old")
        os.rename(folder, old)
        try:
            os.rename(new, folder)
        except OSError:
            os.rename(old, folder)
            raise
        shutil.rmtree(old)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one system call; False where the system or file system has none."""
    names = os.fsencode(first), os.fsencode(second)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "linux":
            at_cwd, exchange = -100, 2
            return bool(libc.renameat2(at_cwd, names[0], at_cwd, names[1], exchange) == 0)
        if sys.platform == "darwin":
            swap = 2
            return bool(libc.renamex_np(names[0], names[1], swap) == 0)
    except (AttributeError, OSError, TypeError):
        pass
    return False


def check_output_folder(folder: AnyPath, what: str, marker: str, overwrite: bool = False) -> None:
    """Refuse an output folder that must not be replaced. Call it before any work, under :func:`locked`.

    Args:
        what: what the command makes, for the message, such as ``"bundle"``.
        marker: file that every such folder holds; a folder without it holds something else.
        overwrite: allow an older result to be replaced, never anything else.
    Raises:
        ConfigError: ``folder`` is a file, or not empty and not to be replaced.
    """
    folder = Path(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"the output of a {what} must be a folder, but {folder} is a file")
    if is_empty(folder):
        return
    if not (folder / marker).is_file():
        raise ConfigError(f"{folder} holds something other than a {what}: choose another output folder")
    if not overwrite:
        raise ConfigError(f"{folder} already holds a {what}: choose another output folder, or pass --overwrite")


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but a lock."""
    return all(path.name == _LOCK for path in folder.iterdir())


# Reading and digests


def parse_json(text: str | bytes, finite: bool = False) -> Any:
    """Return the value of a JSON text; bytes are UTF-8.

    Args:
        finite: refuse NaN, infinity and numbers beyond the range of floats, which JSON cannot hold when it is written.
    Raises:
        NastError: "not valid JSON" and the reason; also for what is nested too deeply or too large.
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        return json.loads(text, parse_float=_finite, parse_constant=_finite) if finite else json.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise NastError(f"not valid JSON: {_reason(error)}") from None


_DEEPEST = 200  # nested lists and tables of a YAML file


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"numbers must be finite, but one is {text[:40]}")
    return value


def parse_yaml(text: str | bytes) -> Any:
    """Return the value of a YAML text of plain values, ``None`` for an empty one; bytes are UTF-8.

    Raises:
        NastError: "not a YAML file" and the reason; also for tags of objects, which are never made.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        # The loader in C ends the process when its stack overflows, so the depth is looked at first.
        if sum(text.count(mark) for mark in "[{-?:") > _DEEPEST:
            depth = 0
            for event in yaml.parse(text, Loader=loader):
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if depth > _DEEPEST:
                    raise RecursionError
        return yaml.load(text, Loader=loader)  # noqa: S506 (a safe loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise NastError(f"not a YAML file: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """The message of an error of a parser, in one line."""
    if isinstance(error, RecursionError | MemoryError):
        return "nested too deeply, or too large"
    return " ".join(str(error).split())[:300]


def read_json(path: AnyPath) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        FileNotFoundError: no such file.
        NastError: not JSON, nested too deeply, or not an object; names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        values = parse_json(path.read_bytes(), finite=True)
    except NastError as error:
        raise NastError(f"{path} is {error}") from None
    if not isinstance(values, dict):
        raise NastError(f"{path} must hold a JSON object, not {type(values).__name__}")
    return values


def read_yaml(path: AnyPath) -> dict[str, Any]:
    """Return the table of settings in a YAML file, empty for an empty file.

    Raises:
        FileNotFoundError: no such file.
        NastError: not YAML, nested too deeply, or not a table of settings; names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        values = parse_yaml(path.read_bytes())
    except NastError as error:
        raise NastError(f"{path} is {error}") from None
    if not isinstance(values, (dict, type(None))):
        raise NastError(f"{path} must hold a table of settings, not {type(values).__name__}")
    return values or {}


class Digest:
    """SHA-256 over parts that are added one after the other, each with its length."""

    def __init__(self) -> None:
        self._total = hashlib.sha256()

    def add(self, part: str | bytes) -> None:
        """Add a part; text as UTF-8."""
        data = part.encode() if isinstance(part, str) else part
        self._total.update(b"%d:" % len(data))
        self._total.update(data)

    def hexdigest(self) -> str:
        """The digest of the parts so far, hexadecimal."""
        return self._total.hexdigest()


def digest(*parts: str | bytes) -> str:
    """SHA-256 over the parts, each with its length, hexadecimal."""
    total = Digest()
    for part in parts:
        total.add(part)
    return total.hexdigest()


def file_digest(path: AnyPath) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_stamp(path: AnyPath) -> str:
    """Size and modification time of a file as text, to notice changes; ``"missing"`` where there is no file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a ValueError for names that no file can have
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


# Locks


@contextlib.contextmanager
def locked(output: AnyPath) -> Iterator[None]:
    """Keep other processes out of ``output``, a folder or a file that need not exist yet, until the block ends.

    The lock is a file beside ``output`` (in it, where only it can be written) that names its owner; it ends with the
    process, however that ends. What killed processes have left in ``output`` of unfinished files is removed first.

    Raises:
        ConfigError: another process holds the lock; names it.
        OSError: the file system cannot lock files, or the folder cannot be written.
    """
    output = Path(os.path.realpath(output))
    with naming_file(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    path = output.with_name(f".{output.name}.lock")
    if output.is_dir() and not os.access(output.parent, os.W_OK):
        path = output / _LOCK
    with naming_file(output, path):
        file = _acquire(path, output)
    try:
        command = Path(sys.argv[0]).name + "".join(f" {word}" for word in sys.argv[1:2])
        with contextlib.suppress(OSError):  # on a full disk the lock names no owner
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} ({command})".encode())
        remove_leftovers(output.parent, {output.name})
        remove_leftovers(output)
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        file.close()


def _acquire(path: Path, output: Path) -> io.FileIO:
    while True:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666), "r+"))
            if not _lock(file, path):
                file.seek(0)
                owner = file.read().decode("utf-8", "replace").strip() or "another process"
                raise ConfigError(f"{owner} is at work in {output}: wait until it ends")
            # The file may have been removed by its last owner between opening and locking.
            if is_still(file.fileno(), path):
                stack.pop_all()  # the file stays open as long as the lock is held
                return file


def _lock(file: io.FileIO, path: Path) -> bool:
    """Lock an open file without waiting; False if another process has locked it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 20)  # outside the text, which others may read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        raise OSError(f"{path} cannot be locked: {error.strerror or error}") from error
    return True
