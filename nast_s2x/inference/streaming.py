"""Streaming translation: audio at any sample rate to words, tokens, units and speech."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nast_s2x.chunking import ChunkGeometry, ChunkPolicy
from nast_s2x.errors import AudioError, StreamError
from nast_s2x.frontend.fbank import StreamingFbank
from nast_s2x.frontend.resampling import StreamResampler
from nast_s2x.frontend.samples import SAMPLE_RATE, as_mono
from nast_s2x.inference.detokenizer import StreamingDetokenizer, join_words
from nast_s2x.vocoder.streaming import SynthesisWindow, VocoderStream

if TYPE_CHECKING:
    from nast_s2x.inference.system import System

__all__ = ["ChunkPolicy", "MAX_CHANNELS", "SPEECH_RATE", "Emission", "Stream", "SynthesisWindow", "TranslationStream"]

SPEECH_RATE = SAMPLE_RATE
"""Sample rate of the speech that is returned, Hz."""
MAX_CHANNELS = 64
"""More channels than this are samples on the wrong axis."""


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
        final: True for the last emission of the stream.
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
    waveform: NDArray[np.float32] | None = field(default=None, compare=False)


class Stream(Protocol):
    """The part of :class:`TranslationStream` that hosts of streams use; tests put fakes in its place."""

    def push(self, samples: ArrayLike, sample_rate: int | None = None, final: bool = False) -> list[Emission]:
        """Take the next piece of the source; ``final`` ends it."""


class StreamInput:
    """Samples of one source, in pieces of any size, to normalised features.

    Args:
        system: its front end, normalisation and sample rate are used.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._fbank = StreamingFbank()
        self._resampler: StreamResampler | None = None
        self._num_channels: int | None = None
        self.num_frames = 0
        self.is_finished = False

    @property
    def source_ms(self) -> float:
        """Milliseconds of source audio received so far."""
        return self._resampler.source_ms if self._resampler else 0.0

    def push(self, samples: ArrayLike, sample_rate: int | None, final: bool) -> Tensor:
        """Take a piece; return the feature frames (k, bins) that it completes.

        Arguments and errors as for :meth:`TranslationStream.push`.
        """
        if self.is_finished:
            raise StreamError("this stream has ended, by final=True or by an error: further samples need a new stream")
        mono = self._accept(samples, sample_rate)
        self.is_finished = True  # an error from here on leaves the states with a part of the piece
        ready = np.zeros(0, np.float32) if self._resampler is None else self._resampler.push(mono, final)
        features = self._system.normalize(self._fbank.push(ready, final=final))
        self.num_frames += len(features)
        self.is_finished = final
        return features

    def time_of(self, chunk: int, geometry: ChunkGeometry) -> float:
        """Source time of a chunk's emission: what the geometry needs, or the end of the source if that comes first."""
        if geometry.policy.is_offline or self._resampler is None:
            return self.source_ms
        return self._resampler.source_ms_of(geometry.emission_ms(chunk) * self._system.sample_rate / 1000)

    def _accept(self, samples: ArrayLike, rate: int | None) -> NDArray[np.float32]:
        """Check a piece against the stream so far and average its channels, (n,) float32."""
        mono = as_mono(samples)
        shape = np.shape(samples)
        channels = shape[1] if len(shape) == 2 else 1
        if channels > MAX_CHANNELS:
            raise AudioError(
                f"samples of several channels must have shape (n, channels) with at most {MAX_CHANNELS} channels, got "
                f"{shape}: transpose them"
            )
        if not len(mono):
            return mono
        if self._resampler is None:
            self._resampler = StreamResampler(self._system.sample_rate if rate is None else rate, with_times=True)
        elif rate not in (None, self._resampler.source_rate):
            raise StreamError(f"the stream began at {self._resampler.source_rate} Hz, this piece has {rate} Hz")
        elif channels != self._num_channels:
            raise StreamError(f"the stream began with {self._num_channels} channels, this piece has {channels}")
        self._num_channels = channels
        return mono


