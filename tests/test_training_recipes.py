"""Recipes and `nast-s2x train`: flags are those of fairseq and the plugin, stages follow one another."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("fairseq")

from plugin_data import make_data_folder  # noqa: E402
from plugin_runs import settings  # noqa: E402

from nast_s2x import files  # noqa: E402
from nast_s2x.errors import ConfigError, NastError  # noqa: E402
from nast_s2x.training import Recipe, launch, read_recipe  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
# The autoregressive baseline is a model of fairseq's own: tests/test_autoregressive.py.
RECIPES = sorted({path.stem for path in (ROOT / "configs").glob("*.yaml")} - {"tiny_espeak_s2ut"})
# Stages of the recipes that do not follow the paper's three.
STAGES = {
    "tiny_recogniser": ["asr", "anneal"],
    "tiny_espeak_s2s": ["asr", "ctc", "nmla", "units", "speech"],
    "ablation": ["asr", "start", "multi", "nmla", "single", "nolook"],
    "own_voice": ["units", "speech"],
}
# Stages that do not start from the one before them.
ORIGINS = {("ablation", "nmla"): "start", ("ablation", "single"): "asr", ("ablation", "nolook"): "asr"}


def train_sh(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "scripts" / "train.sh"), *map(str, arguments)]
    environment = {**os.environ, "VENV": str(Path(sys.executable).parent.parent)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


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
        assert str(cfgs[name].task.target_text) == ("source" if name in ("asr", "anneal") else "target")
        assert str(cfgs[name].criterion.text_loss) == ("nmla" if name in ("nmla", "speech") else "ctc")
    for before, name in zip(list(cfgs), list(cfgs)[1:]):
        origin = tmp_path / ORIGINS.get((recipe, name), before)
        checkpoint = cfgs[name].checkpoint
        sources = [
            checkpoint.finetune_from_model,
            checkpoint.continue_once,
            cfgs[name].model.load_pretrained_encoder_from,
            cfgs[name].model.start_from,
        ]
        assert any(str(source).startswith(f"{origin}/") for source in sources), name


def test_variants_of_the_ablation_differ_in_one_thing_each(data: Path, tmp_path: Path) -> None:
    stages = commands(data, tmp_path, "ablation")
    final = {}
    for name in ("start", "multi", "nmla", "single", "nolook"):
        flags = stages[name][1:]
        at = flags.index("--user-dir")
        cfg = settings(data, *flags[:at], *flags[at + 2 :])
        groups = ("task", "criterion", "model", "optimizer", "lr_scheduler", "optimization", "dataset", "checkpoint")
        final[name] = {f"{group}.{key}": str(value) for group in groups for key, value in dict(cfg[group]).items()}
    for name, expected in {
        "nmla": {"criterion.text_loss": ("ctc", "nmla")},
        "single": {"task.chunk_ms": ("320,640,1280,offline", "320")},
        "nolook": {"task.lookahead_ms": ("None", "0")},
        # Up to where multi goes on from it, start is what single and nolook are.
        "start": {"optimization.max_update": ("900", "600")},
    }.items():
        places = {"checkpoint.save_dir", "checkpoint.finetune_from_model", "checkpoint.continue_once"}
        # The network's copies of the task's geometry are not counted.
        copies = {key.replace("task.", "model.") for key in expected if key.startswith("task.")}
        changed = {key for key, value in final[name].items() if value != final["multi"][key]} - places - copies
        assert changed == set(expected), name
        for key, values in expected.items():
            assert (final["multi"][key], final[name][key]) == values
    asr = str(tmp_path / "asr" / "checkpoint_last.pt")
    for name, values in final.items():
        fork = name in ("multi", "nmla")
        assert values["checkpoint.finetune_from_model"] == ("None" if fork else asr), name
        assert values["checkpoint.continue_once"] == (str(tmp_path / "start/checkpoint_last.pt") if fork else "None")
        assert values["lr_scheduler.total_num_update"] == "900.0"


STREAM = {"--relative-positions": "", "--join-samples": "3", "--left-ms": "unlimited,5120,2560"}
"""Flags that the example's recipes have since they were shell scripts, for streams of any length."""
ADDED = {
    "tiny_espeak": STREAM,
    "tiny_espeak_s2s": STREAM,
    "ablation": {"--left-ms": "unlimited", "--join-samples": "1"},
    "tiny_recogniser": {"--left-ms": "unlimited", "--join-samples": "1"},
}


