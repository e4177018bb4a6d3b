"""What the SimulEval agents share: a stream for each sentence, the flags of the system, the device.

The translator decides everything; agents only turn SimulEval's segments into pushes and emissions into actions.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from simuleval.agents import AgentStates, GenericAgent
from simuleval.data.segments import Segment

from nast_s2x.agents.segments import use_first_segment
from nast_s2x.inference.bundle import System, load_system
from nast_s2x.inference.streaming import Emission, StreamingTranslator


class Translator(Protocol):
    """What an agent needs of :class:`~nast_s2x.inference.streaming.StreamingTranslator`."""

    def push(self, samples: ArrayLike, sample_rate: int | None = None) -> list[Emission]:
        """Take the next piece of the source."""

    def finish(self) -> list[Emission]:
        """End the source."""

    def reset(self) -> None:
        """Begin another source."""


@dataclass(frozen=True)
class Emitted:
    """What is remembered of an emission: everything but its sound.

    Attributes:
        chunk, source_ms, text, units: as in :class:`~nast_s2x.inference.streaming.Emission`.
        samples: number of samples of its sound, 0 without.
    """

    chunk: int
    source_ms: float
    text: str
    units: tuple[int, ...]
    samples: int


class StreamStates(AgentStates):
    """The state of one sentence: a stream of its own, and the emissions that wait to be written.

    The source goes straight into the stream instead of into ``source``, SimulEval's ever-growing list of samples.

    Attributes:
        emitted: all emissions of the sentence so far, for the record.
    """

    def __init__(self, translator: Translator) -> None:
        self.translator = translator
        super().__init__()

    def reset(self) -> None:
        """Begin the next sentence."""
        super().reset()
        self.translator.reset()
        self.emissions: list[Emission] = []
        self.emitted: list[Emitted] = []
        self.flushed = False

    def update_source(self, segment: Segment) -> None:
        """Feed the stream; samples (n,), or (n, channels) for stereo files."""
        self.source_finished = segment.finished
        if not segment.is_empty:
            self.source_sample_rate = segment.sample_rate
            self.tgt_lang = segment.tgt_lang
            if len(segment.content):
                # A copy: behind a view of an array there would be the rest of the source.
                samples = np.array(segment.content, dtype=np.float32)
                self._keep(self.translator.push(samples, segment.sample_rate))
        if self.source_finished and not self.flushed:
            self.flushed = True
            self._keep(self.translator.finish())

    def _keep(self, emissions: list[Emission]) -> None:
        self.emissions += emissions
        for emission in emissions:
            samples = 0 if emission.waveform is None else len(emission.waveform)
            self.emitted.append(
                Emitted(emission.chunk, emission.source_ms, emission.text, tuple(emission.units), samples)
            )

    def take(self) -> list[Emission]:
        """The emissions since the last call."""
        emissions, self.emissions = self.emissions, []
        return emissions


class StreamingAgent(GenericAgent):
    """Loads a system and gives each sentence a stream of it; what is written is the subclass's policy.

    Args:
        args: the flags of :meth:`add_args`.
        make_translator: makes the translator of each states object; ``None`` loads the system that ``args`` name.
    """

    def __init__(self, args: Namespace, make_translator: Callable[[], Translator] | None = None) -> None:
        self.bundle: System | None = None
        if make_translator is None:
            self.bundle = load_system(args.model, args.data_dir)
            make_translator = self.translator_maker(self.bundle, args)
        self.make_translator = make_translator
        super().__init__(args)

    @staticmethod
    def translator_maker(bundle: System, args: Namespace) -> Callable[[], Translator]:
        """What makes the streams of a system, as ``args`` say."""
        geometry = bundle.geometry(args.chunk_ms, args.lookahead_ms, args.wait_chunks)
        return lambda: StreamingTranslator(bundle, geometry, with_units=False)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Flags of the agent. None is a prefix of one of SimulEval's (``--data`` would be read as ``--dataloader``)."""
        parser.add_argument("--model", required=True, help="bundle folder, or checkpoint file of a trained system")
        parser.add_argument(
            "--data-dir", default=None, help="data folder of a checkpoint (default: its own folder); not for bundles"
        )
        parser.add_argument("--chunk-ms", default=None, help="chunk size in ms, or offline (default: the bundle's)")
        parser.add_argument("--lookahead-ms", type=int, default=None, help="right context in ms (default: as trained)")
        parser.add_argument("--wait-chunks", type=int, default=None, help="chunks to wait (default: as trained)")
        parser.add_argument(
            "--first-segment-ms",
            type=int,
            default=None,
            help="length of the first segment of each source in ms; 15 completes chunks at multiples of the segment "
            "size after it, as in the published protocol (default: as the others)",
        )

    @classmethod
    def from_args(cls, args: Namespace) -> StreamingAgent:
        """The agent that SimulEval's command line asks for."""
        use_first_segment(getattr(args, "first_segment_ms", None))
        return cls(args)

    def build_states(self) -> StreamStates:
        """States of one sentence at a time; several may be in use at once."""
        return StreamStates(self.make_translator())

    def to(self, device: str, *args: Any, fp16: bool = False, **kwargs: Any) -> None:
        """Move the model; ``gpu`` means ``cuda``. Streams that were open begin anew."""
        self.device = device
        if self.bundle is not None:
            self.bundle.to(device, torch.float16 if fp16 else None)
            self.reset()
