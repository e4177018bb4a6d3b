"""scripts/gpu_check.py on the CPU, small: every check and every benchmark, and what a failure does."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_check.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def scope(script: ModuleType) -> Any:
    return script.Scope(torch.device("cpu"), small=True)


@pytest.mark.parametrize("name", ["translations", "engine", "alignment", "sums_by_relation", "columns", "streaming"])
def test_checks_pass(script: ModuleType, scope: Any, name: str) -> None:
    assert getattr(script, name)(scope)["passed"] is True


def test_a_wrong_alignment_is_noticed(script: ModuleType, scope: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "viterbi_align", lambda *inputs: script.viterbi_align_torch(
        inputs[0], *(part.on("cpu") if hasattr(part, "on") else part for part in inputs[1:4]), inputs[4]
    ).clamp(max=3))  # fmt: skip
    result = script.alignment(scope)
    assert result["passed"] is False and result["different"] > 0


def test_a_wrong_gradient_is_noticed(script: ModuleType, scope: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [(1.0, {"weight": torch.ones(3)}), (1.0, {"weight": torch.tensor([1.0, 1.0, 1.01])})]
    monkeypatch.setattr(script, "_step", lambda *_: steps[0])
    assert script.training_step(scope)["passed"] is True
    answers = iter([*steps, *steps])
    monkeypatch.setattr(script, "_step", lambda *_: next(answers))
    assert script.training_step(scope)["passed"] is False


def test_a_failure_is_recorded_and_the_rest_goes_on(
    script: ModuleType, scope: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> dict[str, Any]:
        raise RuntimeError("out of memory")

    def fine(_: Any) -> dict[str, Any]:
        return {"passed": True}

    def without_package(_: Any, __: Any) -> dict[str, Any]:
        raise ModuleNotFoundError("No module named 'fairseq'", name="fairseq")

    monkeypatch.setattr(script, "benchmarks", lambda _: iter([("autoregressive_fp32", ["autoregressive"])]))
    monkeypatch.setattr(script, "run_benchmark", without_package)
    output = tmp_path / "check.json"
    for checks, status in (((broken, fine), 1), ((fine,), 0)):
        monkeypatch.setattr(script, "CHECKS", checks)
        assert script.main(["--device", "cpu", "--small", "--output", str(output)]) == status
        result = json.loads(output.read_text())
        assert list(result["checks"]) == [check.__name__ for check in checks] and result["passed"] is (status == 0)
        assert result["checks"]["fine"]["passed"] is True
        assert result["benchmarks"]["autoregressive_fp32"]["skipped"] == "the package fairseq is not installed"
        if broken in checks:
            assert result["checks"]["broken"]["error"] == "RuntimeError: out of memory"
            assert result["checks"]["broken"]["where"].startswith("test_gpu_check.py:")
    assert result["versions"]["torch"] == torch.__version__.partition("+")[0] or "+" in result["versions"]["torch"]
    assert script.main(["--device", "cpu", "--small", "--output", str(output), "--limit-seconds", "0"]) == 0
    assert json.loads(output.read_text())["benchmarks"]["autoregressive_fp32"] == {"skipped": "0 s had passed"}


def test_a_device_that_is_missing(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--device", "cuda:77", "--output", str(tmp_path / "check.json")]) == 1
    assert "device cuda:77 is not available" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_command(script: ModuleType, tmp_path: Path) -> None:
    output = tmp_path / "check.json"
    assert script.main(["--device", "cpu", "--small", "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert result["passed"] and all(check["passed"] for check in result["checks"].values())
    assert not [name for name, part in result["benchmarks"].items() if "error" in part]
    training = result["benchmarks"]["training_nmla_fp32_300"]
    assert training["host_reads"] == 0 and sum(training["shares"].values()) == pytest.approx(1.0)