SHORTER = {("tiny_espeak_s2s", "units"): {"--max-update": "3000", "--unit-glancing": "0.3:0.18@3000"}}
"""Flags of stages that were shortened since."""


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (ROOT / "tests/fixtures/recipes").glob("*.txt")))
def test_commands_are_those_of_the_shell_recipes(tmp_path: Path, recipe: str) -> None:
    """The YAML recipes give the flags that the earlier shell recipes gave; where one was repeated, the last counts.

    The flags changed since are those of :data:`ADDED` and :data:`SHORTER`.
    """
    data = tmp_path / "data"
    data.mkdir()
    (data / "config.yaml").write_text("num_units: 100\n")
    now = commands(data, tmp_path / "save", recipe)
    lines = (ROOT / "tests" / "fixtures" / "recipes" / f"{recipe}.txt").read_text().splitlines()
    text = "\n".join(lines).replace("DATA", str(data)).replace("SAVE", str(tmp_path / "save"))
    lines = text.replace("USER_DIR", str(ROOT / "nast_s2x")).splitlines()
    stages = (head.removeprefix("== stage ") for head in lines[::2])
    before = dict(zip(stages, (shlex.split(line)[1:] for line in lines[1::2]), strict=True))
    assert list(now) == list(before)
    for stage, words in before.items():
        changed = ADDED.get(recipe, {}) | SHORTER.get((recipe, stage), {})
        assert flags_of(now[stage]) == flags_of(words) | changed, stage


def flags_of(words: list[str]) -> dict[str, str]:
    """Flag -> value of a command, "" without one; a number as its value."""
    flags: dict[str, str] = {}
    for word, following in zip(words[1:], [*words[2:], "--"]):
        if word.startswith("--"):
            flags[word] = "" if following.startswith("--") else following
    return flags


def test_a_stage_is_not_continued_from_nothing(data: Path, tmp_path: Path) -> None:
    result = train_sh("ablation", "--data", data, "--save", tmp_path, "--stage", "multi")
    assert result.returncode == 1 and not (tmp_path / "multi").exists()
    assert f"{tmp_path}/start/checkpoint_last.pt, which is not there" in result.stderr


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
        (["tiny_espeak", "--save", "x"], "--data"),
        (["tiny_espeak", "--data", "DATA"], "--save"),
        (["tiny_espeak", "--data", "/", "--save", "x"], "config.yaml"),
        (["tiny_espeak", "--data", "DATA", "--save", "x", "--stage", "four"], "no stage four"),
        (["tiny_espeak", "--data", "DATA", "--save", "x", "--max-update", "3"], "--max-update"),
        (["tiny_espeak", "--data", "DATA", "--save", "x", "--set", "text=y", "--dry-run"], "no variable text"),
        (["tiny_espeak", "--data", "DATA", "--save", "x", "--set", "text"], "NAME=VALUE"),
        (["tiny_espeak", "--data", "DATA", "--save", "x", "--processes", "0"], "--processes must be at least 1"),
    ],
)
def test_mistakes_are_explained(data: Path, arguments: list[str], message: str) -> None:
    result = train_sh(*(str(data) if argument == "DATA" else argument for argument in arguments))
    assert result.returncode in (1, 2) and message in result.stderr and "Traceback" not in result.stderr


