"""Errors that the command line shows in one line: wrong input, not bugs.

Every class is a :class:`ValueError`, so callers that only separate bad input from the rest need no import from here.
"""

from __future__ import annotations

import reprlib
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


LARGEST = 10**6
"""Largest whole number that a setting may have where nothing else is said."""


def shown(value: Any) -> str:
    """A value of a file as messages show it: ``repr``, cut if it is long."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a whole number of thousands of digits
        return f"a {type(value).__name__} of too many digits"


def check_whole_number(name: str, value: Any, least: int, most: int = LARGEST) -> None:
    """Check the value of a setting.

    Raises:
        ConfigError: ``value`` is not an int, is less than ``least`` or greater than ``most``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"`{name}` must be a whole number of at least {least}, but is {shown(value)}")
    if value > most:
        raise ConfigError(f"`{name}` must be at most {most}, but is {shown(value)}")
