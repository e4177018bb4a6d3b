"""The table between pieces and labels: ``<s>`` 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3, pieces, ``<blank>`` last."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
BLANK = "<blank>"


class LabelDictionary:
    """Labels of the text decoder.

    Args:
        pieces: the dictionary's entries in order, without specials and blank; entry i has label i + 4.
    """

    bos, pad, eos, unk = range(4)

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = [*SPECIALS, *pieces, BLANK]
        self._labels = {piece: label for label, piece in enumerate(self._pieces)}
        if len(self._labels) != len(self._pieces):
            twice = next(piece for label, piece in enumerate(self._pieces) if self._labels[piece] != label)
            raise ValueError(f"dictionary entry {twice!r} appears twice or is reserved")
        self.blank = len(self._pieces) - 1

    def __len__(self) -> int:
        """Number of labels, specials and blank included."""
        return len(self._pieces)

    def index(self, piece: str) -> int:
        """Label of a piece; ``unk`` for pieces that are not in the dictionary."""
        return self._labels.get(piece, self.unk)

    def piece(self, label: int) -> str:
        """Piece of a label; ``IndexError`` outside 0..len-1."""
        if not 0 <= label < len(self._pieces):
            raise IndexError(f"label {label} is outside the dictionary of {len(self._pieces)} labels")
        return self._pieces[label]

    def is_special(self, label: int) -> bool:
        """True for ``<s>``, ``<pad>``, ``</s>`` and ``<blank>``, which carry no text (``<unk>`` does)."""
        return label in (self.bos, self.pad, self.eos, self.blank)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LabelDictionary:
        """Read ``piece count`` lines, the text form of fairseq's dictionaries; errors name file and line."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such dictionary")
        pieces = []
        # Pieces may hold characters that str.splitlines takes for line ends: split at newlines only.
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            line = line.removesuffix("\r")
            if not line:
                continue
            piece, separator, count = line.removesuffix(" #fairseq:overwrite").rpartition(" ")
            if not separator or not count.isdecimal():
                raise ValueError(f"{path}:{number}: must be a piece, a space and a count, not {line!r}")
            pieces.append(piece)
        try:
            return cls(pieces)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the ``piece count`` lines that :meth:`load` reads (all counts 1)."""
        lines = [f"{piece} 1\n" for piece in self._pieces[len(SPECIALS) : -1]]
        Path(path).write_text("".join(lines), encoding="utf-8", newline="\n")
