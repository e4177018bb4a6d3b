"""Errors that the command line shows in one line: wrong input, not bugs.

Every class is a :class:`ValueError`, so callers that only separate bad input from the rest need no import from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


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


def check_whole_number(name: str, value: Any, least: int) -> None:
    """Check the value of a setting.

    Raises:
        ConfigError: ``value`` is not an int, or is less than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"`{name}` must be a whole number of at least {least}, but is {value!r}")
