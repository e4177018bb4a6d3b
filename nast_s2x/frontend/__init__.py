"""Samples to features: audio files, streaming resampler, log-mel filterbank, global CMVN."""
