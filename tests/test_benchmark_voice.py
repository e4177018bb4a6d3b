"""The voice benchmark on small sizes: figures, stages, pieces and playback."""

from __future__ import annotations

import argparse
import json
import re

import numpy as np
import pytest
import torch
from random_vocoder import make_vocoder

from nast_s2x.benchmarks import speech as benchmark
from nast_s2x.benchmarks.streaming import random_model
from nast_s2x.chunking import ChunkGeometry, ChunkPolicy, SlotRates
from nast_s2x.cli.main import build_parser, main
from nast_s2x.errors import ConfigError
from nast_s2x.frontend.fbank import num_frames
from nast_s2x.vocoder.config import DurationConfig, VocoderConfig

SMALL = VocoderConfig(
    num_embeddings=20,
    embedding_dim=8,
    upsample_initial_channel=32,
    resblock_kernel_sizes=(3,),
    resblock_dilation_sizes=((1, 3),),
    dur_predictor_params=DurationConfig(8, 8),
)
GEOMETRY = ChunkGeometry(SlotRates(), ChunkPolicy(320))


def arguments(**changes: object) -> argparse.Namespace:
    values = {"preset": "tiny", "seconds": 2.0, "chunk_ms": "320", "threads": torch.get_num_threads()}
    values |= {"device": "cpu", "dtype": "fp32"}
    return argparse.Namespace(**{**values, "playback_buffer_ms": 250.0, **changes})


def test_figures() -> None:
    result = benchmark.measure(arguments(), SMALL)
    assert result["chunks"] == 7 and result["unit_frames_per_chunk"] == 16
    assert result["speech_seconds"] == pytest.approx(7 * 0.32)  # every unit frame was synthesized
    assert 0 < result["chunk_ms_p50"] <= result["chunk_ms_p95"]
    assert result["real_time_factor"] * 2.0 * 1000 >= result["chunk_ms_p50"] * 3
    assert list(result["stages"]) == ["features", "encoder", "text_decoder", "unit_decoder", "vocoder"]
    assert all(0 < stage["p50"] <= stage["p95"] for stage in result["stages"].values())
    assert sum(stage["p50"] for stage in result["stages"].values()) < 1.5 * result["chunk_ms_p95"]
    rounding = 0.04 * len(benchmark.OFFLINE_SECONDS)  # a unit is 40 ms
    assert result["offline_speech_seconds"] == pytest.approx(sum(benchmark.OFFLINE_SECONDS), abs=rounding)
    json.dumps(result)


def test_limited_lookahead_computes_every_sample_once() -> None:
    synthesis = benchmark.measure(arguments(), SMALL)["synthesis"]
    assert synthesis["limited"]["work"] == pytest.approx(1, abs=1e-3)
    assert synthesis["windows"]["work"] > 1.05
    assert synthesis["ratio"] == synthesis["limited"]["ms_p50"] / synthesis["windows"]["ms_p50"]


def test_stages_are_parts_of_a_chunk_and_leave_no_trace() -> None:
    model = random_model("tiny", 2.0)
    source = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    with torch.inference_mode():
        run = benchmark.stream(model, make_vocoder(), GEOMETRY, source)
    for push, total in enumerate(run.seconds):
        assert sum(stage[push] for stage in run.stages.values()) < total
        assert all(stage[push] > 0 for stage in run.stages.values())
    for module in (model.encoder, model.decoder, model.unit_decoder):
        assert not module._forward_hooks and not module._forward_pre_hooks and "logits" not in vars(module)


def test_each_piece_of_samples_completes_a_chunk() -> None:
    pieces = benchmark.sample_pieces(32000, GEOMETRY)
    assert pieces[0][0] == 0 and pieces[-1][1] == 32000
    for chunk, (_, stop) in enumerate(pieces[:-1]):
        assert num_frames(stop) == GEOMETRY.emission_frames(chunk) == num_frames(stop - 1) + 1


def test_playback_counts_computing_and_the_start_delay() -> None:
    second = np.zeros(16000, np.float32)
    run = benchmark.Run([0.1, 0.5, 0.1], [1000, 2000, 3000], [second, second, second])
    plain, buffered = benchmark.playback(run, 0), benchmark.playback(run, 500)
    assert plain["start_ms"] == 1100 and plain["gaps"] == 1 and plain["gap_sum_ms"] == pytest.approx(400)
    assert buffered["start_ms"] == 1600 and buffered["gaps"] == 0
    slow = benchmark.Run([2.0, 2.0], [1000, 2000], [second, second])  # the second chunk waits for the first
    assert benchmark.playback(slow, 0)["gap_sum_ms"] == pytest.approx(5000 - 4000)


@pytest.mark.parametrize("chunk_ms", ["offline", "330"])
def test_a_chunk_is_whole_unit_frames(chunk_ms: str) -> None:
    message = f"--chunk-ms of voice must be a multiple of 20 (ms, a unit frame), but is {chunk_ms}"
    with pytest.raises(ConfigError, match=re.escape(message)):
        benchmark.measure(arguments(chunk_ms=chunk_ms), SMALL)


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(benchmark, "run_voice", lambda args: {"seconds": args.seconds, "threads": args.threads})
    assert main(["benchmark", "voice", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"seconds": 15.0, "threads": 2}
    args = build_parser("benchmark").parse_args(["benchmark", "voice", "--playback-buffer-ms", "100"])
    assert args.playback_buffer_ms == 100 and args.preset == "base" and args.chunk_ms == "320"
