"""lhotse's JSONL, for exchange with other toolkits: cuts, or supervisions with recordings.

Files: ``cuts*.jsonl``, or ``supervisions*.jsonl`` with ``recordings*.jsonl`` (names may have a prefix and a suffix,
such as ``fr_supervisions_dev.jsonl.gz``; ``.gz`` is read). lhotse has no field for a translation: it is read from
``custom.tgt_text`` of the supervision, or ``--column tgt_text=custom.NAME``. The split is ``custom.split``, else the
end of the file's name, else ``train``, with a note.

Only recordings of type "file" are read: "command" runs a program. Cuts made of several recordings and transformed
recordings (speed, resampling) are refused by name. Relative paths start in the working directory, as in lhotse.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.converters.base import ConvertOptions, Found, LeftOut, Note, clean, file_header
from nast_s2x.corpus.converters.entries import json_lines
from nast_s2x.corpus.utterance import Units, Utterance
from nast_s2x.errors import AudioError, ConfigError, ManifestError

_DEFAULT = {"tgt_text": "custom.tgt_text", "tgt_speech": "custom.tgt_speech", "split": "custom.split"}


def read(folders: list[Path], options: ConvertOptions) -> Iterator[Found]:
    """Rows of all files, one for each supervision."""
    unknown = sorted(options.columns.keys() - _DEFAULT.keys())
    if unknown:
        raise ConfigError(f"lhotse: --column {unknown[0]} is not one of {', '.join(_DEFAULT)}")
    fields = _DEFAULT | dict(options.columns)
    paths = [path for folder in folders for path in (sorted(folder.iterdir()) if folder.is_dir() else [folder])]
    paths = [path for path in paths if path.name.endswith((".jsonl", ".jsonl.gz"))]
    recordings: dict[str, dict[str, Any]] = {}
    for path in paths:
        if "recordings" in path.name:
            recordings.update((str(values.get("id")), values) for _, values in json_lines(path))
    tables = [path for path in paths if "recordings" not in path.name]
    if not tables:
        raise FileNotFoundError(f"{', '.join(map(str, folders))}: no cuts*.jsonl or supervisions*.jsonl")
    for path in tables:
        before, _, split = path.name.split(".jsonl")[0].rpartition("_")
        for place, values in json_lines(path):
            for supervision, cut_start, recording in _supervisions(values, recordings):
                if not before and not _field(supervision, fields["split"]):
                    yield Note(f"neither {path.name} (as in NAME_dev.jsonl) nor its rows name a split: it is train")
                yield _row(supervision, cut_start, recording, fields, split if before else "train", place)


def _supervisions(values: dict[str, Any], recordings: dict[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Supervisions of a line, the start (seconds) that theirs are relative to, and the recording or what is wrong."""
    kind, supervisions = values.get("type"), values.get("supervisions")
    if "recording_id" in values:
        yield (
            values,
            0.0,
            recordings.get(str(values["recording_id"]), f"no recording {values['recording_id']} in recordings*.jsonl"),
        )
    elif kind != "MonoCut" or not isinstance(supervisions, list) or not supervisions:
        yield {}, 0.0, f"{kind or 'line'} {values.get('id')}: only MonoCut with a supervision is supported"
    else:
        for supervision in supervisions:
            recording = values.get("recording") or f"cut {values.get('id')} has no recording"
            yield supervision, values.get("start", 0), recording


def _row(values: Any, cut_start: Any, recording: Any, fields: dict[str, str], split: str, place: str) -> Found:
    """One supervision as a row."""
    try:
        source, target = (clean(str(_field(values, name) or "")) for name in ("text", fields["tgt_text"]))
        start = float(cut_start) + float(values.get("start", 0))
        audio = _audio(recording, start, float(values.get("duration", 0)))
        codes, speech = _field(values, "custom.tgt_audio"), _field(values, fields["tgt_speech"])
        units = Units.parse(str(codes)) if codes else None
        target_audio = AudioRef.parse(str(speech)) if speech else None
    except (AudioError, ManifestError, AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        return LeftOut("bad row", place, str(error))
    if not (source and target):
        return LeftOut("empty text", place)
    return Utterance(
        id=str(values.get("id")),
        split=str(_field(values, fields["split"]) or split),
        audio=audio,
        source_text=source,
        target_text=target,
        target_audio=target_audio,
        units=units,
        extra={"speaker": str(values.get("speaker") or "")},
        place=place,
    )


def _audio(recording: Any, start: float, seconds: float) -> AudioRef:
    """The recording, or the part of it; raises :class:`AudioError`."""
    if isinstance(recording, str):
        raise AudioError(recording)
    sources = recording.get("sources") or [{}]
    kind = sources[0].get("type")
    if len(sources) != 1 or kind != "file":
        raise AudioError(f"recording {recording.get('id')}: one source of type file is supported, not {kind}")
    if recording.get("transforms"):
        raise AudioError(f"recording {recording.get('id')}: transforms are not supported: save the transformed audio")
    path = Path(sources[0]["source"]).absolute()
    samples, rate = file_header(path)
    first, count = round(start * rate), round(seconds * rate)
    return AudioRef(path) if first == 0 and abs(count - samples) <= 1 else AudioRef(path, first, count)


def _field(values: dict[str, Any], name: str) -> Any:
    """A value by its path, such as ``custom.tgt_text``."""
    value: Any = values
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
