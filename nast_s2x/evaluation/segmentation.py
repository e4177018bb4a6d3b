"""Segmentation of long recordings: where each reference sentence is spoken.

The form is that of IWSLT, MuST-C, OmniSTEval and simulstream: a YAML or JSON list of ``{wav, offset, duration}`` in
seconds, the entries of a recording one after the other, and a file with one reference a line, in the same order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nast_s2x.errors import ManifestError, NastError, shown
from nast_s2x.evaluation.log import LONGEST_MS
from nast_s2x.files import parse_json, parse_yaml, write_atomic

SEGMENTS, REFERENCES = "segments.yaml", "references.txt"
"""Copies in the folder of an evaluation."""


@dataclass(frozen=True)
class ReferenceSegment:
    """A sentence of a recording.

    Attributes:
        offset_s, duration_s: start in the recording and length, in seconds.
        reference: its translation; may be empty.
    """

    offset_s: float
    duration_s: float
    reference: str


@dataclass(frozen=True)
class SegmentedRecording:
    """A recording and its sentences, in order.

    Attributes:
        name: as the segmentation writes it, a path or a name.
        segments: the sentences.
    """

    name: str
    segments: tuple[ReferenceSegment, ...]

    @property
    def end_s(self) -> float:
        """End of the last segment, which counts as the end of the recording."""
        return max(segment.offset_s + segment.duration_s for segment in self.segments)

    @property
    def references(self) -> list[str]:
        """Reference of each segment."""
        return [segment.reference for segment in self.segments]


def read_segmentation(segments: Path, references: Path) -> list[SegmentedRecording]:
    """Read a segmentation and its references.

    Raises:
        FileNotFoundError: a file is missing.
        ManifestError: a damaged file, an entry without a usable name, offset or duration, a recording whose entries
            are not together, another number of references than of entries, no entry; names file and entry.
    """
    texts = [line.strip() for line in _text(references).removesuffix("\n").split("\n")]
    entries = _entries(segments)
    if len(texts) != len(entries):
        raise ManifestError(
            f"{references} has {len(texts)} lines, {segments} {len(entries)} entries: one line an entry"
        )
    found: dict[str, list[ReferenceSegment]] = {}
    last = None
    for number, (entry, text) in enumerate(zip(entries, texts), start=1):
        place = f"{segments}, entry {number}"
        name = entry.get("wav") if isinstance(entry, Mapping) else None
        if not isinstance(name, str) or not name:
            raise ManifestError(f"{place}: an entry needs `wav`, the name of a recording, but is {shown(entry)}")
        if name != last and name in found:
            raise ManifestError(f"{place}: the entries of {name} must be one after the other")
        last = name
        times = [_seconds(entry, key, place) for key in ("offset", "duration")]
        found.setdefault(name, []).append(ReferenceSegment(times[0], times[1], text))
    return [SegmentedRecording(name, tuple(parts)) for name, parts in found.items()]


def write_segmentation(folder: Path, recordings: Iterable[SegmentedRecording]) -> None:
    """Write copies for rescoring and for other programs: ``segments.yaml`` and ``references.txt``."""
    entries, references = [], []
    for recording in recordings:
        for part in recording.segments:
            values = {"wav": recording.name, "offset": part.offset_s, "duration": part.duration_s}
            entries.append(f"- {json.dumps(values, ensure_ascii=False)}\n")
            references.append(f"{part.reference}\n")
    write_atomic(folder / REFERENCES, "".join(references))
    write_atomic(folder / SEGMENTS, "".join(entries))


def match_names(names: Sequence[str], recordings: Sequence[SegmentedRecording], what: str) -> list[int]:
    """Index among ``names`` of each recording: by the whole name, else by the file's name, else without its ending.

    Args:
        what: what the names are, for messages.
    Raises:
        ManifestError: a recording has no name or several, or a name has no recording; names it.
    """
    forms = (str, os.path.basename, lambda name: Path(name).stem)
    reason = ""
    for form in forms:
        places: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            places.setdefault(form(name), []).append(index)
        wanted = [form(recording.name) for recording in recordings]
        unclear = [name for name in wanted if len(places.get(name, ())) != 1 or wanted.count(name) != 1]
        extra = [name for name in places if name not in wanted]
        if not unclear and not extra:
            return [places[name][0] for name in wanted]
        count = len(places.get(unclear[0], ())) if unclear else 0
        reason = (
            f"{unclear[0]} of the segmentation has {count}" if unclear else f"{extra[0]} is not in the segmentation"
        )
    raise ManifestError(f"{what} must be those of the segmentation, one a recording: {reason}")


def _entries(path: Path) -> list[Any]:
    text = _text(path)
    try:
        entries = parse_json(text) if path.suffix == ".json" else parse_yaml(text)
    except NastError as error:
        raise ManifestError(f"{path}: not a list of segments: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise ManifestError(f"{path} must be a list of segments {{wav, offset, duration}}, but is {shown(entries)}")
    return entries


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 text (byte {error.start})") from None


def _seconds(entry: Mapping[str, Any], key: str, place: str) -> float:
    value = entry.get(key)
    least = "0 or more" if key == "offset" else "more than 0"
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LONGEST_MS / 1000:
        raise ManifestError(
            f"{place}: `{key}` must be a number of seconds up to {LONGEST_MS / 1000:g}, but is {shown(value)}"
        )
    if value < 0 or (key == "duration" and not value):
        raise ManifestError(f"{place}: `{key}` must be {least} seconds, but is {value}")
    return float(value)
