"""Text as the metrics take it: units of latency, tokenizers of BLEU by language, normalisation of transcripts."""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from nast_s2x.writing import CHINESE, JAPANESE, SOUTH_EAST_ASIAN, primary_language

Unit = Literal["word", "char"]
"""Unit of latency: words between spaces, or characters."""
NORMALISATION = "NFKC, lower case, no punctuation"
"""Description of :func:`normalise`, stored with the scores."""


@dataclass(frozen=True)
class TextRules:
    """How the text of a language is scored.

    Attributes:
        unit: unit of latency, and of the division of long recordings.
        tokenizer: sacreBLEU's tokenizer of BLEU.
        note: what the user should know, or "".
    """

    unit: Unit = "word"
    tokenizer: str = "13a"
    note: str = ""


def rules_of(language: str | None) -> TextRules:
    """Rules of a language, from a code such as ``de``, ``zh``, ``zh-TW`` or ``jpn``; ``None``: words.

    Chinese and Japanese, Thai, Lao, Khmer, Burmese and Tibetan count characters. Their BLEU takes sacreBLEU's ``zh``,
    ``ja-mecab`` (``char`` where its packages are missing) and ``char``; all others ``13a``.
    """
    code = primary_language(language)
    if code in CHINESE:
        return TextRules("char", "zh")
    if code in JAPANESE:
        if all(importlib.util.find_spec(name) for name in ("MeCab", "ipadic")):
            return TextRules("char", "ja-mecab")
        note = "BLEU counts characters (tokenizer char): install ja-mecab with `pip install 'sacrebleu[ja]'`"
        return TextRules("char", "char", note)
    return TextRules("char", "char") if code in SOUTH_EAST_ASIAN else TextRules()


def units_of(text: str, unit: Unit) -> list[str]:
    """Words of a text, or its characters without spaces."""
    return [part.lstrip() for part in spaced_units(text, unit)]


def spaced_units(text: str, unit: Unit) -> list[str]:
    """The units of a text, each with a space before it where the text has one; not the first.

    >>> spaced_units("我 am", "char")
    ['我', ' a', 'm']
    """
    units: list[str] = []
    for word in text.split():
        parts = [word] if unit == "word" else list(word)
        units += [f" {parts[0]}" if units else parts[0], *parts[1:]]
    return units


def join_units(units: list[str] | tuple[str, ...], unit: Unit) -> str:
    """Text of units: words with spaces between them, characters without."""
    return (" " if unit == "word" else "").join(units)


def unit_count(text: str, unit: Unit) -> int:
    """Length of a reference in units. Spaces within it count as characters, as in SimulEval."""
    return len(text.split()) if unit == "word" else len(text.strip())


def normalise(text: str, unit: Unit = "word") -> str:
    """Normalise text for comparison with a transcript.

    Compatibility forms of Unicode are resolved (NFKC), letters become lower case, punctuation is removed except
    apostrophes within words (as ``'``), words, or characters, are joined by one space. Numbers stay as they are
    written.

    >>> normalise("He doesn’t know:  why?")
    "he doesn't know why"
    >>> normalise("我是猫。", "char")
    '我 是 猫'
    """
    plain = re.findall(r"\w+(?:'\w+)*", unicodedata.normalize("NFKC", text).lower().replace("’", "'"))
    return " ".join(plain if unit == "word" else "".join(plain))
