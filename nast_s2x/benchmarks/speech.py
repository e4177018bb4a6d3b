"""The part ``voice`` of ``nast-s2x benchmark``: streaming speech to speech with random weights, stage by stage.

A network with random weights predicts too many or too few units. Its units are therefore computed and collapsed, but
not synthesized: the vocoder receives the same number of units for every chunk, of two frames each, which makes one
second of speech for one second of source.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nast_s2x.benchmarks.streaming import one_policy, random_model
from nast_s2x.benchmarks.synthesis import compare, limited_form
from nast_s2x.benchmarks.timing import Setting, device_of, now, timed
from nast_s2x.chunking import ChunkGeometry
from nast_s2x.ctc import CtcCollapser
from nast_s2x.device import DTYPES
from nast_s2x.errors import ConfigError
from nast_s2x.frontend.fbank import StreamingFbank
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.inference.playback import Playback
from nast_s2x.network import NastModel
from nast_s2x.vocoder.config import UNIT_SAMPLES, VocoderConfig
from nast_s2x.vocoder.network import UnitVocoder
from nast_s2x.vocoder.offline import synthesize
from nast_s2x.vocoder.streaming import VocoderStream

STAGES = ("features", "encoder", "text_decoder", "unit_decoder", "vocoder")
UNIT_FRAMES = 2
"""Duration of every unit."""
OFFLINE_SECONDS = (0.7, 0.9, 1.1, 1.2, 1.2, 1.3, 1.4, 1.4, 1.6, 1.9)
"""Seconds of speech of each utterance of the offline measurement."""
_WINDOW, _SHIFT = 400, 160  # samples of a feature frame, and between two


def run_voice(args: argparse.Namespace) -> dict[str, Any]:
    """Streaming speech to speech from samples to samples, and offline synthesis batched and one by one.

    Look-ahead of the network is one chunk; the vocoder has the published size. Figures are those of the stream with the
    median total of three.

    Returns:
        real_time_factor (computing seconds per second of source); chunk_ms_p50, chunk_ms_p95, chunk_ms_first_third and
        chunk_ms_last_third (medians) of the computing time of a chunk; stages (p50 and p95 in ms of each); playback
        (gaps when every chunk is played as soon as it is computed, without and with a start delay of
        ``--playback-buffer-ms``); synthesis (see :func:`~nast_s2x.benchmarks.synthesis.compare`);
        offline_batched_seconds and offline_one_by_one_seconds for the same utterances, offline_speech_seconds; seconds,
        speech_seconds, chunks, chunk_ms, unit_frames_per_chunk, parameters, vocoder_parameters, threads, device, dtype.
    Raises:
        ConfigError: not one chunk size that is a multiple of 20 ms, or a device that is not available.
    """
    return measure(args, VocoderConfig())


def measure(args: argparse.Namespace, vocoder_config: VocoderConfig) -> dict[str, Any]:
    """:func:`run_voice` for a vocoder of any size."""
    policy = one_policy(args.chunk_ms)
    if policy.chunk_ms is None or policy.chunk_ms % 20:
        raise ConfigError(f"--chunk-ms of voice must be a multiple of 20 (ms, a unit frame), but is {args.chunk_ms}")
    setting = Setting.of(args, "voice", tuple(DTYPES))
    model = setting.convert(random_model(args.preset, args.seconds))
    vocoder = random_vocoder(vocoder_config).to(setting.device)
    geometry = model.geometry(policy)
    source = np.random.default_rng(0).normal(0, 0.1, round(args.seconds * SAMPLE_RATE)).astype(np.float32)
    with torch.inference_mode():
        stream(model, vocoder, geometry, source[: 4 * (geometry.chunk_frames or 0) * _SHIFT])
        runs = [stream(model, vocoder, geometry, source) for _ in range(3)]
        offline = offline_seconds(vocoder)
        limited = random_vocoder(limited_form(vocoder_config)).to(setting.device)
        synthesis = compare(vocoder, limited, fixed_units(geometry, vocoder))
    run = sorted(runs, key=lambda run: sum(run.seconds))[1]
    chunk_ms, third = 1000 * np.array(run.seconds), max(1, len(run.seconds) // 3)
    return {
        "real_time_factor": sum(run.seconds) / args.seconds,
        "chunk_ms_p50": float(np.median(chunk_ms)),
        "chunk_ms_p95": float(np.percentile(chunk_ms, 95)),
        "chunk_ms_first_third": float(np.median(chunk_ms[:third])),
        "chunk_ms_last_third": float(np.median(chunk_ms[-third:])),
        "stages": {name: _p50_p95(run.stages[name]) for name in STAGES},
        "playback": [playback(run, buffer_ms) for buffer_ms in (0.0, float(args.playback_buffer_ms))],
        "synthesis": synthesis,
        **offline,
        "seconds": args.seconds,
        "speech_seconds": sum(map(len, run.sounds)) / SAMPLE_RATE,
        "chunks": run.chunks,
        "chunk_ms": policy.chunk_ms,
        "unit_frames_per_chunk": _units_per_chunk(geometry) * UNIT_FRAMES,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocoder_parameters": sum(parameter.numel() for parameter in vocoder.parameters()),
        "threads": torch.get_num_threads(),
        **setting.describe(),
    }


def random_vocoder(config: VocoderConfig) -> UnitVocoder:
    """A vocoder with random weights whose duration predictor gives two frames for every unit."""
    torch.manual_seed(0)
    vocoder = UnitVocoder(config).for_inference()
    assert vocoder.dur_predictor is not None
    vocoder.dur_predictor.proj.weight.zero_()
    vocoder.dur_predictor.proj.bias.fill_(math.log(1 + UNIT_FRAMES))
    return vocoder


@dataclass
class Run:
    """Measurements of one stream.

    Attributes:
        seconds: computing time of each push; a push completes one chunk, the last one ends the source.
        source_ms: source audio that each push requires, in ms from the start.
        sounds: samples synthesized in each push.
        stages: computing seconds of each stage in each push.
        chunks: number of chunks emitted.
    """

    seconds: list[float] = field(default_factory=list)
    source_ms: list[float] = field(default_factory=list)
    sounds: list[NDArray[np.float32]] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})
    chunks: int = 0


class Stopwatch:
    """Computing seconds of each stage since the last :meth:`take`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._undo: list[Callable[[], object]] = []

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begun = now(self._device)
        yield
        self._seconds[stage] += now(self._device) - begun

    def watch(self, stage: str, module: nn.Module) -> None:
        """Time every forward of ``module`` and, where it has one, its output layer ``logits``."""
        begun: list[float] = []
        hooks = (
            module.register_forward_pre_hook(lambda *_: begun.append(now(self._device))),
            module.register_forward_hook(lambda *_: self._add(stage, now(self._device) - begun.pop())),
        )
        self._undo += [hook.remove for hook in hooks]
        logits = getattr(module, "logits", None)
        if logits is not None:

            def timed(*inputs: Any) -> Any:
                with self(stage):
                    return logits(*inputs)

            module.logits = timed  # shadows the method, on this instance
            self._undo.append(lambda: delattr(module, "logits"))

    def unwatch(self) -> None:
        """Remove all hooks: the modules are what they were."""
        while self._undo:
            self._undo.pop()()

    def take(self) -> dict[str, float]:
        """Return the seconds of each stage since the last call, and start from 0."""
        taken, self._seconds = self._seconds, dict.fromkeys(STAGES, 0.0)
        return taken

    def _add(self, stage: str, seconds: float) -> None:
        self._seconds[stage] += seconds


