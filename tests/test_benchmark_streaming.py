"""The streaming and attention benchmarks on small sizes: figures, and the comparison of labels."""

import argparse

import torch

from nast_s2x.benchmarks import streaming as benchmark
from nast_s2x.chunking import ChunkGeometry, ChunkPolicy, SlotRates


def arguments(**changes: object) -> argparse.Namespace:
    values = {"preset": "tiny", "seconds": 2.0, "chunk_ms": "320", "threads": torch.get_num_threads(), "batch": None}
    values |= {"device": "cpu", "dtype": "fp32"}
    return argparse.Namespace(**{**values, **changes})


def test_streaming_figures() -> None:
    result = benchmark.run_streaming(arguments())
    assert result["labels_equal"] is True and result["chunks"] == 6
    assert result["speedup"] == result["recomputed_seconds"] / result["cached_seconds"]
    assert result["real_time_factor"] == result["cached_seconds"] / 2.0


def test_pieces_follow_the_schedule() -> None:
    geometry = ChunkGeometry(SlotRates(), ChunkPolicy(320))
    assert benchmark.pieces(100, geometry) == [(0, 64), (64, 96), (96, 100)]
    assert benchmark.pieces(10, geometry) == [(0, 10)]


def test_a_changed_label_is_noticed_and_a_tie_is_not() -> None:
    reference = torch.tensor([[[2.0, 0.0, 0.0], [1.0, 1.0, -5.0]]])
    other = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 1.0, -5.0]]])
    assert benchmark.compare((other, reference)) == (True, 1)
    assert benchmark.compare((other.flip(1), reference)) == (False, 1)
    assert benchmark.compare((other[:, :1], reference)) == (False, 0)


def test_attention_figures() -> None:
    for chunk in ("320", "offline"):
        result = benchmark.run_attention(arguments(chunk_ms=chunk))
        assert 0 <= result["max_abs_difference"] < 1e-4 and result["pairwise_relation_bytes"] > 0
        half = benchmark.run_attention(arguments(chunk_ms=chunk, dtype="bf16"))
        for name in ("relation_bytes", "pairwise_relation_bytes"):
            assert half[name] == result[name] / 2


def test_streaming_in_bf16() -> None:
    assert benchmark.run_streaming(arguments(dtype="bf16"))["dtype"] == "bf16"
