"""Parquet files with recordings inside, the layout of speech corpora on the Hugging Face Hub.

Files of a split are named after it: ``train-00000-of-00012.parquet``, or ``train/0000.parquet``; ``validation``
becomes ``dev``. The column of recordings is a struct of ``bytes`` (a sound file) and ``path``. The bytes are written
as they are to ``audio/SPLIT`` beside the manifest, one file each. Other columns are found by the names of
:data:`COLUMNS`, or by ``--column FIELD=NAME``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.converters.base import ConvertOptions, Found, LeftOut, clean
from nast_s2x.corpus.packing import file_stem
from nast_s2x.corpus.utterance import Units, Utterance
from nast_s2x.errors import ConfigError, ManifestError, NastError
from nast_s2x.files import write_atomic

COLUMNS = {
    "audio": ("audio", "source_audio", "src_audio"),
    "src_text": ("sentence", "transcription", "text", "src_text", "source_text", "normalized_text"),
    "tgt_text": ("translation", "tgt_text", "target_text"),
    "tgt_speech": ("target_audio", "tgt_speech"),
    "tgt_audio": ("units", "target_units"),
    "id": ("id", "utt_id", "file"),
    "speaker": ("client_id", "speaker_id", "speaker"),
}
"""Row field -> names of its column, the first that is there."""
_REQUIRED = ("audio", "src_text", "tgt_text")
_BATCH = 64  # rows in memory at once
_ENDINGS = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}


def read(folders: list[Path], options: ConvertOptions) -> Iterator[Found]:
    """Rows of all files, in the order of their names."""
    paths = [
        path for folder in folders for path in (sorted(folder.rglob("*.parquet")) if folder.is_dir() else [folder])
    ]
    if not paths:
        raise FileNotFoundError(f"{', '.join(map(str, folders))}: no parquet file")
    for path in paths:
        for number, row in enumerate(_rows(path, options.columns), start=1):
            yield _row(row, _split(path), f"{path}:{number}", path.stem, options.output)


def _rows(path: Path, chosen: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Rows of a file, by field."""
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns = _columns(path, file.schema_arrow.names, chosen)
            for batch in file.iter_batches(_BATCH, columns=sorted(set(columns.values()))):
                for values in batch.to_pylist():
                    yield {field: values[column] for field, column in columns.items()}
    except NastError:
        raise
    except (ValueError, OSError) as error:  # the classes of pyarrow's errors, which do not name the file
        raise ManifestError(f"{path}: not a readable parquet file ({error})") from None


def _row(row: dict[str, Any], split: str, place: str, stem: str, output: Path) -> Found:
    texts = {field: clean(str(row[field] or "")) for field in ("src_text", "tgt_text")}
    if not all(texts.values()):
        return LeftOut("empty text", place)
    number = place.rpartition(":")[2]
    name = Path(str(row.get("id") or (row["audio"] or {}).get("path") or f"{stem}-{number}")).stem
    try:
        audio, target = (
            _write(row.get(field), output / folder / split / file_stem(name))
            for field, folder in (("audio", "audio"), ("tgt_speech", "target"))
        )
        units = Units.parse(str(row["tgt_audio"])) if row.get("tgt_audio") else None
    except ManifestError as error:
        return LeftOut("bad units", place, str(error))
    if audio is None:
        return LeftOut("missing audio", place, "no bytes")
    extra = {"speaker": str(row.get("speaker") or "")}
    return Utterance(
        id=name, split=split, audio=audio, source_text=texts["src_text"], target_text=texts["tgt_text"],
        target_audio=target, units=units, extra=extra, place=place,
    )  # fmt: skip


def _write(value: dict[str, Any] | None, stem: Path) -> AudioRef | None:
    """Write the bytes of a recording; a file of the same size is there from an earlier run."""
    data = (value or {}).get("bytes")
    if not data:
        return None
    path = stem.with_name(stem.name + _ENDINGS.get(data[:4], ".mp3"))
    if not path.is_file() or path.stat().st_size != len(data):
        write_atomic(path, data)
    return AudioRef(path, relative=True)


def _columns(path: Path, names: list[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """Row field -> column."""
    unknown = [field for field in chosen if field not in COLUMNS]
    missing = [name for name in chosen.values() if name not in names]
    if unknown or missing:
        known = f"fields: {', '.join(COLUMNS)}; columns: {', '.join(names)}"
        raise ConfigError(f"{path}: --column {', '.join([*unknown, *missing])} is not there ({known})")
    found = {
        field: chosen.get(field) or next((name for name in choices if name in names), "")
        for field, choices in COLUMNS.items()
    }
    absent = [field for field in _REQUIRED if not found[field]]
    if absent:
        raise ManifestError(
            f"{path}: no column for {', '.join(absent)} (columns: {', '.join(names)}); name it by --column FIELD=NAME"
        )
    return {field: name for field, name in found.items() if name}


def _split(path: Path) -> str:
    name = path.parent.name if re.fullmatch(r"\d+", path.stem) else re.sub(r"(-\d+-of-\d+)?$", "", path.stem)
    return {"validation": "dev", "valid": "dev"}.get(name, name)