def stream(model: NastModel, vocoder: UnitVocoder, geometry: ChunkGeometry, source: NDArray[np.float32]) -> Run:
    """Run one stream from samples (n,) at 16 kHz to samples: features, network, collapse, vocoder, chunk by chunk."""
    device, dtype = device_of(model), model.encoder.layernorm_embedding.weight.dtype
    run, watch = Run(), Stopwatch(device)
    for stage, module in zip(STAGES[1:4], (model.encoder, model.decoder, model.unit_decoder), strict=True):
        watch.watch(stage, module)
    fbank, state = StreamingFbank(), model.init_state(geometry.policy)
    speech = VocoderStream(vocoder)
    collapsers = CtcCollapser(blank=model.config.text_vocab - 1), CtcCollapser(blank=model.config.unit_vocab - 1)
    try:
        for start, stop in sample_pieces(len(source), geometry):
            final, begun = stop == len(source), now(device)
            with watch("features"):
                features = fbank.push(source[start:stop], final)
            output = model(features[None].to(device, dtype), None, geometry.policy, state=state, final=final)
            for collapser, logits in zip(collapsers, (output.text_logits, output.unit_logits)):
                collapser.push(logits[0].argmax(-1))
            new = -(-output.text_logits.shape[1] // (geometry.per_chunk("text") or 1))
            with watch("vocoder"):
                sounds = [speech.push(fixed_units(geometry, vocoder), final and last == new - 1) for last in range(new)]
            run.seconds.append(now(device) - begun)
            run.source_ms.append(1000 * stop / SAMPLE_RATE)
            run.sounds.append(np.concatenate([*sounds, np.zeros(0, np.float32)]))
            run.chunks += new
            for stage, seconds in watch.take().items():
                run.stages[stage].append(seconds)
    finally:
        watch.unwatch()
    return run


def sample_pieces(num_samples: int, geometry: ChunkGeometry) -> list[tuple[int, int]]:
    """Cut ``num_samples`` samples at 16 kHz at the emissions of a stream.

    Returns:
        (start, stop) of each piece; each completes a chunk, but the last piece ends the source.
    """
    edges, chunk = [0], 0
    while (edge := (geometry.emission_frames(chunk) - 1) * _SHIFT + _WINDOW) < num_samples:
        edges.append(edge)
        chunk += 1
    return list(zip(edges, [*edges[1:], num_samples], strict=True))


def fixed_units(geometry: ChunkGeometry, vocoder: UnitVocoder) -> list[int]:
    """Units that last as long as a chunk."""
    return [unit % vocoder.config.num_embeddings for unit in range(_units_per_chunk(geometry))]


def _units_per_chunk(geometry: ChunkGeometry) -> int:
    return (geometry.chunk_frames or 0) * _SHIFT // (UNIT_SAMPLES * UNIT_FRAMES)


def playback(run: Run, buffer_ms: float) -> dict[str, Any]:
    """Playback statistics of a stream at the speed of speech.

    A chunk is computed once its source has been read and the chunk before is done, and then available for playback.
    """
    played, done = Playback(buffer_ms), 0.0
    for source_ms, seconds, sound in zip(run.source_ms, run.seconds, run.sounds):
        done = max(done, source_ms) + 1000 * seconds
        played.add(done, sound)
    return {"buffer_ms": buffer_ms, **played.statistics()}


def offline_seconds(vocoder: UnitVocoder) -> dict[str, float]:
    """Seconds to synthesize whole utterances, batched and one by one; each the smaller of two times."""
    device = device_of(vocoder)
    rng = np.random.default_rng(0)
    frames = [round(seconds * SAMPLE_RATE / UNIT_SAMPLES) for seconds in OFFLINE_SECONDS]
    batch = [rng.integers(vocoder.config.num_embeddings, size=size // UNIT_FRAMES).tolist() for size in frames]

    one_by_one, batched = [], []
    for _ in range(2):
        batched.append(timed(device, lambda: synthesize(vocoder, batch)))
        one_by_one.append(timed(device, lambda: [synthesize(vocoder, [units]) for units in batch]))
    return {
        "offline_batched_seconds": min(batched),
        "offline_one_by_one_seconds": min(one_by_one),
        "offline_speech_seconds": sum(map(len, batch)) * UNIT_FRAMES * UNIT_SAMPLES / SAMPLE_RATE,
    }


def _p50_p95(seconds: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(1000 * np.array(seconds), [50, 95])
    return {"p50": float(p50), "p95": float(p95)}
