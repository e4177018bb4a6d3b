"""Labels of text and units: special symbols, SentencePiece text, collapse."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import sentencepiece

from nast_s2x.ctc import CtcCollapser

if TYPE_CHECKING:
    from nast_s2x.inference.bundle import System

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


#: SentencePiece's mark for a space; a piece that starts with it starts a word.
WORD_START = "\u2581"
#: How an unknown piece is shown.
UNKNOWN = "\u2047"


class TextTokenizer:
    """Text to labels and back.

    Args:
        spm_path: SentencePiece model.
        dictionary: labels of its pieces; the ids inside the model play no part.

    Example:
        >>> tokenizer = TextTokenizer("spm.model", LabelDictionary.load("spm.txt"))  # doctest: +SKIP
        >>> tokenizer.decode(tokenizer.encode("the big house"))  # doctest: +SKIP
        'the big house'
    """

    def __init__(self, spm_path: str | os.PathLike[str], dictionary: LabelDictionary) -> None:
        path = Path(spm_path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such SentencePiece model")
        self.dictionary = dictionary
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(path.read_bytes())
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{path}: not a SentencePiece model") from error

    def encode(self, text: str) -> list[int]:
        """Labels of a text, without ``<s>`` and ``</s>``; unknown pieces become ``<unk>``."""
        return [self.dictionary.index(piece) for piece in self._processor.EncodeAsPieces(text)]

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """Pieces of tokens; ``<s>``, ``<pad>``, ``</s>`` and ``<blank>`` are left out."""
        labels = (int(token) for token in tokens)
        return [self._shown(label) for label in labels if not self.dictionary.is_special(label)]

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of tokens; the text of a prefix that ends at a word's end is a prefix of the text of the whole."""
        return " ".join("".join(self.pieces(tokens)).replace(WORD_START, " ").split())

    def starts_word(self, token: int) -> bool:
        """True if the token begins a new word (an unknown piece does not say so)."""
        return self.dictionary.piece(int(token)).startswith(WORD_START)

    def _shown(self, label: int) -> str:
        return UNKNOWN if label == self.dictionary.unk else self.dictionary.piece(label)


NUM_SPECIALS = 4
"""Unit code c has label c + 4; the labels below are ``<s> <pad> </s> <unk>``."""


def text_collapser(bundle: System) -> CtcCollapser:
    """Collapser of text labels; an unknown piece stays, since it stands for a word that the model wanted to say."""
    labels = LabelDictionary
    return CtcCollapser(bundle.dictionary.blank, drop=(labels.bos, labels.pad, labels.eos))


class UnitReader:
    """Unit codes from the unit labels of a stream, chunk by chunk: CTC collapse, then :class:`RepeatFilter`."""

    def __init__(self, bundle: System) -> None:
        self._collapser = CtcCollapser(bundle.model.config.unit_vocab - 1, drop=range(NUM_SPECIALS))
        self._repeats = RepeatFilter(bundle.drop_repeats)

    def push(self, labels: Sequence[int]) -> list[int]:
        """Labels of the slots of one chunk -> the unit codes that began in it."""
        return self._repeats.push([label - NUM_SPECIALS for label in self._collapser.push(labels)])


class RepeatFilter:
    """Drops a run of units that says again what was said just before it: ``a b c a b c`` becomes ``a b c``.

    A unit decoder that is unsure between two places of a word says it in both. What was let through stays: only runs
    that lie in one push as a whole are dropped, so a stream and offline translation by chunks agree.

    Args:
        longest: units of the longest run looked for, from 2 on; 0 (published) drops nothing.

    Example:
        >>> filter = RepeatFilter(8)
        >>> filter.push([4, 7, 9, 7, 9, 2]), filter.push([9, 2, 1])
        ([4, 7, 9, 2], [1])
    """

    def __init__(self, longest: int) -> None:
        if longest < 0 or longest == 1:
            raise ValueError(f"runs of repeated units have 2 units or more (0 drops none), got {longest}")
        self.longest = longest
        self._past: list[int] = []

    def push(self, units: Sequence[int]) -> list[int]:
        """The units of the next chunk without repeated runs."""
        heard, begin = list(self._past), len(self._past)
        for unit in units:
            heard.append(unit)
            for size in range(min(self.longest, len(heard) - begin, len(heard) // 2), 1, -1):
                if heard[-size:] == heard[-2 * size : -size]:
                    del heard[-size:]
                    break
        self._past = heard[-self.longest :] if self.longest else []
        return heard[begin:]
