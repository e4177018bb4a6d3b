"""Training a unit vocoder: updates, resuming, several processes, and the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data._utils.pin_memory import pin_memory
from vocoder_data import HASH, NUM_UNITS, TINY, edit_row, write_config, write_voice

from nast_s2x.cli import vocoder_train
from nast_s2x.cli.main import main
from nast_s2x.corpus.utterance import Utterance
from nast_s2x.errors import ConfigError, NastError
from nast_s2x.files import locked
from nast_s2x.vocoder.checkpoint import fold_weight_norm, load_vocoder
from nast_s2x.vocoder.config import VocoderConfig
from nast_s2x.vocoder.training import run as run_module
from nast_s2x.vocoder.training.data import CropBatch, CropDataset, StepBatches, collate, read_units_manifest
from nast_s2x.vocoder.training.run import CHECKPOINT, RunOptions, train
from nast_s2x.vocoder.training.settings import TrainingSettings, read_configuration
from nast_s2x.vocoder.training.trainer import (
    VocoderTrainer,
    build_generator,
    crop_waveform,
    learning_rate,
    mean_losses,
)

ROOT = Path(__file__).resolve().parent.parent
ADVERSARIAL = {"adversarial_from": 0}


def make_trainer(seed: int = 1, **training: object) -> VocoderTrainer:
    config = VocoderConfig.from_dict(TINY | {"unit_hash": HASH})
    return VocoderTrainer(config, TrainingSettings.from_dict(TINY["training"] | training), seed)


def rows(manifest: Path, split: str = "train") -> list[Utterance]:
    return read_units_manifest(manifest, NUM_UNITS, splits=(split,)).rows


def batches(manifest: Path, count: int) -> list[CropBatch]:
    data = CropDataset(rows(manifest), 8, 2)
    return [collate([data[item] for item in batch]) for batch in StepBatches(len(data), 4, 1, 0, count)]


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voice(tmp_path_factory.mktemp("voice") / "v")


def run(manifest: Path, output: Path, config: Path | None = None, *flags: str) -> Path:
    """The command's own parser and function; returns the output folder."""
    import argparse

    parser = argparse.ArgumentParser()
    vocoder_train.add_parser(parser.add_subparsers())
    config = config or write_config(output.parent / "config.json")
    words = ["train", str(manifest), "--output", str(output), "--config", str(config), "--device", "cpu", *flags]
    args = parser.parse_args(words)
    assert args.func(args) == 0
    return output


def weights(output: Path) -> dict[str, torch.Tensor]:
    return torch.load(output / CHECKPOINT, weights_only=True)


def flat(tree: object, name: str = "") -> dict[str, object]:
    """Every leaf of nested dictionaries and lists by its path."""
    if isinstance(tree, (dict, list, tuple)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {path: leaf for key, value in items for path, leaf in flat(value, f"{name}/{key}").items()}
    return {name: tree}


def same(a: object, b: object) -> list[str]:
    """Names of the leaves in which two trees differ."""
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    return [k for k in a if not (torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k])]


def test_updates_reduce_the_losses(voice: Path) -> None:
    trainer = make_trainer(max_updates=60)
    (batch,) = batches(voice, 1)
    logs = [trainer.step(batch) for _ in range(60)]
    for name, factor in (("mel_loss", 0.6), ("stft_loss", 0.8), ("duration_loss", 0.8)):
        assert logs[-1][name] < factor * logs[0][name], name
    assert trainer.update == 60 and "adversarial_loss" not in logs[0]


def test_discriminators_start_late_and_are_trained(voice: Path) -> None:
    trainer = make_trainer(adversarial_from=2, max_updates=40)
    (batch,) = batches(voice, 1)
    before = [p.detach().clone() for p in trainer.discriminators.parameters()]
    logs = [trainer.step(batch) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.discriminators.parameters(), strict=True))
    logs += [trainer.step(batch) for _ in range(12)]
    assert ["discriminator_loss" in log for log in logs[:4]] == [False, False, True, True]
    assert {"adversarial_loss", "feature_loss"} <= logs[2].keys()
    assert logs[-1]["discriminator_loss"] < 0.8 * logs[2]["discriminator_loss"]
    assert all(p.requires_grad for p in trainer.discriminators.parameters())


