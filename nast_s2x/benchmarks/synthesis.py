"""Cost of streaming synthesis: windows of a released vocoder against limited look-ahead, sizes alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from nast_s2x.benchmarks.timing import timed
from nast_s2x.vocoder.config import UNIT_SAMPLES, VocoderConfig
from nast_s2x.vocoder.layers import Conv1d, ConvTranspose1d
from nast_s2x.vocoder.network import UnitVocoder
from nast_s2x.vocoder.streaming import SynthesisWindow, VocoderStream

CHUNKS = 12
"""Chunks that are timed, after two."""


class MultiplyAdds:
    """Counts the multiply-adds of a vocoder's convolutions while it is open."""

    def __init__(self, vocoder: UnitVocoder) -> None:
        self.total = 0
        layers = [layer for layer in vocoder.modules() if isinstance(layer, (Conv1d, ConvTranspose1d))]
        self._hooks = [layer.register_forward_hook(self._count) for layer in layers]

    def _count(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, (Conv1d, ConvTranspose1d))
        # A sample of the output has all positions of the kernel; of a transposed convolution, one in `stride` of them.
        self.total += output.shape[2] * layer.weight.numel() // layer.stride[0]

    def close(self) -> int:
        """Stop counting; return the count."""
        for hook in self._hooks:
            hook.remove()
        return self.total


def compare(windows: UnitVocoder, limited: UnitVocoder, units: Sequence[int]) -> dict[str, Any]:
    """Time chunks of ``units`` in streams of two vocoders of the same sizes, in turns.

    Returns:
        for ``windows`` and ``limited``: ms_p50 of a chunk; work, the multiply-adds relative to those of computing each
        sample of each layer once; and ratio, limited to windows in ms_p50.
    """
    streams = {"windows": VocoderStream(windows), "limited": VocoderStream(limited)}
    seconds: dict[str, list[float]] = {name: [] for name in streams}
    counts: dict[str, MultiplyAdds] = {}
    before = 0  # samples before the chunks that are timed
    for chunk in range(2 + CHUNKS):
        if chunk == 2:
            before = streams["limited"].num_samples
        for name, stream in streams.items():
            if chunk == 2:
                counts[name] = MultiplyAdds(stream.vocoder)
            taken = timed(stream.vocoder.device, lambda stream=stream: stream.push(units))
            if chunk >= 2:
                seconds[name].append(taken)
    work = {name: count.close() for name, count in counts.items()}
    p50 = {name: 1000 * float(np.median(values)) for name, values in seconds.items()}
    once = multiply_adds(limited, (streams["limited"].num_samples - before) // UNIT_SAMPLES)
    figures = {name: {"ms_p50": p50[name], "work": work[name] / once} for name in streams}
    return {**figures, "ratio": p50["limited"] / p50["windows"]}


def multiply_adds(vocoder: UnitVocoder, num_frames: int) -> int:
    """Multiply-adds of ``num_frames`` unit frames, each sample of each layer computed once."""
    config, size = vocoder.config, num_frames
    total = num_frames * vocoder.conv_pre.weight.numel()
    count = len(config.resblock_kernel_sizes)
    for stage, rate in enumerate(config.upsample_rates):
        up, blocks = vocoder.ups[stage], vocoder.resblocks[stage * count : (stage + 1) * count]
        size *= rate
        total += size * up.weight.numel() // rate
        convs = [layer for block in blocks for layer in block.modules() if isinstance(layer, Conv1d)]
        total += size * sum(conv.weight.numel() for conv in convs)
    return total + num_frames * UNIT_SAMPLES * vocoder.conv_post.weight.numel()


def limited_form(config: VocoderConfig) -> VocoderConfig:
    """The same sizes with limited look-ahead, as far as windows look ahead."""
    return replace(config, lookahead_frames=SynthesisWindow.lookahead_frames)
