"""Every recorded quantity of the published implementation is reproduced (scripts/check_parity.py does the work)."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "fixtures" / "parity"


def _load_script():
    spec = importlib.util.spec_from_file_location("check_parity", ROOT / "scripts" / "check_parity.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_parity"] = module
    spec.loader.exec_module(module)
    return module


check_parity = _load_script()


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.npz")), ids=lambda path: path.stem)
def test_fixture_is_reproduced(path: Path) -> None:
    rows = check_parity.check(path)
    assert rows and [row for row in rows if not row.passed] == []


def test_released_checkpoint_is_reproduced() -> None:
    rows = check_parity.check(FIXTURES / "published_checkpoint")
    assert len(rows) == 5 and [row for row in rows if not row.passed] == []


def test_a_wrong_weight_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(FIXTURES / "s2t_main32_right16.npz") as arrays:
        changed = {name: arrays[name] for name in arrays.files}
    changed["out/text_log_probs"] = changed["out/text_log_probs"] + np.float32(0.01)
    np.savez(tmp_path / "changed.npz", **changed)
    assert check_parity.main([str(tmp_path / "changed.npz")]) == 1
    assert "FAIL text_log_probs" in capsys.readouterr().out


def test_a_tie_passes_and_a_wrong_label_does_not() -> None:
    log_probs = torch.tensor([[-1.0, -1.0005, -3.0], [-0.5, -2.0, -3.0]])
    assert check_parity.compare_labels(log_probs, torch.tensor([1, 0])) == (0.0, 1)
    assert check_parity.compare_labels(log_probs, torch.tensor([2, 0])) == (1.0, 0)