def test_generators_step_moves_no_discriminator(voice: Path) -> None:
    trainer = make_trainer(**ADVERSARIAL)
    (batch,) = batches(voice, 1)
    fake = crop_waveform(trainer.generator(batch.frames, batch.lengths), batch.offsets, 8)
    durations = trainer.generator.log_durations(batch.units, batch.unit_lengths)
    before = [p.detach().clone() for p in trainer.discriminators.parameters()]
    trainer._generator_step(batch, fake, durations, is_adversarial=True)
    assert all(p.grad is None for p in trainer.discriminators.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.discriminators.parameters(), strict=True))


def test_crop_of_a_window() -> None:
    waveform = torch.arange(2 * 1600.0).view(2, 1600)
    crop = crop_waveform(waveform, torch.tensor([0, 3]), 2)
    assert crop.shape == (2, 640) and crop[:, 0].tolist() == [0, 1600 + 960] and crop[1, -1] == 1600 + 1599


def test_initial_weights_are_the_papers() -> None:
    model = build_generator(VocoderConfig(num_embeddings=10), init_std=0.01)
    state = fold_weight_norm(model.state_dict())
    assert state["ups.0.weight"].std().item() == pytest.approx(0.01, rel=0.02)
    assert state["resblocks.2.convs1.0.weight"].std().item() == pytest.approx(0.01, rel=0.02)
    assert state["conv_pre.weight"].std().item() > 0.015  # PyTorch's initialisation
    assert all(f"{name}.parametrizations.weight.original0" in model.state_dict() for name in ("conv_pre", "ups.3"))


def test_learning_rate() -> None:
    settings = TrainingSettings(learning_rate=1.0, warmup_updates=4, decay=0.5, decay_every=10)
    assert [learning_rate(settings, update) for update in (0, 3, 10, 20)] == [0.25, 1.0, 0.5, 0.25]
    cosine = TrainingSettings(learning_rate=1.0, max_updates=100, final_fraction=0.1)
    assert [round(learning_rate(cosine, update), 6) for update in (0, 50, 100)] == [1.0, 0.55, 0.1]


def test_clipping_bounds_the_generators_step(voice: Path) -> None:
    trainer = make_trainer(clip_norm=1e-3)
    norm = trainer.step(batches(voice, 1)[0])["gradient_norm"]
    total = torch.stack([p.grad.norm() for p in trainer.generator.parameters() if p.grad is not None]).norm()
    assert norm > 0.1 and total.item() == pytest.approx(1e-3, rel=1e-3)


def test_average_follows_the_weights(voice: Path) -> None:
    trainer = make_trainer(ema_decay=0.9)
    (batch,) = batches(voice, 1)
    name = "conv_post.bias"
    values = [trainer.average[name].item()]
    expected = values[0]
    for update in range(12):
        trainer.step(batch)
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * trainer.generator.state_dict()[name].item()
    assert trainer.average[name].item() == pytest.approx(expected, abs=1e-6)
    assert trainer.exported().state_dict()[name].item() == trainer.average[name].item()


def test_without_an_average_the_weights_themselves_are_exported(voice: Path) -> None:
    trainer = make_trainer(ema_decay=0.0)
    (batch,) = batches(voice, 1)
    trainer.step(batch)
    trainer.generator.eval()
    with torch.no_grad():
        expected = trainer.generator(batch.frames)
        torch.testing.assert_close(trainer.exported()(batch.frames), expected, atol=1e-6, rtol=1e-5)


def test_a_loss_that_is_not_finite_stops_the_training(voice: Path) -> None:
    trainer = make_trainer()
    (batch,) = batches(voice, 1)
    with torch.no_grad():
        trainer.generator.conv_post.bias.fill_(float("nan"))
    before = [p.detach().clone() for p in trainer.generator.parameters()]
    for _ in range(3):
        trainer.step(batch)
    with pytest.raises(NastError, match="update 0: the loss of the generator is nan: lower the learning rate"):
        trainer.check()
    torch.testing.assert_close([*trainer.generator.parameters()], before, rtol=0, atol=0, equal_nan=True)
    state = trainer.optimizers["generator"].state
    assert not any(value.any() for values in state.values() for value in values.values())  # no step was done


