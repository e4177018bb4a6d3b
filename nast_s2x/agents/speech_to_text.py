"""SimulEval agent for speech-to-text: pieces of speech in, whole words or characters out."""

from __future__ import annotations

from simuleval.agents import SpeechToTextAgent
from simuleval.agents.actions import Action, ReadAction, WriteAction

from nast_s2x.agents.streams import StreamingAgent, StreamStates


class NastSpeechToTextAgent(StreamingAgent, SpeechToTextAgent):
    """Writes the text of each complete chunk; at the end of the source, everything that is left.

    SimulEval puts a space between any two texts, so these end where a word ends: text without spaces between words is
    written at the next space. Where it counts characters (``--eval-latency-unit char``) it puts nothing between them,
    and each text is written with its chunk.

    Arguments and flags as for :class:`~nast_s2x.agents.streams.StreamingAgent`.
    """

    def policy(self, states: StreamStates | None = None) -> Action:
        """Write the text that has become final, or read if there is none; finish at the end of the source."""
        states = self.states if states is None else states
        text = "".join(emission.delta for emission in states.take())
        if self.latency_unit != "char":
            text = states.words.push(text, final=states.source_finished)
        if states.source_finished:
            return WriteAction(text, finished=True)
        return WriteAction(text, finished=False) if text else ReadAction()
