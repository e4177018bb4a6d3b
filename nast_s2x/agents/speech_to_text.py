"""SimulEval agent for speech-to-text: pieces of speech in, whole words out."""

from __future__ import annotations

from simuleval.agents import SpeechToTextAgent
from simuleval.agents.actions import Action, ReadAction, WriteAction

from nast_s2x.agents.streams import StreamingAgent, StreamStates
from nast_s2x.inference.detokenizer import join_words


class NastSpeechToTextAgent(StreamingAgent, SpeechToTextAgent):
    """Writes the whole words of each complete chunk; at the end of the source, everything that is left.

    Arguments and flags as for :class:`~nast_s2x.agents.streams.StreamingAgent`.
    """

    def policy(self, states: StreamStates | None = None) -> Action:
        """Write the words that have become final, or read if there are none; finish at the end of the source."""
        states = self.states if states is None else states
        words = join_words(emission.text for emission in states.take())
        if states.source_finished:
            return WriteAction(words, finished=True)
        return WriteAction(words, finished=False) if words else ReadAction()
