"""Columns of tables: from the cells of a row to an :class:`~nast_s2x.corpus.utterance.Utterance` and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nast_s2x.corpus.audio_ref import AnyPath, AudioRef, split_segment
from nast_s2x.corpus.data_folder import read_audio_root
from nast_s2x.corpus.utterance import Units, Utterance, unit_string
from nast_s2x.errors import AudioError, ManifestError


def audio_folders(table: AnyPath, root: AnyPath | None = None) -> tuple[str, ...]:
    """Folders where relative audio paths of a table may start, absolute, in the order of
    :mod:`nast_s2x.corpus.manifest`."""
    if root is not None:
        return (os.path.abspath(root),)
    beside = os.path.dirname(os.path.abspath(table))
    real = os.path.dirname(os.path.realpath(table))
    found = [read_audio_root(beside), beside, *([] if os.path.realpath(beside) == real else [real]), os.getcwd()]
    return tuple(dict.fromkeys(os.path.abspath(folder) for folder in found if folder is not None))


@dataclass
class RowReader:
    """Cells to :class:`Utterance`; the arguments are those of :func:`read_manifest`."""

    path: Path
    header: list[str]
    required: Sequence[str]
    root: AnyPath | None
    target_audio: str
    num_units: int | None
    with_durations: bool
    keep_extra: bool
    check_files: bool

    def __post_init__(self) -> None:
        self.folders = audio_folders(self.path, self.root)
        self.archives: dict[str, Path] = {}  # name in the table -> file: many rows name the same one
        known = {*cell_writers("", self.target_audio), "tgt_n_frames"}
        self.others = [name for name in self.header if name not in known] if self.keep_extra else []

    def read(self, line: int, cells: dict[str, str] | str, split: str, texts_only: bool = False) -> Utterance:
        """The row at a line.

        Args:
            cells: column -> cell, or what is wrong with the line.
            texts_only: leave out recordings and units.
        Raises:
            ManifestError, AudioError: a cell that cannot be used.
        """
        if isinstance(cells, str):
            raise ManifestError(cells)
        if any("\r" in cell for cell in cells.values()):
            raise ManifestError("a carriage return inside the line")
        empty = [name for name in self.required if not cells[name].strip()]
        if empty:
            raise ManifestError(f"empty {', '.join(empty)}")
        values = {name: cell.strip(" ") for name, cell in cells.items()}
        if texts_only and values.get("id"):
            values |= dict.fromkeys(("audio", self.target_audio, "tgt_audio"), "")
        audio, target_audio = (self._audio(values.get(name, "")) for name in ("audio", self.target_audio))
        recording = audio or target_audio
        return Utterance(
            id=values.get("id") or (recording.name if recording else ""),
            split=split,
            audio=audio,
            num_frames=_whole_number(values.get("n_frames", "")),
            source_text=values.get("src_text", ""),
            target_text=values.get("tgt_text", ""),
            target_audio=target_audio,
            units=self._units(values),
            extra={name: values[name] for name in self.others} if self.keep_extra else None,
            place=f"{self.path}:{line}",
        )

    def _audio(self, text: str) -> AudioRef | None:
        if not text:
            return None
        name, segment = split_segment(text)
        if segment is not None and name in self.archives:
            return AudioRef(self.archives[name], *segment, relative=not os.path.isabs(name))
        audio = find_audio(text, self.folders, self.check_files)
        if segment is not None and audio.is_packed:
            self.archives[name] = audio.path
        return audio

    def _units(self, values: Mapping[str, str]) -> Units | None:
        if not values.get("tgt_audio"):
            return None
        durations = values.get("tgt_durations") if self.with_durations else None
        return Units.parse(values["tgt_audio"], durations, values.get("unit_hash"), self.num_units)


def find_audio(text: str, folders: Sequence[str], check_file: bool) -> AudioRef:
    """The reference in a cell, see :meth:`AudioRef.parse`.

    Raises:
        AudioError: not a reference, or with ``check_file`` no such file; names the other folders too.
    """
    audio = AudioRef.parse(text, *folders)
    problem = audio.problem() if check_file else None
    if problem is None:
        return audio
    others = [] if os.path.isabs(text) else [str(AudioRef.parse(text, folder).path) for folder in folders[1:]]
    raise AudioError(problem + (f" (nor {' nor '.join(others)})" if others else ""))


def _whole_number(text: str) -> int | None:
    if text and not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise ManifestError(f"n_frames must be a whole number, not {text[:40]!r}")
    return int(text) if text else None


def audio_cell(audio: AudioRef | None, folder: str) -> str:
    """A reference as text: relative to ``folder`` where a table named it by a relative path, else absolute.

    Args:
        folder: an absolute path, symbolic links resolved.
    """
    if audio is None or not (audio.relative or not audio.path.is_absolute()):
        return str(audio or "")
    # Without `..`, which leads elsewhere behind a symbolic link.
    parent = os.path.realpath(audio.path.parent) if os.pardir in audio.path.parts else audio.path.parent
    path = os.path.relpath(os.path.join(os.path.abspath(parent), audio.path.name), folder)
    return str(AudioRef(Path(path), audio.start, audio.count))


def cell_writers(folder: str, target_audio: str) -> dict[str, Callable[[Utterance], str]]:
    """Column -> its cell of a row, in the usual order of columns."""
    return {
        "id": lambda row: row.id,
        "audio": lambda row: audio_cell(row.audio, folder),
        "n_frames": lambda row: "" if row.num_frames is None else str(row.num_frames),
        "src_text": lambda row: row.source_text,
        "tgt_text": lambda row: row.target_text,
        "split": lambda row: row.split,
        target_audio: lambda row: audio_cell(row.target_audio, folder),
        "tgt_audio": lambda row: str(row.units or ""),
        "tgt_n_frames": lambda row: str(len(row.units.codes)) if row.units else "0",
        "tgt_durations": lambda row: unit_string(row.units.durations or ()) if row.units else "",
        "unit_hash": lambda row: (row.units.hash if row.units else None) or "",
    }
