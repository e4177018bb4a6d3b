"""SimulEval agent for speech-to-speech: pieces of speech in, pieces of speech out.

What SimulEval 1.1.4 measures of it, with ``--target-type speech`` (implied by the agent) and ``--output DIR``:

* ``StartOffset``, ``EndOffset`` (of playback, gaps included) and ``NumChunks`` are right.
* ``ATD`` comes out, but SimulEval scores from its log, where it takes every output for text: each piece of speech
  counts as one word without length. Compare it with itself only.
* ``AL``, ``LAAL``, ``AP`` and ``DAL`` set pieces of speech against words of the reference: no meaning.
* ``--computation-aware`` and the Discontinuity metrics fail on speech; gaps are in ``nast-s2x translate --speech``.
* ``BLEU``, its default for quality, compares names of sound files with the references: disregard it.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

import numpy as np
from simuleval.agents import SpeechToSpeechAgent
from simuleval.agents.actions import Action, ReadAction, WriteAction
from simuleval.data.segments import SpeechSegment

from nast_s2x.agents.streams import Stream, StreamingAgent, StreamStates, policy_of
from nast_s2x.inference.streaming import SPEECH_RATE, SynthesisWindow
from nast_s2x.inference.system import System


class NastSpeechToSpeechAgent(StreamingAgent, SpeechToSpeechAgent):
    """Writes the waveform of chunks as they complete, everything left at the end of the source.

    Arguments as :class:`~nast_s2x.agents.streams.StreamingAgent`; its flags, ``--vocoder``, ``--synthesis-lookahead``.
    """

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Flags of the agent."""
        StreamingAgent.add_args(parser)
        parser.add_argument("--vocoder", default=None, help="unit vocoder (default: the bundle's)")
        parser.add_argument(
            "--synthesis-lookahead",
            type=int,
            default=SynthesisWindow.lookahead_frames,
            help="right context of the vocoder in unit frames of 20 ms (default: %(default)s)",
        )

    @staticmethod
    def stream_maker(system: System, args: Namespace) -> Callable[[], Stream]:
        """A function that makes the streams of a system with speech output for the flags ``args``."""
        policy = policy_of(system, args)
        lookahead = getattr(args, "synthesis_lookahead", None)
        synthesis = SynthesisWindow() if lookahead is None else SynthesisWindow(lookahead)
        vocoder = getattr(args, "vocoder", None)
        speaking = system if vocoder is None else system.with_vocoder(vocoder)
        speaking.require_vocoder()
        return lambda: speaking.stream(policy, with_speech=True, synthesis=synthesis)

    def policy(self, states: StreamStates | None = None) -> Action:
        """Write the samples that have become final; read on if there is none; at the end of the source finish."""
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
        states.update_target(segment)  # SimulEval does so for plain lists only, which would lack the sample rate
        return WriteAction(segment, finished=segment.finished)
