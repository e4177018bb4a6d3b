"""The parts of a stream around the network: samples to features, labels to emissions, and the segments of a source."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from nast_s2x.batches import Lengths
from nast_s2x.chunking import FRAME_MS, WINDOW_OVERHANG_MS, ChunkGeometry
from nast_s2x.errors import AudioError, StreamError
from nast_s2x.frontend.fbank import StreamingFbank
from nast_s2x.frontend.resampling import StreamResampler
from nast_s2x.frontend.samples import as_mono
from nast_s2x.inference.detokenizer import StreamingDetokenizer
from nast_s2x.inference.emission import Emission
from nast_s2x.inference.segmenter import Cut, levels_of
from nast_s2x.labels import TextLabels
from nast_s2x.network import ModelState, NastOutput
from nast_s2x.vocoder.streaming import SynthesisWindow, VocoderStream

if TYPE_CHECKING:
    from nast_s2x.inference.system import System

MAX_CHANNELS = 64
"""More channels than this are samples on the wrong axis."""
ENDED = "this stream has ended, by final=True or by an error: further samples need a new stream"


class StreamInput:
    """Samples of one source, in pieces of any size, to features.

    Args:
        sample_rate: of pieces that name none, Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._default_rate = sample_rate
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
            raise StreamError(ENDED)
        mono = self._accept(samples, sample_rate)
        self.is_finished = True  # an error from here on leaves the states with a part of the piece
        ready = np.zeros(0, np.float32) if self._resampler is None else self._resampler.push(mono, final)
        features = self._fbank.push(ready, final=final)
        self.num_frames += len(features)
        self.is_finished = final
        return features

    def source_ms_of(self, frames: int) -> float:
        """Source time at which ``frames`` feature frames exist, or the end of the source if that comes first."""
        if self._resampler is None:
            return self.source_ms
        samples = (frames * FRAME_MS + WINDOW_OVERHANG_MS) * self._default_rate / 1000
        return self._resampler.source_ms_of(samples)

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
            self._resampler = StreamResampler(self._default_rate if rate is None else rate, with_times=True)
        elif rate not in (None, self._resampler.source_rate):
            raise StreamError(f"the stream began at {self._resampler.source_rate} Hz, this piece has {rate} Hz")
        elif channels != self._num_channels:
            raise StreamError(f"the stream began with {self._num_channels} channels, this piece has {channels}")
        self._num_channels = channels
        return mono


class Labels(NamedTuple):
    """Best labels of a step: of the text slots, the unit slots and, for a transcript, the encoder frames."""

    text: list[int]
    units: list[int]
    source: list[int]


NO_LABELS = Labels([], [], [])