def test_bundles_and_number_types_are_variables(data: Path, tmp_path: Path) -> None:
    stages = commands(data, tmp_path, "tiny_espeak_s2s", "--stage", "units")
    assert "--autocast-bf16" in stages["units"]
    flags = commands(
        data, tmp_path, "tiny_espeak_s2s", "--stage", "units", "--set", "text=some/bundle", "--set", "bf16=false"
    )["units"]
    assert flags[flags.index("--start-from") + 1] == "some/bundle" and "--autocast-bf16" not in flags


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [asr]", "stages must be a table"),
        ("stages: {}", "at least one stage"),
        ("stage: {a: {}}", "no entry stage"),
        ("- 1", "must hold a table"),
        ("a: [", "not a YAML file"),
        ("processes: two\nstages: {a: {}}", "processes must be a whole number"),
        ("stages: {a: {lr: [1]}}", "stages.a.lr must be a text, a number, true or false"),
        ("stages: {a: {--lr: 1}}", "is not the name of a flag"),
        ("extends: tiny_espeak\nstages: {four: }", "no stage four"),
        ("stages: {1: {lr: 1}}", "the name of a stage must be a text .*, but is 1"),
        ("stages: {../a: {lr: 1}}", "the name of a stage must be a text .*, but is '../a'"),
        ("variables: {text: [a]}\nstages: {a: {}}", "variables.text must be a text, a number, true or false"),
        ("stages: {a: {target-code-size: '{num_units}'}}", "needs a value for num_units"),
        ("stages: {a: {start-from: '{nothing}'}}", "needs a value for nothing"),
    ],
)
def test_damaged_recipes(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(ConfigError, match=message):
        list(launch.commands(read_recipe(tmp_path / "r.yaml"), launch.Run(tmp_path, tmp_path / "save")))


def test_variables_of_an_extended_recipe_are_its_own_ones(tmp_path: Path) -> None:
    """A truth value is true or false and no value is empty, whichever of the two recipes has it."""
    (tmp_path / "base.yaml").write_text("variables: {bf16: true, start: }\nstages: {a: {lr: 1}}")
    flags = "{autocast-bf16: '{bf16}', start-from: '{start}', fp16: '{half}'}"
    (tmp_path / "r.yaml").write_text(f"extends: base\nvariables: {{half: false}}\nstages: {{a: {flags}}}")
    recipe = read_recipe(tmp_path / "r.yaml")
    assert recipe.stages[0].arguments(recipe.values(tmp_path, tmp_path, {})) == ["--autocast-bf16"]


def fake_fairseq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "fake"
    program.write_text(f"#!{sys.executable}\n{script}")
    program.chmod(0o755)
    monkeypatch.setattr(launch, "_fairseq_train", lambda: str(program))


def recipe_of(tmp_path: Path, processes: int = 1) -> Recipe:
    (tmp_path / "r.yaml").write_text(f"processes: {processes}\nstages: {{one: {{lr: 1}}, two: {{lr: 2}}}}")
    (tmp_path / "config.yaml").write_text("{}")
    return read_recipe(tmp_path / "r.yaml")


def test_stages_run_are_logged_and_passed_over_when_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_fairseq(tmp_path, monkeypatch, "import sys; print('run', sys.argv[-1])")
    lines: list[str] = []
    run = launch.Run(tmp_path, tmp_path / "save")
    launch.run_recipe(recipe_of(tmp_path), run, lines.append)
    assert [line.split(",")[0] for line in lines[::2]] == ["== stage one", "== stage two"]
    assert lines[3].startswith("two: finished after ") and len(lines) == 4
    command, output = (tmp_path / "save" / "two" / "train.log").read_text().splitlines()
    assert command.endswith("--lr 2") and output == "run 2"
    lines.clear()
    launch.run_recipe(recipe_of(tmp_path), run, lines.append)
    assert len(lines) == 2 and all("is finished" in line for line in lines)


def test_if_one_rank_fails_all_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys, time\nif sys.argv[-1] == '1': sys.exit(3)\ntime.sleep(60)"
    fake_fairseq(tmp_path, monkeypatch, script)
    begun = time.monotonic()
    with pytest.raises(NastError, match=r"ended with status 3, see .*rank1\.log"):
        launch.run_recipe(recipe_of(tmp_path, processes=2), launch.Run(tmp_path, tmp_path / "save"), lambda line: None)
    assert time.monotonic() - begun < 30 and not (tmp_path / "save" / "one" / "finished").exists()


def test_all_stages_are_checked_before_the_first_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_fairseq(tmp_path, monkeypatch, "")
    (tmp_path / "r.yaml").write_text("stages: {one: {lr: 1}, two: {target-code-size: '{num_units}'}}")
    (tmp_path / "config.yaml").write_text("{}")
    run = launch.Run(tmp_path, tmp_path / "save")
    with pytest.raises(ConfigError, match="needs a value for num_units"):
        launch.run_recipe(read_recipe(tmp_path / "r.yaml"), run, lambda line: None)
    assert not (tmp_path / "save" / "one").exists()


@pytest.mark.timeout(60)
def test_output_that_cannot_be_shown_does_not_stop_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that are no UTF-8, and a terminal that is gone: more output than fits into a pipe is read and logged."""
    line = r"2026-11-29 19:43:00 | WARNING | x | \xff"
    script = f"import sys; sys.stdout.buffer.write(b'{line}\\n' * 20_000)"
    fake_fairseq(tmp_path, monkeypatch, script)
    reported: list[str] = []

    def report(line: str) -> None:
        reported.append(line)
        if line.startswith("warning"):
            raise BrokenPipeError

    launch.run_recipe(recipe_of(tmp_path), launch.Run(tmp_path, tmp_path / "save", ["one"]), report)
    assert reported[1:-1] == ["warning: \ufffd"]
    assert (tmp_path / "save" / "one" / "train.log").read_text().count("\n") == 20_001


def test_two_runs_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_fairseq(tmp_path, monkeypatch, "")
    with files.locked(tmp_path / "save"), pytest.raises(ConfigError, match="is at work in"):
        launch.run_recipe(recipe_of(tmp_path), launch.Run(tmp_path, tmp_path / "save"), lambda line: None)
