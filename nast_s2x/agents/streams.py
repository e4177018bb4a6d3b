"""Common part of the SimulEval agents: one stream per sentence, flags of the system, device.

All decisions are made in the translation stream. Agents turn SimulEval's segments into pushes, and emissions into
actions.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from simuleval.agents import AgentStates, GenericAgent
from simuleval.data.segments import Segment

from nast_s2x.agents.segments import use_first_segment
from nast_s2x.inference.detokenizer import WholeWords
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.streaming import ChunkPolicy, Emission, Stream
from nast_s2x.inference.system import System


class StreamStates(AgentStates):
    """State of one sentence: its stream, and the emissions that are not written yet.

    The source is pushed into the stream at once. SimulEval's list of all samples, ``source``, stays empty.

    Args:
        make_stream: makes the stream of a sentence.

    Attributes:
        words: holds back text that goes on without a space.
    """

    def __init__(self, make_stream: Callable[[], Stream]) -> None:
        self._make_stream = make_stream
        super().__init__()

    def reset(self) -> None:
        """Begin the next sentence."""
        super().reset()
        self._stream = self._make_stream()
        self._emissions: list[Emission] = []
        self._is_flushed = False
        self.words = WholeWords()

    def update_source(self, segment: Segment) -> None:
        """Push a segment: samples (n,), or (n, channels) for stereo files."""
        self.source_finished = segment.finished
        if not segment.is_empty:
            self.source_sample_rate = segment.sample_rate
            self.tgt_lang = segment.tgt_lang
            if len(segment.content):
                # A copy: the segment may be a view of an array that also holds the rest of the source.
                samples = np.array(segment.content, dtype=np.float32)
                self._emissions += self._stream.push(samples, segment.sample_rate)

    def take(self) -> list[Emission]:
        """Return the emissions since the last call; after the end of the source, everything that is left.

        The stream is flushed here and not in :meth:`update_source`, because some hosts set ``source_finished``
        themselves, without a last segment.
        """
        if self.source_finished and not self._is_flushed:
            self._is_flushed = True
            self._emissions += self._stream.push(np.zeros(0, np.float32), final=True)
        emissions, self._emissions = self._emissions, []
        return emissions


class StreamingAgent(GenericAgent):
    """Base of the agents: loads a system and makes a stream for each sentence; subclasses write the emissions.

    Args:
        args: the flags of :meth:`add_args`; only ``model`` is required.
        make_stream: makes the stream of a sentence; ``None`` loads the system that ``args`` name.

    Attributes:
        latency_unit: what the host counts, ``word``, ``char`` or ``spm``.
    """

    def __init__(self, args: Namespace, make_stream: Callable[[], Stream] | None = None) -> None:
        self.system: System | None = None
        named = [getattr(args, key, None) for key in ("eval_latency_unit", "latency_unit")]  # SimulEval, simulstream
        self.latency_unit = next((unit for unit in named if unit), "word")
        if make_stream is None:
            self.system = self.load(args)
            make_stream = self.stream_maker(self.system, args)
        self.make_stream = make_stream
        super().__init__(args)

    @staticmethod
    def load(args: Namespace) -> System:
        """Load the system that ``args`` name."""
        system = load_system(args.model, getattr(args, "data_dir", None))
        return replace(system, pause_ms=getattr(args, "pause_ms", None))

    @staticmethod
    def stream_maker(system: System, args: Namespace) -> Callable[[], Stream]:
        """Return a function that makes the streams of ``system`` for the flags ``args``."""
        policy = policy_of(system, args)
        return lambda: system.stream(policy, with_units=False)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of the agent.

        None is a prefix of a flag of SimulEval: its parsers would read ``--data`` as ``--dataloader``.
        """
        parser.add_argument("--model", required=True, help="bundle folder, or checkpoint file of a trained system")
        parser.add_argument(
            "--data-dir", default=None, help="data folder of a checkpoint (default: its own folder); not for bundles"
        )
        parser.add_argument("--chunk-ms", default=None, help="chunk size in ms, or offline (default: the bundle's)")
        parser.add_argument("--lookahead-ms", type=int, default=None, help="right context in ms (default: as trained)")
        parser.add_argument("--wait-chunks", type=int, default=None, help="chunks to wait (default: as trained)")
        parser.add_argument("--left-ms", default=None, help="left context in ms, or unlimited (default: as trained)")
        parser.add_argument(
            "--pause-ms",
            type=int,
            default=None,
            help="length of a pause in ms that ends a segment, for models trained on single sentences (default: none)",
        )
        parser.add_argument(
            "--first-segment-ms",
            type=int,
            default=None,
            help="length of the first segment of each source in ms; with 15, chunks are complete at multiples of the "
            "segment size after it, as in the published protocol (default: as the others)",
        )

    @classmethod
    def from_args(cls, args: Namespace) -> StreamingAgent:
        """Make the agent for SimulEval's command line."""
        use_first_segment(getattr(args, "first_segment_ms", None))
        unit = getattr(args, "eval_latency_unit", None) or _unit_of_command_line()
        return cls(Namespace(**{**vars(args), "eval_latency_unit": unit}))

    def build_states(self) -> StreamStates:
        """Make the state of a sentence; several may be in use at once."""
        return StreamStates(self.make_stream)

    def to(self, device: str, *args: Any, fp16: bool = False, **kwargs: Any) -> None:
        """Move the system; ``gpu`` means ``cuda``. Open streams are restarted."""
        self.device = device
        if self.system is not None:
            self.system.to(device, torch.float16 if fp16 else None)
            self.reset()


def _unit_of_command_line() -> str:
    """SimulEval's ``--eval-latency-unit``, which agents are not told with ``--system-dir``."""
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--eval-latency-unit", default="word")
    return str(parser.parse_known_args()[0].eval_latency_unit)


def policy_of(system: System, args: Namespace) -> ChunkPolicy:
    """Chunk policy for the flags of an agent; flags that are missing follow the training."""
    names = ("chunk_ms", "lookahead_ms", "wait_chunks", "left_ms")
    return system.policy(**{name: getattr(args, name, None) for name in names})
