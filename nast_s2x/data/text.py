"""Text to tokens and back, with a SentencePiece model and the dictionary of the data folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from nast_s2x.data.dictionary import LabelDictionary

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
