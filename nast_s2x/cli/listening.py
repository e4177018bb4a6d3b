"""What a listener of ``translate --speech`` hears of one recording, and the files that keep it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nast_s2x.frontend.audio import SAMPLE_RATE, StreamResampler, write_wav
from nast_s2x.inference.playback import Playback, captions, stereo
from nast_s2x.inference.streaming import Emission


class Listener:
    """Collects the source and the translation of one recording.

    Args:
        buffer_ms: start delay of the playback, see :class:`~nast_s2x.inference.playback.Playback`.
    """

    def __init__(self, buffer_ms: float = 0.0) -> None:
        self.playback = Playback(buffer_ms, SAMPLE_RATE)
        self.texts: list[tuple[float, str]] = []
        self._source: list[NDArray[np.float32]] = []
        self._resampler: StreamResampler | None = None

    @property
    def heard(self) -> bool:
        """True once there was some source."""
        return self._resampler is not None

    def hear(self, piece: NDArray[np.float32], rate: int) -> None:
        """Take a piece of the source, (n,) or (n, channels)."""
        if self._resampler is None:
            self._resampler = StreamResampler(rate, SAMPLE_RATE)
        self._source.append(self._resampler.push(piece))

    def take(self, emission: Emission, available_ms: float) -> dict[str, Any]:
        """Take an emission; returns what ``--json`` says about its sound."""
        self.texts.append((available_ms, emission.text))
        sound = np.zeros(0, np.float32) if emission.waveform is None else emission.waveform
        start_ms = self.playback.add(available_ms, sound)
        return {
            "available_ms": round(available_ms, 3),
            "samples": len(sound),
            "start_ms": None if start_ms is None else round(start_ms, 3),
        }

    def write(self, folder: Path, name: str) -> dict[str, Any]:
        """Write ``NAME.wav``, ``NAME.stereo.wav``, ``NAME.srt``; returns them with what the listener went through."""
        if self._resampler is not None and not self._resampler.finished:
            self._source.append(self._resampler.push(np.zeros(0, np.float32), final=True))
        source = np.concatenate([np.zeros(0, np.float32), *self._source])
        wav, both, srt = paths(folder, name)
        write_wav(wav, self.playback.speech())
        write_wav(both, stereo(source, self.playback))
        srt.write_text(captions(self.texts), encoding="utf-8")
        statistics = {
            key: round(value, 3) if isinstance(value, float) else value
            for key, value in self.playback.statistics().items()
        }
        seconds = len(self.playback.speech()) / SAMPLE_RATE
        files = {"wav": str(wav), "stereo": str(both), "srt": str(srt)}
        return (
            {"seconds": round(seconds, 3), "source_seconds": round(len(source) / SAMPLE_RATE, 3)} | statistics | files
        )


def paths(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """The files of a recording: translation alone, stereo, captions."""
    return folder / f"{name}.wav", folder / f"{name}.stereo.wav", folder / f"{name}.srt"


def describe_speech(summary: dict[str, Any]) -> str:
    """What :meth:`Listener.write` returned, as lines for people."""
    files = f"  {summary['stereo']} (left the source, right the translation)\n  {summary['wav']}\n  {summary['srt']}"
    if summary["start_ms"] is None:
        return f"spoken: nothing\n{files}"
    gaps = "no gaps"
    if summary["gaps"]:
        noun = "gap" if summary["gaps"] == 1 else "gaps"
        gaps = f"{summary['gaps']} {noun}, mean {summary['gap_mean_ms']:.0f} ms, sum {summary['gap_sum_ms']:.0f} ms"
    return (
        f"spoken: {summary['seconds']:.2f} s, from {summary['start_ms'] / 1000:.2f} s to "
        f"{summary['end_ms'] / 1000:.2f} s (the source ends at {summary['source_seconds']:.2f} s); {gaps}\n{files}"
    )
