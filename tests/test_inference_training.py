"""From fairseq's checkpoints to bundles: training, averaging, going on from the average, exporting, generating."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("fairseq")

from plugin_data import UNITS, make_data_folder  # noqa: E402
from plugin_runs import generate, train  # noqa: E402

from nast_s2x.checkpoints.fairseq import SAFE_CLASSES, load_checkpoint  # noqa: E402
from nast_s2x.cli.main import main  # noqa: E402
from nast_s2x.inference.loading import load_system  # noqa: E402

ARCH = [
    "--arch",
    "nast_s2s_tiny",
    "--num-workers",
    "0",
    "--wait-chunks",
    "1",
    "--lookahead-ms",
    "160",
    "--unit-upsample",
    "4",
    "--unit-sinusoids",
    "0.25",
    "--unit-rotary",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_folder(tmp_path_factory.mktemp("data"), train=12)


@pytest.fixture(scope="module")
def checkpoints(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checkpoints of one training."""
    folder = tmp_path_factory.mktemp("training")
    train(data, folder, *ARCH, "--max-update", "2", "--save-interval-updates", "1")
    (first,) = folder.glob("checkpoint_*_1.pt")
    return [first, folder / "checkpoint_last.pt"]


def test_a_real_checkpoint_needs_nothing_but_the_list(checkpoints: list[Path]) -> None:
    needed = torch.serialization.get_unsafe_globals_in_checkpoint(checkpoints[1])
    allowed = {
        item[1] if isinstance(item, tuple) else f"{item.__module__}.{item.__qualname__}" for item in SAFE_CLASSES
    }
    assert set(needed) <= allowed


def test_average_goes_on_training_and_exports(data: Path, checkpoints: list[Path], tmp_path: Path) -> None:
    average, bundle = tmp_path / "average.pt", tmp_path / "bundle"
    assert main(["average", *map(str, checkpoints), "-o", str(average)]) == 0
    run = train(data, tmp_path / "more", *ARCH, "--max-update", "1", "--finetune-from-model", str(average), "--lr", "0")
    assert [update["num_updates"] for update in run.updates] == ["1"]
    trained, averaged = load_checkpoint(tmp_path / "more" / "checkpoint_last.pt")["model"], load_checkpoint(average)
    for name, value in averaged["model"].items():
        assert torch.equal(trained[name], value), name  # the learning rate was 0
    assert main(["export", *map(str, checkpoints), "--data", str(data), "-o", str(bundle)]) == 0
    system = load_system(bundle)
    for name, value in system.model.state_dict().items():
        assert torch.equal(averaged["model"][name], value), name
    assert system.num_units == UNITS and system.info.origin == {
        "checkpoint": "nast_s2x",
        "updates": 1,
        "averaged": 2,
        "asr_weight": 1.0,
    }
    assert system.model.config.unit_sinusoids == 0.25 and system.model.config.unit_rotary
    streaming = system.policy(320)
    assert streaming in system.trained and [policy.name for policy in system.trained] == ["320", "640", "offline"]
    assert (streaming.lookahead_ms, streaming.wait_chunks, system.model.config.rates.unit_upsample) == (160, 1, 4)


def test_a_model_without_absolute_positions(data: Path, tmp_path: Path) -> None:
    flags = ["--arch", "nast_s2s_tiny", "--relative-positions", "--num-workers", "0", "--max-source-seconds", "10"]
    train(data, tmp_path / "save", *flags, "--max-update", "1")
    checkpoint, bundle = tmp_path / "save" / "checkpoint_last.pt", tmp_path / "bundle"
    assert main(["export", str(checkpoint), "--data", str(data), "-o", str(bundle)]) == 0
    model = load_system(bundle).model
    assert model.config.relative_positions and not model.config.unit_rotary
    assert (model.config.max_text_positions, model.config.max_unit_positions) == (1, 6)
    policy, fbank = load_system(bundle).policy(320), torch.randn(1, 4000, 80)  # 40 s
    with torch.no_grad():
        whole = model(fbank, None, policy)
        state = model.init_state(policy)
        parts = [
            model(fbank[:, at : at + 1000], None, policy, state=state, final=at == 3000) for at in range(0, 4000, 1000)
        ]
    streamed = torch.cat([part.unit_logits for part in parts], dim=1)
    torch.testing.assert_close(streamed, whole.unit_logits, atol=1e-4, rtol=0)
    assert streamed.size(1) == 3000


def test_generate_agrees_with_fairseq_generate(
    data: Path, checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = load_checkpoint(checkpoints[1])
    generator = torch.Generator().manual_seed(5)
    for value in state["model"].values():
        # After two updates everything is blank; large random weights say something.
        if value.dim() > 1:
            value += torch.randn(value.shape, generator=generator)
    torch.save(state, tmp_path / "c.pt")
    flags = ["--gen-subset", "test", "--max-tokens", "4000", "--scoring", "sacrebleu", "--num-workers", "0"]
    theirs = [line for line in generate(data, tmp_path / "c.pt", *flags) if line[:2] in ("T-", "D-")]
    capsys.readouterr()
    arguments = ["--manifest", str(data / "test.tsv"), "-m", str(tmp_path / "c.pt"), "--data", str(data)]
    assert main(["generate", *arguments, "--no-progress"]) == 0
    ours = [line for line in capsys.readouterr().out.splitlines() if line[:2] in ("T-", "D-")]
    assert len(ours) == 10 and sum(len(line.split("\t")[-1]) for line in ours if line[0] == "D") > 20

    def table(lines: list[str]) -> dict[str, list[str]]:
        return {line.split("\t")[0]: line.split("\t")[1:] for line in lines}

    expected = table(theirs)
    for name, (*score, text) in table(ours).items():
        assert text == expected[name][-1]
        assert [float(value) for value in score] == pytest.approx([float(v) for v in expected[name][:-1]], abs=1e-3)
