"""Language of the output, which decides between words and characters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nast_s2x.errors import ConfigError
from nast_s2x.evaluation.score_files import previous_scores
from nast_s2x.metrics.text import TextRules, rules_of
from nast_s2x.writing import lacks_spaces


def language_of(folder: Path, settings: Mapping[str, Any] | None, given: str | None) -> str | None:
    """Return the language of an evaluation: ``given``, or that of the run, or of the previous scores.

    Args:
        settings: record of a run of ``nast-s2x evaluate``; ``None`` for other logs.
    Raises:
        ConfigError: the run has counted words where ``given`` is a language of characters, or the reverse.
    """
    if settings is not None:
        run = settings.get("target_lang") or (settings.get("model") or {}).get("target_lang")
        if given is not None and rules_of(given).unit != rules_of(run).unit:
            raise ConfigError(
                f"--target-lang {given} counts {rules_of(given).unit}s, but the run in {folder} has counted "
                f"{rules_of(run).unit}s (language: {run or 'not known'}): evaluate again with --target-lang"
            )
        return given or run
    language = previous_scores(folder).get("target_lang")
    return given or (language if isinstance(language, str) else None)


def rules_for(language: str | None, references: Iterable[str], flag: str = "--target-lang") -> TextRules:
    """Return the rules of a language, or of words where it is not known.

    Raises:
        ConfigError: the language is not known, and the references are written without spaces between words.
    """
    if language is None and lacks_spaces(" ".join(references)):
        raise ConfigError(
            f"the references are written without spaces between words, so the unit of latency must not be the word: "
            f"give {flag}, such as zh, ja or th"
        )
    return rules_of(language)
