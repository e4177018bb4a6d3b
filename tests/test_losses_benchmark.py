"""The parts nmla and alignment of the benchmark command on small sizes: output, equal results, refused sizes."""

from __future__ import annotations

import argparse
import json

import pytest

from nast_s2x.cli import benchmark
from nast_s2x.errors import ConfigError


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    benchmark.add_parser(parser.add_subparsers())
    return parser.parse_args(["benchmark", *words])


SMALL = ("--threads", "1", "--batch", "2", "--slots", "60", "--vocab", "30", "--targets", "20")


def test_nmla_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    args = parse("nmla", "--json", *SMALL)
    assert args.func(args) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result) == [
        "seconds", "pairwise_seconds", "speedup", "extra_bytes", "pairwise_extra_bytes", "memory_ratio",
        "max_abs_difference", "device", "dtype",
    ]  # fmt: skip
    assert result["speedup"] == pytest.approx(result["pairwise_seconds"] / result["seconds"])
    assert result["memory_ratio"] == pytest.approx(result["pairwise_extra_bytes"] / result["extra_bytes"])
    assert 0 < result["max_abs_difference"] < 1e-5


def test_alignment_equals_its_reference(capsys: pytest.CaptureFixture[str]) -> None:
    args = parse("alignment", *SMALL)
    assert args.func(args) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["states_equal"] == "True" and float(lines["seconds"]) > 0


def test_impossible_sizes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"--targets must be at least 2 and at most half the slots \(60\), got 40"):
        args = parse("alignment", "--slots", "60", "--targets", "40")
        args.func(args)
    with pytest.raises(SystemExit):
        parse("nmla", "--threads", "0")
    assert "must be a number above 0, got 0" in capsys.readouterr().err
