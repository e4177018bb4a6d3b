"""SimulEval agent for speech-to-speech: pieces of speech in, pieces of speech out.

Scores of SimulEval 1.1.4, with ``--target-type speech`` (implied by the agent) and ``--output DIR``:

* ``StartOffset``, ``EndOffset`` (of playback, gaps included) and ``NumChunks`` are correct.
* ``ATD`` is computed from SimulEval's log, in which every output is treated as text: each piece of speech counts as
  one word without length. Compare it only with values of the same kind.
* ``AL``, ``LAAL``, ``AP`` and ``DAL`` compare pieces of speech with words of the reference: the values have no meaning.
* ``--computation-aware`` and the Discontinuity metrics fail on speech. ``nast-s2x translate --speech`` reports gaps.
* ``BLEU``, the default quality metric, compares names of sound files with the references: ignore it.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

import numpy as np
from simuleval.agents import SpeechToSpeechAgent
from simuleval.agents.actions import Action, ReadAction, WriteAction
from simuleval.data.segments import SpeechSegment

from nast_s2x.agents.streams import StreamingAgent, StreamStates, policy_of
from nast_s2x.inference.streaming import SPEECH_RATE, Stream, SynthesisWindow
from nast_s2x.inference.system import System


class NastSpeechToSpeechAgent(StreamingAgent, SpeechToSpeechAgent):
    """Writes the waveform of each complete chunk; at the end of the source, everything that is left.

    Arguments as for :class:`~nast_s2x.agents.streams.StreamingAgent`. Flags: the same, ``--vocoder`` and
    ``--synthesis-lookahead``.
    """

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of the agent."""
        StreamingAgent.add_args(parser)
        parser.add_argument("--vocoder", default=None, help="unit vocoder (default: the bundle's)")
        parser.add_argument(
            "--synthesis-lookahead",
            type=int,
            help="right context of the vocoder in unit frames of 20 ms (default: 5, or the vocoder's own)",
        )

    @staticmethod
    def load(args: Namespace) -> System:
        """Load the system that ``args`` name, with the vocoder that they name."""
        system = StreamingAgent.load(args)
        vocoder = getattr(args, "vocoder", None)
        system = system if vocoder is None else system.with_vocoder(vocoder)
        system.require_vocoder()
        return system

    @staticmethod
    def stream_maker(system: System, args: Namespace) -> Callable[[], Stream]:
        """Return a function that makes the streams of ``system``, with speech, for the flags ``args``."""
        policy = policy_of(system, args)
        synthesis = SynthesisWindow.of(system.require_vocoder(), getattr(args, "synthesis_lookahead", None))
        return lambda: system.stream(policy, with_speech=True, synthesis=synthesis)

    def policy(self, states: StreamStates | None = None) -> Action:
        """Write the samples that have become final, or read if there are none; finish at the end of the source."""
        states = self.states if states is None else states
        pieces = [emission.waveform for emission in states.take() if emission.waveform is not None]
        samples = np.concatenate([np.zeros(0, np.float32), *pieces])
        if not len(samples) and not states.source_finished:
            return ReadAction()
        segment = SpeechSegment(
            content=samples.tolist(),  # SimulEval adds pieces as lists
            sample_rate=SPEECH_RATE,
            finished=states.source_finished,
            tgt_lang=states.tgt_lang,
        )
        states.update_target(segment)  # SimulEval does this for plain lists only, without the sample rate
        return WriteAction(segment, finished=segment.finished)
