"""Manifests: tab-separated tables with a header, one utterance per line, no quoting of any kind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nast_s2x.files import read_json

RECORD_SUFFIX = ".units.json"
# Names of the same columns in fairseq's speech-to-speech manifests.
_ALIASES = {"src_audio": "audio", "src_n_frames": "n_frames"}


@dataclass(frozen=True)
class Example:
    """One utterance of a data folder.

    Attributes:
        id: name, unique in its split.
        audio: where its features are, see :func:`nast_s2x.corpus.audio_ref.load_features`.
        n_frames: number of feature frames (10 ms).
        src_text, tgt_text: transcript and translation, "" where the manifest has none.
        tgt_audio: target units, runs collapsed, or None.
        tgt_n_frames: number of target units, 0 without.
    """

    id: str
    audio: str
    n_frames: int
    src_text: str = ""
    tgt_text: str = ""
    tgt_audio: tuple[int, ...] | None = None
    tgt_n_frames: int = 0


@dataclass(frozen=True)
class Row:
    """One line of a table: its line number (the header is line 1), and its cells, or what is wrong with it."""

    line: int
    cells: dict[str, str]
    problem: str | None = None


def read_table(path: str | os.PathLike[str], required: Sequence[str] = ()) -> Iterator[Row]:
    """Read a tab-separated table as it stands: quotes, backslashes and spaces inside cells mean nothing.

    A line with the wrong number of cells is yielded with its ``problem``; blank lines are skipped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8, no header, a column twice, or a required column is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such manifest")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start})") from error
    # Cells may hold characters that str.splitlines takes for line ends: split at newlines only.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    header = [_ALIASES.get(name.strip(), name.strip()) for name in lines[0].split("\t")]
    if len(set(header)) != len(header):
        raise ValueError(f"{path}:1: a column appears twice: {', '.join(header)}")
    missing = [name for name in required if name not in header]
    if missing:
        raise ValueError(f"{path}:1: no column {', '.join(missing)} (tab-separated columns: {', '.join(header)})")
    return _rows(header, lines[1:])


def _rows(header: list[str], lines: list[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        cells = line.split("\t")
        problem = None
        if len(cells) != len(header):
            problem = f"has {len(cells)} columns, the header {len(header)}"
        yield Row(number, dict(zip(header, cells)), problem)


def parse_units(text: str, num_units: int | None = None) -> tuple[int, ...]:
    """Parse a unit string such as "71 12 993".

    Args:
        text: unit codes separated by spaces.
        num_units: K; every code must be below it if given.

    Raises:
        ValueError: empty, not whole numbers, or a code outside 0..K-1.
    """
    words = text.split()
    if not words:
        raise ValueError("empty unit string")
    bad = next((word for word in words if not (word.isascii() and word.isdecimal())), None)
    if bad is not None:
        raise ValueError(f"unit string holds {bad!r}, which is not a unit code")
    units = tuple(int(word) for word in words)
    if num_units is not None and max(units) >= num_units:
        raise ValueError(f"unit {max(units)} is outside 0..{num_units - 1}")
    return units


def parse_durations(text: str, count: int) -> tuple[int, ...]:
    """Durations such as "3 1 2".

    Raises:
        ValueError: not whole numbers from 1, or not ``count`` of them.
    """
    words = text.split()
    bad = next((word for word in words if not (word.isascii() and word.isdecimal() and int(word))), None)
    if bad is not None:
        raise ValueError(f"tgt_durations must be whole numbers of frames, 1 or more, but hold {bad!r}")
    if len(words) != count:
        raise ValueError(f"{len(words)} durations for {count} units")
    return tuple(map(int, words))


def unit_record(manifest: str | os.PathLike[str]) -> dict[str, Any]:
    """What ``NAME.units.json`` beside a units manifest says (``nast-s2x units extract`` writes it); empty without one.

    Raises:
        ValueError: not a JSON object.
    """
    path = Path(manifest).with_suffix(RECORD_SUFFIX)
    return read_json(path) if path.is_file() else {}


def read_split(path: str | os.PathLike[str], num_units: int | None = None) -> list[Example]:
    """Read a ``SPLIT.tsv`` of a data folder.

    Columns ``id, audio, n_frames``, and optionally ``src_text, tgt_text, tgt_audio`` (unit string) and
    ``tgt_n_frames``; other columns are ignored.

    Raises:
        ValueError: names the file, the line and what is wrong with it.
    """
    examples: list[Example] = []
    seen: set[str] = set()
    for row in read_table(path, required=("id", "audio", "n_frames")):
        try:
            if row.problem:
                raise ValueError(row.problem)
            example = _example(row.cells, num_units)
            if example.id in seen:
                raise ValueError(f"id {example.id!r} appears twice")
        except ValueError as error:
            raise ValueError(f"{path}:{row.line}: {error}") from error
        seen.add(example.id)
        examples.append(example)
    return examples


def _example(cells: dict[str, str], num_units: int | None) -> Example:
    frames = cells["n_frames"]
    if not (frames.isascii() and frames.isdecimal()):
        raise ValueError(f"n_frames must be a whole number, not {frames!r}")
    units = cells.get("tgt_audio", "").strip()
    codes = parse_units(units, num_units) if units else None
    return Example(
        id=cells["id"],
        audio=cells["audio"],
        n_frames=int(frames),
        src_text=cells.get("src_text", ""),
        tgt_text=cells.get("tgt_text", ""),
        tgt_audio=codes,
        tgt_n_frames=len(codes) if codes else 0,
    )


def write_split(path: str | os.PathLike[str], rows: Iterable[Example]) -> None:
    """Write a ``SPLIT.tsv`` that :func:`read_split` reads; unit columns appear if any row has units.

    Raises:
        ValueError: a cell that holds a tab or a line break.
    """
    rows = list(rows)
    header = ["id", "audio", "n_frames", "src_text", "tgt_text"]
    with_units = any(row.tgt_audio is not None for row in rows)
    if with_units:
        header += ["tgt_audio", "tgt_n_frames"]
    lines = ["\t".join(header)]
    for row in rows:
        cells = [row.id, row.audio, str(row.n_frames), row.src_text, row.tgt_text]
        if with_units:
            units = row.tgt_audio or ()
            cells += [" ".join(map(str, units)), str(len(units))]
        broken = next((cell for cell in cells if any(mark in cell for mark in "\t\n\r")), None)
        if broken is not None:
            raise ValueError(f"{path}: id {row.id!r}: a cell cannot hold a tab or a line break: {broken!r}")
        lines.append("\t".join(cells))
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
