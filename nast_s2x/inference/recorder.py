"""Files of a streamed translation: speech, source and translation side by side, captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nast_s2x.files import write_atomic
from nast_s2x.frontend.audio import write_wav
from nast_s2x.frontend.resampling import StreamResampler
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.inference.playback import Playback, captions, stereo
from nast_s2x.inference.streaming import Emission


class PlaybackRecorder:
    """Collects the source and the translation of one recording, and writes them as files.

    Args:
        buffer_ms: start delay of the playback, see :class:`~nast_s2x.inference.playback.Playback`.
    Raises:
        ConfigError: a negative or infinite delay.
    """

    def __init__(self, buffer_ms: float = 0.0) -> None:
        self.playback = Playback(buffer_ms, SAMPLE_RATE)
        self.texts: list[tuple[float, str]] = []
        self._source: list[NDArray[np.float32]] = []
        self._resampler: StreamResampler | None = None

    @property
    def has_source(self) -> bool:
        """True once a piece of the source was added."""
        return self._resampler is not None

    def add_source(self, piece: NDArray[np.float32], rate: int) -> None:
        """Add the next piece of the source, (n,) or (n, channels)."""
        if self._resampler is None:
            self._resampler = StreamResampler(rate, SAMPLE_RATE)
        self._source.append(self._resampler.push(piece))

    def add_emission(self, emission: Emission, available_ms: float) -> dict[str, Any]:
        """Add an emission that was available at ``available_ms``.

        Returns:
            ``available_ms``, number of ``samples``, and ``start_ms`` of its playback (``None`` without samples).
        """
        self.texts.append((available_ms, emission.delta))
        samples = np.zeros(0, np.float32) if emission.waveform is None else emission.waveform
        start_ms = self.playback.add(available_ms, samples)
        return {
            "available_ms": round(available_ms, 3),
            "samples": len(samples),
            "start_ms": None if start_ms is None else round(start_ms, 3),
        }

    def write(self, folder: Path, name: str) -> dict[str, Any]:
        """Write ``NAME.wav``, ``NAME.stereo.wav`` and ``NAME.srt``; returns their paths and the playback statistics."""
        if self._resampler is not None and not self._resampler.finished:
            self._source.append(self._resampler.push(np.zeros(0, np.float32), final=True))
        source = np.concatenate([np.zeros(0, np.float32), *self._source])
        wav, both, srt = output_paths(folder, name)
        speech = self.playback.speech()
        write_wav(wav, speech)
        write_wav(both, stereo(source, self.playback))
        write_atomic(srt, captions(self.texts))
        statistics = self.playback.statistics()
        return {
            "seconds": round(len(speech) / SAMPLE_RATE, 3),
            "source_seconds": round(len(source) / SAMPLE_RATE, 3),
            **{key: round(value, 3) if isinstance(value, float) else value for key, value in statistics.items()},
            "wav": str(wav),
            "stereo": str(both),
            "srt": str(srt),
        }


def output_paths(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Files of a recording: translation, stereo, captions."""
    return folder / f"{name}.wav", folder / f"{name}.stereo.wav", folder / f"{name}.srt"
