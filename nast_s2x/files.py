"""Files: atomic writes, locks, digests, resumable work in processes. Imports no torch and no numpy."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import IO, Any, TypeVar

from nast_s2x.errors import ConfigError, NastError

Item = TypeVar("Item")
Result = TypeVar("Result")
AnyPath = str | os.PathLike[str]

# One thread for each process: sums do not depend on the number of processes, and processes do not compete for CPUs.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


# Atomic files and folders


@contextlib.contextmanager
def open_atomic(path: AnyPath, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing that takes the place of ``path`` at the end of the block, or not at all after an error.

    Args:
        mode: ``"w"`` (UTF-8, newlines as written) or ``"wb"``.
    Raises:
        OSError: the file cannot be written; what was at ``path`` is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(temporary, mode, **text) as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: AnyPath, content: str | bytes) -> None:
    """Write a file so that ``path`` holds either what it held before or all of ``content``. Folders are made."""
    with open_atomic(path, "wb" if isinstance(content, bytes) else "w") as file:
        file.write(content)


def write_json(path: AnyPath, values: Any, indent: int | None = None) -> None:
    """:func:`write_atomic` of ``values`` as JSON with a newline at the end."""
    write_atomic(path, json.dumps(values, ensure_ascii=False, indent=indent) + "\n")


@contextlib.contextmanager
def replace_folder(folder: AnyPath) -> Iterator[Path]:
    """Yield an empty temporary folder that takes the place of ``folder`` at the end of the block.

    After an error, or if the process ends early, ``folder`` is what it was before. Of a symbolic link, the folder that
    it points to is replaced. The exchange is one system call on Linux and macOS; elsewhere the old folder is renamed
    first and restored if the second renaming fails.
    """
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        os.chmod(temporary, 0o777 & ~_umask())
        yield temporary
        if not folder.exists():
            os.rename(temporary, folder)
        elif _exchange(temporary, folder):
            shutil.rmtree(temporary)
        else:
            old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
            os.rename(folder, old)
            try:
                os.rename(temporary, folder)
            except OSError:
                os.rename(old, folder)
                raise
            shutil.rmtree(old)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
    if not any(folder.iterdir()):
        return
    if not (folder / marker).is_file():
        raise ConfigError(f"{folder} holds something other than a {what}: choose another output folder")
    if not overwrite:
        raise ConfigError(f"{folder} already holds a {what}: choose another output folder, or pass --overwrite")


# Reading and digests


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
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, MemoryError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise NastError(f"{path} is not valid JSON: {reason}") from None
    if not isinstance(values, dict):
        raise NastError(f"{path} must hold a JSON object, not {type(values).__name__}")
    return values


def read_yaml(path: AnyPath) -> dict[str, Any]:
    """Return the table of settings in a YAML file, empty for an empty file.

    Raises:
        FileNotFoundError: no such file.
        NastError: not YAML, nested too deeply, or not a table of settings; names the file.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError, MemoryError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise NastError(f"{path} is not a YAML file: {reason}") from None
    if not isinstance(values, (dict, type(None))):
        raise NastError(f"{path} must hold a table of settings, not {type(values).__name__}")
    return values or {}


def digest(*parts: str | bytes) -> str:
    """SHA-256 over the parts, each with its length, hexadecimal."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(b"%d:" % len(data))
        total.update(data)
    return total.hexdigest()


def file_digest(path: AnyPath) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_stamp(path: AnyPath) -> str:
    """Size and modification time of a file as text, to notice changes; ``"missing"`` where there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


# Locks


@contextlib.contextmanager
def locked(output: AnyPath) -> Iterator[None]:
    """Keep other processes out of ``output``, a folder or a file that need not exist yet, until the block ends.

    The lock is a file beside ``output`` that names its owner; it ends with the process, however that ends.

    Raises:
        ConfigError: another process holds the lock; names it.
        OSError: the file system cannot lock files, or the folder cannot be written.
    """
    output = Path(os.path.abspath(output))
    output.parent.mkdir(parents=True, exist_ok=True)
    path = output.with_name(f".{output.name}.lock")
    file = _acquire(path, output)
    try:
        file.seek(0)
        file.truncate()
        command = Path(sys.argv[0]).name + "".join(f" {word}" for word in sys.argv[1:2])
        file.write(f"process {os.getpid()} on {socket.gethostname()} ({command})")
        file.flush()
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        file.close()


