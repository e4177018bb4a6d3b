"""Label sets of the decoders: special symbols, text and units to labels, CTC collapse back to tokens.

Text labels: ``<s>`` 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3, the dictionary's pieces, ``<blank>`` last.
Unit labels: the same four specials, unit code c as label c + 4, blank last.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nast_s2x.ctc import CtcCollapser
from nast_s2x.errors import ConfigError, NastError, shown
from nast_s2x.files import write_atomic

BOS, PAD, EOS, UNK = range(4)
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
NUM_SPECIALS = len(SPECIALS)
BLANK = "<blank>"
WORD_START = "\u2581"
"""SentencePiece's mark for a space; a piece that starts with it starts a word."""
UNKNOWN = "\u2047"
"""Text of an unknown piece."""
_BYTE = re.compile("<0x([0-9A-F]{2})>")
"""SentencePiece's piece of one byte."""


class TextLabels:
    """Labels of the text decoder, and the SentencePiece model that cuts text into their pieces.

    Args:
        pieces: the dictionary's entries in order, without specials and blank; entry i has label i + 4.
        sentencepiece_file: the SentencePiece model, whose own ids are not used. ``None``: text cannot be encoded.
    Raises:
        NastError: a piece appears twice, or the file is not a SentencePiece model.
        FileNotFoundError: no such file.

    Example:
        >>> labels = TextLabels(["\u2581the", "\u2581ho", "use"])
        >>> labels.size, labels.blank, labels.decode([4, 5, 6])
        (8, 7, 'the house')
    """

    def __init__(self, pieces: Iterable[str], sentencepiece_file: str | os.PathLike[str] | None = None) -> None:
        self._pieces = [*SPECIALS, *pieces, BLANK]
        self._labels = {piece: label for label, piece in enumerate(self._pieces)}
        if len(self._labels) != len(self._pieces):
            twice = next(piece for label, piece in enumerate(self._pieces) if self._labels[piece] != label)
            raise NastError(f"dictionary entry {shown(twice)} appears twice or is reserved")
        self.sentencepiece = b""
        """The SentencePiece model as bytes; empty without one."""
        self._processor = None
        if sentencepiece_file is not None:
            self.sentencepiece, self._processor = _processor(Path(sentencepiece_file))

    @classmethod
    def load(
        cls, dictionary: str | os.PathLike[str], sentencepiece_file: str | os.PathLike[str] | None = None
    ) -> TextLabels:
        """Read ``piece count`` lines, the text form of fairseq's dictionaries, and a SentencePiece model.

        Raises:
            FileNotFoundError: no such file.
            NastError: an unusable line or file; names file and line.
        """
        path = Path(dictionary)
        pieces = _read_pieces(path)
        try:
            cls(pieces)
        except NastError as error:
            raise NastError(f"{path}: {error}") from error
        return cls(pieces, sentencepiece_file)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the ``piece count`` lines that :meth:`load` reads (all counts 1)."""
        write_atomic(path, "".join(f"{piece} 1\n" for piece in self._pieces[NUM_SPECIALS:-1]))

    @property
    def size(self) -> int:
        """Number of labels, specials and blank included."""
        return len(self._pieces)

    @property
    def blank(self) -> int:
        """Label of the blank, the last one."""
        return len(self._pieces) - 1

    def label(self, piece: str) -> int:
        """Label of a piece; ``UNK`` for pieces that are not in the dictionary."""
        return self._labels.get(piece, UNK)

    def piece(self, label: int) -> str:
        """Piece of a label; ``IndexError`` outside 0..size-1."""
        if not 0 <= label < len(self._pieces):
            raise IndexError(f"label {label} is outside the dictionary of {len(self._pieces)} labels")
        return self._pieces[label]

    def encode(self, text: str) -> list[int]:
        """Labels of a text, without ``<s>`` and ``</s>``; unknown pieces become ``UNK``."""
        if self._processor is None:
            raise ConfigError("these labels have no SentencePiece model: text cannot be encoded")
        # One space between words, whatever kind of space was written: not every model normalises them.
        return [self.label(piece) for piece in self._processor.EncodeAsPieces(" ".join(text.split()))]

    def target(self, text: str) -> list[int]:
        """Training target of a text: ``<s> ... </s>`` as labels."""
        return [BOS, *self.encode(text), EOS]

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """Pieces of tokens; ``<s>``, ``<pad>``, ``</s>`` and blank are left out, ``<unk>`` is shown as ``\u2047``."""
        kept = (int(token) for token in tokens)
        return [
            UNKNOWN if label == UNK else self.piece(label) for label in kept if label not in (BOS, PAD, EOS, self.blank)
        ]

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of tokens; the text of a prefix that ends at a word's end is a prefix of the text of the whole."""
        decoder = TextDecoder(self)
        texts = [*decoder.push(tokens), *decoder.finish()]
        return " ".join("".join(texts).replace(WORD_START, " ").split())

    def starts_word(self, token: int) -> bool:
        """True if the token begins a new word (an unknown piece does not show it)."""
        return self.piece(int(token)).startswith(WORD_START)

    def collapser(self) -> CtcCollapser:
        """Collapse of a stream of text labels. Unknown pieces are kept, because each is a piece of the output."""
        return CtcCollapser(self.blank, drop=(BOS, PAD, EOS))


