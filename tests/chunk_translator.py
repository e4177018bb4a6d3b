"""A fake translator for tests: its output at each chunk is the number of samples that it has received."""

from __future__ import annotations

import numpy as np

from nast_s2x.chunking import ChunkGeometry, ChunkPolicy, SlotRates
from nast_s2x.inference.streaming import Emission


class ChunkTranslator:
    """Emits one word per chunk, ``s`` and the number of samples so far, with a constant waveform if asked for.

    Args:
        policy: determines when chunks are complete; sources have 16 kHz.
        sound: samples of each emission, 0 for text.
        last_words: emit once more at the end of the source.
    """

    def __init__(self, policy: ChunkPolicy, sound: int = 0, last_words: bool = True) -> None:
        self.geometry = ChunkGeometry(SlotRates(), policy)
        self.sound, self.last_words = sound, last_words
        self.pieces: list[np.ndarray] = []
        self.given = self.chunks = 0

    def push(self, samples: np.ndarray, sample_rate: int | None = None, final: bool = False) -> list[Emission]:
        assert sample_rate == 16000 or not len(samples)
        if len(samples):
            self.pieces.append(samples)
        self.given += len(samples)
        emissions = []
        while self.given / 16 >= self.geometry.emission_ms(self.chunks):
            emissions.append(self._emission())
        return [*emissions, self._emission()] if final and self.last_words else emissions

    def _emission(self) -> Emission:
        chunk, self.chunks = self.chunks, self.chunks + 1
        waveform = np.full(self.sound, 0.25, np.float32) if self.sound else None
        time = min(self.geometry.emission_ms(chunk), self.given / 16)
        return Emission(chunk, time, f"s{self.given}", [], [chunk], waveform=waveform)
