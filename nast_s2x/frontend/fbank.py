"""80-bin log-mel filterbank features with Kaldi's conventions, as a stream or at once.

25 ms window, 10 ms shift, povey window, pre-emphasis 0.97, DC removed, no dither, snip edges, 20 Hz to Nyquist,
energies floored at float32 epsilon (log -15.94), computed by kaldi-native-fbank. Each frame depends on its own 400
samples only, so a stream and the whole utterance give identical values.
"""

from __future__ import annotations

import kaldi_native_fbank as knf
import numpy as np
import torch
from numpy.typing import ArrayLike

from nast_s2x.errors import AudioError, StreamError
from nast_s2x.frontend.resampling import StreamResampler
from nast_s2x.frontend.samples import NUM_BINS, SAMPLE_RATE, WINDOW_SAMPLES, as_mono

SHIFT_SAMPLES = 160  # 10 ms at 16 kHz
# Kaldi expects samples on the scale of 16-bit integers; here they are in -1..1.
_WAVEFORM_SCALE = np.float32(32768.0)


def num_frames(samples: int) -> int:
    """Number of feature frames of ``samples`` samples at 16 kHz: floor((n - 400) / 160) + 1, 0 below 400."""
    if samples < 0:
        raise AudioError(f"a number of samples cannot be negative: {samples}")
    return 0 if samples < WINDOW_SAMPLES else (samples - WINDOW_SAMPLES) // SHIFT_SAMPLES + 1


def _options() -> knf.FbankOptions:
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.frame_length_ms = 25.0
    options.frame_opts.frame_shift_ms = 10.0
    options.frame_opts.preemph_coeff = 0.97
    options.frame_opts.remove_dc_offset = True
    options.frame_opts.window_type = "povey"
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = NUM_BINS
    options.mel_opts.low_freq = 20.0
    options.mel_opts.high_freq = 0.0  # 0 means Nyquist
    options.energy_floor = 0.0
    return options


class StreamingFbank:
    """Filterbank of one stream: push samples, get the frames that they complete.

    Consumed frames are freed, so memory stays bounded for streams of any length.

    Attributes:
        finished: the final piece was pushed.
        frames: feature frames returned so far.

    Example:
        >>> stream = StreamingFbank()
        >>> stream.push(np.zeros(399)).shape, stream.push(np.zeros(1)).shape
        (torch.Size([0, 80]), torch.Size([1, 80]))
    """

    def __init__(self) -> None:
        self.finished = False
        self.frames = 0
        self._fbank = knf.OnlineFbank(_options())

    def push(self, samples: ArrayLike | torch.Tensor, final: bool = False) -> torch.Tensor:
        """Take the next samples, return the new frames.

        Args:
            samples: (n,) at 16 kHz in -1..1, any n including 0; (n, channels) is mixed down.
            final: ends the stream; samples short of a whole window are dropped, as at the end of a file.

        Returns:
            (k, 80) float32 log-mel energies, k = new frames, in order.

        Raises:
            AudioError: samples that cannot be used; the stream is unchanged.
            StreamError: a push after the final one.
        """
        if self.finished:
            raise StreamError("this stream has ended: a push after final=True needs a new StreamingFbank")
        mono = as_mono(samples)
        self.finished = final
        if len(mono):
            self._fbank.accept_waveform(SAMPLE_RATE, mono * _WAVEFORM_SCALE)
        if final:
            self._fbank.input_finished()
        ready = self._fbank.num_frames_ready
        features = np.empty((ready - self.frames, NUM_BINS), dtype=np.float32)
        for row in range(len(features)):
            features[row] = self._fbank.get_frame(self.frames + row)
        self._fbank.pop(len(features))
        self.frames = ready
        return torch.from_numpy(features)


def fbank(waveform: ArrayLike | torch.Tensor, sample_rate: int = SAMPLE_RATE) -> torch.Tensor:
    """Filterbank of a whole utterance: the stream of :class:`StreamingFbank`, pushed at once.

    Args:
        waveform: (n,) or (n, channels) in -1..1.
        sample_rate: of the waveform; other rates than 16 kHz are resampled first.

    Returns:
        (num_frames(n), 80) float32, without CMVN.
    """
    samples = StreamResampler(sample_rate, SAMPLE_RATE).push(waveform, final=True)
    return StreamingFbank().push(samples, final=True)
