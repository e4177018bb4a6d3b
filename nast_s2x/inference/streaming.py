"""Simultaneous translation of one stream: samples of any rate in; whole words, tokens, units and a voice out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nast_s2x.chunking import ChunkGeometry
from nast_s2x.ctc import CtcCollapser
from nast_s2x.frontend.audio import as_mono
from nast_s2x.frontend.fbank import StreamingFbank
from nast_s2x.frontend.resampling import TimedResampler
from nast_s2x.inference.bundle import System
from nast_s2x.inference.detokenizer import StreamingDetokenizer, join_words
from nast_s2x.labels import UnitReader, text_collapser
from nast_s2x.network import ModelState, NastOutput
from nast_s2x.vocoder.config import SAMPLE_RATE as SPEECH_RATE
from nast_s2x.vocoder.streaming import SynthesisWindow, VocoderStream

__all__ = ["MAX_CHANNELS", "SPEECH_RATE", "Emission", "StreamState", "StreamingTranslator", "SynthesisWindow"]

MAX_CHANNELS = 64
"""More channels than this are samples on the wrong axis."""


@dataclass(frozen=True)
class Emission:
    """What one chunk adds to the translation; nothing emitted is ever taken back.

    Attributes:
        chunk: index of the chunk, from 0. The last emission of a stream may repeat the last chunk, when only the word
            that was held back was left.
        source_ms: milliseconds of the source that had to be heard for this emission.
        text: whole words that are now final, joined by one space; may be empty.
        tokens: text tokens that began in this chunk.
        units: unit codes that began in this chunk (runs collapsed); empty without a unit decoder.
        final: True for the last emission of the stream.
        waveform: (n,) float32 at SPEECH_RATE, n from 0: the sound that is now final. It trails the units by the
            synthesis look-ahead, until a chunk without units or the end lets everything out. ``None`` without a voice.
            Emissions that differ in this alone count as equal.
    """

    chunk: int
    source_ms: float
    text: str
    tokens: list[int]
    units: list[int]
    final: bool = False
    waveform: NDArray[np.float32] | None = field(default=None, compare=False)


@dataclass
class StreamState:
    """Everything one stream remembers, stage by stage. Owned by its translator; the bundle holds none of it."""

    fbank: StreamingFbank
    model: ModelState
    text_ctc: CtcCollapser
    units: UnitReader | None
    detokenizer: StreamingDetokenizer
    vocoder: VocoderStream | None = None
    resampler: TimedResampler | None = None
    num_channels: int | None = None
    num_frames: int = 0
    num_chunks: int = 0
    finished: bool = False

    @property
    def source_ms(self) -> float:
        """Milliseconds of the source heard so far."""
        return self.resampler.source_ms if self.resampler else 0.0


class StreamingTranslator:
    """Translates one stream at a time; many translators may share one bundle.

    For any cut of the samples into pushes, the emissions are the same, and together they are the offline translation
    with the same geometry.

    Args:
        bundle: the trained system, see :func:`~nast_s2x.inference.bundle.load_system`.
        geometry: chunk, look-ahead and wait; ``None`` takes the bundle's default. Offline emits everything at the end.
        with_units: return the units too, if the bundle has a unit decoder.
        with_speech: return their sound too.
        synthesis: look-ahead and context of the vocoder; ``None`` takes the usual one.

    Raises:
        ValueError: ``with_speech`` for a bundle without a vocoder.

    Example:
        >>> translator = StreamingTranslator(load_system("BUNDLE"))  # doctest: +SKIP
        >>> for piece in microphone:  # doctest: +SKIP
        ...     for emission in translator.push(piece, sample_rate=48000):
        ...         print(emission.text)
        >>> translator.finish()[-1].final  # doctest: +SKIP
        True
    """

    def __init__(
        self,
        bundle: System,
        geometry: ChunkGeometry | None = None,
        with_units: bool = True,
        with_speech: bool = False,
        synthesis: SynthesisWindow | None = None,
    ) -> None:
        self.bundle = bundle
        self.geometry = bundle.geometry() if geometry is None else geometry
        self.with_speech = with_speech
        self.with_units = (with_units or with_speech) and bundle.has_units
        self.synthesis = SynthesisWindow() if synthesis is None else synthesis
        self.reset()

    def reset(self) -> None:
        """Forget the stream; the next push begins another one."""
        bundle = self.bundle
        self.state = StreamState(
            fbank=StreamingFbank(),
            model=bundle.model.init_state(self.geometry),
            text_ctc=text_collapser(bundle),
            units=UnitReader(bundle) if self.with_units else None,
            detokenizer=StreamingDetokenizer(bundle.tokenizer),
            vocoder=VocoderStream(bundle.voice(), self.synthesis) if self.with_speech else None,
        )

    @property
    def finished(self) -> bool:
        """True after :meth:`finish`, until :meth:`reset`."""
        return self.state.finished

    def push(self, samples: ArrayLike, sample_rate: int | None = None) -> list[Emission]:
        """Take the next piece of the source; return the emissions of the chunks that it completes.

        Args:
            samples: (n,) or (n, channels), any n including 0; floating point in -1..1, or integers as PCM. Channels
                are mixed down.
            sample_rate: of the source, Hz; ``None`` = the bundle's (16000). It cannot change within a stream.
        Raises:
            ValueError: after :meth:`finish`; NaN or infinite samples; a wrong shape; another rate or number of
                channels than before. The stream goes on as if that piece had never come.
            ValueError: a stream longer than the model's position tables allow; then only :meth:`reset` helps.
        """
        state = self._open_state("push")
        mono = self._accept(samples, self.bundle.sample_rate if sample_rate is None else sample_rate)
        assert state.resampler is not None
        return self._advance(state.fbank.push(state.resampler.push(mono)), final=False)

    def finish(self) -> list[Emission]:
        """End the source: return everything that was waiting for more of it, the last emission marked ``final``.

        Returns:
            an empty list when the source was too short for a single feature frame (25 ms).
        """
        state = self._open_state("finish")
        tail = np.zeros(0, np.float32)
        if state.resampler is not None:
            tail = state.resampler.finish()
        emissions = self._advance(state.fbank.push(tail, final=True), final=True)
        state.finished = True
        if not state.num_frames:
            return []
        rest = state.detokenizer.finish()
        sound = self._rest_of_sound()
        if not emissions:
            return [Emission(state.num_chunks - 1, state.source_ms, rest, [], [], final=True, waveform=sound)]
        last = emissions[-1]
        if sound is not None and last.waveform is not None:
            sound = np.concatenate([last.waveform, sound])
        return [*emissions[:-1], replace(last, text=join_words([last.text, rest]), final=True, waveform=sound)]

    def _rest_of_sound(self) -> NDArray[np.float32] | None:
        """End the voice: what was held back, (n,); ``None`` without a voice."""
        vocoder = self.state.vocoder
        if vocoder is None or vocoder.finished:
            return None if vocoder is None else np.zeros(0, np.float32)
        return vocoder.push([], final=True)

    def _open_state(self, what: str) -> StreamState:
        if self.state.finished:
            raise ValueError(f"{what} after finish: this stream has ended, reset() begins the next one")
        return self.state

    def _accept(self, samples: ArrayLike, rate: int) -> NDArray[np.float32]:
        """Check a piece against the stream so far and mix it down, (n,) float32."""
        state = self.state
        array = np.asarray(samples)
        channels = array.shape[1] if array.ndim == 2 else 1
        if channels > MAX_CHANNELS:
            raise ValueError(
                f"samples of several channels must have shape (n, channels) with at most {MAX_CHANNELS} channels, got "
                f"{array.shape}: transpose them"
            )
        mono = as_mono(array)
        if state.resampler is None:
            state.resampler = TimedResampler(rate, self.bundle.sample_rate)
        elif rate != state.resampler.source_rate:
            raise ValueError(f"the stream began at {state.resampler.source_rate} Hz, this piece has {rate} Hz")
        if array.size:
            if state.num_channels not in (None, channels):
                raise ValueError(f"the stream began with {state.num_channels} channels, this piece has {channels}")
            state.num_channels = channels
        return mono

    @torch.inference_mode()
    def _advance(self, features: Tensor, final: bool) -> list[Emission]:
        """Run the network on new feature frames (k, bins) and turn the slots that it settles into emissions."""
        state = self.state
        state.num_frames += len(features)
        if not state.num_frames or not (final or len(features)):
            return []
        fbank = self.bundle.normalise(features)[None]
        output = self.bundle.model(
            fbank, None, self.geometry, state=state.model, final=final, with_units=self.with_units
        )
        return list(self._emissions(output))

    def _emissions(self, output: NastOutput) -> Iterator[Emission]:
        """One emission for each chunk among the new slots of ``output``."""
        state, geometry = self.state, self.geometry
        text = output.text_logits[0].argmax(-1).tolist()
        units: list[int] = []
        if state.units is not None and output.unit_logits is not None:
            units = output.unit_logits[0].argmax(-1).tolist()
        size, ratio = geometry.chunk_text_slots or max(1, len(text)), geometry.unit_upsample
        for start in range(0, len(text), size):
            stop = min(start + size, len(text))
            tokens = state.text_ctc.push(text[start:stop])
            codes = state.units.push(units[start * ratio : stop * ratio]) if state.units else []
            words = state.detokenizer.push(tokens)
            chunk, state.num_chunks = state.num_chunks, state.num_chunks + 1
            # The end of a stream is a push of its own, as in speak_chunks; offline, all is one chunk and one window.
            sound = state.vocoder.push(codes, final=geometry.offline) if state.vocoder else None
            yield Emission(chunk, self._time_of(chunk), words, tokens, codes, waveform=sound)

    def _time_of(self, chunk: int) -> float:
        """Source time of an emission: what the geometry needs, or the end of the source if that comes first."""
        state = self.state
        if self.geometry.offline or state.resampler is None:
            return state.source_ms
        return state.resampler.source_ms_of(self.geometry.emission_ms(chunk) * self.bundle.sample_rate / 1000)
