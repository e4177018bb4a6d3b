"""Evaluation: runs of SimulEval's evaluator, metrics that mean what they say, reports to look at and listen to."""

import warnings

# SimulEval imports pydub for sources that are not used here, and pydub warns where it finds no ffmpeg.
warnings.filterwarnings("ignore", message="Couldn't find ffmpeg", category=RuntimeWarning)
