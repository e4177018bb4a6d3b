"""Work in processes: their number, results in order, results that are stored so that a run can be resumed.

Imports no torch and no numpy.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from nast_s2x.errors import ConfigError, NastError
from nast_s2x.files import AnyPath, json_text, replace_end

Item = TypeVar("Item")
Result = TypeVar("Result")

PARENT = "NAST_S2X_PARENT"
"""Environment variable with the number of the process that started a program, see :func:`follow_parent`."""
# One thread for each process: sums do not depend on the number of processes, and processes do not compete for CPUs.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


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

    Keys and their places in the file are in memory; a result is read when it is asked for. A last line that an
    interruption cut short is removed; its work is done again.

    Raises:
        NastError: an earlier line is damaged; names file and line.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = Path(path)
        self._places: dict[str, int] = {}  # key -> first byte of its line
        self._size = 0  # bytes of whole lines
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):
                    self._places[_entry(line, self.path, number)["key"]] = self._size
                    self._size += len(line)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, key: str) -> Any:
        return next(self.read([key]))

    def read(self, keys: Iterable[str]) -> Iterator[Any]:
        """The results of ``keys``, one after the other; the file is opened once."""
        with contextlib.ExitStack() as stack:
            file = None
            for key in keys:
                place = self._places[key]
                file = file or stack.enter_context(open(self.path, "rb"))
                file.seek(place)
                yield _entry(file.readline(), self.path)["result"]

    def add(self, key: str, result: Any) -> None:
        """Store a result (anything that JSON holds) and write it to the file at once."""
        line = json_text({"key": key, "result": result}).encode() + b"\n"
        replace_end(self.path, self._size, line)
        self._places[key] = self._size
        self._size += len(line)


def _entry(line: bytes, path: Path, number: int | None = None) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        return {"key": entry["key"], "result": entry["result"]}
    except (ValueError, TypeError, KeyError, RecursionError):
        place = str(path) if number is None else f"{path}:{number}"
        raise NastError(f"{place}: not a stored result; delete the file to start again") from None


def store_results(
    function: Callable[[Item], Any],
    work: Iterable[tuple[str, Item]],
    results: ResultFile,
    jobs: int = 1,
    start: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
    advance: Callable[[str, Item], object] | None = None,
) -> None:
    """Apply ``function`` to the items whose key is not in ``results`` and store what it returns, for work of any size.

    Args:
        function: a function at module level; what it returns must be what JSON holds.
        work: (key, item), read a little ahead only. Keys are digests of everything that a result depends on, all
            different.
        jobs, start, arguments: see :func:`parallel_map`.
        advance: called with each key and item whose result is stored.
    """
    begun: deque[tuple[str, Item]] = deque()

    def todo() -> Iterator[Item]:
        for key, item in work:
            if key not in results:
                begun.append((key, item))
                yield item
            elif advance is not None:
                advance(key, item)

    for result in parallel_map(function, todo(), jobs, start, arguments):
        key, item = begun.popleft()
        results.add(key, result)
        if advance is not None:
            advance(key, item)


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
    places: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        places.setdefault(key, []).append(index)

    def stored(key: str, _item: Item) -> None:
        for index in places[key]:
            if advance is not None:
                advance(index)

    # Those of earlier runs first.
    order = sorted(places, key=lambda key: key not in results)
    missing = sum(key not in results for key in order)
    work = ((key, items[places[key][0]]) for key in order)
    # Without work `start`, which may load a network, is not called, and no process is started.
    jobs = min(jobs, missing) if missing else 1
    store_results(function, work, results, jobs, start if missing else None, arguments, stored)
    return list(results.read(keys))


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


def follow_parent() -> None:
    """End this process within a second after the one that :data:`PARENT` names; without the variable nothing is done.

    For programs that are started by their command line. The parent may be one further up.
    """
    number = os.environ.get(PARENT, "")
    if number.isdigit() and sys.platform != "win32":
        threading.Thread(target=_end_after, args=(int(number), os.getppid()), daemon=True).start()


def _end_after(process: int, parent: int) -> None:
    while os.getppid() == parent and _is_running(process):
        time.sleep(0.5)
    os._exit(1)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


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
