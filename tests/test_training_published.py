"""Recipes of the published systems and for own recordings: flags of the paper, and a short run of each stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fairseq")

from plugin_data import make_data_folder  # noqa: E402
from plugin_runs import settings, train  # noqa: E402

from nast_s2x.checkpoints.fairseq import load_checkpoint  # noqa: E402
from nast_s2x.evaluation.published import POINTS, PublishedPoint  # noqa: E402
from nast_s2x.training import find_recipe, launch, read_recipe  # noqa: E402

#: Test set of the published figures -> recipe.
PUBLISHED = {"CVSS-C Fr-En": "cvss_fr_en", "MuST-C En-De": "must_c", "MuST-C En-Es": "must_c"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_folder(tmp_path_factory.mktemp("data"), train=6, valid=2)


def stages(recipe: str, data: Path, save: Path, **variables: str) -> dict[str, list[str]]:
    """Flags of each stage, without the data folder and the user directory."""
    run = launch.Run(data, save, variables=variables)
    return {stage.name: words[4:] for stage, words in launch.commands(read_recipe(find_recipe(recipe)), run)}


def configurations(recipe: str, data: Path, save: Path, **variables: str) -> dict[str, Any]:
    return {name: settings(data, *words) for name, words in stages(recipe, data, save, **variables).items()}


@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point.data}-{point.chunk}")
def test_every_published_system_has_a_recipe(data: Path, tmp_path: Path, point: PublishedPoint) -> None:
    for words in stages(PUBLISHED[point.data], data, tmp_path, chunk=point.chunk).values():
        flags = dict(zip(words, words[1:]))
        assert flags["--chunk-ms"] == point.chunk and "--lookahead-ms" not in flags
    if point.target_type == "speech":
        assert (flags["--unit-loss"], flags["--arch"]) == ("nmla", "nast_s2s")
    else:
        assert flags["--arch"] == "nast_s2t" and "--unit-loss" not in flags
    several = stages(PUBLISHED[point.data], data, tmp_path)["nmla"]
    assert point.chunk in several[several.index("--chunk-ms") + 1].split(",")


@pytest.mark.parametrize("recipe", ["cvss_fr_en", "must_c"])
def test_the_flags_are_those_of_the_paper(data: Path, tmp_path: Path, recipe: str) -> None:
    """Updates, learning rate, warm-up, frames of an update, dropout and glancing of the three stages."""
    found = {}
    for name, cfg in configurations(recipe, data, tmp_path).items():
        assert (cfg.optimizer.weight_decay, cfg.optimizer.adam_betas) == (0.01, "(0.9, 0.98)")
        assert cfg.criterion.label_smoothing == 0.01 and cfg.optimization.clip_norm == 10
        assert cfg.model.attention_dropout == cfg.model.activation_dropout == 0.1
        update = cfg.optimization
        frames = cfg.dataset.max_tokens * update.update_freq[0]
        found[name] = (update.max_update, update.lr[0], cfg.lr_scheduler.warmup_updates, frames, cfg.model.dropout)
        found[name] += (cfg.criterion.text_glancing,)
    assert found == {
        "asr": (150_000, 1e-3, 10_000, 320_000, 0.3, "0.5:0.3@50k"),
        "ctc": (50_000, 1e-3, 10_000, 320_000, 0.3, "0.5:0.3@50k"),
        "nmla": (30_000, 3e-4, 4_000, 76_800, 0.1, "0.3"),
    }


def test_recipes_for_own_recordings_have_nothing_of_the_example(data: Path, tmp_path: Path) -> None:
    for name in ("own_small", "own_large", "own_voice"):
        assert read_recipe(find_recipe(name)).processes == 1
        for words in stages(name, data, tmp_path).values():
            assert not {"--autocast-bf16", "--cpu", "--left-ms"} & set(words)
        given = stages(name, data, tmp_path, chunk="640", seconds="90", frames="900")
        for words in given.values():
            flags = dict(zip(words, words[1:]))
            assert [flags[f"--{flag}"] for flag in ("chunk-ms", "max-source-seconds", "max-tokens")] == [
                "640",
                "90",
                "900",
            ]


REDUCED = [
    "--encoder-dim", "16", "--decoder-dim", "16", "--encoder-ffn-dim", "16", "--decoder-ffn-dim", "16",
    "--encoder-heads", "2", "--decoder-heads", "2", "--encoder-layers", "1", "--decoder-layers", "1",
    "--unit-layers", "1", "--conv-channels", "4", "--max-tokens", "2000", "--update-freq", "1", "--num-workers", "0",
    "--max-update", "2", "--valid-subset", "valid", "--cpu", "--log-format", "json", "--log-interval", "1",
]  # fmt: skip


def run_stages(recipe: str, data: Path, save: Path, **variables: str) -> None:
    """Run each stage for 2 updates of a reduced model; without fp16, which needs a GPU."""
    for name, words in stages(recipe, data, save, **variables).items():
        run = train(data, save / name, *(word for word in words if word != "--fp16"), *REDUCED)
        losses = [float(update["loss"]) for update in run.updates]
        assert len(losses) == 2 and all(abs(loss) < 1e4 for loss in losses), (name, losses)
        speech = "--arch" in words and words[len(words) - 1 - words[::-1].index("--arch") + 1].startswith("nast_s2s")
        keys = load_checkpoint(save / name / "checkpoint_best.pt")["model"]
        assert any(key.startswith("unit_decoder.") for key in keys) == speech


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["cvss_fr_en", "must_c"])
def test_stages_of_the_published_recipes_run(data: Path, tmp_path: Path, recipe: str) -> None:
    run_stages(recipe, data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("text", "arch"), [("own_small", "nast_s2s_tiny"), ("own_large", "nast_s2s")])
def test_stages_for_own_recordings_run(data: Path, tmp_path: Path, text: str, arch: str) -> None:
    """The text model, then its voice."""
    run_stages(text, data, tmp_path)
    run_stages("own_voice", data, tmp_path, arch=arch)
