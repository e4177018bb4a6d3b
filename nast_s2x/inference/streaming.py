"""Streaming translation: audio at any sample rate to words, tokens, units and speech."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from numpy.typing import ArrayLike

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.inference.emission import SPEECH_RATE, Emission
from nast_s2x.inference.segmenter import Cut
from nast_s2x.inference.track import MAX_CHANNELS, Track, compute
from nast_s2x.vocoder.streaming import SynthesisWindow

if TYPE_CHECKING:
    from nast_s2x.inference.system import System

__all__ = ["ChunkPolicy", "MAX_CHANNELS", "SPEECH_RATE", "Emission", "Stream", "SynthesisWindow", "TranslationStream"]


class Stream(Protocol):
    """The part of :class:`TranslationStream` that hosts of streams use; tests put fakes in its place."""

    def push(self, samples: ArrayLike, sample_rate: int | None = None, final: bool = False) -> list[Emission]:
        """Take the next piece of the source; ``final`` ends it."""


class TranslationStream:
    """Translates one stream; many streams may share one system. A new stream is a new object.

    For any cut of the samples into pushes the emissions are the same, and together they are the offline translation
    with the same policy.

    Args:
        system: the trained system, see :func:`~nast_s2x.inference.loading.load_system`.
        policy: chunk, look-ahead, wait and left context; ``None`` takes the default. Offline emits at the end only.
        with_units: return the units too, if the model has a unit decoder.
        with_speech: return their waveform too.
        synthesis: look-ahead and context of the vocoder.
        with_transcript: return the words of the source too, from the recognition head.
    Raises:
        ConfigError: a policy that the model cannot have; ``with_speech`` for a system without a vocoder;
            ``with_transcript`` for one whose recognition head was not trained.

    Example:
        >>> stream = load_system("BUNDLE").stream(chunk_ms=320)  # doctest: +SKIP
        >>> for piece in microphone:  # doctest: +SKIP
        ...     for emission in stream.push(piece, sample_rate=48000):
        ...         print(emission.delta, end="")
        >>> stream.push([], final=True)[-1].final  # doctest: +SKIP
        True
    """

    def __init__(
        self,
        system: System,
        policy: ChunkPolicy | None = None,
        with_units: bool = True,
        with_speech: bool = False,
        synthesis: SynthesisWindow | None = None,
        with_transcript: bool = False,
    ) -> None:
        self.system, self.with_transcript = system, with_transcript
        if with_transcript:
            system.require_recognition()
        self.policy = system.policy() if policy is None else policy
        self.with_units = (with_units or with_speech) and system.has_units
        state = system.model.init_state(self.policy)
        self._track = Track(system, state, 0, self.with_units, with_speech, synthesis, with_transcript)

    @property
    def source_ms(self) -> float:
        """Milliseconds of source audio received so far."""
        return self._track.input.source_ms

    def push(self, samples: ArrayLike, sample_rate: int | None = None, final: bool = False) -> list[Emission]:
        """Take the next piece of the source; return the emissions of the chunks that it completes.

        Args:
            samples: (n,) or (n, channels), any n including 0; floating point in -1..1, or integers as PCM. Channels
                are averaged.
            sample_rate: of the source, Hz, fixed by the first sample of a stream; ``None``: as before, 16000 at first.
            final: the source ends with this piece: everything held back is returned, the last emission marked
                ``final``. A source too short for one feature frame (25 ms) gives no emission.
        Raises:
            StreamError: a push after the final one; another rate or number of channels than before.
            AudioError: NaN, infinite or far too large samples, a wrong shape or type, a rate out of range.

        These errors leave the stream unchanged.
        """
        self._track.push(samples, sample_rate, final)
        emissions: list[Emission] = []
        try:
            while self._track.is_ready:
                emissions += self._step()
        except BaseException:
            self._track.is_done = self._track.input.is_finished = True  # the state has a part of the piece
            raise
        return emissions

    @property
    def is_finished(self) -> bool:
        """True after the final push, or after an error that ended the stream."""
        return self._track.input.is_finished

    @property
    def cuts(self) -> list[Cut]:
        """Where the source was cut, because the positions of the model end."""
        return self._track.cuts

    @torch.inference_mode()
    def _step(self) -> list[Emission]:
        if self._track.has_ended:
            return self._track.end()
        labels = compute(self.system, [self._track], self.with_units, self.with_transcript)
        return self._track.emissions(labels[0])
