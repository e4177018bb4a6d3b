"""Files in the folder of an evaluation, checked as they are read: they may come from elsewhere.

Each dataclass names the entries that this program uses, with their types; entries of other names pass.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from nast_s2x.errors import ConfigError, NastError, shown
from nast_s2x.files import parse_json, read_json
from nast_s2x.typed import limited, read_fields

FORMAT = 1
_Kind = TypeVar("_Kind")
_ANY = {"least": -math.inf}
_NO_NAME = [mark for mark in (os.sep, os.altsep, "\0") if mark]  # in no name of a file
_Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class FileEntry:
    """A file of an evaluation: path, digest, and of a model its languages and the note on an example."""

    path: str = "?"
    sha256: str | None = None
    source_lang: str | None = None
    target_lang: str | None = None
    example: str | None = None


@dataclass(frozen=True)
class SettingsFile:
    """``settings.json``; see :func:`~nast_s2x.evaluation.settings.record`."""

    chunks: tuple[str, ...] = ()
    model: FileEntry | None = None
    source: FileEntry | None = None
    target: FileEntry | None = None
    units: FileEntry | None = None
    num_utterances: int | None = limited(None, least=0)
    target_type: Literal["text", "speech"] | None = None
    lookahead_ms: int | None = limited(None, least=0)
    wait_chunks: int | None = limited(None, least=0)
    left_ms: int | str | None = limited(None, least=0)
    pause_ms: int | None = None
    segment_ms: float | None = None
    first_segment_ms: float | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = limited(None, least=0)
    vocoder: FileEntry | str | None = None
    synthesis_lookahead: int | None = limited(None, least=0)
    target_lang: str | None = None
    versions: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Talk:
    """Figures of one long recording."""

    recording: str
    source_ms: float
    segments: int = limited(least=0)
    empty: int = limited(least=0)
    quality: _Figures = limited(**_ANY)
    latency: _Figures = limited(**_ANY)
    growth: float | None = limited(None, **_ANY)


@dataclass(frozen=True)
class ScoresRow:
    """Figures of a chunk size; names of figures are free."""

    chunk: str
    utterances: int = limited(least=0)
    empty: int = limited(least=0)
    quality: _Figures = limited(**_ANY)
    latency: _Figures = limited(**_ANY)
    cost: _Figures = limited(**_ANY)
    chunk_ms: float | None = limited(None, **_ANY)
    signatures: Mapping[str, str | None] | None = None
    recordings: tuple[Talk, ...] | None = None

    def __post_init__(self) -> None:
        if self.chunk in ("", "..") or any(mark in self.chunk for mark in _NO_NAME):
            raise ConfigError(f"`chunk` names a folder, so it must be a plain name, but is {shown(self.chunk)}")


@dataclass(frozen=True)
class ScoresFile:
    """``scores.json``."""

    target_type: Literal["text", "speech"]
    rows: tuple[ScoresRow, ...]
    settings: SettingsFile | None = None
    recogniser: str | None = None
    target_lang: str | None = None
    unit: str | None = None
    long_form: bool | None = None
    notes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.rows:
            raise ConfigError("`rows` must have a row for each chunk size, but is empty")
        if self.long_form and len({len(row.recordings or ()) for row in self.rows}) != 1:
            raise ConfigError("each of `rows` must have the same number of `recordings`")


@dataclass(frozen=True, kw_only=True)
class UtteranceScores:
    """A line of ``utterances.jsonl``."""

    index: int = limited(least=0)
    id: str | None = None
    recording: str | None = None
    source_ms: float | None = None
    offset_ms: float | None = None
    reference: str | None = None
    text: str | None = None
    transcript: str | None = None
    transcript_silence: str | None = None
    BLEU: float | None = None
    ASR_BLEU: float | None = None
    latency: _Figures | None = limited(None, **_ANY)
    gaps: tuple[tuple[float, float], ...] | None = limited(None, **_ANY)
    chunk_ms: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class SegmentScores(UtteranceScores):
    """A line of ``utterances.jsonl`` for long recordings, a segment of one."""

    recording: str = limited()
    source_ms: float = limited()
    offset_ms: float = limited()
    reference: str = limited()
    text: str | None = limited()
    latency: _Figures = limited(**_ANY)


def read_scores(path: Path) -> dict[str, Any]:
    """Read ``scores.json``.

    Raises:
        FileNotFoundError: no such file.
        NastError: damaged, of another format, without rows, or an entry of another type; names file and entry.
    """
    values = _of_format(path, read_json(path))
    _checked(path, ScoresFile, values)
    return values


def read_settings_file(path: Path) -> dict[str, Any]:
    """Read ``settings.json``; errors as for :func:`read_scores`."""
    values = _of_format(path, read_json(path))
    settings = _checked(path, SettingsFile, values)
    lacking = [name for name in ("chunks", "num_utterances", "target_type") if values.get(name) is None]
    if lacking:
        raise NastError(f"{path} must be the record of an evaluation: it lacks `{lacking[0]}`")
    wrong = [chunk for chunk in settings.chunks if chunk != "offline" and not (chunk.isascii() and chunk.isdecimal())]
    if wrong:
        raise NastError(f"{path}: each of `chunks` must be a number of ms or offline, but one is {shown(wrong[0])}")
    return values


def utterance_line(text: str, long_form: bool = False) -> dict[str, Any]:
    """The object in a line of ``utterances.jsonl``, for long recordings with what each segment has.

    Raises:
        NastError: not JSON, or an entry of another type.
    """
    values = parse_json(text)
    kind = SegmentScores if long_form else UtteranceScores
    read_fields(kind, values, "the scores of an utterance", ignore_unknown=True)
    return values


def _of_format(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    if values.get("format") != FORMAT or isinstance(values["format"], bool):
        raise NastError(f"{path} must have format {FORMAT}, but has {shown(values.get('format'))}")
    return values


def _checked(path: Path, kind: type[_Kind], values: dict[str, Any]) -> _Kind:
    try:
        return read_fields(kind, values, path.name, ignore_unknown=True)
    except ConfigError as error:
        raise NastError(f"{path}: {error}") from None
