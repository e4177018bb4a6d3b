"""Cache of transcripts, keyed by audio digest and recogniser."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nast_s2x.errors import NastError
from nast_s2x.progress import progress_bar
from nast_s2x.recognisers.base import (
    NOTHING,
    RecognisedWord,
    Recogniser,
    Transcript,
    Waveform,
    by_length,
    checked_waveforms,
)

GROUP = 32
"""Waveforms between two writes: what an interruption loses at most."""


def audio_hash(waveform: Waveform) -> str:
    """SHA-256 of the float32 samples, little-endian, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(waveform, dtype="<f4").tobytes()).hexdigest()


class TranscriptStore:
    """A file of transcripts, one JSON line each, that only grows.

    ``{"audio": hash, "recogniser": identity, "text": "...", "words": [["word", start_s, end_s], ...] or null}``

    A last line that an interruption cut short does not count and is cut off by the next write.

    Args:
        path: the file; made with the first transcript if it does not exist.
    Raises:
        ValueError: a line before the last one is broken; names file and line.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._known: dict[tuple[str, str], Transcript] = {}
        content = self.path.read_bytes() if self.path.exists() else b""
        self._whole = content.rfind(b"\n") + 1  # bytes that belong to whole lines
        for number, line in enumerate(content[: self._whole].splitlines(), start=1):
            key, transcript = _read_line(line, f"{self.path}, line {number}")
            self._known[key] = transcript

    def __len__(self) -> int:
        return len(self._known)

    def transcribe(
        self, recogniser: Recogniser, waveforms: Sequence[Waveform], progress: bool = False
    ) -> list[Transcript]:
        """Transcripts of the waveforms, (n,) float32 at 16 kHz each; stored ones are not made again.

        A waveform without samples has an empty transcript, which needs no recogniser and is not stored. ``progress``
        shows a bar on stderr.

        Raises:
            ValueError: a waveform that no recogniser takes, see :func:`checked_waveforms`.
        """
        samples = checked_waveforms(waveforms)
        keys = [(audio_hash(waveform), recogniser.identity) for waveform in samples]
        missing = {key: waveform for key, waveform in zip(keys, samples) if len(waveform) and key not in self._known}
        names, waiting = list(missing), list(missing.values())
        with progress_bar(len(waiting), "transcribing", show=progress) as bar:
            for group in by_length(waiting, GROUP):
                made = recogniser.transcribe([waiting[index] for index in group])
                self._append(zip((names[index] for index in group), made, strict=True))
                bar.update(len(group))
        return [self._known[key] if len(waveform) else NOTHING for key, waveform in zip(keys, samples)]

    def _append(self, transcripts: Iterable[tuple[tuple[str, str], Transcript]]) -> None:
        new = dict(transcripts)
        lines = "".join(_write_line(*key, transcript) for key, transcript in new.items()).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            file.truncate(self._whole)
            file.seek(self._whole)
            file.write(lines)
        self._whole += len(lines)
        self._known.update(new)


def _write_line(audio: str, recogniser: str, transcript: Transcript) -> str:
    words = transcript.words
    listed = None if words is None else [[w.text, round(w.start_s, 4), round(w.end_s, 4)] for w in words]
    values = {"audio": audio, "recogniser": recogniser, "text": transcript.text, "words": listed}
    return json.dumps(values, ensure_ascii=False) + "\n"


def _read_line(line: bytes, place: str) -> tuple[tuple[str, str], Transcript]:
    try:
        values: dict[str, Any] = json.loads(line)
        key = (values["audio"], values["recogniser"])
        listed = values["words"]
        words = None
        if listed is not None:
            words = tuple(RecognisedWord(str(text), float(start), float(end)) for text, start, end in listed)
        return key, Transcript(str(values["text"]), words)
    except (ValueError, TypeError, KeyError) as error:
        raise NastError(f"{place}: not a stored transcript ({type(error).__name__}: {error})") from None
