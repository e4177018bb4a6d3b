"""Errors that the command line shows in one line: wrong input, not bugs.

Every class is a :class:`ValueError`, so callers that only separate bad input from the rest need no import from here.
"""

from __future__ import annotations

from collections.abc import Iterable


class NastError(ValueError):
    """Input that cannot be used. The message names the thing, the rule and the value."""


class AudioError(NastError):
    """Samples or sound files that cannot be used."""


class ManifestError(NastError):
    """A table or list that cannot be used.

    Attributes:
        problems: the bad rows, each as ``FILE:LINE: reason``.
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)


class CheckpointError(NastError):
    """A weight file, bundle or foreign checkpoint that cannot be used."""


class ConfigError(NastError):
    """A configuration value, flag or combination of them that cannot be used."""


class StreamError(NastError):
    """A call that a stream does not allow, such as a push after the final one."""
