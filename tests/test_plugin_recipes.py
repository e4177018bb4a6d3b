"""Recipes and scripts/train.sh: every flag is one that fairseq and the plugin know, stages follow one another."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("fairseq")

from plugin_data import make_data_folder  # noqa: E402
from plugin_runs import settings  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted(path.stem for path in (ROOT / "configs").glob("*.sh"))
# Stages of the recipes that do not follow the paper's three.
STAGES = {"tiny_recogniser": ["asr"], "tiny_espeak_s2s": ["asr", "text", "units", "ctc", "positions", "nmla"]}


def train_sh(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "scripts" / "train.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_folder(tmp_path_factory.mktemp("data"), train=2)


def commands(data: Path, save: Path, recipe: str, *more: object) -> dict[str, list[str]]:
    """Arguments of each stage's fairseq-train, behind the data folder."""
    result = train_sh(recipe, "--data", data, "--save", save, "--dry-run", *more)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    stages = [line.removeprefix("== stage ") for line in lines[::2]]
    return dict(zip(stages, (shlex.split(line)[1:] for line in lines[1::2]), strict=True))


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_are_understood(data: Path, tmp_path: Path, recipe: str) -> None:
    stages = commands(data, tmp_path, recipe)
    assert list(stages) == STAGES.get(recipe, ["asr", "ctc", "nmla"])
    cfgs = {}
    for name, (folder, *flags) in stages.items():
        assert folder == str(data)
        assert flags[flags.index("--user-dir") + 1] == str(ROOT / "nast_s2x")
        at = flags.index("--user-dir")
        cfgs[name] = settings(data, *flags[:at], *flags[at + 2 :])
        assert cfgs[name].checkpoint.save_dir == str(tmp_path / name)
        assert cfgs[name].checkpoint.maximize_best_checkpoint_metric
        assert str(cfgs[name].task.target_text) == ("source" if name == "asr" else "target")
        assert str(cfgs[name].criterion.text_loss) == ("nmla" if name == "nmla" else "ctc")
    for before, name in zip(list(cfgs), list(cfgs)[1:]):
        sources = [cfgs[name].checkpoint.finetune_from_model, cfgs[name].model.load_pretrained_encoder_from]
        assert any(str(source).startswith(str(tmp_path / before)) for source in sources), name


def test_one_stage_overrides_and_finished_stages(data: Path, tmp_path: Path) -> None:
    stages = commands(data, tmp_path, "tiny_espeak", "--stage", "ctc", "--", "--max-update", "7")
    assert list(stages) == ["ctc"] and stages["ctc"][-2:] == ["--max-update", "7"]
    for stage in ("asr", "ctc", "nmla"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "finished").touch()
    result = train_sh("tiny_espeak", "--data", data, "--save", tmp_path)
    assert result.returncode == 0 and result.stdout.count("is finished") == 3
    assert "fairseq-train" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "--data", "DATA", "--save", "x"], "no recipe"),
        (["tiny_espeak", "--save", "x"], "--data DIR"),
        (["tiny_espeak", "--data", "DATA"], "--save DIR"),
        (["tiny_espeak", "--data", "/", "--save", "x"], "config.yaml"),
        (["tiny_espeak", "--data", "DATA", "--save", "x", "--stage", "four"], "no stage four"),
        (["tiny_espeak", "--max-update", "3"], "after --"),
    ],
)
def test_mistakes_are_explained(
    data: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.delenv("DATA", raising=False)
    monkeypatch.delenv("SAVE", raising=False)
    result = train_sh(*(str(data) if argument == "DATA" else argument for argument in arguments))
    assert result.returncode == 2 and message in result.stderr
