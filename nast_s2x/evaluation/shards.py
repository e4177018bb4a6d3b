"""Logs of an evaluation while it runs: small blocks of utterances, each with a log of its own, then joined into one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nast_s2x.errors import NastError
from nast_s2x.evaluation.items import Item
from nast_s2x.evaluation.log import LOG_NAME as LOG
from nast_s2x.evaluation.settings import write_atomically

SHARDS, WAVS = "shards", "wavs"
BLOCK_SIZE = 5
"""Utterances of a block: the work of a process between two reports."""


@dataclass(frozen=True)
class Block:
    """Some utterances at one chunk size.

    Attributes:
        home: the chunk size's folder.
        chunk: chunk size in ms, or ``offline``.
        items: the utterances, in order.
    """

    home: Path
    chunk: str
    items: tuple[Item, ...]

    @property
    def folder(self) -> Path:
        """Where its log is."""
        return self.home / SHARDS / f"{self.items[0].index:06d}-{self.items[-1].index:06d}"

    def done(self) -> int:
        """How many of its utterances have been logged, after what an interruption left half-written is cut off.

        Raises:
            ValueError: the log holds other utterances than those of the block.
        """
        path = self.folder / LOG
        if not path.is_file():
            return 0
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            write_atomically(path, whole.decode("utf-8"))
        indices = [_index(line, path) for line in whole.splitlines()]
        if indices != [item.index for item in self.items][: len(indices)]:
            raise NastError(f"{path} holds utterances {indices}, which are not those of this block: delete it")
        return len(indices)


def blocks_of(home: Path, chunk: str, items: Sequence[Item], size: int = BLOCK_SIZE) -> list[Block]:
    """The blocks of a chunk size; always the same ones for the same items."""
    return [Block(home, chunk, tuple(items[start : start + size])) for start in range(0, len(items), size)]


def is_complete(home: Path, num_utterances: int) -> bool:
    """True when a chunk size has its joined log.

    Raises:
        ValueError: the log does not have a line for each utterance.
    """
    path = home / LOG
    if not path.is_file():
        return False
    indices = [_index(line, path) for line in path.read_bytes().splitlines()]
    if indices != list(range(num_utterances)):
        raise NastError(f"{path} has {len(indices)} lines where {num_utterances} utterances were run: delete {home}")
    return True


def join(blocks: Sequence[Block]) -> Path:
    """Join the logs of all blocks of a chunk size, in order, and remove them; returns the log."""
    home = blocks[0].home
    partial = home / f"{LOG}.part"
    with open(partial, "wb") as file:
        for block in blocks:
            file.write((block.folder / LOG).read_bytes())
    os.replace(partial, home / LOG)
    shutil.rmtree(home / SHARDS)
    return home / LOG


def _index(line: bytes, path: Path) -> int:
    try:
        return int(json.loads(line)["index"])
    except (ValueError, KeyError, TypeError):
        shown = line[:60].decode("utf-8", "replace")
        raise NastError(
            f"{path} is damaged: a line is not an utterance's record ({shown}); without {path.parent} its chunk size "
            "is run again"
        ) from None
