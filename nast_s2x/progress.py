"""Progress of long work: a bar on a terminal, a line every 30 s where stderr is a pipe or a file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

LINE_SECONDS = 30.0
"""Seconds between two lines where stderr is not a terminal."""


class _Lines(tqdm):  # type: ignore[misc]  # tqdm has no types
    """A bar that writes each state as a line of its own."""

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        def write(text: str) -> None:
            if text.strip():
                file.write(text.strip() + "\n")
                file.flush()

        return write

    def close(self) -> None:
        if not self.disable:
            self.refresh()  # the last state
        super().close()


def progress_bar(total: int | None, what: str, unit: str = "utt", show: bool = True, initial: int = 0) -> tqdm:
    """A tqdm bar on stderr: ``update(n)``, a context manager.

    Args:
        total: number of units of work, ``initial`` of them done before; None if not known.
        what: name of the work, shown in front.
        show: False shows nothing.
    """
    values: dict[str, Any] = {"total": total, "desc": what, "unit": unit, "initial": initial, "disable": not show}
    if sys.stderr.isatty():
        return tqdm(**values)
    return _Lines(**values, mininterval=LINE_SECONDS, maxinterval=LINE_SECONDS, ncols=100, leave=False)


@contextlib.contextmanager
def hidden(bar: tqdm | None) -> Iterator[None]:
    """Take a bar off the terminal while other lines are written; it is drawn again afterwards."""
    if bar is None or bar.disable or isinstance(bar, _Lines):
        yield
        return
    bar.clear()
    yield
    bar.refresh()
