"""The part ``serving`` of the benchmark."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nast_s2x.benchmarks import serving
from nast_s2x.cli.main import main


def measured(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    assert main(["benchmark", "serving", "--preset", "tiny", "--threads", "1", "--json", *flags]) == 0
    return json.loads(capsys.readouterr().out)


def test_figures(capsys: pytest.CaptureFixture[str]) -> None:
    result = measured(capsys, "--streams", "1,3", "--seconds", "2.5", "--left-ms", "640")
    assert [row["streams"] for row in result["rows"]] == [1, 3]
    for row in result["rows"]:
        assert 0 < row["step_ms_p50"] <= row["step_ms_p95"] and 0 < row["delay_ms_p50"] <= row["delay_ms_p95"]
        assert 1 <= row["rows_per_step"] <= row["streams"] and 0 < row["load"] <= 1
    assert (result["chunk_ms"], result["left_ms"], result["seconds"]) == (320, 640, 2.5)


def test_one_chunk_size_in_ms(capsys: pytest.CaptureFixture[str]) -> None:
    for chunk in ("offline", "320,640"):
        assert main(["benchmark", "serving", "--preset", "tiny", "--chunk-ms", chunk]) == 1
        assert "serving takes one --chunk-ms in ms" in capsys.readouterr().err


@pytest.mark.parametrize("limit", [0, 5, 37])
def test_capacity_is_searched(limit: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    counts = []

    def run_once(system: object, count: int, seconds: float, speech: bool) -> dict[str, Any]:
        counts.append(count)
        return {"streams": count, "delay_ms_p95": 100.0 if count <= limit else 400.0}

    monkeypatch.setattr(serving, "run_once", run_once)
    monkeypatch.setattr(
        serving, "random_system", lambda *_: type("System", (), {"model": type("M", (), {"parameters": list})})
    )
    result = measured(capsys, "--streams", "2", "--capacity")
    assert result["capacity"] == limit if limit < 10 else 0.9 * limit <= result["capacity"] <= limit
    assert len(counts) < 14
