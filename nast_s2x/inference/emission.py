"""What a stream returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nast_s2x.frontend.samples import SAMPLE_RATE

SPEECH_RATE = SAMPLE_RATE
"""Sample rate of the speech that is returned, Hz."""


@dataclass(frozen=True)
class Emission:
    """What one chunk adds to the translation; an emission is never revised.

    Attributes:
        chunk: index of the chunk, from 0. The last emission of a stream may repeat the last chunk, when only the word
            that was held back was left.
        source_ms: milliseconds of source audio that this emission required.
        text: whole words that are now final, joined by one space; may be empty.
        tokens: text tokens that began in this chunk.
        units: unit codes that began in this chunk (runs collapsed); empty without a unit decoder.
        segment: number of the segment, from 0; see :class:`~nast_s2x.inference.segmenter.Segmenter`.
        final: True for the last emission of the stream.
        source_text: whole words of the source that are now final, from the recognition head; empty if not asked for.
        waveform: (n,) float32 at SPEECH_RATE, n from 0: the samples that are now final. They follow the units by the
            synthesis look-ahead; a chunk without units or the end returns all of them. ``None`` without speech.
            Emissions that differ in this alone count as equal.
    """

    chunk: int
    source_ms: float
    text: str
    tokens: list[int]
    units: list[int]
    final: bool = False
    segment: int = 0
    source_text: str = ""
    waveform: NDArray[np.float32] | None = field(default=None, compare=False)
