"""Many streams at once: one step of the network computes a chunk of every stream that is ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.errors import ConfigError, NastError, StreamError
from nast_s2x.inference.emission import Emission
from nast_s2x.inference.track import NO_LABELS, Labels, Track, best_labels, compute
from nast_s2x.network import ModelState
from nast_s2x.vocoder.streaming import SynthesisWindow

if TYPE_CHECKING:
    from nast_s2x.inference.system import System


class EngineStream:
    """One stream of a :class:`BatchedEngine`, from :meth:`BatchedEngine.open`.

    Attributes:
        engine: the engine.
        slot: number of its place in the engine.
        error: what ended the stream during a step, if anything did; the other streams go on.
    """

    def __init__(self, engine: BatchedEngine, track: Track, slot: int) -> None:
        self.engine, self._track, self.slot = engine, track, slot
        self.error: Exception | None = None

    def push(self, samples: ArrayLike, sample_rate: int | None = None, final: bool = False) -> None:
        """Take the next piece of the source; :meth:`BatchedEngine.step` translates it.

        Arguments and errors as for :meth:`~nast_s2x.inference.streaming.TranslationStream.push`. An error concerns this
        stream alone.
        """
        try:
            self._track.push(samples, sample_rate, final)
        except NastError:
            if self._track.input.is_finished:  # the piece was not refused but lost in part
                self.close()
            raise

    def close(self) -> None:
        """Give the slot back; what was not emitted is dropped."""
        self.engine.release(self)

    @property
    def is_done(self) -> bool:
        """True when everything was emitted, or the stream was closed or ended by an error."""
        return self._track.is_done

    @property
    def is_ready(self) -> bool:
        """True when the next step can compute a chunk of this stream."""
        return self._track.is_ready

    @property
    def waiting_ms(self) -> float:
        """Milliseconds of source audio that was received and not translated yet."""
        return self._track.waiting_ms

    @property
    def source_ms(self) -> float:
        """Milliseconds of source audio received so far."""
        return self._track.input.source_ms


class BatchedEngine:
    """Translates up to ``slots`` streams, each as if alone.

    A caller opens streams, pushes audio into each, and calls :meth:`step` whenever some are ready. One step computes
    one chunk of each ready stream in one forward pass. With a limited past all streams share one state, whose rows are
    used again: on a GPU all of them take part in each step, so that its shapes are fixed; on a CPU those that are
    ready. With an unlimited past, on a CPU, each stream has a state of its own.

    Args:
        system: the trained system.
        slots: streams at most.
        policy: of all streams; ``None`` takes the default. On a GPU ``left_chunks`` must be limited.
        with_units, with_speech, synthesis, with_transcript: as for
            :class:`~nast_s2x.inference.streaming.TranslationStream`.
    Raises:
        ConfigError: an offline policy, no limit of the past on a GPU, ``with_speech`` for a system without a vocoder,
            ``with_transcript`` for one whose recognition head was not trained.

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
        with_transcript: bool = False,
    ) -> None:
        self.system, self.slots = system, slots
        self.policy = system.policy() if policy is None else policy
        self.with_units = (with_units or with_speech) and system.has_units
        self._with_speech, self._synthesis, self._with_transcript = with_speech, synthesis, with_transcript
        if self.policy.is_offline:
            raise ConfigError("an engine steps from chunk to chunk: its policy cannot be offline")
        if with_speech:
            system.require_vocoder()
        if with_transcript:
            system.require_recognition()
        self._shared: ModelState | None = None  # steps with all rows
        self._pool: ModelState | None = None  # steps with the rows that are ready
        self._free = list(range(slots))[::-1]
        self._streams: dict[Track, EngineStream] = {}
        if system.device.type != "cpu":
            if self.policy.left_chunks is None:
                raise ConfigError("an engine on a GPU keeps states of fixed size: its policy needs a left context")
            self._shared = system.model.init_state(self.policy, slots)
        elif self.policy.left_chunks is not None:
            self._pool = system.model.init_state(self.policy, slots)

    def __len__(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    @property
    def is_ready(self) -> bool:
        """True when :meth:`step` has something to do."""
        return any(track.is_ready for track in self._streams)

    @torch.inference_mode()
    def open(self) -> EngineStream:
        """A new stream.

        Raises:
            StreamError: all slots are in use.
        """
        if not self._free:
            raise StreamError(f"all {self.slots} slots of the engine are in use")
        slot, state, row = self._free.pop(), self._shared or self._pool, 0
        if state is None:
            state = self.system.model.init_state(self.policy)
        else:
            row = slot
            state.clear(row)
        options = (self.with_units, self._with_speech, self._synthesis, self._with_transcript)
        track = Track(self.system, state, row, *options)
        self._streams[track] = EngineStream(self, track, slot)
        return self._streams[track]

    def release(self, stream: EngineStream) -> None:
        """Free the slot of a stream; nothing happens if that was done."""
        stream._track.is_done = True
        if self._streams.pop(stream._track, None) is not None:
            self._free.append(stream.slot)

    @torch.inference_mode()
    def step(self) -> list[tuple[EngineStream, Emission]]:
        """Compute one chunk of each stream that is ready; returns what became final, in the order of the streams.

        A stream whose last emission is returned has given its slot back.
        """
        ended: list[Track] = []
        starting: list[Track] = []
        running: list[Track] = []
        for track in self._streams:
            if track.is_ready:
                # The first steps of a segment only take in its look-ahead: they need no layer of the network.
                (ended if track.has_ended else starting if track.is_starting else running).append(track)
        emitted: list[tuple[EngineStream, Emission]] = []
        for track in ended:
            emitted += self._emit(track, None)
        for group in (starting, running):
            if group:
                for track, labels in zip(group, self._compute(group), strict=True):
                    emitted += self._emit(track, labels)
        return emitted

    def _compute(self, group: Sequence[Track]) -> list[Labels]:
        """Run the network; returns the labels of each stream."""
        if self._shared is None:
            if self._pool is None:
                return compute(self.system, group, self.with_units, self._with_transcript)
            return self._compute_rows(self._pool, group)
        rows, pieces = [track.row for track in group], [track.take() for track in group]
        fbank = pieces[0].new_zeros(self.slots, *pieces[0].shape)
        fbank[rows] = torch.stack(pieces)
        moving = np.zeros(self.slots, np.bool_)
        moving[rows] = True
        step = self._shared.rows.step(moving)
        output = self.system.model.step(fbank, [(self._shared, step)], self._with_transcript, self.with_units)
        if output is None:
            return [NO_LABELS] * len(group)
        labels = best_labels(output)
        return [labels[row] for row in rows]

    def _compute_rows(self, pool: ModelState, group: Sequence[Track]) -> list[Labels]:
        """As :meth:`_compute`, with the rows of the group alone."""
        places = sorted(range(len(group)), key=lambda place: group[place].row)
        fbank = torch.stack([group[place].take() for place in places])
        step = pool.rows.step_of([group[place].row for place in places])
        output = self.system.model.step(fbank, [(pool, step)], self._with_transcript, self.with_units)
        if output is None:
            return [NO_LABELS] * len(group)
        labels = dict(zip(places, best_labels(output), strict=True))
        return [labels[place] for place in range(len(group))]

    def _emit(self, track: Track, labels: Labels | None) -> list[tuple[EngineStream, Emission]]:
        """Emissions of a stream; ``labels`` of its step, ``None`` where its segment has ended without one."""
        stream = self._streams[track]
        try:
            emissions = track.end() if labels is None else track.emissions(labels)
        except Exception as error:  # whatever it is, it concerns this stream alone
            stream.error, emissions = error, []
            track.is_done = True
        if track.is_done:
            self.release(stream)
        return [(stream, emission) for emission in emissions]
