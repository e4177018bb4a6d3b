"""Texts of others as they are shown in terminals, pages and tables."""

from __future__ import annotations

import unicodedata

_LONGEST_LINE = 2000  # of a message, which may quote a whole cell of a table
_HIDDEN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories: controls, surrogates, line and paragraph separators."""
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Embeddings, overrides and isolates, which can show one text as another; marks such as U+200F stay."""


def printable(text: str) -> str:
    r"""Return ``text`` with control characters, line separators and overrides of direction as escapes; tabs stay.

    Example:
        >>> printable("a\x1b[31m\u202e")
        'a\\x1b[31m\\u202e'
    """
    if text.isprintable():  # a quick answer for nearly every text
        return text
    return "".join(
        char.encode("unicode_escape").decode()
        if char in _DIRECTIONS or (char != "\t" and unicodedata.category(char) in _HIDDEN)
        else char
        for char in text
    )


def printable_lines(text: str) -> str:
    """:func:`printable` of each line of a message; the middle of lines of more than 2000 characters is left out."""
    return "\n".join(printable(_shortened(line)) for line in text.split("\n"))


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 500]} ... {line[-400:]}"


def encodable(text: str) -> str:
    r"""Return ``text`` with lone surrogates, as in file names that are not UTF-8, as escapes such as ``\udce9``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
