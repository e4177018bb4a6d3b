"""Utterances to synthesize: lines of units, units manifests, and what ``nast-s2x generate`` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nast_s2x.corpus.manifest import parse_durations, parse_units, read_table, unit_record

_GENERATED_LINE = re.compile(r"(T|H|D|Unit)-(\d+)\t")


@dataclass(frozen=True)
class Utterance:
    """Units of one utterance, perhaps none.

    Attributes:
        id: name, also of its sound file.
        units: unit codes, runs collapsed.
        durations: frames of each; ``None`` where the vocoder is to predict them.
    """

    id: str
    units: tuple[int, ...]
    durations: tuple[int, ...] | None = None


@dataclass
class Utterances:
    """What a file holds: utterances, and its bad lines as ``FILE:LINE: reason``."""

    rows: list[Utterance] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


# (line number, what it holds or why it is bad)
_Lines = Iterable[tuple[int, Utterance | ValueError]]


def read_utterances(
    path: str | Path,
    num_units: int,
    unit_hash: str | None = None,
    with_durations: bool = False,
    split: str | None = None,
) -> Utterances:
    """Read units in any of these forms; what is in the file tells which.

    * units manifest: a table with columns ``id``, ``tgt_audio``[, ``tgt_durations``, ``unit_hash``, ``split``];
    * JSON lines of ``nast-s2x generate --json``: ``id``, ``units``;
    * lines of ``nast-s2x generate``: ``Unit-N<TAB>units``, named ``Unit-N`` (its other lines are passed over);
    * plain lines of units, named after their line number, ``line-000001``; a blank one is an utterance without units.

    Args:
        path: UTF-8 text.
        num_units: K of the vocoder; every unit must be below.
        unit_hash: of the vocoder, where it is known.
        with_durations: read ``tgt_durations``; only units manifests have them.
        split: only rows of this split; only units manifests have any.

    Raises:
        FileNotFoundError: no such file.
        ValueError: units of other centroids than the vocoder's; no units in the file; a form that has no durations or
            splits where they are asked for.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file of units: {path}")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start})") from None
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
    first = next((line for line in lines if line.strip()), "")
    if path.suffix == ".tsv" or "tgt_audio" in first.split("\t"):
        return _collected(path, _from_manifest(path, num_units, unit_hash, with_durations, split))
    if with_durations or split is not None:
        raise ValueError(f"{path} has neither durations nor splits: it is not a units manifest")
    if first.lstrip().startswith("{"):
        return _collected(path, _each(lines, lambda _, line: _from_json(line, num_units), skip_blank=True))
    if _GENERATED_LINE.match(first):
        return _collected(path, _from_generated(lines, num_units))
    return _collected(path, _each(lines, lambda number, line: _utterance(f"line-{number:06d}", line, num_units)))


def check_same_units(found: str | None, wanted: str | None, where: str) -> None:
    """Refuse units of one set of centroids for a vocoder of another; unknown ones pass.

    Raises:
        ValueError: names both hashes.
    """
    if found and wanted and found != wanted:
        raise ValueError(
            f"{where} holds units of the centroids {found}, the vocoder speaks those of {wanted}: the codes of the "
            "two mean different sounds"
        )


def _collected(path: Path, lines: _Lines) -> Utterances:
    found, seen = Utterances(), set()
    for number, content in lines:
        if isinstance(content, Utterance) and content.id in seen:
            content = ValueError(f"id {content.id!r} appears twice")
        if isinstance(content, Utterance):
            seen.add(content.id)
            found.rows.append(content)
        else:
            found.problems.append(f"{path}:{number}: {content}")
    if not found.rows and not found.problems:
        raise ValueError(f"{path}: no units in it")
    return found


def _each(
    lines: Iterable[str], parse: Callable[[int, str], Utterance], skip_blank: bool = False
) -> Iterator[tuple[int, Utterance | ValueError]]:
    for number, line in enumerate(lines, start=1):
        if skip_blank and not line.strip():
            continue
        try:
            yield number, parse(number, line)
        except ValueError as error:
            yield number, error


def _utterance(name: str, units: str, num_units: int, durations: str | None = None) -> Utterance:
    codes = parse_units(units, num_units) if units.strip() else ()
    return Utterance(_file_id(name), codes, None if durations is None else parse_durations(durations, len(codes)))


def _file_id(name: str) -> str:
    """An id that can name a file below the output folder."""
    parts = PurePosixPath(name).parts
    broken = any(mark in name for mark in "\0\t\r\n")
    if broken or not name or name.startswith("/") or ".." in parts or "/".join(parts) != name:
        raise ValueError(f"id {name!r} cannot name a sound file")
    return name


def _from_manifest(
    path: Path, num_units: int, unit_hash: str | None, with_durations: bool, split: str | None
) -> Iterator[tuple[int, Utterance | ValueError]]:
    required = ["id", "tgt_audio", *(["tgt_durations"] if with_durations else []), *(["split"] if split else [])]
    rows, recorded = read_table(path, required), unit_record(path).get("hash")
    for row in rows:
        if row.problem:
            yield row.line, ValueError(row.problem)
            continue
        if split is not None and row.cells["split"] != split:
            continue
        check_same_units(row.cells.get("unit_hash", "").strip() or recorded, unit_hash, f"{path}:{row.line}")
        durations = row.cells["tgt_durations"] if with_durations else None
        try:
            yield row.line, _utterance(row.cells["id"], row.cells["tgt_audio"], num_units, durations)
        except ValueError as error:
            yield row.line, error


def _from_json(line: str, num_units: int) -> Utterance:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise ValueError("a JSON object with an id was expected")
    if "error" in entry:
        raise ValueError(f"{entry['id']} was not translated: {entry['error']}")
    units = entry.get("units")
    if not isinstance(units, list) or not all(type(unit) is int for unit in units):
        raise ValueError(f"{entry['id']} has no list of units")
    return _utterance(entry["id"], " ".join(map(str, units)), num_units)


def _from_generated(lines: Iterable[str], num_units: int) -> Iterator[tuple[int, Utterance | ValueError]]:
    for number, line in enumerate(lines, start=1):
        match = _GENERATED_LINE.match(line)
        if line.strip() and match is None:
            yield number, ValueError(f"not a line of generate's output: {line[:40]!r}")
        elif match is not None and match[1] == "Unit":
            try:
                yield number, _utterance(f"Unit-{match[2]}", line[match.end() :], num_units)
            except ValueError as error:
                yield number, error
