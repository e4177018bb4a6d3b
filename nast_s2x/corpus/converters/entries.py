"""Entries of JSON lines and of YAML lists, one at a time: such files have hundreds of thousands of them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nast_s2x.corpus.converters.base import text_lines
from nast_s2x.errors import ManifestError
from nast_s2x.files import parse_json, parse_yaml


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(``FILE:LINE``, object) of each line.

    Raises:
        ManifestError: a line is not a JSON object, or the compressed file is damaged.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="\n") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    values = parse_json(line)
                    if not isinstance(values, dict):
                        raise ManifestError("not an object")
                    yield f"{path}:{number}", values
        except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ManifestError(f"{path}: not JSON lines: {error}") from None


def yaml_items(path: Path) -> Iterator[dict[str, Any]]:
    """Items of a YAML file that is one list, parsed one by one: a training split has 250,000 of them.

    Raises:
        ManifestError: the file is not a list of tables.
    """
    block: list[str] = []

    def item() -> dict[str, Any]:
        try:
            (value,) = parse_yaml("\n".join(block))
        except (TypeError, ValueError) as error:
            raise ManifestError(f"{path}: not a list of entries: {error}") from None
        return value if isinstance(value, dict) else {}

    for line in text_lines(path):
        if line.startswith("- ") and block:
            yield item()
            block = []
        if line.strip():
            block.append(line)
    if block:
        yield item()
