"""The one normalisation of text before speech is compared with it."""

from __future__ import annotations

import re
import unicodedata

NORMALISATION = "NFKC, lower case, no punctuation"
"""What :func:`normalise` does, for the record."""


def normalise(text: str) -> str:
    """Text normalised for comparison with a transcript: ASR-BLEU and word error rate.

    Compatibility forms of Unicode are resolved (NFKC), letters are lower case, punctuation is dropped, apostrophes
    within words stay (as ``'``), words are joined by single blanks. Numbers stay as they are written.

    >>> normalise("He doesn’t know:  why?")
    "he doesn't know why"
    """
    return " ".join(re.findall(r"\w+(?:'\w+)*", unicodedata.normalize("NFKC", text).lower().replace("’", "'")))
