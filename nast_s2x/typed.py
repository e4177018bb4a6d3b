"""Settings from files: values checked against the types and limits of a dataclass's fields.

Every file with settings (JSON, YAML) is read through :func:`read_fields`; dataclasses that are also made by code call
:func:`check_fields` in ``__post_init__``. Nothing is allocated for a value before it is checked.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from nast_s2x.errors import LARGEST, ConfigError, check_whole_number, shown

Record = TypeVar("Record")
_LONGEST_LIST = 1000


def limited(
    default: Any = dataclasses.MISSING,
    help: str | None = None,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field whose numbers have limits, also those in a list.

    Args:
        default: a value that cannot change; without it the field is required.
        help: description, the entry ``help`` of the field's metadata.
        least, most: smallest and largest value; by default 1 and :data:`~nast_s2x.errors.LARGEST` for whole numbers,
            0 and no limit for others; ``-inf``: no smallest.
        above, below: limits that the value must not reach itself.
    """
    given = {"help": help, "least": least, "most": most, "above": above, "below": below}
    metadata = {name: value for name, value in given.items() if value is not None}
    return dataclasses.field(default=default, metadata=metadata)  # type: ignore[call-overload]  # mypy wants it split


def check_fields(record: Any, where: str = "") -> None:
    """Check every field of a dataclass against its annotation and its limits.

    Args:
        where: put before the names in messages, such as ``"training."``.
    Raises:
        ConfigError: a value of another type or outside its limits; names the field, the rule and the value.
    """
    kinds = _kinds(type(record))  # type: ignore[arg-type]  # mypy doubts that classes are hashable
    for entry in dataclasses.fields(record):
        _check(f"{where}{entry.name}", getattr(record, entry.name), kinds[entry.name], entry.metadata)


def read_fields(
    cls: type[Record], values: Any, what: str = "", where: str = "", ignore_unknown: bool = False
) -> Record:
    """Build a dataclass from values of a file: lists become tuples, tables become dataclasses where a field is one.

    Args:
        values: table of the values; a field that it lacks has its default.
        what: what the table describes, for messages, such as ``"a chunk policy"``.
        where: put before the names of entries in messages.
        ignore_unknown: leave out entries that no field is called after, also in tables within.
    Raises:
        ConfigError: no table, an unknown or a missing entry, a value of another type or outside its limits.
    """
    what = what or "the configuration"
    if not isinstance(values, Mapping):
        raise ConfigError(f"{what} must be a table of named values, but is {shown(values)}")
    entries = {entry.name: entry for entry in dataclasses.fields(cls)}  # type: ignore[arg-type]  # a dataclass
    unknown = [] if ignore_unknown else sorted(str(name) for name in values if name not in entries)
    if unknown:
        raise ConfigError(f"{what} has no entry {shown(unknown[0])}")
    kinds, given = _kinds(cls), {}  # type: ignore[arg-type]
    for name, entry in entries.items():
        if name not in values:
            if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
                raise ConfigError(f"{what} needs the entry `{where}{name}`")
            continue
        given[name] = _converted(f"{where}{name}", values[name], kinds[name], ignore_unknown)
        _check(f"{where}{name}", given[name], kinds[name], entry.metadata)
    return cls(**given)


