"""Interface of the recognisers, waveforms to words with their times, and their common parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nast_s2x.errors import AudioError
from nast_s2x.progress import progress_bar

if TYPE_CHECKING:
    from nast_s2x.ctc import CtcCollapser  # scoring needs no torch

Waveform = NDArray[np.float32]  # (n,) at 16 kHz, SAMPLE_RATE


@dataclass(frozen=True)
class RecognisedWord:
    """A word and its times in seconds from the beginning of the waveform; ``start_s <= end_s``."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Transcript:
    """Words recognised in a waveform.

    Attributes:
        text: the words, joined by one space; empty for silence.
        words: the words of ``text`` with their times, in order; ``None`` where the recogniser gives no times.
    """

    text: str
    words: tuple[RecognisedWord, ...] | None


NOTHING = Transcript("", ())
"""The transcript of a waveform without samples."""


class Recogniser(Protocol):
    """Speech recognition for scores: a transcript must not depend on the other waveforms of the call.

    Attributes:
        identity: everything that determines the transcripts: kind, model, digest of its weights, options. Transcripts
            are cached under it.
    """

    identity: str

    def transcribe(self, waveforms: Sequence[Waveform], progress: bool = False) -> list[Transcript]:
        """Transcribe waveforms, (n,) float32 at 16 kHz, n from 0; in order.

        Raises:
            ValueError: a waveform of another shape, or with values that are not finite.
        """


def timed_words(
    spans: Iterable[tuple[str, int, int]], slot_s: float, seconds: float = float("inf")
) -> tuple[RecognisedWord, ...]:
    """Words with their times from the slots of their tokens; nothing ends after ``seconds``.

    Args:
        spans: (text, first slot, slot after the last one), in order. The words of one text get the same times.
        slot_s: seconds of a slot.
    """
    words: list[RecognisedWord] = []
    for text, first, end in spans:
        start_s, end_s = (min(seconds, slot * slot_s) for slot in (first, end))
        words += [RecognisedWord(word, start_s, end_s) for word in text.split()]
    return tuple(words)


def token_spans(collapser: CtcCollapser, labels: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (token, first slot, slot after the last one) of the tokens of ``labels``, one label per slot."""
    for token, first in collapser.push_with_slots(labels):
        end = first
        while end < len(labels) and labels[end] == token:
            end += 1
        yield token, first, end


def checked_waveforms(waveforms: Iterable[ArrayLike]) -> list[Waveform]:
    """Convert waveforms to contiguous float32.

    Raises:
        AudioError: a waveform is not (n,), or contains NaN or infinity; its number is named.
    """
    checked = []
    for number, waveform in enumerate(waveforms):
        samples = np.ascontiguousarray(waveform, dtype=np.float32)
        if samples.ndim != 1:
            raise AudioError(f"waveform {number} must have the shape (samples,), got {samples.shape}")
        if not np.isfinite(samples).all():
            wrong = int(np.flatnonzero(~np.isfinite(samples))[0])
            raise AudioError(f"waveform {number} must contain finite samples only: sample {wrong} is {samples[wrong]}")
        checked.append(samples)
    return checked


def transcribe_each(
    transcribe: Callable[[Waveform], Transcript], waveforms: Iterable[ArrayLike], progress: bool
) -> list[Transcript]:
    """Check the waveforms, then transcribe them one at a time; ``progress`` shows a bar on stderr."""
    samples = checked_waveforms(waveforms)
    transcripts = []
    with progress_bar(len(samples), "transcribing", show=progress) as bar:
        for waveform in samples:
            transcripts.append(transcribe(waveform))
            bar.update(1)
    return transcripts


def by_length(waveforms: Sequence[Waveform], size: int) -> list[list[int]]:
    """Indices of the waveforms that have samples, shortest first, in batches of ``size``."""
    order = sorted((i for i in range(len(waveforms)) if len(waveforms[i])), key=lambda i: len(waveforms[i]))
    return [order[start : start + size] for start in range(0, len(order), size)]


def files_digest(files: Iterable[Path]) -> str:
    """SHA-256 of the names and contents of files in the order of their names: the first 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda path: path.name):
        with file.open("rb") as stream:
            digest.update(f"{file.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