class _Text:
    """Text of a stream from the labels of one head. A segment ends with :meth:`finish`; labels then begin anew."""

    def __init__(self, labels: TextLabels) -> None:
        self._labels, self._detokenizer = labels, StreamingDetokenizer(labels)
        self._collapser = labels.collapser()

    def push(self, labels: list[int]) -> tuple[list[int], str]:
        """Tokens that begin in the next labels, and the text that is final with them, with the space before it."""
        tokens = self._collapser.push(labels)
        return tokens, self._detokenizer.push(tokens)

    def finish(self) -> str:
        """The text that was held back."""
        self._collapser = self._labels.collapser()
        return self._detokenizer.finish()


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
        with_transcript: bool = False,
    ) -> None:
        self._system, self._geometry, self._with_units = system, geometry, with_units
        self._vocoder = VocoderStream(system.require_vocoder(), synthesis) if with_speech else None
        self._num_chunks, self._chunks_before = 0, 0
        self.segment, self._first_frame = 0, 0
        self._text = _Text(system.text)
        self._source = _Text(system.text) if with_transcript else None
        self._heard = ""  # text of the source that belongs to the next emission
        self._restart()

    def _restart(self) -> None:
        units = self._system.units
        self._units = units.collapser() if units is not None and self._with_units else None

    def emissions(self, labels: Labels, source: StreamInput, cut: int | None, last: bool) -> list[Emission]:
        """One emission for each chunk among new labels of slots; all of them are one chunk offline.

        Args:
            labels: of a step. With ``wait_chunks`` the encoder's are ahead of the others: words of the source belong to
                the first emission after them.
            cut: feature frames of the source up to the cut that ends this segment, ``None`` before there is one.
            last: these are the last labels of the source.
        """
        text, units = labels.text, labels.units
        size, ratio = self._geometry.per_chunk("text") or max(1, len(text)), self._geometry.rates.unit_upsample
        if self._source is not None:
            self._heard += self._source.push(labels.source)[1]
        made: list[Emission] = []
        for start in range(0, len(text), size):
            stop = min(start + size, len(text))
            tokens, words = self._text.push(text[start:stop])
            codes = self._units.push(units[start * ratio : stop * ratio]) if self._units is not None else []
            time = self._time_of(self._num_chunks - self._chunks_before, source, cut)
            # The end of a stream is a push of its own, as in waveform_of; offline, all is one chunk and one window.
            whole = last and self._geometry.policy.is_offline
            waveform = self._vocoder.push(codes, final=whole) if self._vocoder else None
            emission = Emission(self._num_chunks, time, "", tokens, codes, segment=self.segment, waveform=waveform)
            made.append(emission.with_deltas(words, self._heard))
            self._num_chunks, self._heard = self._num_chunks + 1, ""
        return made

    def _time_of(self, chunk: int, source: StreamInput, cut: int | None) -> float:
        """Source time of a chunk's emission: what the geometry needs, or the end of the segment if that is first."""
        if self._geometry.policy.is_offline:
            return source.source_ms if cut is None else source.source_ms_of(cut)
        needed = self._first_frame + self._geometry.emission_frames(chunk)
        return source.source_ms_of(needed if cut is None else min(needed, cut))

    def end_segment(self, emissions: list[Emission], source: StreamInput, end: int, final: bool) -> list[Emission]:
        """``emissions`` with the word and the samples that were held back; the next labels begin a new segment.

        Args:
            end: feature frames of the source up to the end of the segment.
            final: the source ends here; the last emission is marked ``final``.
        """
        waveform = None
        if self._vocoder is not None:
            waveform = np.zeros(0, np.float32) if self._vocoder.finished else self._vocoder.push([], final=final)
        if not emissions:
            time = source.source_ms if final else source.source_ms_of(end)
            emissions = [Emission(self._num_chunks - 1, time, "", [], [], segment=self.segment)]
        last = emissions[-1]
        if waveform is not None and last.waveform is not None:
            waveform = np.concatenate([last.waveform, waveform])
        heard = last.source_delta + self._heard + (self._source.finish() if self._source is not None else "")
        last, self._heard = last.with_deltas(last.delta + self._text.finish(), heard), ""
        self.segment, self._first_frame, self._chunks_before = self.segment + 1, end, self._num_chunks
        self._restart()
        return [*emissions[:-1], replace(last, final=final, waveform=waveform)]


