"""The ablation's program: its commands, what it reads, the table that it writes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from espeak_fr_en import ablation  # noqa: E402

from nast_s2x.training import read_recipe  # noqa: E402

SETTINGS = {
    "source": {"path": "s", "sha256": "1"},
    "target": {"path": "t", "sha256": "2"},
    "num_utterances": 7,
    "target_type": "text",
    "segment_ms": 40,
    "first_segment_ms": None,
    "versions": {"nast_s2x": "0", "simuleval": "1.1.4", "torch": "2"},
}
TRAINED = {"single": [320]}
BLEU = {"multi": 40.0, "nmla": 43.25, "single": 30.0, "nolook": 20.0}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def change(path: Path, **values: Any) -> None:
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | values)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A folder as exports, evaluations and the comparison leave it; figures grow by 1 from chunk size to chunk size."""
    compared = []
    for name in ablation.VARIANTS:
        geometries = {
            "chunk_ms": TRAINED.get(name, [320, 640, 1280, "offline"]),
            "lookahead_ms": 0 if name == "nolook" else "chunk",
        }
        config = {"geometries": geometries, "origin": {"updates": 1200}}
        write_json(tmp_path / "bundles" / name / "config.json", config)
        rows = [
            {
                "chunk": chunk,
                "empty": place,
                "quality": {"BLEU": BLEU[name] + place},
                "latency": {"AL": 600.0 + place, "LAAL": 700.0, "StartOffset": 800.25},
            }
            for place, chunk in enumerate(ablation.CHUNKS)
        ]
        write_json(tmp_path / "evaluations" / name / "scores.json", {"settings": SETTINGS, "rows": rows})
    for place, chunk in enumerate(ablation.CHUNKS):
        systems = [
            {
                "name": name,
                "significance": {
                    "BLEU": {"score": bleu + place, "ci": 1.26, "p_value": None if name == "multi" else 0.0123}
                },
            }
            for name, bleu in BLEU.items()
        ]
        compared.append({"chunk": chunk, "systems": systems})
    write_json(tmp_path / "comparison" / "compare.json", {"rows": compared, "samples": 1000})
    return tmp_path


def test_every_variant_is_a_stage_of_the_recipe_and_is_evaluated_at_every_chunk_size() -> None:
    train, *others, compare = ablation.commands(*map(Path, ("corpus", "data", "save", "out")))
    assert train == shlex.split("bash scripts/train.sh ablation --data data --save save")
    stages = [stage.name for stage in read_recipe(ROOT / "configs" / "ablation.yaml").stages]
    assert set(ablation.VARIANTS) <= set(stages)
    assert len(others) == 2 * len(ablation.VARIANTS)
    for name, export, evaluate in zip(ablation.VARIANTS, others[::2], others[1::2], strict=True):
        assert export[:3] == ["nast-s2x", "export", f"save/{name}/checkpoint_last.pt"]
        assert evaluate[evaluate.index("--model") + 1] == export[-1] == f"out/bundles/{name}"
        assert evaluate[evaluate.index("--chunk-ms") + 1] == "320,640,1280,offline"
        assert evaluate[-1] == f"out/evaluations/{name}" == compare[2 + list(ablation.VARIANTS).index(name)]


@pytest.mark.parametrize("subcommand", ["export", "evaluate", "compare"])
def test_the_subcommands_understand_the_commands(subcommand: str) -> None:
    from nast_s2x.cli.main import build_parser

    places = map(Path, ("corpus", "data", "save", "out"))
    found = [command[1:] for command in ablation.commands(*places) if command[:2] == ["nast-s2x", subcommand]]
    assert found
    for command in found:
        assert str(build_parser(subcommand).parse_args(command).output).startswith("out/")


