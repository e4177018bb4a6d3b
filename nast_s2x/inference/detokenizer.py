"""Streaming detokenizer: text tokens to whole words, each returned once it can no longer change."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from nast_s2x.labels import WORD_START, TextLabels


class Tokenizer(Protocol):
    """The part of :class:`nast_s2x.labels.TextLabels` that the detokenizer uses."""

    def starts_word(self, token: int) -> bool:
        """True if the piece of ``token`` begins with SentencePiece's mark of a space."""

    def decode(self, tokens: list[int]) -> str:
        """Plain text of tokens."""


class StreamingDetokenizer:
    """Turns tokens (labels after CTC collapse, without blank and specials) into whole words.

    A word is returned when the next word-start piece arrives, or by :meth:`finish`. The texts of all calls, joined by
    :func:`join_words`, are the text of all tokens at once (:func:`detokenize`), for any cut of the tokens into calls.

    Example (pieces ``▁the ▁ho use ▁is``): ``push`` of the four returns ``"the house"``, ``finish`` returns ``"is"``.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._word: list[int] = []

    def push(self, tokens: Iterable[int]) -> str:
        """Return the words that ``tokens`` complete, joined by one space; the last word is held back."""
        done: list[str] = []
        for token in tokens:
            if self._word and self.tokenizer.starts_word(token):
                done += self._decode_word()
            self._word.append(token)
        return " ".join(done)

    def finish(self) -> str:
        """Return the word that was held back; the detokenizer is ready for the next sentence."""
        return " ".join(self._decode_word())

    def _decode_word(self) -> list[str]:
        # A lone word-start piece decodes to nothing, and a piece may contain a space: 0 to n words.
        words = self.tokenizer.decode(self._word).split() if self._word else []
        self._word = []
        return words


def detokenize(tokenizer: Tokenizer, tokens: Iterable[int]) -> str:
    """Text of a whole sentence, equal to that of a stream of the same tokens: words joined by one space."""
    stream = StreamingDetokenizer(tokenizer)
    return join_words([stream.push(tokens), stream.finish()])


def join_words(texts: Iterable[str]) -> str:
    """Join pieces of streaming output to one text, leaving empty ones out."""
    return " ".join(text for text in texts if text)


class JoinedWords:
    """:func:`join_words` piece by piece: what a receiver who puts no spaces between them appends."""

    def __init__(self) -> None:
        self._has_text = False

    def push(self, text: str) -> str:
        """``text`` with the space before it, where there was text already; an empty text stays empty."""
        joined = f" {text}" if text and self._has_text else text
        self._has_text = self._has_text or bool(text)
        return joined


_SPACES = re.compile(rf"[\s{WORD_START}]+")


class StreamingPieces:
    """Turns tokens into SentencePiece pieces, for hosts that join pieces themselves; no word is held back.

    :func:`text_of_pieces` of all pieces is a space and the text of :class:`StreamingDetokenizer`, for any cut of the
    tokens into calls. A piece that is only a space waits for the next one, so that there is one space between words.

    Example (pieces ``▁the ▁ ▁ho use``): ``push`` of the four returns ``["▁the", "▁ho", "use"]``.
    """

    def __init__(self, labels: TextLabels) -> None:
        self.labels = labels
        self._space = WORD_START

    def push(self, tokens: Iterable[int]) -> list[str]:
        """Return the pieces of ``tokens``; the first one of all begins with the mark of a space."""
        found = []
        for piece in self.labels.pieces(tokens):
            text = _SPACES.sub(WORD_START, self._space + piece)
            kept = text.rstrip(WORD_START)
            self._space = text[len(kept) :]
            if kept:
                found.append(kept)
        return found

    def finish(self) -> None:
        """End the sentence: the next one begins with a new word."""
        self._space = WORD_START


def text_of_pieces(pieces: Iterable[str]) -> str:
    """Text of pieces as they are: a space for each mark, one at the beginning too."""
    return "".join(pieces).replace(WORD_START, " ")