def _acquire(path: Path, output: Path) -> IO[str]:
    while True:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(path, "a+", encoding="utf-8"))
            if not _lock(file):
                file.seek(0)
                owner = file.read().strip() or "another process"
                raise ConfigError(f"{owner} is at work in {output}: wait until it ends")
            # The file may have been removed by its last owner between opening and locking.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    stack.pop_all()  # the file stays open as long as the lock is held
                    return file


def _lock(file: IO[str]) -> bool:
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
        raise OSError(f"{file.name} cannot be locked: {error.strerror or error}") from error
    return True


# Work in processes, resumable


def cpu_count() -> int:
    """Number of CPUs that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def process_count(jobs: int | None) -> int:
    """Return ``jobs``, a number of processes; None stands for one per CPU.

    Raises:
        ConfigError: less than 1.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs must be at least 1, got {jobs}")
    return jobs or cpu_count()


class ResultFile:
    """Results of finished work, by key: a file of JSON lines ``{"key": ..., "result": ...}`` that only grows.

    A last line that an interruption cut short is removed; its work is done again.

    Raises:
        NastError: an earlier line is damaged; names file and line.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = Path(path)
        self._results: dict[str, Any] = {}
        content = self.path.read_bytes() if self.path.exists() else b""
        self._size = content.rfind(b"\n") + 1  # bytes of whole lines
        for number, line in enumerate(content[: self._size].split(b"\n")[:-1], start=1):
            try:
                entry = json.loads(line)
                self._results[entry["key"]] = entry["result"]
            except (ValueError, TypeError, KeyError, RecursionError):
                raise NastError(f"{self.path}:{number}: not a stored result; delete the file to start again") from None

    def __contains__(self, key: str) -> bool:
        return key in self._results

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __getitem__(self, key: str) -> Any:
        return self._results[key]

    def add(self, key: str, result: Any) -> None:
        """Store a result (anything that JSON holds) and write it to the file at once."""
        line = json.dumps({"key": key, "result": result}, ensure_ascii=False).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            file.truncate(self._size)
            file.seek(self._size)
            file.write(line)
        self._size += len(line)
        self._results[key] = json.loads(line)["result"]


def resumable_map(
    function: Callable[[Item], Any],
    items: Sequence[Item],
    keys: Sequence[str],
    results: ResultFile,
    jobs: int = 1,
    start: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
    advance: Callable[[int], None] | None = None,
) -> list[Any]:
    """Apply ``function`` to the items whose key is not in ``results`` and store what it returns.

    Args:
        function: a function at module level; what it returns must be what JSON holds.
        keys: one for each item: a digest of everything that its result depends on. Items of one key share a result.
        jobs, start, arguments: see :func:`parallel_map`.
        advance: called with the index of each item whose result is stored, those of earlier runs first.
    Returns:
        the results of all items, in order.
    """
    todo: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        if key not in results:
            todo.setdefault(key, []).append(index)
        elif advance is not None:
            advance(index)
    if todo:
        first = [items[indices[0]] for indices in todo.values()]
        made = parallel_map(function, first, min(jobs, len(todo)), start, arguments)
        for (key, indices), result in zip(todo.items(), made, strict=True):
            results.add(key, result)
            for index in indices:
                if advance is not None:
                    advance(index)
    return [results[key] for key in keys]


def parallel_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    jobs: int = 1,
    start: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """``map(function, items)`` by ``jobs`` processes, results in order; items are read a little ahead only.

    The processes compute with one thread each, ignore Ctrl-C (this process stops them) and end when this one does.

    Args:
        function: a function at module level.
        jobs: number of processes; with 1 the work is done in this one.
        start: called first in each process, with ``arguments``.
    Raises:
        ConfigError: fewer than one process.
        OSError: a process has died.
    """
    if jobs < 1:
        raise ConfigError(f"the number of processes must be at least 1, got {jobs}")
    if jobs == 1:
        if start is not None:
            start(*arguments)
        yield from map(function, items)
        return
    with _environment(_ONE_THREAD):
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(start, arguments))
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise OSError("a worker process has died, perhaps for lack of memory: use fewer processes") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only worker processes call this"
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for the processes that are started in the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