def test_table_and_json(output: Path) -> None:
    ablation.write(output)
    lines = (output / "ablation.md").read_text(encoding="utf-8").splitlines()
    assert "| BLEU | 320 ms | 640 ms | 1280 ms | offline |" in lines
    assert "| multi | 40.0 ±1.3 | 41.0 ±1.3 | 42.0 ±1.3 | 43.0 ±1.3 |" in lines
    row = "| single | 30.0 ±1.3, p 0.012 | 31.0 ±1.3, p 0.012 † | 32.0 ±1.3, p 0.012 † | 33.0 ±1.3, p 0.012 † |"
    assert row in lines
    assert "| nolook | 600 / 800 | 601 / 800 | 602 / 800 | 603 / 800 |" in lines
    assert "Empty translations in all cells together: 24." in lines  # 4 variants, 0 + 1 + 2 + 3 each
    assert any("get 1200 updates" in line for line in lines) and any("7 test sentences" in line for line in lines)
    assert f"    {shlex.join(ablation.commands(*map(Path, ('CORPUS', 'DATA', 'SAVE', 'OUTPUT')))[0])}" in lines
    content = json.loads((output / "ablation.json").read_text(encoding="utf-8"))
    assert content["settings"]["resamples"] == 1000 and "source" not in content["settings"]  # no paths
    single = content["variants"][2]
    assert single["name"] == "single" and single["chunk_ms"] == ["320"] and single["updates"] == 1200
    assert [row["trained"] for row in single["rows"]] == [True, False, False, False]
    assert content["variants"][3]["lookahead_ms"] == "0"
    nmla = content["variants"][1]["rows"][1]
    assert nmla == {
        "chunk": "640", "trained": True, "BLEU": 44.25, "BLEU_ci": 1.26, "BLEU_p": 0.0123, "AL": 601.0, "LAAL": 700.0,
        "StartOffset": 800.2, "empty": 1,
    }  # fmt: skip


def test_what_cannot_stand_side_by_side_is_refused(output: Path) -> None:
    scores = output / "evaluations" / "nmla" / "scores.json"
    config = output / "bundles" / "nolook" / "config.json"
    kept = scores.read_text(encoding="utf-8")
    change(scores, settings=SETTINGS | {"segment_ms": 80})
    with pytest.raises(ValueError, match="of nmla and multi differ in segment_ms"):
        ablation.write(output)
    change(scores, settings=SETTINGS, rows=json.loads(kept)["rows"][:3])
    with pytest.raises(ValueError, match="no chunk size offline"):
        ablation.write(output)
    scores.write_text(kept.replace("43.25", "44.25"), encoding="utf-8")
    with pytest.raises(ValueError, match="nmla, chunk size 320: scores and comparison are of two runs"):
        ablation.write(output)
    scores.write_text(kept, encoding="utf-8")
    change(config, origin={"updates": 900})
    with pytest.raises(ValueError, match="nolook got 900 updates, multi 1200"):
        ablation.write(output)
    assert not (output / "ablation.md").exists() and not (output / "ablation.json").exists()


def test_dry_run_and_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [f"--{name}={tmp_path / name}" for name in ("corpus", "data", "save", "output")]
    assert ablation.main([*flags, "--dry-run"]) == 1
    assert f"ablation.py: no file {tmp_path}/corpus/test.source.txt" in capsys.readouterr().err
    for name in ("corpus/test.source.txt", "corpus/test.target.txt", "data/config.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert ablation.main([*flags, "--dry-run"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 10
    assert not (tmp_path / "save").exists() and not (tmp_path / "output").exists()


def test_a_failing_command_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("corpus/test.source.txt", "corpus/test.target.txt", "data/config.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    started: list[list[str]] = []

    def fail_at_export(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        started.append(command)
        return subprocess.CompletedProcess(command, 3 if "export" in command else 0)

    monkeypatch.setattr(subprocess, "run", fail_at_export)
    assert ablation.main([f"--{name}={tmp_path / name}" for name in ("corpus", "data", "save", "output")]) == 1
    assert [command[0] for command in started] == ["bash", sys.executable]
    assert started[1][1:4] == ["-m", "nast_s2x.cli.main", "export"]
    assert "exit status 3 of: nast-s2x export" in capsys.readouterr().err