class TextDecoder:
    """Pieces of a stream of tokens, where pieces of bytes become characters once these are complete.

    Models with byte fallback write a character without a piece of its own as the bytes of its UTF-8 form, such as
    ``<0xE4> <0xBD> <0xA0>``. Bytes that form no character become U+FFFD. Texts of all calls, joined, do not depend on
    the cut of the tokens into calls.
    """

    def __init__(self, labels: TextLabels) -> None:
        self._labels = labels
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, tokens: Iterable[int]) -> list[str]:
        """Return the texts of ``tokens``, not empty; a character that is not complete is held back."""
        texts = []
        for piece in self._labels.pieces(tokens):
            byte = _BYTE.fullmatch(piece)
            if byte is None:
                texts += [*self.finish(), piece]
            elif char := self._bytes.decode(bytes.fromhex(byte[1])):
                texts.append(char)
        return texts

    def finish(self) -> list[str]:
        """Return what was held back: U+FFFD for a character without its last bytes."""
        rest = self._bytes.decode(b"", final=True)
        return [rest] if rest else []


def _read_pieces(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such dictionary")
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise NastError(f"{path} is not a dictionary: it must be UTF-8 text ({error})") from None
    pieces = []
    # Pieces may hold characters that str.splitlines takes for line ends: split at newlines only.
    for number, line in enumerate(content.split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line:
            continue
        piece, separator, count = line.removesuffix(" #fairseq:overwrite").rpartition(" ")
        if not separator or not count.isdecimal():
            raise NastError(f"{path}:{number}: must be a piece, a space and a count, not {shown(line)}")
        pieces.append(piece)
    return pieces


def _processor(path: Path) -> tuple[bytes, Any]:
    import sentencepiece

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such SentencePiece model")
    processor = sentencepiece.SentencePieceProcessor()
    content = path.read_bytes()
    try:
        processor.LoadFromSerializedProto(content)
    except (RuntimeError, OSError) as error:
        raise NastError(f"{path}: not a SentencePiece model") from error
    return content, processor


class UnitLabels:
    """Labels of the unit decoder.

    Args:
        num_units: distinct unit codes K.
        hash: of the centroids that the codes come from, where known.
        drop_repeats: see :class:`RepeatFilter`; 0 (published) drops nothing.
    Raises:
        ConfigError: fewer than one unit.
    """

    def __init__(self, num_units: int, hash: str | None = None, drop_repeats: int = 0) -> None:
        if num_units < 1:
            raise ConfigError(f"`num_units` must be at least 1, but is {num_units}")
        self.num_units, self.hash, self.drop_repeats = num_units, hash, drop_repeats
        RepeatFilter(drop_repeats)  # checks the value

    @classmethod
    def of_size(cls, size: int, hash: str | None = None, drop_repeats: int = 0) -> UnitLabels:
        """Labels of a decoder with ``size`` labels, specials and blank included."""
        return cls(size - NUM_SPECIALS - 1, hash, drop_repeats)

    @property
    def size(self) -> int:
        """Number of labels, specials and blank included."""
        return self.num_units + NUM_SPECIALS + 1

    @property
    def blank(self) -> int:
        """Label of the blank, the last one."""
        return self.num_units + NUM_SPECIALS

    def target(self, units: Iterable[int]) -> list[int]:
        """Training target of reduced units: ``<s> ... </s>`` as labels."""
        return [BOS, *(unit + NUM_SPECIALS for unit in units), EOS]

    def collapser(self) -> UnitCollapser:
        """Collapse of a stream of unit labels to unit codes."""
        return UnitCollapser(self)


class UnitCollapser:
    """Unit codes from the labels of a stream, chunk by chunk: CTC collapse, then :class:`RepeatFilter`."""

    def __init__(self, labels: UnitLabels) -> None:
        self._collapser = CtcCollapser(labels.blank, drop=range(NUM_SPECIALS))
        self._repeats = RepeatFilter(labels.drop_repeats)

    def push(self, labels: Sequence[int]) -> list[int]:
        """Labels of the slots of one chunk -> the unit codes that begin in it."""
        return self._repeats.push([label - NUM_SPECIALS for label in self._collapser.push(labels)])


class RepeatFilter:
    """Removes a unit sequence that immediately repeats the previous one, a typical error of weak unit decoders.

    ``a b c a b c`` becomes ``a b c``. Only sequences that lie in one push as a whole are removed: what was returned
    stays, so a stream and an offline pass of the same chunks agree.

    Args:
        longest: units of the longest sequence looked for, from 2 on; 0 (published) removes nothing.
    Raises:
        ConfigError: a negative length or 1.

    Example:
        >>> filter = RepeatFilter(8)
        >>> filter.push([4, 7, 9, 7, 9, 2]), filter.push([9, 2, 1])
        ([4, 7, 9, 2], [1])
    """

    def __init__(self, longest: int) -> None:
        if longest < 0 or longest == 1:
            raise ConfigError(f"`drop_repeats` must be 0 (none) or at least 2 units, but is {longest}")
        self.longest = longest
        self._past: list[int] = []

    def push(self, units: Sequence[int]) -> list[int]:
        """The units of the next chunk without repeated sequences."""
        joined, begin = list(self._past), len(self._past)
        for unit in units:
            joined.append(unit)
            for size in range(min(self.longest, len(joined) - begin, len(joined) // 2), 1, -1):
                if joined[-size:] == joined[-2 * size : -size]:
                    del joined[-size:]
                    break
        self._past = joined[-self.longest :] if self.longest else []
        return joined[begin:]
