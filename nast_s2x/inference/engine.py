"""Many streams at once: one step of the network computes a chunk of every stream that is ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.errors import ConfigError, NastError, StreamError
from nast_s2x.inference.streaming import Emission, StreamInput, StreamOutput
from nast_s2x.network import ModelState, NastOutput
from nast_s2x.network.streams import Step
from nast_s2x.vocoder.streaming import SynthesisWindow

if TYPE_CHECKING:
    from nast_s2x.inference.system import System


class EngineStream:
    """One stream of a :class:`BatchedEngine`, from :meth:`BatchedEngine.open`.

    Attributes:
        slot: number of its place in the engine.
        row: of the state; 0 where the stream has a state of its own.
        is_done: everything was emitted, or the stream was closed or ended by an error.
        error: what ended the stream during a step, if anything did; the other streams go on.
    """

    def __init__(self, engine: BatchedEngine, state: ModelState, slot: int, row: int) -> None:
        self.system = system = engine.system
        self.state, self.slot, self.row, self.is_done = state, slot, row, False
        self.error: Exception | None = None
        self.input = StreamInput(system)
        self.output = StreamOutput(system, state.geometry, engine.with_units, engine.with_speech, engine.synthesis)
        self._engine = engine
        self._features = torch.zeros(0, system.model.config.input_dim)

    def push(self, samples: ArrayLike, sample_rate: int | None = None, final: bool = False) -> None:
        """Take the next piece of the source; :meth:`BatchedEngine.step` translates it.

        Arguments and errors as for :meth:`TranslationStream.push`. An error concerns this stream alone.
        """
        if self.is_done:
            raise StreamError("this stream has ended, by final=True or by an error: further samples need a new stream")
        try:
            features = self.input.push(samples, sample_rate, final)
        except NastError:
            if self.input.is_finished:  # the piece was not refused but lost in part
                self.close()
            raise
        try:
            self.system.model.check_length(self.input.num_frames, self.state.geometry, self._engine.with_units)
        except ConfigError:
            self.close()
            raise
        self._features = torch.cat([self._features, features.to(self._features)])
        if final:
            self.state.rows.frames[self.row] = self.input.num_frames

    def close(self) -> None:
        """Give the place back; what was not emitted is dropped."""
        self._engine.release(self)

    @property
    def waiting_ms(self) -> float:
        """Milliseconds of source audio that was received and not translated yet."""
        return 10.0 * len(self._features)

    @property
    def is_ready(self) -> bool:
        """True when the next step can compute a chunk of this stream, or its end."""
        if self.is_done:
            return False
        rows = self.state.rows
        return self.input.is_finished or len(self._features) >= rows.wanted(self.row)

    def take(self) -> Tensor:
        """The frames (chunk_frames, bins) of the next step, with zeros before the first and behind the last ones."""
        rows, size = self.state.rows, self.state.geometry.chunk_frames or 0
        wanted = rows.wanted(self.row)
        new, self._features = self._features[:wanted], self._features[wanted:]
        return new if len(new) == size else F.pad(new, (0, 0, size - wanted, wanted - len(new)))


class BatchedEngine:
    """Translates up to ``slots`` streams, each as if alone.

    A caller opens streams, pushes audio into each, and calls :meth:`step` whenever some are ready. One step computes
    one chunk of each ready stream in one forward pass. On a GPU all streams share one state of fixed shape, whose rows
    are used again; on a CPU each has its own, so that a step costs what its ready streams cost.

    Args:
        system: the trained system.
        slots: streams at most.
        policy: of all streams; ``None`` takes the default. On a GPU ``left_chunks`` must be limited.
        with_units, with_speech, synthesis: as for :class:`TranslationStream`.
    Raises:
        ConfigError: an offline policy, no limit of the past on a GPU, ``with_speech`` for a system without a vocoder.

    Example:
        >>> engine = BatchedEngine(load_system("BUNDLE"), slots=8)  # doctest: +SKIP
        >>> first, second = engine.open(), engine.open()  # doctest: +SKIP
        >>> first.push(samples, sample_rate=48000)  # doctest: +SKIP
        >>> for stream, emission in engine.step():  # doctest: +SKIP
        ...     print(stream is first, emission.text)
    """

    def __init__(
        self,
        system: System,
        slots: int,
        policy: ChunkPolicy | None = None,
        with_units: bool = True,
        with_speech: bool = False,
        synthesis: SynthesisWindow | None = None,
    ) -> None:
        self.system, self.slots = system, slots
        self.policy = system.policy() if policy is None else policy
        self.with_units = (with_units or with_speech) and system.has_units
        self.with_speech, self.synthesis = with_speech, synthesis
        if self.policy.is_offline:
            raise ConfigError("an engine steps from chunk to chunk: its policy cannot be offline")
        if with_speech:
            system.require_vocoder()
        self._shared: ModelState | None = None
        self._free = list(range(slots))[::-1]
        self._open: dict[EngineStream, None] = {}
        if system.device.type != "cpu":
            if self.policy.left_chunks is None:
                raise ConfigError("an engine on a GPU keeps states of fixed size: its policy needs a left context")
            self._shared = system.model.init_state(self.policy, slots)

    def __len__(self) -> int:
        return len(self._open)

    @torch.inference_mode()
    def open(self) -> EngineStream:
        """A new stream.

        Raises:
            StreamError: all slots are in use.
        """
        if not self._free:
            raise StreamError(f"all {self.slots} slots of the engine are in use")
        row = self._free.pop()
        if self._shared is not None:
            self._shared.clear(row)
            stream = EngineStream(self, self._shared, row, row)
        else:
            stream = EngineStream(self, self.system.model.init_state(self.policy), row, 0)
        self._open[stream] = None
        return stream

    def release(self, stream: EngineStream) -> None:
        """Free the slot of a stream; nothing happens if that was done."""
        if stream in self._open:
            del self._open[stream]
            self._free.append(stream.slot)
            stream.is_done = True

    def step(self) -> list[tuple[EngineStream, Emission]]:
        """Compute one chunk of each stream that is ready; returns what became final, in no particular order.

        A stream whose last emission is returned has given its slot back.
        """
        ready = [stream for stream in self._open if stream.is_ready]
        # The first steps of a stream only take in its look-ahead: they need no layer of the network.
        starting = [stream for stream in ready if stream.state.rows.chunk[stream.row] < 0]
        running = [stream for stream in ready if stream.state.rows.chunk[stream.row] >= 0]
        emitted = []
        for group in (starting, running):
            if group:
                emitted += self._step(group)
        return emitted

    @torch.inference_mode()
    def _step(self, group: Sequence[EngineStream]) -> list[tuple[EngineStream, Emission]]:
        moving = [stream for stream in group if not stream.state.rows.is_done(stream.row)]
        emitted = [(stream, emission) for stream in group if stream not in moving for emission in self._end(stream)]
        if not moving:
            return emitted
        rows, output = self._forward(moving)
        labels = None if output is None else _best(output)
        for stream, row in zip(moving, rows, strict=True):
            try:
                new = [] if labels is None else list(stream.output.emissions(*labels[row], stream.input))
                if stream.input.is_finished and stream.state.rows.is_done(stream.row):
                    new = self._end(stream, new)
            except Exception as error:  # whatever it is, it concerns this stream alone
                stream.error = error
                self.release(stream)
            else:
                emitted += [(stream, emission) for emission in new]
        return emitted

    def _forward(self, moving: Sequence[EngineStream]) -> tuple[list[int], NastOutput | None]:
        """Run the network; returns the row of each stream in the output."""
        model, device, dtype = self.system.model, self.system.device, self.system.dtype
        pieces = [stream.take() for stream in moving]
        parts: list[tuple[ModelState, Step]]
        if self._shared is None:
            rows, fbank = list(range(len(moving))), torch.stack(pieces)
            parts = [(stream.state, stream.state.rows.step()) for stream in moving]
        else:
            rows = [stream.row for stream in moving]
            fbank = torch.zeros(self.slots, *pieces[0].shape)
            fbank[rows] = torch.stack(pieces)
            flags = np.zeros(self.slots, np.bool_)
            flags[rows] = True
            parts = [(self._shared, self._shared.rows.step(flags))]
        return rows, model.step(fbank.to(device, dtype), parts, with_units=self.with_units)

    def _end(self, stream: EngineStream, emissions: Sequence[Emission] = ()) -> list[Emission]:
        """Free the slot; returns ``emissions`` with what was held back. A source without a frame has no emission."""
        self.release(stream)
        return stream.output.finish(list(emissions), stream.input) if stream.input.num_frames else []


def _best(output: NastOutput) -> list[tuple[list[int], list[int]]]:
    """Best labels of the text slots and unit slots of each row that exist."""
    texts = output.text_logits.argmax(-1).tolist()
    units = [[] for _ in texts] if output.unit_logits is None else output.unit_logits.argmax(-1).tolist()
    ends = output.unit_lengths or output.text_lengths
    lengths = zip(output.text_lengths.host, ends.host, strict=True)
    return [(text[:size], unit[:end]) for text, unit, (size, end) in zip(texts, units, lengths, strict=True)]