class StreamOutput:
    """Labels of one stream, chunk by chunk, to emissions.

    Arguments and errors as for :class:`TranslationStream`.
    """

    def __init__(
        self,
        system: System,
        geometry: ChunkGeometry,
        with_units: bool,
        with_speech: bool,
        synthesis: SynthesisWindow | None,
    ) -> None:
        self._geometry = geometry
        self._text = system.text.collapser()
        self._units = system.units.collapser() if system.units is not None and with_units else None
        self._detokenizer = StreamingDetokenizer(system.text)
        self._vocoder = VocoderStream(system.require_vocoder(), synthesis or SynthesisWindow()) if with_speech else None
        self.num_chunks = 0

    def emissions(self, text: list[int], units: list[int], source: StreamInput) -> Iterator[Emission]:
        """One emission for each chunk among new labels of slots; all of them are one chunk offline.

        Args:
            text: of text slots.
            units: of unit slots; empty without units.
        """
        size, ratio = self._geometry.per_chunk("text") or max(1, len(text)), self._geometry.rates.unit_upsample
        for start in range(0, len(text), size):
            stop = min(start + size, len(text))
            tokens = self._text.push(text[start:stop])
            codes = self._units.push(units[start * ratio : stop * ratio]) if self._units is not None else []
            words = self._detokenizer.push(tokens)
            chunk, self.num_chunks = self.num_chunks, self.num_chunks + 1
            # The end of a stream is a push of its own, as in waveform_of; offline, all is one chunk and one window.
            waveform = self._vocoder.push(codes, final=self._geometry.policy.is_offline) if self._vocoder else None
            time = source.time_of(chunk, self._geometry)
            yield Emission(chunk, time, words, tokens, codes, waveform=waveform)

    def finish(self, emissions: list[Emission], source: StreamInput) -> list[Emission]:
        """``emissions`` with the word and the samples that were held back, the last one marked ``final``."""
        rest = self._detokenizer.finish()
        waveform = self._rest_of_waveform()
        if not emissions:
            return [Emission(self.num_chunks - 1, source.source_ms, rest, [], [], final=True, waveform=waveform)]
        last = emissions[-1]
        if waveform is not None and last.waveform is not None:
            waveform = np.concatenate([last.waveform, waveform])
        return [*emissions[:-1], replace(last, text=join_words([last.text, rest]), final=True, waveform=waveform)]

    def _rest_of_waveform(self) -> NDArray[np.float32] | None:
        """End the vocoder's stream: what was held back, (n,); ``None`` without speech."""
        if self._vocoder is None or self._vocoder.finished:
            return None if self._vocoder is None else np.zeros(0, np.float32)
        return self._vocoder.push([], final=True)


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
    Raises:
        ConfigError: a policy that the model cannot have; ``with_speech`` for a system without a vocoder.

    Example:
        >>> stream = load_system("BUNDLE").stream(chunk_ms=320)  # doctest: +SKIP
        >>> for piece in microphone:  # doctest: +SKIP
        ...     for emission in stream.push(piece, sample_rate=48000):
        ...         print(emission.text)
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
    ) -> None:
        self.system = system
        self.policy = system.policy() if policy is None else policy
        self.with_units = (with_units or with_speech) and system.has_units
        geometry = system.model.geometry(self.policy)
        self._input = StreamInput(system)
        self._output = StreamOutput(system, geometry, self.with_units, with_speech, synthesis)
        self._model = system.model.init_state(self.policy)

    @property
    def source_ms(self) -> float:
        """Milliseconds of source audio received so far."""
        return self._input.source_ms

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
            ConfigError: a stream longer than the model's position tables allow. The stream ends with this error; the
                other errors leave it unchanged.
        """
        features = self._input.push(samples, sample_rate, final)
        self._input.is_finished = True  # an error of the network ends the stream
        emissions = self._advance(features, final)
        self._input.is_finished = final
        return self._output.finish(emissions, self._input) if final and self._input.num_frames else emissions

    @property
    def is_finished(self) -> bool:
        """True after the final push, or after an error that ended the stream."""
        return self._input.is_finished

    @torch.inference_mode()
    def _advance(self, features: Tensor, final: bool) -> list[Emission]:
        """Run the network on new feature frames (k, bins); return the slots that become final as emissions."""
        if not self._input.num_frames or not (final or len(features)):
            return []
        model, fbank = self.system.model, features[None]
        output = model(fbank, None, self.policy, state=self._model, final=final, with_units=self.with_units)
        text = output.text_logits[0].argmax(-1).tolist()
        units = [] if output.unit_logits is None else output.unit_logits[0].argmax(-1).tolist()
        return list(self._output.emissions(text, units, self._input))
