"""Work on recordings by several processes, results in order, whatever their number."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

# Each process computes with one thread: sums do not depend on the number of processors, and processes do not compete.
_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], jobs: int, start: Callable[..., None], arguments: tuple
) -> Iterator[Result]:
    """``map(function, items)`` by ``jobs`` processes, the results in order; items are read a little ahead only.

    Args:
        function: a module's function.
        jobs: processes; with 1 the work is done here.
        start: called in each process first, with ``arguments``.

    Raises:
        OSError: a process has died (out of memory).
    """
    if jobs <= 1:
        with one_thread():
            start(*arguments)
            yield from map(function, items)
        return
    with _environment(_THREADS):
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(start, arguments))
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise OSError("a worker process has died, perhaps of too little memory: take fewer jobs") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start(start: Callable[..., None], arguments: tuple) -> None:
    torch.set_num_threads(1)
    start(*arguments)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for the processes that are started meanwhile."""
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
