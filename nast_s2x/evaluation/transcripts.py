"""Cache of transcripts, keyed by audio digest and recogniser."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nast_s2x.errors import NastError
from nast_s2x.files import replace_end
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
"""Number of waveforms between two writes; an interruption loses no more transcripts than these."""


def audio_hash(waveform: Waveform) -> str:
    """Return the SHA-256 of the little-endian float32 samples, hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(waveform, dtype="<f4").tobytes()).hexdigest()


class TranscriptStore:
    """A file of transcripts, one JSON object per line; lines are only appended.

    ``{"audio": hash, "recogniser": identity, "text": "...", "words": [["word", start_s, end_s], ...] or null}``

    An incomplete last line, left by an interruption, is ignored and removed by the next write. Only one process at a
    time may write to the file.

    Args:
        path: the file; it is created with the first transcript.
    Raises:
        ValueError: a complete line is damaged; names file and line.
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
        """Return the transcripts of waveforms, in order; only those that are not stored are transcribed, and stored.

        Args:
            recogniser: transcribes waveforms without a stored transcript of a recogniser of this identity.
            waveforms: (n,) float32 at 16 kHz each. The transcript of a waveform without samples is empty; the
                recogniser is not called for it.
            progress: show a progress bar on stderr.
        Raises:
            ValueError: a waveform of another shape, or with values that are not finite.
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
        replace_end(self.path, self._whole, lines)
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
        if not all(isinstance(part, str) for part in key):
            raise TypeError("audio and recogniser must be texts")
        listed = values["words"]
        words = None
        if listed is not None:
            words = tuple(RecognisedWord(str(text), float(start), float(end)) for text, start, end in listed)
        return key, Transcript(str(values["text"]), words)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise NastError(f"{place}: not a stored transcript ({type(error).__name__}: {error})") from None