def test_command_trains_writes_everything_and_resumes_exactly(voice: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.json", **ADVERSARIAL)
    flags = ("--log-every", "2", "--save-every", "3")
    once = run(voice, tmp_path / "once", config, *flags)
    assert {path.name for path in once.iterdir()} == {CHECKPOINT, "train.log", "samples", "vocoder"}
    lines = [json.loads(line) for line in (once / "train.log").read_text("utf-8").splitlines()]
    assert [(line["kind"], line["update"]) for line in lines] == [
        ("train", 2), ("train", 3), ("dev", 3), ("train", 4), ("train", 6), ("dev", 6)
    ]  # fmt: skip
    assert {"mel_error", "duration_error"} <= lines[2].keys() and lines[0]["mel_loss"] > 0
    names = {
        "r6_original.wav",
        "r6_0000003.wav",
        "r6_0000006.wav",
        "r7_original.wav",
        "r7_0000003.wav",
        "r7_0000006.wav",
    }
    assert {path.name for path in (once / "samples").iterdir()} == names
    model = load_vocoder(once / "vocoder")
    assert model.config.unit_hash == HASH
    frames = sum(map(int, voice.read_text("utf-8").splitlines()[7].split("\t")[5].split()))
    assert soundfile.info(once / "samples/r6_0000006.wav").frames == 320 * frames
    card = (once / "vocoder/README.md").read_text("utf-8")
    for line in (HASH, "6 recordings (0.0 hours), 6 updates of 4 crops of 0.16 s", "discriminators: from update 0"):
        assert line in card
    assert f"mel_loss {lines[4]['mel_loss']:.3f}" in card and f"log-mel error {lines[5]['mel_error']:.3f}" in card

    parts = tmp_path / "parts"
    # The first call ends after one update because of its time limit, the second because of --max-updates.
    run(voice, parts, config, "--max-minutes", "0", *flags)
    assert weights(parts)["update"] == 1
    run(voice, parts, config, "--max-updates", "4", *flags)
    run(voice, parts, config, *flags)
    assert same(weights(once), weights(parts)) == []
    assert same(model.state_dict(), load_vocoder(parts / "vocoder").state_dict()) == []
    before = (parts / CHECKPOINT).stat().st_mtime_ns
    run(voice, parts, config, *flags)  # nothing left to do
    assert (parts / CHECKPOINT).stat().st_mtime_ns == before


def test_parts_of_a_file_train_the_same_vocoder(voice: Path, tmp_path: Path) -> None:
    """Rows ``x.flac:START:SAMPLES`` of one long file, and the files that were cut out of it."""
    lines, pieces, start = voice.read_text("utf-8").splitlines(), [], 0
    parts = lines[:1]
    for line in lines[1:]:
        cells = line.split("\t")
        samples, _ = soundfile.read(voice.parent / cells[2], dtype="int16")
        cells[2] = f"all.flac:{start}:{len(samples)}"
        parts.append("\t".join(cells))
        pieces.append(samples)
        start += len(samples)
    soundfile.write(tmp_path / "all.flac", np.concatenate(pieces), 16000)
    (tmp_path / "units.tsv").write_text("\n".join(parts) + "\n", encoding="utf-8")
    flags = ("--max-updates", "3")
    cut, whole = (
        run(voice, tmp_path / "cut", None, *flags),
        run(tmp_path / "units.tsv", tmp_path / "whole", None, *flags),
    )
    assert same(weights(cut), weights(whole)) == []
    assert {path.name for path in (cut / "samples").iterdir()} == {path.name for path in (whole / "samples").iterdir()}
    for path in (cut / "samples").iterdir():
        assert path.read_bytes() == (whole / "samples" / path.name).read_bytes()


def test_ids_cannot_lead_out_of_the_output(tmp_path: Path) -> None:
    manifest = write_voice(tmp_path / "v", count=2, dev=1)
    edit_row(manifest, 2, id="../../r2/x")
    (tmp_path / "a").mkdir()
    output = run(manifest, tmp_path / "a" / "o", None, "--max-updates", "1")
    assert sorted(path.name for path in (tmp_path / "a").rglob("*.wav")) == sorted(
        path.name for path in (output / "samples").iterdir()
    )
    assert len(list((output / "samples").iterdir())) == 2


def test_discriminators_can_be_added_to_a_training_that_had_none(voice: Path, tmp_path: Path) -> None:
    output = run(voice, tmp_path / "o", None, "--max-updates", "2")
    assert list(weights(output)["networks"]) == ["generator"]
    run(voice, output, None, "--max-updates", "4", "--adversarial-from", "2")
    last = json.loads((output / "train.log").read_text("utf-8").splitlines()[-2])
    assert last["update"] == 4 and last["adversarial_loss"] > 0
    assert list(weights(output)["networks"]) == ["generator", "discriminators"]
    wider = TINY["training"]["discriminators"] | {"scale_width": 32}
    with pytest.raises(
        ValueError, match=r"checkpoint_last.pt: the checkpoint's discriminators are .*'scale_width': 16"
    ):
        run(voice, output, write_config(tmp_path / "wider.json", discriminators=wider, adversarial_from=2))


def test_resuming_with_other_units_or_sizes_is_refused_and_loses_nothing(voice: Path, tmp_path: Path) -> None:
    output = run(voice, tmp_path / "o", None, "--max-updates", "1")
    before = (output / CHECKPOINT).read_bytes()
    other = write_voice(tmp_path / "other", unit_hash="fedcba9876543210")
    with pytest.raises(
        ValueError, match=rf"checkpoint_last.pt: .*centroids {HASH}, the manifest's of fedcba9876543210"
    ):
        run(other, output)
    config = tmp_path / "wide.json"
    config.write_text(json.dumps(TINY | {"upsample_initial_channel": 64}), encoding="utf-8")
    with pytest.raises(ValueError, match="upsample_initial_channel 32, the configuration 64"):
        run(voice, output, config)
    assert (output / CHECKPOINT).read_bytes() == before
    (output / CHECKPOINT).write_bytes(before[:1000])
    with pytest.raises(ValueError, match="checkpoint_last.pt is not a readable checkpoint"):
        run(voice, output)
    for state in ([1], {"generator": {}}, {"config": None}):
        torch.save(state, output / CHECKPOINT)
        with pytest.raises(ValueError, match="checkpoint_last.pt: not a checkpoint of a vocoder training"):
            run(voice, output)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_recording_with_nan_is_named_in_one_line(tmp_path: Path, workers: str) -> None:
    manifest = write_voice(tmp_path / "v", count=4, dev=0)
    samples, _ = soundfile.read(tmp_path / "v/audio/r2.flac", dtype="float32")
    samples[:] = float("nan")
    soundfile.write(tmp_path / "v/audio/r2.wav", samples, 16000, subtype="FLOAT")
    edit_row(manifest, 2, tgt_speech="audio/r2.wav")
    with pytest.raises(ValueError) as error:
        run(manifest, tmp_path / "o", None, "--workers", workers)
    message = str(error.value)
    assert message.startswith(str(tmp_path / "v/audio/r2.wav")) and "finite" in message and "\n" not in message


def test_inputs_that_cannot_be_trained_on_are_refused(voice: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no recordings of split 'tain'; there are: dev"):
        run(voice, tmp_path / "o", None, "--train-split", "tain")
    with pytest.raises(ValueError, match=r"unit \d is outside 0..2"):
        run(voice, tmp_path / "o", None, "--num-units", "3")
    wrong = write_voice(tmp_path / "v")
    edit_row(wrong, 0, tgt_speech="audio/none.flac")
    with pytest.raises(ValueError, match="none.flac"):
        run(wrong, tmp_path / "o")
    config = tmp_path / "hash.json"
    config.write_text(json.dumps(TINY | {"unit_hash": "fedcba9876543210"}), encoding="utf-8")
    with pytest.raises(ValueError, match=f"units are of centroids fedcba9876543210, the manifest's of {HASH}"):
        run(voice, tmp_path / "o", config)
    with pytest.raises(ValueError, match="mixed precision in float16 needs a CUDA device"):
        VocoderTrainer(VocoderConfig.from_dict(TINY), TrainingSettings(), amp=torch.float16)
    assert not (tmp_path / "o").exists()


def test_number_of_units_comes_from_the_file_beside_the_manifest(voice: Path, tmp_path: Path) -> None:
    manifest = write_voice(tmp_path / "v", count=2, dev=0)
    manifest.with_suffix(".units.json").write_text(json.dumps({"num_units": 7}), encoding="utf-8")
    output = run(manifest, tmp_path / "o", None, "--max-updates", "1")
    assert load_vocoder(output / "vocoder").config.num_embeddings == 7
    assert not (output / "samples").exists()  # no dev recordings


def test_a_missing_tensorboard_is_named(voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="needs the Python package 'tensorboard'"):
        run(voice, tmp_path / "o", None, "--tensorboard", str(tmp_path / "tb"))


_TWO_PROCESSES = """
import sys, torch
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from test_vocoder_training import *
from nast_s2x.vocoder.training.run import joined_processes
from nast_s2x.vocoder.training.trainer import world
torch.set_num_threads(1)
manifest, output = Path(sys.argv[1]), Path(sys.argv[2])
config, settings = read_configuration(sys.argv[3])
with joined_processes(torch.device("cpu")):
    assert world()[1] == 2
    train(config, settings, read_units_manifest(manifest, {units}), RunOptions(output))
    data = CropDataset(rows(manifest), 8, 2)
    (batch,) = StepBatches(len(data), 4, 1, 0, 1, *world())
    trainer = VocoderTrainer(config, settings)
    trainer.step(collate([data[item] for item in batch]))
    torch.save(gradients(trainer), output / f"gradients{{world()[0]}}.pt")
"""


def gradients(trainer: VocoderTrainer) -> dict[str, torch.Tensor]:
    networks = trainer.networks.items()
    return {f"{kind}.{name}": p.grad for kind, network in networks for name, p in network.named_parameters()}


def test_two_processes_train_as_one(voice: Path, tmp_path: Path) -> None:
    # Every loss here is a mean over crops of equal size, so that the mean of gradients is the whole batch's; without
    # the duration loss, whose mean is over units and whose dropout differs between processes.
    changed = {"max_updates": 2, "duration_weight": 0.0, "stft_weight": 0.0, "adversarial_from": 0, "ema_decay": 0.0}
    config = write_config(tmp_path / "c.json", **changed)
    run_two_processes(_TWO_PROCESSES, voice, tmp_path / "two", config)
    vocoder, settings = read_configuration(config)
    train(vocoder, settings, read_units_manifest(voice, NUM_UNITS), RunOptions(tmp_path / "one"))
    trainer = VocoderTrainer(vocoder, settings)
    trainer.step(batches(voice, 1)[0])
    for rank in (0, 1):
        found = torch.load(tmp_path / "two" / f"gradients{rank}.pt", weights_only=True)
        for name, gradient in gradients(trainer).items():
            torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
    one, two = flat(weights(tmp_path / "one")["networks"]), flat(weights(tmp_path / "two")["networks"])
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=3e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


_SLOW_RANK_0 = """
import sys, time, torch
sys.path[:0] = [{root!r}, {tests!r}]
from datetime import timedelta
from test_vocoder_training import *
from nast_s2x.vocoder.training import run
torch.set_num_threads(1)
config, settings = read_configuration(sys.argv[3])

def slow(function):
    pauses = [9] * (run.world()[0] == 0)  # seconds, once
    def call(*arguments, **options):
        time.sleep(pauses.pop() if pauses else 0)
        return function(*arguments, **options)
    return call

with run.joined_processes(torch.device("cpu"), timeout=timedelta(seconds=6)):
    run.check_recordings, run.save_vocoder = slow(run.check_recordings), slow(run.save_vocoder)
    options = RunOptions(Path(sys.argv[2]), save_every=1)
    train(config, settings, read_units_manifest(Path(sys.argv[1]), {units}), options)
"""


@pytest.mark.slow
def test_a_slow_first_process_is_waited_for(voice: Path, tmp_path: Path) -> None:
    """Checking the recordings and writing take longer than an exchange of gradients may take."""
    config = write_config(tmp_path / "c.json", max_updates=2)
    run_two_processes(_SLOW_RANK_0, voice, tmp_path / "slow", config)
    lines = [json.loads(line) for line in (tmp_path / "slow/train.log").read_text("utf-8").splitlines()]
    assert [(line["kind"], line["update"]) for line in lines] == [
        ("train", 1), ("dev", 1), ("train", 2), ("dev", 2)
    ]  # fmt: skip
    vocoder, settings = read_configuration(config)
    train(vocoder, settings, read_units_manifest(voice, NUM_UNITS), RunOptions(tmp_path / "one", save_every=1))
    alone = [json.loads(line) for line in (tmp_path / "one/train.log").read_text("utf-8").splitlines()]
    for line, other in zip(lines, alone, strict=True):  # evaluated together: each process a part of the recordings
        if line["kind"] == "dev":
            assert line["mel_error"] == pytest.approx(other["mel_error"], rel=1e-2)
    names = {"r6_original", "r6_0000001", "r6_0000002", "r7_original", "r7_0000001", "r7_0000002"}
    assert {path.stem for path in (tmp_path / "slow/samples").iterdir()} == names


def test_a_bad_recording_ends_all_processes_with_one_line(tmp_path: Path) -> None:
    manifest = write_voice(tmp_path / "v")
    edit_row(manifest, 1, tgt_speech="audio/none.flac")  # in the part of the second process
    code = _TWO_PROCESSES.replace("assert world()[1] == 2", "torch.distributed.barrier()")
    config = write_config(tmp_path / "c.json")
    result = run_two_processes(code, manifest, tmp_path / "two", config, status=1)
    assert result.stderr.count("AudioError: ") == 2 and "none.flac" in result.stderr
    assert not (tmp_path / "two").exists()


def run_two_processes(
    code: str, manifest: Path, output: Path, config: Path, status: int = 0
) -> subprocess.CompletedProcess[str]:
    program = output.with_suffix(".py")
    program.write_text(code.format(root=str(ROOT), tests=str(ROOT / "tests"), units=NUM_UNITS), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    result = subprocess.run(
        [*command, str(manifest), str(output), str(config)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == status, result.stderr[-3000:]
    return result


class _HostReads(TorchDispatchMode):
    """Counts operations whose result the host has to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        name = func.__name__.split(".")[0]
        masks = [arg for arg in args[1:] if isinstance(arg, (list, tuple))] if name in ("index", "index_put_") else []
        by_mask = any(isinstance(x, torch.Tensor) and x.dtype == torch.bool for mask in masks for x in mask)
        if by_mask or name in ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def test_an_update_reads_nothing_back(voice: Path) -> None:
    trainer = make_trainer(adversarial_from=0, clip_norm=1.0)
    first, second = batches(voice, 2)
    trainer.step(first)
    with _HostReads() as reads:
        logs = trainer.step(second)
    assert reads.names == []
    with _HostReads() as reads:
        trainer.check()
        mean_losses([logs])
        assert first.samples[first.samples > 0].sum() > 0
    assert {"_local_scalar_dense", "index"} <= set(reads.names)  # reads are counted where there are any


def test_batches_are_copied_from_pinned_memory(voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (batch,) = batches(voice, 1)
    if torch.cuda.is_available():
        assert batch.pin_memory().samples.is_pinned() and batch.pin_memory().units.is_pinned()
    pinned: list[int] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: (pinned.append(id(self)), self.clone())[1])
    # The function that data loaders call on each batch: objects without pin_memory() pass unchanged.
    copy = pin_memory(batch)
    tensors = [value for value in vars(batch).values() if value is not None]
    assert set(pinned) == {id(value) for value in tensors} and copy.samples is not batch.samples
    torch.testing.assert_close(vars(copy), vars(batch))


@pytest.mark.parametrize(("device", "wanted"), [("cpu", False), ("cuda", True)])
def test_loaders_pin_memory_for_gpus(voice: Path, device: str, wanted: bool) -> None:
    trainer = make_trainer()
    trainer.device = torch.device(device)  # for the loader only, nothing is computed
    data = CropDataset(rows(voice), 8, 2)
    options = RunOptions(Path("unused"))
    assert (
        run_module._loader(run_module._Run(trainer, data, [], options, run_module._Journal(None), None)).pin_memory
        == wanted
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--save-every", "0"], "save_every must be at least 1, got 0"),
        (["--log-every", "-1"], "log_every must be at least 1, got -1"),
        (["--workers", "-1"], "workers must be at least 0, got -1"),
        (["--max-minutes", "nan"], "time limit must be at least 0, got nan"),
        (["--num-units", "0"], "`num_embeddings` must be a whole number of at least 1, but is 0"),
        (["--batch-size", "0"], "`training.batch_size` must be a whole number of at least 1, but is 0"),
        (["--seed", "-1"], "seed must be in 0..4294967295, not -1"),
        (["--seed", str(1 << 40)], "not 1099511627776"),
    ],
)
def test_impossible_flags_are_refused(voice: Path, tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(voice, tmp_path / "o", None, *flags)
    assert not (tmp_path / "o").exists()


def test_folders_of_something_else_or_in_use_are_refused(voice: Path, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o/thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="holds something other than a vocoder training"):
        run(voice, tmp_path / "o")
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["thesis.tex"]
    with locked(tmp_path / "new"), pytest.raises(ConfigError, match="is at work in"):
        run(voice, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_an_os_error_and_loses_no_checkpoint(
    voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = run(voice, tmp_path / "o", None, "--max-updates", "1")
    opened = open

    def open_full(path: object, mode: str = "r", **options: object) -> object:
        if CHECKPOINT in str(path) and "w" in mode:
            return opened("/dev/full", mode)
        return opened(path, mode, **options)

    monkeypatch.setattr("builtins.open", open_full)
    with pytest.raises(OSError, match="No space left"):
        run(voice, output, None, "--max-updates", "2")
    monkeypatch.undo()
    assert weights(output)["update"] == 1
    run(voice, output, None, "--max-updates", "2")
    assert weights(output)["update"] == 2


def test_a_batch_must_be_shareable(voice: Path, tmp_path: Path) -> None:
    config, settings = read_configuration(write_config(tmp_path / "c.json"))
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=3)
    try:
        with pytest.raises(ConfigError, match="batch_size 4 cannot be divided among 3 processes"):
            train(config, settings, read_units_manifest(voice, NUM_UNITS), RunOptions(tmp_path))
    finally:
        distributed.destroy_process_group()


def test_mixed_precision_in_bfloat16_is_close_to_float32(voice: Path) -> None:
    """Losses of the first updates agree to the precision of bfloat16; the weights stay float32."""
    config = VocoderConfig.from_dict(TINY | {"unit_hash": HASH})
    settings = TrainingSettings.from_dict(TINY["training"] | ADVERSARIAL)
    batch = collate(
        [CropDataset(rows(voice), settings.crop_frames, settings.context_frames)[0, seed] for seed in (1, 2)]
    )
    exact, rough = (VocoderTrainer(config, settings, 1, amp=amp) for amp in (None, torch.bfloat16))
    for _ in range(2):
        one, other = exact.step(batch), rough.step(batch)
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=0.1, atol=0.02, msg=name)
    assert one["loss"] != other["loss"] and all(p.dtype == torch.float32 for p in rough.generator.parameters())


def test_benchmark_of_an_update(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["benchmark", "vocoder-training", "--preset", "tiny", "--batch", "1", "--threads", "1", "--json"]
    assert main([*command, "--dtype", "bf16"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["step_ms"] > 0 and result["batch"] == 1 and result["dtype"] == "bf16" and result["peak_bytes"] > 0
    assert result["speech_seconds_per_second"] == pytest.approx(1000 * result["crop_seconds"] / result["step_ms"])
    assert main([*command, "--dtype", "fp16"]) == 1
    assert "float16 needs a CUDA device" in capsys.readouterr().err


def test_sizes_beyond_measure_take_no_memory(tmp_path: Path) -> None:
    config, settings = read_configuration(write_config(tmp_path / "c.json"))
    with pytest.raises(
        ConfigError, match="vocoder: the sizes of the configuration make .* parameters, more than 300,000,000"
    ):
        VocoderTrainer(replace(config, upsample_initial_channel=2**17), settings)
    wide = replace(
        settings, adversarial_from=0, discriminators=replace(settings.discriminators, period_channels=(10**6, 10**6))
    )
    with pytest.raises(ConfigError, match="discriminators: the sizes"):
        VocoderTrainer(config, wide)
