"""Cells of CSV files."""

from __future__ import annotations

from typing import TypeVar

from nast_s2x.texts import encodable

Value = TypeVar("Value")
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_cell(value: Value) -> Value | str:
    """Return the value; text that a spreadsheet would read as a formula gets an apostrophe in front.

    Example:
        >>> csv_cell("=1+1"), csv_cell(-1.5), csv_cell("320")
        ("'=1+1", -1.5, '320')
    """
    if not isinstance(value, str):
        return value
    return encodable(f"'{value}" if value.startswith(FORMULA) else value)
