"""Text normalisation of ASR-BLEU and word error rate."""

from __future__ import annotations

import re
import unicodedata

NORMALISATION = "NFKC, lower case, no punctuation"
"""Description of :func:`normalise`, stored with the scores."""


def normalise(text: str) -> str:
    """Normalise text for comparison with a transcript.

    Compatibility forms of Unicode are resolved (NFKC), letters become lower case, punctuation is removed except
    apostrophes within words (as ``'``), words are joined by one space. Numbers stay as they are written.

    >>> normalise("He doesn’t know:  why?")
    "he doesn't know why"
    """
    return " ".join(re.findall(r"\w+(?:'\w+)*", unicodedata.normalize("NFKC", text).lower().replace("’", "'")))
