"""Values of files against the fields of a dataclass: types, limits, missing and unknown entries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from nast_s2x.errors import ConfigError
from nast_s2x.typed import check_fields, limited, read_fields


@dataclass(frozen=True)
class Inner:
    rate: float = limited(0.5, least=0, below=1)
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    size: int
    layers: int | None = limited(None, least=0, most=9)
    shift: float = limited(1.0, above=0, most=2)
    pair: tuple[int, float] = (1, 2.0)
    grid: tuple[tuple[int, ...], ...] = ()
    kind: Literal["text", "speech"] = "text"
    on: bool = False
    left: int | str | None = None
    inner: Inner | None = None
    tables: Mapping[str, tuple[int, ...] | None] | None = None
    free: Mapping[str, Any] = field(default_factory=dict)


def test_values_take_the_form_of_their_fields() -> None:
    values = {
        "size": 3,
        "shift": 2,
        "pair": [4, 0],
        "grid": [[1, 2], []],
        "left": "unlimited",
        "inner": {"rate": 0, "names": ["a"]},
        "tables": {"x": [1], "y": None},
        "free": {"any": [{}]},
    }
    read = read_fields(Outer, values)
    assert read == Outer(3, None, 2, (4, 0), ((1, 2), ()), left="unlimited", inner=Inner(0, ("a",)),
                         tables={"x": (1,), "y": None}, free={"any": [{}]})  # fmt: skip
    check_fields(read)
    assert read_fields(Outer, {"size": 1, "more": 2, "inner": {"other": 3}}, ignore_unknown=True).inner == Inner()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": None}, "`size` must be a whole number of at least 1, but is None"),
        ({"size": True}, "`size` must be a whole number of at least 1, but is True"),
        ({"size": 2.0}, "`size` must be a whole number of at least 1, but is 2.0"),
        ({"size": 10**9}, "`size` must be at most 1000000, but is 1000000000"),
        ({"size": 10**5000}, "`size` must be at most 1000000, but is a int of too many digits"),
        ({"layers": 10}, "`layers` must be at most 9, but is 10"),
        ({"layers": -1}, "`layers` must be a whole number of at least 0, but is -1"),
        ({"shift": 0}, "`shift` must be a finite number above 0 and at most 2, but is 0"),
        ({"shift": math.nan}, "`shift` must be a finite number .*, but is nan"),
        ({"shift": 10**400}, "`shift` must be a finite number .*, but is 1000"),
        ({"shift": "1"}, "`shift` must be a finite number .*, but is '1'"),
        ({"pair": [1]}, r"`pair` must have 2 entries, but is \[1\]"),
        ({"pair": "12"}, "`pair` must be a list, but is '12'"),
        ({"grid": [[1], 2]}, r"`grid\[1\]` must be a list, but is 2"),
        ({"grid": [[1], [0]]}, r"`grid\[1\]\[0\]` must be a whole number of at least 1, but is 0"),
        ({"grid": [[]] * 1001}, "`grid` may have 1000 entries at most, but has 1001"),
        ({"kind": "dance"}, "`kind` must be one of text, speech, but is 'dance'"),
        ({"kind": []}, r"`kind` must be one of text, speech, but is \[\]"),
        ({"on": 1}, "`on` must be true or false, but is 1"),
        ({"left": []}, r"`left` must be a whole number of at least 1, but is \[\]"),
        ({"inner": 3}, "`inner` must be a table of named values, but is 3"),
        ({"inner": {"rate": 1}}, "`inner.rate` must be a finite number of at least 0 and less than 1, but is 1"),
        ({"inner": {"names": [False]}}, r"`inner.names\[0\]` must be text, but is False: put it in quotes"),
        ({"inner": {"nams": []}}, "`inner` has no entry 'nams'"),
        ({"tables": {"x": [0]}}, r"`tables.x\[0\]` must be a whole number"),
        ({"tables": {1: []}}, "the names in `tables` must be text, but one is 1"),
        ({"free": []}, r"`free` must be a table of named values, but is \[\]"),
        ({"sise": 1}, "the example has no entry 'sise'"),
    ],
)
def test_a_wrong_value_is_named(change: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_fields(Outer, {"size": 1} | change, "the example")


def test_tables_and_required_entries() -> None:
    with pytest.raises(ConfigError, match="the example needs the entry `here.size`"):
        read_fields(Outer, {}, "the example", "here.")
    with pytest.raises(ConfigError, match=r"the example must be a table of named values, but is \['size'\]"):
        read_fields(Outer, ["size"], "the example")
    with pytest.raises(ConfigError, match="`here.size` must be a whole number"):
        check_fields(Outer("3"), "here.")  # type: ignore[arg-type]
