"""SimulEval's utterances with what its own lack: audio read when its turn comes, computing time, emissions.

Subclasses of SimulEval's instance classes and of its data loader, given to its evaluator through its own extension
points. A :class:`TimedAgent` measures what each push costs and sends that along in ``Segment.config``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simuleval.data.dataloader import SpeechToTextDataloader
from simuleval.data.dataloader.dataloader import IterableDataloader
from simuleval.data.segments import Segment
from simuleval.evaluator.instance import SpeechInputInstance, SpeechToSpeechInstance, SpeechToTextInstance

from nast_s2x.agents.segments import FirstSegment
from nast_s2x.agents.streams import StreamingAgent, StreamStates
from nast_s2x.evaluation.items import Item
from nast_s2x.frontend.audio import read_samples

PUSH_MS, EMITTED = "push_ms", "emitted"
"""Entries of ``Segment.config``: computing time of the push, and what it emitted."""


class UtteranceLoader(IterableDataloader, SpeechToTextDataloader):
    """Hands out utterances one by one; only the current one's samples are in memory, as an array.

    Args:
        items: the utterances, in order.
        stop: asked before each utterance; True ends the iteration early.

    Attributes:
        cur_index: index of the current utterance in the whole test set.
    """

    def __init__(self, items: Sequence[Item], stop: Callable[[], bool] = lambda: False) -> None:
        super().__init__([str(item.audio) for item in items], [item.reference for item in items])
        self.items = {item.index: item for item in items}
        self.stop = stop
        self.cur_index = -1

    def __iter__(self) -> UtteranceLoader:
        self._remaining = iter(self.items)
        return self

    def __next__(self) -> int:
        self._samples = np.zeros(0, np.float32)
        if self.stop():
            raise StopIteration
        self.cur_index = next(self._remaining)
        self._samples, _ = read_samples(self.items[self.cur_index].audio)
        return self.cur_index

    @property
    def current(self) -> Item | None:
        """The utterance that was handed out last."""
        return self.items.get(self.cur_index)

    def get_source(self, index: int) -> NDArray[np.float32]:
        """Samples (n,) of the current utterance, channels mixed down, at the rate of the file."""
        assert index == self.cur_index, f"utterance {index} is not the current one, {self.cur_index}"
        return self._samples

    def get_target(self, index: int) -> str:
        """Reference."""
        return self.items[index].reference

    def get_source_audio_path(self, index: int) -> str:
        """Path of the recording."""
        return str(self.items[index].audio)


class TimedAgent:
    """An agent whose answers say what they cost.

    Args:
        agent: one of ours; it works as it does without this.
    """

    def __init__(self, agent: StreamingAgent) -> None:
        self.agent = agent

    def reset(self) -> None:
        """Begin the next sentence."""
        self.agent.reset()

    def pushpop(self, segment: Segment) -> Segment:
        """The agent's answer; its ``config`` holds the computing time of the push and its emissions."""
        taken = _record_emissions(self.agent.states)
        started = time.perf_counter()
        answer = self.agent.pushpop(segment)
        cost = 1000 * (time.perf_counter() - started)
        answer.config = {**answer.config, PUSH_MS: cost, EMITTED: taken}
        return answer


@dataclass(frozen=True)
class Emitted:
    """What is recorded of an emission: everything but its waveform."""

    chunk: int
    source_ms: float
    text: str
    units: tuple[int, ...]
    samples: int


def _record_emissions(states: StreamStates) -> list[Emitted]:
    """A list that grows with what ``states`` takes from its stream until the next call."""
    record: list[Emitted] = []
    plain = type(states).take

    def take() -> list[Any]:
        emissions = plain(states)
        for item in emissions:
            samples = 0 if item.waveform is None else len(item.waveform)
            record.append(Emitted(item.chunk, item.source_ms, item.text, tuple(item.units), samples))
        return emissions

    states.take = take
    return record


class _Measured(FirstSegment, SpeechInputInstance):
    """What text and speech output have in common.

    Attributes:
        push_ms: computing ms of every push.
        chunk_ms: computing ms of each push that completed a chunk, those since the one before it included.
        emissions: what was emitted and when it was written, for the log.
    """

    def reset(self) -> None:
        """Begin the utterance again."""
        super().reset()
        self.push_ms: list[float] = []
        self.chunk_ms: list[float] = []
        self.emissions: list[dict[str, Any]] = []
        self._since_chunk = 0.0

    def send_source(self, segment_size: int = 10) -> Segment:
        """The next segment of the source; its samples are a copy, behind which there is no source to come."""
        segment = super().send_source(segment_size)
        segment.content = np.array(segment.content, np.float32)
        return segment

    def receive_prediction(self, prediction: Segment) -> None:
        """Take an answer of a :class:`TimedAgent`."""
        cost, emitted = prediction.config[PUSH_MS], prediction.config[EMITTED]
        self.push_ms.append(cost)
        self._since_chunk += cost
        if emitted:
            self.chunk_ms.append(self._since_chunk)
            self._since_chunk = 0.0
        for emission in emitted:
            if emission.text or emission.units or emission.samples:
                self.emissions.append(
                    {
                        "chunk": emission.chunk,
                        "source_ms": emission.source_ms,
                        "written_ms": self.step_to_delay(self.step),
                        "text": emission.text,
                        "units": list(emission.units),
                        "samples": emission.samples,
                    }
                )
        super().receive_prediction(prediction)

    def step_to_elapsed(self, step: int, current_time: float) -> float:
        """Milliseconds of the source read and of computing until now (SimulEval counts reading the file too)."""
        return self.step_to_delay(step) + sum(self.push_ms)

    def summarize(self) -> dict[str, Any]:
        """A line of the log: SimulEval's entries and ours."""
        item = self.dataloader.items[self.index]
        return {
            **super().summarize(),
            "elapsed": self.elapsed,
            "audio": str(item.audio),
            "id": item.id,
            "units": item.units,
            "emissions": self.emissions,
            "push_ms": self.push_ms,
            "chunk_ms": self.chunk_ms,
        }


class TextInstance(_Measured, SpeechToTextInstance):
    """An utterance whose translation is text."""


class SpeechInstance(_Measured, SpeechToSpeechInstance):
    """An utterance whose translation is speech; its sound goes to the folder ``args.wavs``."""

    @property
    def wav_path(self) -> Any:
        """Where the sound is written; the folder exists."""
        return self.args.wavs / f"{self.index}_pred.wav"

    def summarize(self) -> dict[str, Any]:
        """A line of the log, which names the sound relative to the chunk size's folder."""
        path = self.wav_path
        line = super().summarize() | {"prediction": f"{path.parent.name}/{path.name}"}
        # SimulEval divides by a sample rate of -1 where nothing was said, and gives -0.0.
        return line | {"prediction_length": abs(line["prediction_length"])}


INSTANCES: dict[str, type[_Measured]] = {"text": TextInstance, "speech": SpeechInstance}
"""Target type -> class."""
