"""Speech recognisers for ASR-BLEU, word error rate and word times, one interface for all.

=========================  =================================================  =======================
spec                       what it opens                                      needs
=========================  =================================================  =======================
``bundle:FOLDER``          a system of this project that transcribes          nothing more
``faster-whisper:MODEL``   Whisper by its name or from a folder               the extra ``whisper``
``wav2vec2:FOLDER``        a Hugging Face ``Wav2Vec2ForCTC`` folder           the extra ``units``
=========================  =================================================  =======================
"""

from nast_s2x.recognisers.base import NOTHING, RecognisedWord, Recogniser, Transcript
from nast_s2x.recognisers.opening import open_recogniser

__all__ = ["NOTHING", "RecognisedWord", "Recogniser", "Transcript", "open_recogniser"]