@cache
def _kinds(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _converted(name: str, value: Any, kind: Any, ignore_unknown: bool) -> Any:
    """A value of a file in the form of its annotation, as far as its type allows."""
    for choice in _choices(kind):
        if dataclasses.is_dataclass(choice) and isinstance(choice, type) and value is not None:
            if isinstance(value, choice) or (isinstance(value, str) and str in _choices(kind)):
                return value
            return read_fields(choice, value, f"`{name}`", f"{name}.", ignore_unknown)
        if typing.get_origin(choice) is tuple and isinstance(value, list | tuple):
            inner = typing.get_args(choice)[0]
            items = enumerate(value)
            return tuple(_converted(f"{name}[{index}]", item, inner, ignore_unknown) for index, item in items)
        if _is_table(choice) and isinstance(value, Mapping) and len(typing.get_args(choice)) == 2:
            inner = typing.get_args(choice)[1]
            return {key: _converted(f"{name}.{key}", item, inner, ignore_unknown) for key, item in value.items()}
    return value


def _is_table(kind: Any) -> bool:
    return kind in (Mapping, dict) or typing.get_origin(kind) in (Mapping, dict)


def _choices(kind: Any) -> tuple[Any, ...]:
    """The types of a union; of anything else, itself."""
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def _check(name: str, value: Any, kind: Any, rule: Mapping[str, Any]) -> None:
    choices = _choices(kind)
    if value is None and type(None) in choices:
        return
    problem: ConfigError | None = None
    for choice in choices:
        if choice is type(None):
            continue
        try:
            return _check_one(name, value, choice, rule)
        except ConfigError as error:
            problem = problem or error
    raise problem or ConfigError(f"`{name}` must be null, but is {shown(value)}")


def _check_one(name: str, value: Any, kind: Any, rule: Mapping[str, Any]) -> None:
    origin = typing.get_origin(kind)
    if kind is Any:
        return
    if kind is int:
        check_whole_number(name, value, rule.get("least", 1), rule.get("most", LARGEST))
    elif kind is float:
        check_number(name, value, **{key: rule[key] for key in ("least", "most", "above", "below") if key in rule})
    elif kind is str:
        if not isinstance(value, str):
            hint = ": put it in quotes" if isinstance(value, bool | int | float) else ""
            raise ConfigError(f"`{name}` must be text, but is {shown(value)}{hint}")
    elif kind is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"`{name}` must be true or false, but is {shown(value)}")
    elif origin is typing.Literal:
        if value not in typing.get_args(kind):
            raise ConfigError(
                f"`{name}` must be one of {', '.join(map(str, typing.get_args(kind)))}, but is {shown(value)}"
            )
    elif origin is tuple:
        _check_list(name, value, typing.get_args(kind), rule)
    elif _is_table(kind):
        _check_table(name, value, typing.get_args(kind), rule)
    elif not isinstance(value, kind):
        raise ConfigError(f"`{name}` must be a {kind.__name__}, but is {shown(value)}")


def check_number(
    name: str,
    value: Any,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Check the value of a setting.

    Raises:
        ConfigError: ``value`` is not a finite number, or is outside its limits (of at least 0 where none is given).
    """
    if least is None and above is None:
        least = 0
    limits = [("of at least", least), ("above", above), ("at most", most), ("less than", below)]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        number = number and math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of floats
        number = False
    if number:
        tests = (least is None or value >= least, above is None or value > above)
        if all(tests) and (most is None or value <= most) and (below is None or value < below):
            return
    rules = " and ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None and limit != -math.inf)
    raise ConfigError(f"`{name}` must be a finite number {rules}, but is {shown(value)}")


def _check_list(name: str, values: Any, kinds: Sequence[Any], rule: Mapping[str, Any]) -> None:
    if not isinstance(values, tuple):
        raise ConfigError(f"`{name}` must be a list, but is {shown(values)}")
    if kinds[-1] is Ellipsis:
        if len(values) > _LONGEST_LIST:
            raise ConfigError(f"`{name}` may have {_LONGEST_LIST} entries at most, but has {len(values)}")
        kinds = [kinds[0]] * len(values)
    elif len(values) != len(kinds):
        raise ConfigError(f"`{name}` must have {len(kinds)} entries, but is {shown(list(values))}")
    for index, (value, kind) in enumerate(zip(values, kinds, strict=True)):
        _check(f"{name}[{index}]", value, kind, rule)


def _check_table(name: str, values: Any, kinds: Sequence[Any], rule: Mapping[str, Any]) -> None:
    if not isinstance(values, Mapping):
        raise ConfigError(f"`{name}` must be a table of named values, but is {shown(values)}")
    for key, value in values.items():
        if not isinstance(key, str):
            raise ConfigError(f"the names in `{name}` must be text, but one is {shown(key)}")
        if len(kinds) == 2:
            _check(f"{name}.{key}", value, kinds[1], rule)
