"""A short form of ``nast-s2x benchmark load``: nothing of a healthy session is lost, whatever other clients do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

for _name in ("starlette", "uvicorn", "websockets"):
    pytest.importorskip(_name, reason="needs the extra serve")

from nast_s2x.benchmarks.load import word_changes  # noqa: E402
from nast_s2x.benchmarks.load_clients import MISDEEDS, Outcome, Talk  # noqa: E402
from nast_s2x.cli.main import main  # noqa: E402

BUNDLE = Path(__file__).parents[1] / "examples" / "espeak_fr_en" / "bundle"


@pytest.mark.timeout(300)
def test_nothing_is_lost_under_load(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "load", "--model", str(BUNDLE), "--sessions", "6", "--seconds", "12", "--threads", "1"]
    assert main([*words, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["problems"] == [] and figures["sessions_equal"] == figures["sessions"] == 6
    assert figures["sources_equal"] == figures["sources"] >= 6
    assert figures["unpaced_equal"] == figures["unpaced_sources"] >= 1
    assert figures["words"] > 50 and figures["words_lost"] == figures["words_added"] == 0
    assert figures["slots_in_use_end"] == figures["metrics"]["slots_in_use"] == 0
    assert all(figures["misdeeds"].get(name) for name in MISDEEDS if name not in ("stall", "rubbish"))  # these are slow
    assert figures["delay_ms_p50"] > 0


def test_words_that_are_lost_are_counted() -> None:
    talk = Talk(np.zeros(16000, np.int16), 16000, [(500.0, "a b"), (1000.0, " c d")])
    assert talk.text == "a b c d" and talk.seconds == 1
    assert word_changes(Outcome(talk, "a b c d")) == (0, 0) and Outcome(talk, "a b c d").is_equal
    assert word_changes(Outcome(talk, "a c x d e")) == (1, 2) and not Outcome(talk, "a c d").is_equal
    assert not Outcome(talk, "a b c d", error="reset").is_equal


def test_a_model_and_recordings_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "load"]) == 1
    assert "load needs --model BUNDLE" in capsys.readouterr().err
    assert main(["benchmark", "load", "--model", str(BUNDLE), "--recordings", str(tmp_path)]) == 1
    assert "no recordings there" in capsys.readouterr().err
