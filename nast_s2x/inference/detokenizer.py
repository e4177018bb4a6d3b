"""Streaming detokenizer: text tokens to text, each part returned once it can no longer change.

The one rule of joining: what a stream returns is appended as it is. A text brings its own space, if one stands before
it, so all texts of a stream, one after the other, are the text of all tokens at once (:func:`detokenize`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from nast_s2x.labels import WORD_START, TextDecoder, TextLabels
from nast_s2x.writing import is_complete, is_open, may_cut, space_between

_SPACES = re.compile(rf"[\s{WORD_START}]+")


class StreamingPieces:
    """Turns tokens into SentencePiece pieces, for hosts that join pieces themselves; no word is held back.

    :func:`text_of_pieces` of all pieces is a space and the text of :class:`StreamingDetokenizer`, for any cut of the
    tokens into calls. A piece that is only a space waits for the next one, so that there is one space between words.
    Pieces of bytes wait until their character is complete.

    Example (pieces ``▁the ▁ ▁ho use``): ``push`` of the four returns ``["▁the", "▁ho", "use"]``.
    """

    def __init__(self, labels: TextLabels) -> None:
        self._decoder = TextDecoder(labels)
        self._space = ""
        self._begins, self._is_open = True, False

    @property
    def ends_word(self) -> bool:
        """True where a space follows that waits for the next piece."""
        return bool(self._space)

    def push(self, tokens: Iterable[int]) -> list[str]:
        """Return the pieces of ``tokens``; the first one of all begins with the mark of a space."""
        return self._pieces(self._decoder.push(tokens))

    def finish(self) -> list[str]:
        """End the sentence, and return what was held back of a character: the next piece begins a new sentence."""
        rest = self._pieces(self._decoder.finish())
        self._begins, self._space = True, ""
        return rest

    def _pieces(self, texts: Iterable[str]) -> list[str]:
        found = []
        for part in texts:
            text = _SPACES.sub(WORD_START, self._space + part)
            kept = text.rstrip(WORD_START)
            self._space = text[len(kept) :]
            if kept and self._begins:
                kept = kept.lstrip(WORD_START)
                kept, self._begins = space_between(self._is_open, kept).replace(" ", WORD_START) + kept, False
            if kept:
                self._is_open = is_open(kept, self._is_open)
                found.append(kept)
        return found


def text_of_pieces(pieces: Iterable[str]) -> str:
    """Text of pieces as they are: a space for each mark, one at the beginning too."""
    return "".join(pieces).replace(WORD_START, " ")


class StreamingDetokenizer:
    """Turns tokens (labels after CTC collapse, without blank and specials) into text that is final.

    A word with spaces around it is returned as a whole, when the next one begins, or by :meth:`finish`. Text without
    spaces between words is returned at once: Chinese and Japanese to the last character, Thai and its relatives to the
    last but one, because marks may follow. It is decided by the characters, so both may stand in one sentence. A text
    begins with a space where one stands between it and the text before.

    Example (pieces ``▁the ▁ho use ▁is``): ``push`` of the four returns ``"the house"``, ``finish`` returns ``" is"``.
    With ``▁我 们 用 G PT 。`` ``push`` of the first five returns ``"我们用"``, that of the last one ``"GPT。"``.
    """

    def __init__(self, labels: TextLabels) -> None:
        self._pieces = StreamingPieces(labels)
        self._held, self._is_open = "", False
        self._has_text = False

    def push(self, tokens: Iterable[int]) -> str:
        """Return the text that is final with ``tokens``; the last word is held back."""
        done = self._add(text_of_pieces(self._pieces.push(tokens)))
        if self._held and (self._pieces.ends_word or (self._is_open and is_complete(self._held[-1]))):
            done, self._held = done + self._held, ""
        return self._delta(done)

    def finish(self) -> str:
        """Return what was held back; the detokenizer is ready for the next sentence."""
        done = self._add(text_of_pieces(self._pieces.finish())) + self._held
        self._held, self._is_open = "", False
        return self._delta(done)

    def _add(self, text: str) -> str:
        """Take more text; returns what lies before the last place where it may be cut."""
        done = ""
        for char in text:
            if self._held and may_cut(self._held[-1], char, self._is_open):
                done, self._held = done + self._held, ""
            self._held += char
            self._is_open = is_open(char, self._is_open)
        return done

    def _delta(self, text: str) -> str:
        """``text``, the first one of all without its space."""
        delta = text if self._has_text else text.lstrip(" ")
        self._has_text = self._has_text or bool(text)
        return delta


def detokenize(labels: TextLabels, tokens: Iterable[int]) -> str:
    """Text of a whole sentence, equal to that of a stream of the same tokens."""
    stream = StreamingDetokenizer(labels)
    return stream.push(tokens) + stream.finish()


def join_sentences(texts: Iterable[str]) -> str:
    """One text of consecutive segments of a source, as a stream returns it; empty ones are left out."""
    joined = ""
    for text in texts:
        joined += space_between(is_open(joined), text) + text if joined else text
    return joined


class WholeWords:
    """Holds back text that goes on without a space, for receivers who put a space between any two texts.

    Joined by one space, the texts that are returned are the text of the stream. Text without spaces is therefore
    returned at the next space, or at the end.
    """

    def __init__(self) -> None:
        self._held = ""

    def push(self, delta: str, final: bool = False) -> str:
        """Take the next text of a stream; returns what ends with a word, without the space before it."""
        text = self._held + delta
        end = text.rfind(" ") if is_open(text) and not final else len(text)
        self._held = text[max(0, end) :]
        return text[: max(0, end)].strip(" ")
