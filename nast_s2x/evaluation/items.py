"""What is evaluated: recordings, references and reference units, checked before anything runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nast_s2x.corpus.manifest import Row, parse_units, read_table
from nast_s2x.errors import AudioError, NastError
from nast_s2x.frontend.audio import read_samples


@dataclass(frozen=True)
class Item:
    """One utterance of a test set.

    Attributes:
        index: position in the list, from 0.
        id: its name: the manifest's, else that of the sound file; need not be unique.
        audio: absolute path of the recording.
        reference: translation to compare with, never empty.
        units: reference units as a string such as "71 12 993"; ``None`` where there are none.
        place: ``FILE:LINE`` that names it, for messages.
    """

    index: int
    id: str
    audio: Path
    reference: str
    units: str | None
    place: str


@dataclass(frozen=True)
class TestSet:
    """A test set and where it was read from; the paths are all the manifest's when it came from one.

    Attributes:
        items: the utterances, in order.
        source, target, units: files of the recordings, the references and the units (``None`` without units).
    """

    __test__ = False  # not a test of pytest's

    items: tuple[Item, ...]
    source: Path
    target: Path
    units: Path | None


def read_lists(
    source: str | os.PathLike[str], target: str | os.PathLike[str], units: str | os.PathLike[str] | None = None
) -> TestSet:
    """Read a list of audio paths, one a line, and as many references, and units if there is a file of them.

    Relative audio paths are looked up beside the list first, then from the working directory.

    Raises:
        FileNotFoundError: a list is missing.
        ValueError: lists that are empty or of different lengths, an empty line, audio that does not exist, units that
            are none; names file and line.
    """
    source, target = Path(source), Path(target)
    paths, references = _lines(source, "audio path"), _lines(target, "reference")
    _same_length(source, paths, target, references)
    codes: list[str | None] = [None] * len(paths)
    if units is not None:
        units = Path(units)
        lines = _lines(units, "units")
        _same_length(source, paths, units, lines)
        codes = [_units(line, f"{units}:{number}") for number, line in enumerate(lines, 1)]
    items = []
    for index, (path, reference, code) in enumerate(zip(paths, references, codes, strict=True)):
        place = f"{source}:{index + 1}"
        items.append(Item(index, Path(path).stem, _audio(path, source, place), reference, code, place))
    return TestSet(tuple(items), source, target, units)


def read_manifest(manifest: str | os.PathLike[str], split: str | None = None) -> TestSet:
    """Read the rows of a split of a manifest.

    Args:
        manifest: tab-separated table with the columns ``audio`` and ``tgt_text`` and, if there, ``id``, ``split`` and
            ``tgt_audio`` (unit string). Relative paths are looked up beside it first, then from the working directory.
        split: only rows of this split; ``None`` takes all.
    Raises:
        FileNotFoundError: no such manifest.
        ValueError: a column is missing, no row is of that split, a broken row; names file and line.
    """
    manifest = Path(manifest)
    required = ["audio", "tgt_text"] + ([] if split is None else ["split"])
    rows: list[Row] = []
    splits: set[str] = set()
    for row in read_table(manifest, required=required):
        if row.problem:
            raise NastError(f"{manifest}:{row.line}: {row.problem}")
        splits.add(row.cells.get("split", ""))
        if split is None or row.cells["split"] == split:
            rows.append(row)
    if not rows:
        there = f" of split {split} (there are: {', '.join(sorted(splits))})" if splits else ""
        raise NastError(f"{manifest}: there is no row{there}")
    with_units = any(row.cells.get("tgt_audio", "").strip() for row in rows)
    items = [_row_item(index, row, manifest, with_units) for index, row in enumerate(rows)]
    return TestSet(tuple(items), manifest, manifest, manifest if with_units else None)


def check_audio(items: Sequence[Item], progress: bool = False) -> list[str]:
    """Read all recordings once: is each sound, and what are its contents?

    Returns:
        the SHA-256 of each recording's rate and mono float32 samples, hexadecimal.
    Raises:
        AudioError: a recording that is unreadable, without samples or not finite; names file and line.
    """
    bar: Iterable[Item] = tqdm(items, desc="checking recordings", unit="", disable=not progress, leave=False)
    digests = []
    for item in bar:
        samples, rate = read_samples(item.audio, name=f"{item.place}: {item.audio}")
        if not len(samples):
            raise AudioError(f"{item.place}: {item.audio}: the recording has no samples")
        digests.append(hashlib.sha256(b"%d\n" % rate + np.ascontiguousarray(samples, "<f4").tobytes()).hexdigest())
    return digests


def _lines(path: Path, what: str) -> list[str]:
    """The lines of a list; ``what`` each of them is."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such list")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NastError(f"{path}: not UTF-8 text (byte {error.start})") from None
    # References may hold characters that str.splitlines takes for line ends: split at newlines only.
    lines = [line.strip() for line in text.removesuffix("\n").split("\n")]
    if lines == [""]:
        raise NastError(f"{path}: the list is empty")
    if "" in lines:
        raise NastError(f"{path}:{lines.index('') + 1}: empty line, expected one {what} a line")
    return lines


def _same_length(first: Path, lines: list[str], second: Path, others: list[str]) -> None:
    if len(lines) != len(others):
        raise NastError(f"{first} has {len(lines)} lines, {second} has {len(others)}: they do not belong together")


def _audio(path: str, listed_in: Path, place: str) -> Path:
    """Absolute path of a recording that a list names."""
    candidates = [listed_in.resolve().parent / path, Path.cwd() / path]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        tried = " or ".join(dict.fromkeys(os.path.normpath(candidate) for candidate in candidates))
        raise AudioError(f"{place}: no such audio file: {tried}")
    return Path(os.path.normpath(found))


def _units(text: str, place: str) -> str:
    try:
        return " ".join(map(str, parse_units(text)))
    except ValueError as error:
        raise NastError(f"{place}: {error}") from None


def _row_item(index: int, row: Row, manifest: Path, with_units: bool) -> Item:
    place = f"{manifest}:{row.line}"
    path, reference = row.cells["audio"].strip(), row.cells["tgt_text"].strip()
    for column, value in (("audio", path), ("tgt_text", reference)):
        if not value:
            raise NastError(f"{place}: empty {column}")
    audio = _audio(path, manifest, place)
    units = _units(row.cells["tgt_audio"], place) if with_units else None
    return Item(index, row.cells.get("id", "").strip() or audio.stem, audio, reference, units, place)
