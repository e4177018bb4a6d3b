"""Utterances, and the tables and lists that name them: one reader, one writer.

A table is tab-separated UTF-8 text with a header, one utterance a line, without quoting of any kind.

**Where relative audio paths start**, in every table and list: the first of these folders that has the file

1. ``audio_root`` of the ``config.yaml`` beside the table, where a data folder has one;
2. the folder of the table; if the table is a symbolic link, then the folder of the real file too;
3. the working directory.

A caller that gives ``root`` replaces all three.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from nast_s2x.corpus.audio_ref import AnyPath
from nast_s2x.corpus.columns import RowReader, audio_folders, cell_writers, find_audio
from nast_s2x.corpus.utterance import Units, Utterance, parse_durations, parse_units, unit_string  # noqa: F401
from nast_s2x.errors import AudioError, ManifestError, shown
from nast_s2x.files import open_atomic, read_json

TARGET_AUDIO = "tgt_speech"
"""Usual name of the column with recordings of the target speech."""
RECORD_SUFFIX = ".units.json"
_BOM = b"\xef\xbb\xbf"
# Names of the same columns in fairseq's speech-to-speech manifests.
_ALIASES = {"src_audio": "audio", "src_n_frames": "n_frames"}


@dataclass(frozen=True, order=True)
class Problem:
    """What is wrong with a line of a table."""

    line: int
    reason: str
    path: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Manifest:
    """Rows of a table or list, in order.

    Attributes:
        path: the file.
        rows: the usable rows.
        problems: the others, by line.
        columns: header of the table, in its order; empty for a list.
        lines: line number of each row.
    """

    path: Path
    rows: list[Utterance]
    problems: list[Problem] = field(default_factory=list)
    columns: tuple[str, ...] = ()
    lines: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.rows)

    def unit_hash(self) -> str | None:
        """Hash of the centroids that all units come from; None where no row has one.

        Raises:
            ManifestError: units of several sets of centroids, or only some rows with a hash.
        """
        first: dict[str | None, int] = {}
        for row, line in zip(self.rows, self.lines, strict=True):
            if row.units is not None:
                first.setdefault(row.units.hash, line)
        return self.one_hash(self.path, first)

    @staticmethod
    def one_hash(path: Path, first: Mapping[str | None, int]) -> str | None:
        """The only hash of ``first``, which has the first line of each; raises as :meth:`unit_hash`."""
        if len(first) > 1:
            found = ", ".join(f"{value or 'none'} (line {line})" for value, line in first.items())
            raise ManifestError(f"{path}: units of different centroids in one manifest, unit_hash {found}")
        return next(iter(first), None)


class TableOptions(TypedDict, total=False):
    """Keyword arguments of :func:`read_manifest` and :class:`TableReader`.

    Attributes:
        required: columns that must exist and, in each row, be filled.
        split: only rows of this split, or of any of these. Without a column ``split`` the table is one split: all rows
            are of the one asked for.
        root: folder where relative audio paths start; by default see above.
        target_audio: name of the column that is read as ``target_audio`` (default :data:`TARGET_AUDIO`).
        num_units: number of unit codes K; each code must be below.
        with_durations: read ``tgt_durations`` too.
        keep_extra: keep the columns not named in :func:`read_manifest` in ``extra``.
        unique_ids: an id that appears twice is a problem (default True).
        check_files: a recording without a file is a problem.
        whole: refuse a table whose last line does not end: it may have been cut off.
    """

    required: Sequence[str]
    split: str | Collection[str] | None
    root: AnyPath | None
    target_audio: str
    num_units: int | None
    with_durations: bool
    keep_extra: bool
    unique_ids: bool
    check_files: bool
    whole: bool


def read_manifest(path: AnyPath, *, strict: bool = True, **options: Unpack[TableOptions]) -> Manifest:
    """Read a table.

    Columns: ``id``, ``split``, ``audio``, ``n_frames``, ``src_text``, ``tgt_text``, ``tgt_speech`` (a recording),
    ``tgt_audio`` (a unit string, fairseq's name), ``tgt_durations``, ``unit_hash``; ``src_audio`` and
    ``src_n_frames`` are read as ``audio`` and ``n_frames``. Spaces around a cell are ignored. Without ``id``, rows are
    named after their recordings. ``tgt_n_frames`` is not read: it is the number of units.

    Args:
        path: the table.
        strict: any problem raises; otherwise they are returned.
        options: see :class:`TableOptions`.

    Raises:
        FileNotFoundError: no such table.
        ManifestError: not UTF-8, a column missing or twice, no row of the split; with ``strict``, any bad row.
    """
    table = TableReader(path, **options)
    result = Manifest(table.path, [], [], table.columns, [])
    for number, row in table:
        if isinstance(row, Problem):
            result.problems.append(row)
        else:
            result.rows.append(row)
            result.lines.append(number)
    if strict:
        raise_problems(result.problems)
    return result


class TableReader:
    """Rows of a table one after the other, in memory of constant size (but 200 bytes a row with ``unique_ids``).

    Args:
        path: the table.
        options: see :class:`TableOptions`.

    Raises:
        FileNotFoundError, ManifestError: see :func:`read_manifest`; in iterating, of what is found there.
    """

    def __init__(self, path: AnyPath, **options: Unpack[TableOptions]) -> None:
        self.path = Path(path)
        required, split = options.get("required", ()), options.get("split")
        header = _read_header(self.path, required, options.get("whole", False))
        self.columns = tuple(header)
        self._reader = RowReader(
            self.path,
            header,
            required,
            options.get("root"),
            options.get("target_audio", TARGET_AUDIO),
            options.get("num_units"),
            options.get("with_durations", False),
            options.get("keep_extra", False),
            options.get("check_files", False),
        )
        self._wanted = {split} if isinstance(split, str) else None if split is None else set(split)
        self._only = split if isinstance(split, str) else ""
        self._unique_ids = options.get("unique_ids", True)

    def __iter__(self) -> Iterator[tuple[int, Utterance | Problem]]:
        """(line, row or what is wrong with it) of each line of the splits that were asked for."""
        splits: set[str] = set()
        first_line: dict[str, int] = {}
        found = False
        for number, cells in _cells(self.columns, _lines(self.path)):
            name = cells.get("split", self._only).strip(" ") if isinstance(cells, dict) else None
            if name is not None:
                splits.add(name)
                if self._wanted is not None and "split" in self.columns and name not in self._wanted:
                    continue
            found = True
            try:
                row = self._reader.read(number, cells, name or "")
                if self._unique_ids and first_line.setdefault(row.id, number) != number:
                    raise ManifestError(f"id {shown(row.id)} is that of line {first_line[row.id]} too")
            except (ManifestError, AudioError) as error:
                yield number, Problem(number, str(error), str(self.path))
                continue
            yield number, row
        if not found:
            raise ManifestError(f"{self.path}: {_no_row(self._wanted, splits)}")

    def read_lines(self, wanted: Iterable[int], texts_only: bool = False) -> Iterator[Utterance]:
        """The rows at some lines again, without the checks of files and of ids.

        Args:
            wanted: numbers of lines with usable rows, ascending.
            texts_only: leave out recordings and units.
        """
        reader = replace(self._reader, check_files=False)
        numbers = iter(wanted)
        next_number = next(numbers, None)
        for number, line in enumerate(_lines(self.path), start=2):
            if next_number is None:
                return
            if number == next_number:
                cells = dict(zip(self.columns, line.split("\t")))
                yield reader.read(number, cells, cells.get("split", self._only).strip(" "), texts_only)
                next_number = next(numbers, None)


def read_lists(
    source: AnyPath,
    target: AnyPath | None = None,
    units: AnyPath | None = None,
    *,
    root: AnyPath | None = None,
    check_files: bool = True,
    strict: bool = True,
) -> Manifest:
    """Read lists in the form of SimulEval: line i of each file belongs to recording i.

    Args:
        source: audio paths, one a line.
        target: translations.
        units: unit strings of the translations.
        root, check_files, strict: as for :func:`read_manifest`.

    Raises:
        FileNotFoundError: a list is missing.
        ManifestError: an empty list, an empty line, lists of different lengths; with ``strict``, any bad line.
    """
    source = Path(source)
    paths = _list_lines(source, "audio path")
    texts = _parallel_lines(source, paths, target, "reference")
    strings = _parallel_lines(source, paths, units, "units")
    folders = audio_folders(source, root)
    result = Manifest(source, [])
    for number, (path, text, string) in enumerate(zip(paths, texts, strings, strict=True), start=1):
        file: AnyPath = source
        try:
            audio = find_audio(path, folders, check_files)
            file = units or source
            codes = None if string is None else Units.parse(string)
        except (ManifestError, AudioError) as error:
            result.problems.append(Problem(number, str(error), str(file)))
            continue
        row = Utterance(audio.name, audio=audio, target_text=text or "", units=codes, place=f"{source}:{number}")
        result.rows.append(row)
        result.lines.append(number)
    if strict:
        raise_problems(result.problems)
    return result


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise :class:`ManifestError` with all problems if there are any; its message is the first one."""
    if problems:
        more = f" (and {len(problems) - 1} more bad rows)" if len(problems) > 1 else ""
        raise ManifestError(f"{problems[0]}{more}", map(str, problems))


def write_manifest(
    path: AnyPath,
    rows: Iterable[Utterance],
    columns: Sequence[str] | None = None,
    *,
    root: AnyPath | None = None,
    target_audio: str = TARGET_AUDIO,
) -> None:
    """Write a table that :func:`read_manifest` reads, atomically. References to files keep their form: those that a
    table named by a relative path are written relative to the new table.

    Args:
        rows: may be an iterator; without ``columns`` all rows are held in memory.
        columns: the header. By default the columns that any row fills, those of ``extra`` last.
        root: folder where relative paths start, by default that of the table.
        target_audio: name of the column for ``target_audio``.

    Raises:
        ManifestError: a cell that holds a tab or a line break; names the row.
        OSError: the file cannot be written.
    """
    path = Path(path)
    folder = os.path.realpath(root if root is not None else path.parent)
    writers = cell_writers(folder, target_audio)
    if columns is None:
        rows = list(rows)
        extra = dict.fromkeys(name for row in rows for name in row.extra or ())
        filled = {name for name, write in writers.items() if name == "id" or any(write(row) for row in rows)}
        columns = [name for name in writers if name in filled and (name != "tgt_n_frames" or "tgt_audio" in filled)]
        columns += [name for name in extra if name not in columns]
    with open_atomic(path) as file:
        file.write("\t".join(columns) + "\n")
        for row in rows:
            cells = [writers[name](row) if name in writers else (row.extra or {}).get(name, "") for name in columns]
            broken = next((cell for cell in cells if any(mark in cell for mark in "\t\n\r")), None)
            if broken is not None:
                raise ManifestError(
                    f"{path}: id {shown(row.id)}: a cell cannot hold a tab or a line break: {shown(broken)}"
                )
            file.write("\t".join(cells) + "\n")


def unit_record(manifest: AnyPath) -> dict[str, Any]:
    """Content of ``NAME.units.json`` beside a units manifest (``nast-s2x units extract`` writes it); empty without one.

    Raises:
        NastError: not a JSON object.
    """
    path = Path(manifest).with_suffix(RECORD_SUFFIX)
    return read_json(path) if path.is_file() else {}


# Lines to rows


def _read_header(path: Path, required: Sequence[str], whole: bool) -> list[str]:
    """Columns of a table."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such manifest")
    with open(path, "rb") as file:
        first = file.readline()
    if whole and not ends_in_newline(path):
        raise ManifestError(f"{path}: the last line does not end in a newline: the table may be cut off")
    line = _decode(path, first.removeprefix(_BOM)).removesuffix("\n").removesuffix("\r")
    header = [_ALIASES.get(name.strip(), name.strip()) for name in line.split("\t")]
    if len(set(header)) != len(header):
        raise ManifestError(f"{path}:1: a column appears twice: {', '.join(header)}")
    missing = [name for name in required if name not in header]
    if missing:
        raise ManifestError(f"{path}:1: no column {', '.join(missing)} (tab-separated columns: {', '.join(header)})")
    return header


def ends_in_newline(path: Path) -> bool:
    """True if the last byte of a file is a newline; a table without one may have been cut off."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        return file.read() == b"\n"


def _lines(path: Path) -> Iterator[str]:
    """The lines behind the header. Cells may hold characters that str.splitlines takes for line ends: lines end at
    newlines only."""
    with open(path, "rb") as file:
        start = len(file.readline().removeprefix(_BOM))
        for line in file:
            yield _decode(path, line, start).removesuffix("\n").removesuffix("\r")
            start += len(line)


def _decode(path: Path, data: bytes, start: int = 0) -> str:
    """Text of the bytes of a file from byte ``start`` on, a byte-order mark not counted."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 text (byte {start + error.start})") from None


def _cells(header: Sequence[str], lines: Iterable[str]) -> Iterator[tuple[int, dict[str, str] | str]]:
    """(line number, cells or what is wrong) of each line that is not blank; the header is line 1."""
    for number, line in enumerate(lines, start=2):
        if line.strip():
            cells = line.split("\t")
            fits = len(cells) == len(header)
            yield number, dict(zip(header, cells)) if fits else f"has {len(cells)} columns, the header {len(header)}"


def _no_row(wanted: Collection[str] | None, splits: Collection[str]) -> str:
    if not wanted or not splits:
        return "there is no row"
    known = ", ".join(sorted(name or "(empty)" for name in splits))
    return f"there is no row of split {', '.join(sorted(wanted))} (there are: {known})"


def _list_lines(path: Path, what: str) -> list[str]:
    """Lines of a list; ``what`` each of them is."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such list")
    lines = [
        line.strip() for line in _decode(path, path.read_bytes().removeprefix(_BOM)).removesuffix("\n").split("\n")
    ]
    if lines == [""]:
        raise ManifestError(f"{path}: the list is empty")
    if "" in lines:
        raise ManifestError(f"{path}:{lines.index('') + 1}: empty line, expected one {what} a line")
    return lines


def _parallel_lines(source: Path, paths: Sequence[str], other: AnyPath | None, what: str) -> Sequence[str | None]:
    if other is None:
        return [None] * len(paths)
    lines = _list_lines(Path(other), what)
    if len(lines) != len(paths):
        raise ManifestError(f"{source} has {len(paths)} lines, {other} has {len(lines)}: they do not belong together")
    return lines
