"""Writing systems: which text has no spaces between words, where it may be cut, and how wide it is."""

from __future__ import annotations

import re
import unicodedata

CHINESE, JAPANESE = {"zh", "zho", "chi", "cmn", "yue", "wuu", "nan", "hak"}, {"ja", "jpn"}
SOUTH_EAST_ASIAN = {"th", "tha", "lo", "lao", "km", "khm", "my", "mya", "bur", "bo", "bod", "tib", "dz", "dzo"}
"""Codes of the other languages without spaces between words: Thai, Lao, Khmer, Burmese, Tibetan, Dzongkha."""
_EAST_ASIAN = re.compile(
    "[\u2e80-\u2fff\u3001-\u312f\u3190-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe10-\ufe1f\ufe30-\ufe6f"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003fffd]"
)
"""Han, kana and Bopomofo with their punctuation; no Hangul (Korean has spaces), no letters and digits of full width."""
_SOUTH_EAST_ASIAN = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\ua9e0-\ua9ff\uaa60-\uaa7f]"
)
"""Thai, Lao, Tibetan, Burmese and Khmer."""
_FOLLOWERS = "\u0e33\u0eb3\u200d"
"""Thai and Lao AM, which belong to the letter before as combining marks do, and the zero-width joiner."""
_LEADERS = "\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4\u1039\u17d2\u200d"
"""Characters that belong to the next one: Thai and Lao vowels before their consonant, signs that stack consonants."""


def primary_language(language: str | None) -> str:
    """Code of a language without its region: ``zh`` of ``zh-TW``; "" where it is not known."""
    return re.split(r"[-_]", (language or "").strip().lower())[0]


def is_east_asian(char: str) -> bool:
    """True for Han, kana and Bopomofo and their punctuation, where each character is a unit of its own."""
    return _EAST_ASIAN.match(char) is not None


def is_spaceless(char: str) -> bool:
    """True for a character of a script without spaces between words."""
    return is_east_asian(char) or _SOUTH_EAST_ASIAN.match(char) is not None


def lacks_spaces(text: str) -> bool:
    """True where most letters are of a script that is written without spaces between words."""
    letters = [char for char in text if char.isalpha()]
    return 2 * sum(map(is_spaceless, letters)) > len(letters)


def is_open(text: str, before: bool = False) -> bool:
    """True where text may go on without a space and begin a new word: after a character without spaces.

    Punctuation and marks behind such a character leave it so.

    Args:
        before: the value for the text before this one.
    """
    for char in reversed(text):
        if is_spaceless(char):
            return True
        if unicodedata.category(char)[0] not in "PM" and unicodedata.category(char) != "Cf":
            return False
    return before


def may_cut(before: str, after: str, open_before: bool) -> bool:
    """True where text may be cut between two characters: before a space, and behind text that goes on without one.

    Never before a mark of ``before``.

    Args:
        open_before: :func:`is_open` of the text that ends with ``before``.
    """
    if after.isspace():
        return not before.isspace()
    if before.isspace() or unicodedata.category(after)[0] == "M" or after in _FOLLOWERS or before in _LEADERS:
        return False
    return open_before


def is_complete(char: str) -> bool:
    """True where no mark is expected behind a character: not in scripts whose letters regularly have some."""
    return _SOUTH_EAST_ASIAN.match(char) is None and char not in _LEADERS


def space_between(open_before: bool, after: str) -> str:
    """The space between two sentences that are not of one text: none between Chinese or Japanese ones.

    Args:
        open_before: :func:`is_open` of the first.
    """
    return "" if not after or (open_before and is_east_asian(after[0])) else " "


def split_runs(text: str) -> list[str]:
    """Parts of a word, or of text without spaces, that a line may be broken between.

    Example:
        >>> split_runs("\u6211\u7528GPT-4\u3002")
        ['\u6211', '\u7528', 'GPT-4', '\u3002']
    """
    runs: list[str] = []
    for place, char in enumerate(text):
        if place and not may_cut(text[place - 1], char, is_open(text[:place]) or is_east_asian(char)):
            runs[-1] += char
        else:
            runs.append(char)
    return runs


def width(text: str) -> int:
    """Cells of a terminal that text takes: two for a wide character, none for a combining one."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
