"""The speech-to-text agent for ``simuleval --agent examples/simuleval_agent.py --model BUNDLE ...``.

``--agent-class nast_s2x.agents.speech_to_text.NastSpeechToTextAgent`` does the same without a file.
"""

from simuleval.utils import entrypoint

from nast_s2x.agents.speech_to_text import NastSpeechToTextAgent


@entrypoint
class Agent(NastSpeechToTextAgent):
    """The speech-to-text agent of the package, registered with SimulEval."""
