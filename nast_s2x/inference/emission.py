"""What a stream returns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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
        text: text that is now final, without spaces around it; may be empty. Words with spaces between them are
            whole; Chinese, Japanese and other text without spaces comes as soon as it is final.
        tokens: text tokens that began in this chunk.
        units: unit codes that began in this chunk (runs collapsed); empty without a unit decoder.
        segment: number of the segment, from 0; see :class:`~nast_s2x.inference.segmenter.Segmenter`.
        final: True for the last emission of the stream.
        source_text: text of the source that is now final, from the recognition head; empty if not asked for.
        waveform: (n,) float32 at SPEECH_RATE, n from 0: the samples that are now final. They follow the units by the
            synthesis look-ahead; a chunk without units or the end returns all of them. ``None`` without speech.
            Emissions that differ in this alone count as equal.
        space, source_space: whether a space stands between ``text`` (``source_text``) and the text before it: not
            where there is none before, nor between words of a language without spaces.
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
    space: bool = True
    source_space: bool = True

    @property
    def delta(self) -> str:
        """``text`` with the space before it. The deltas of a stream, one after the other, are its translation."""
        return f" {self.text}" if self.text and self.space else self.text

    @property
    def source_delta(self) -> str:
        """``source_text`` with the space before it, as :attr:`delta`."""
        return f" {self.source_text}" if self.source_text and self.source_space else self.source_text

    def with_deltas(self, delta: str, source_delta: str = "") -> Emission:
        """This emission with other texts, given with the spaces before them."""
        return replace(
            self,
            text=delta.removeprefix(" "),
            space=not delta or delta[0] == " ",
            source_text=source_delta.removeprefix(" "),
            source_space=not source_delta or source_delta[0] == " ",
        )
