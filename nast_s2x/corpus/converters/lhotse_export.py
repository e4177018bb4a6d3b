"""A manifest as lhotse's JSONL: one MonoCut a row, with its recording, that ``convert lhotse`` reads back."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Iterable, Iterator
from typing import Any

from nast_s2x.corpus.audio_ref import AnyPath, AudioRef
from nast_s2x.corpus.utterance import Utterance
from nast_s2x.errors import AudioError
from nast_s2x.files import open_atomic


def export_lhotse(rows: Iterable[Utterance], path: AnyPath, language: str = "") -> int:
    """Write a file of cuts, atomically; returns their number.

    The translation is ``custom.tgt_text`` of the supervision, beside ``split``, ``tgt_speech`` (a path) and
    ``tgt_audio`` (units). Paths are absolute. Recordings with several channels are named by their first one, since a
    MonoCut has one channel; this library averages them.

    Args:
        path: ends in ``.jsonl`` or ``.jsonl.gz``; compressed files have the same bytes for the same rows.
        language: of the recordings.

    Raises:
        AudioError: a row without a recording of its own (features, archives), or a recording that cannot be read.
    """
    count = 0
    with open_atomic(path, "wb") as file, contextlib.ExitStack() as stack:
        zipped = str(path).endswith(".gz")
        binary = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0)) if zipped else file
        for cut in _cuts(rows, language):
            binary.write(json.dumps(cut, ensure_ascii=False).encode() + b"\n")
            count += 1
    return count


def _cuts(rows: Iterable[Utterance], language: str) -> Iterator[dict[str, Any]]:
    for row in rows:
        if row.audio is None or row.audio.is_packed or row.audio.has_features():
            raise AudioError(f"{row.place or row.id}: lhotse's recordings are sound files, this row has none")
        yield _cut(row, row.audio, language)


def _cut(row: Utterance, audio: AudioRef, language: str) -> dict[str, Any]:
    whole, rate = AudioRef(audio.path).header()
    samples = audio.header()[0]
    path = str(audio.path.absolute())
    recording = {
        "id": audio.path.stem,
        "sources": [{"type": "file", "channels": [0], "source": path}],
        "sampling_rate": rate,
        "num_samples": whole,
        "duration": whole / rate,
        "channel_ids": [0],
    }
    custom = {"tgt_text": row.target_text, "split": row.split}
    if row.target_audio is not None:
        custom["tgt_speech"] = str(
            AudioRef(row.target_audio.path.absolute(), row.target_audio.start, row.target_audio.count)
        )
    if row.units is not None:
        custom["tgt_audio"] = str(row.units)
    supervision = {
        "id": row.id,
        "recording_id": recording["id"],
        "start": 0.0,
        "duration": samples / rate,
        "channel": 0,
        "text": row.source_text,
        "custom": custom,
    }
    speaker = (row.extra or {}).get("speaker")
    supervision |= {name: value for name, value in (("language", language), ("speaker", speaker)) if value}
    return {
        "id": row.id,
        "start": audio.start / rate,
        "duration": samples / rate,
        "channel": 0,
        "supervisions": [supervision],
        "recording": recording,
        "type": "MonoCut",
    }