class Track:
    """One stream without the network: audio in, features for the next step, labels to emissions.

    A host calls :meth:`push`; while :attr:`is_ready` it takes :meth:`take` to a step of the network and gives the
    labels back to :meth:`emissions`. A model whose positions end gets the source in segments, each with a state of its
    own; no frame is lost or repeated.

    Args:
        system, with_units, with_speech, synthesis, with_transcript: as for
            :class:`~nast_s2x.inference.streaming.TranslationStream`.
        state: of the network; this stream is its row ``row``.

    Attributes:
        is_done: everything was emitted, or the stream ended by an error.
        cuts: where the source was cut.
    """

    def __init__(
        self,
        system: System,
        state: ModelState,
        row: int,
        with_units: bool,
        with_speech: bool,
        synthesis: SynthesisWindow | None,
        with_transcript: bool = False,
    ) -> None:
        self.system, self.state, self.row, self.is_done = system, state, row, False
        self.input = StreamInput(system.sample_rate)
        self.output = StreamOutput(system, state.geometry, with_units, with_speech, synthesis, with_transcript)
        self._segmenter = system.segmenter(with_units)
        self.cuts: list[Cut] = []
        self._ends: deque[int] = deque()
        self._pieces: list[Tensor] = []
        self._held = 0  # frames in them
        self._taken = 0  # frames of the source that steps have taken
        self._first = 0  # frame of the source that this segment begins with

    def push(self, samples: ArrayLike, sample_rate: int | None = None, final: bool = False) -> None:
        """Take the next piece of the source.

        Arguments and errors as for :meth:`~nast_s2x.inference.streaming.TranslationStream.push`.
        """
        if self.is_done:
            raise StreamError(ENDED)
        raw = self.input.push(samples, sample_rate, final)
        if self._segmenter is not None and len(raw):
            new = self._segmenter.push(levels_of(raw))
            self.cuts += new
            self._ends += [cut.frame for cut in new]
        self._pieces.append(self.system.normalize(raw))
        self._held += len(raw)
        self._set_end()

    @property
    def waiting_ms(self) -> float:
        """Milliseconds of source audio that was received and not translated yet."""
        return float(FRAME_MS * self._held)

    @property
    def segment_end(self) -> int | None:
        """Feature frames of the source up to the end of this segment, ``None`` before it is known."""
        if self._ends:
            return self._ends[0]
        return self.input.num_frames if self.input.is_finished else None

    @property
    def is_ready(self) -> bool:
        """True when the next step can compute a chunk, or the end of a segment."""
        if self.is_done:
            return False
        if self.segment_end is not None:
            return True
        return not self.is_offline and self._held >= self.state.rows.wanted(self.row)

    @property
    def is_offline(self) -> bool:
        """True where a segment is one chunk."""
        return self.state.geometry.policy.is_offline

    @property
    def is_starting(self) -> bool:
        """True when the next step only takes in look-ahead."""
        return not self.is_offline and self.state.rows.chunk[self.row] < 0

    @property
    def has_ended(self) -> bool:
        """True when no step is left to do for this segment."""
        end = self.segment_end
        if end is None:
            return False
        if end == self._first:  # a source without a frame, or one that ends with a cut
            return True
        return self._taken == end and (self.is_offline or self.state.rows.is_done(self.row))

    def take(self) -> Tensor:
        """The frames (chunk_frames, bins) of the next step, with zeros before the first and behind the last ones.

        Offline the frames of the segment.
        """
        end, features = self.segment_end, torch.cat(self._pieces)
        rest = self._held if end is None else end - self._taken
        if self.is_offline:
            size = wanted = rest
        else:
            size, wanted = self.state.geometry.chunk_frames or 0, self.state.rows.wanted(self.row)
        new, left = features[: min(wanted, rest)], features[min(wanted, rest) :]
        self._pieces, self._held, self._taken = [left], len(left), self._taken + len(new)
        return F.pad(new, (0, 0, size - wanted, wanted - len(new)))

    def emissions(self, labels: Labels) -> list[Emission]:
        """Emissions of the labels of a step; with the end of the segment, if it was the last one."""
        cut = self._ends[0] if self._ends else None
        last = cut is None and self.input.is_finished and self.has_ended
        made = self.output.emissions(labels, self.input, cut, last)
        return self.end(made) if self.has_ended else made

    def end(self, made: Sequence[Emission] = ()) -> list[Emission]:
        """End the segment: ``made`` with what was held back. A source without a frame has no emission."""
        end = self.segment_end
        assert end is not None
        if self._ends:
            self._ends.popleft()
        self.is_done = self.input.is_finished and end == self.input.num_frames
        if not self.input.num_frames:
            return list(made)
        emissions = self.output.end_segment(list(made), self.input, end, self.is_done)
        if not self.is_done:
            self._first = end
            if not self.is_offline:
                self.state.clear(self.row)
                self._set_end()
        return emissions

    def _set_end(self) -> None:
        """Tell the state where the segment ends, once that is known."""
        end = self.segment_end
        if end is not None and not self.is_offline:
            self.state.rows.frames[self.row] = end - self._first


def compute(system: System, tracks: Sequence[Track], with_units: bool, with_transcript: bool = False) -> list[Labels]:
    """One step of the network for streams that are ready, each with a state of its own."""
    model, pieces = system.model, [track.take() for track in tracks]
    output: NastOutput | None
    if tracks[0].is_offline:
        frames = Lengths(tuple(len(piece) for piece in pieces))
        batch = torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)
        output = model.whole(batch, frames, tracks[0].state.geometry, with_asr=with_transcript, with_units=with_units)
    else:
        parts = [(track.state, track.state.rows.step()) for track in tracks]
        output = model.step(torch.stack(pieces), parts, with_asr=with_transcript, with_units=with_units)
    return [NO_LABELS] * len(tracks) if output is None else best_labels(output)


def best_labels(output: NastOutput) -> list[Labels]:
    """Best labels of each row, of the slots and encoder frames that exist."""
    texts = _best(output.text_logits, output.text_lengths)
    nothing: list[list[int]] = [[] for _ in texts]
    units = nothing
    if output.unit_logits is not None and output.unit_lengths is not None:
        units = _best(output.unit_logits, output.unit_lengths)
    source = nothing if output.asr_logits is None else _best(output.asr_logits, output.encoder_lengths)
    return [Labels(*row) for row in zip(texts, units, source, strict=True)]


def _best(logits: Tensor, lengths: Lengths) -> list[list[int]]:
    return [row[:size] for row, size in zip(logits.argmax(-1).tolist(), lengths.host, strict=True)]
