"""Cache of transcripts, keyed by audio digest and recogniser, and the recogniser to score with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nast_s2x.errors import NastError
from nast_s2x.evaluation.score_files import previous_scores
from nast_s2x.files import json_text, replace_end
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


class TranscriptMissingError(ValueError):
    """A waveform has no cached transcript and no recogniser is loaded."""


@dataclass(frozen=True)
class StoredRecogniser:
    """A recogniser of which only stored transcripts are available."""

    identity: str

    def transcribe(self, waveforms: Sequence[Waveform], progress: bool = False) -> list[Transcript]:
        """Raise TranscriptMissingError: only waveforms without a stored transcript are passed on to a recogniser."""
        raise TranscriptMissingError(f"{len(waveforms)} or more waveforms have no stored transcript")


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
        written = [_write_line(*key, transcript).encode() for key, transcript in dict(transcripts).items()]
        lines = b"".join(written)
        replace_end(self.path, self._whole, lines)
        self._whole += len(lines)
        # As they are read from the file, with rounded times: scores are the same from it.
        self._known.update(_read_line(line, str(self.path)) for line in written)


def recogniser_for(folder: Path, is_speech: bool, given: Recogniser | None, notes: list[str]) -> Recogniser | None:
    """Return the recogniser to score with: ``given``, for speech else that of the previous scores; adds a note.

    Raises:
        NastError: a recogniser for text.
    """
    if given is not None and not is_speech:
        raise NastError(f"{folder} holds text output: a recogniser applies to speech output only")
    if given is None and is_speech:
        identity = previous_scores(folder).get("recogniser")
        given = StoredRecogniser(identity) if isinstance(identity, str) and identity else None
        if given is None:
            notes.append("no recogniser was given: ASR-BLEU, word error rate and latency of words are not known")
    return given


def _write_line(audio: str, recogniser: str, transcript: Transcript) -> str:
    words = transcript.words
    listed = None if words is None else [[w.text, round(w.start_s, 4), round(w.end_s, 4)] for w in words]
    values = {"audio": audio, "recogniser": recogniser, "text": transcript.text, "words": listed}
    return json_text(values) + "\n"


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
