"""Reading and averaging checkpoints."""

from __future__ import annotations

import argparse
import json
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_system import make_model
from released_files import PUBLISHED, numpy_1_checkpoint

from nast_s2x.checkpoints import fairseq, trained
from nast_s2x.checkpoints.fairseq import average_checkpoints, load_checkpoint, num_updates, settings
from nast_s2x.checkpoints.start import load_pretrained_encoder
from nast_s2x.checkpoints.trained import read_trained_model
from nast_s2x.chunking import ChunkPolicy, SlotRates
from nast_s2x.cli.main import main
from nast_s2x.errors import CheckpointError, ConfigError
from nast_s2x.inference.bundle import save_bundle
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.offline import translate_batch
from nast_s2x.inference.policies import choose_policy, offline_default, streaming_default, training_note


def our_checkpoint(path: Path, seed: int = 0, **flags: Any) -> Path:
    """A checkpoint as fairseq writes it with this project's flags, of a small random network with 20 units."""
    values = {
        "_name": "nast_s2s_tiny",
        "encoder_heads": 4,
        "decoder_heads": 4,
        "dropout": 0.2,
        "chunk_ms": "160,320,offline",
        "lookahead_ms": None,
        "wait_chunks": 0,
        "pooling": 2,
        "text_upsample": 1,
        "unit_upsample": 6,
        **flags,
    }
    state = {
        "cfg": {"model": argparse.Namespace(**values), "task": {"data": "/nowhere/of/the/author"}},
        "model": make_model(50, units=True, seed=seed).state_dict(),
        "optimizer_history": [{"num_updates": 123}],
        "extra_state": {"val_loss": np.float64(1.5)},
        "last_optimizer_state": {"state": {0: torch.ones(3)}},
    }
    torch.save(state, path)
    return path


class _Opens:
    """Pickles to a call that would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_checkpoint_is_refused_and_runs_nothing(tmp_path: Path, legacy: bool) -> None:
    mark = tmp_path / "was-here"
    state = {"model": {"a": torch.ones(1)}, "cfg": _Opens(mark)}
    path = tmp_path / "bad.pt"
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"bad\.pt was not loaded: .*nothing in the file was executed"):
        load_checkpoint(path)
    assert not mark.exists()
    # The file does what it is accused of, where it is allowed to.
    with open(tmp_path / "plain.pkl", "wb") as file:
        pickle.dump(_Opens(mark), file)
    with pytest.raises(ValueError, match="was not loaded"):
        load_checkpoint(tmp_path / "plain.pkl")
    assert not mark.exists()
    pickle.loads((tmp_path / "plain.pkl").read_bytes()).close()
    assert mark.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04 broken zip"])
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pt"):
        load_checkpoint(path)


def test_checkpoints_without_a_model(tmp_path: Path) -> None:
    for state in ({"weights": 1}, [1, 2], {"model": {}}, {"model": {"a": 3}}):
        torch.save(state, tmp_path / "x.pt")
        with pytest.raises(ValueError, match="not a fairseq checkpoint"):
            load_checkpoint(tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError, match="nothing.pt"):
        load_checkpoint(tmp_path / "nothing.pt")


def test_our_checkpoint(tmp_path: Path) -> None:
    state = load_checkpoint(our_checkpoint(tmp_path / "c.pt"))
    assert num_updates(state) == 123 and settings(state, "model")["encoder_heads"] == 4
    trained = read_trained_model([tmp_path / "c.pt"])
    expected = make_model(50, units=True).config
    for name in ("text_vocab", "unit_vocab", "encoder_dim", "encoder_heads", "decoder_layers", "unit_layers"):
        assert getattr(trained.config, name) == getattr(expected, name)
    assert trained.config.max_unit_positions == expected.max_unit_positions and trained.config.dropout == 0.2
    assert trained.policies == ChunkPolicy.parse("160,320,offline")
    assert trained.origin == {"checkpoint": "nast_s2x", "updates": 123, "averaged": 1}


def test_our_checkpoint_with_other_flags(tmp_path: Path) -> None:
    path = our_checkpoint(tmp_path / "c.pt", chunk_ms="640", lookahead_ms=320, wait_chunks=1, unit_upsample=8)
    trained = read_trained_model([path])
    assert trained.policies == (ChunkPolicy(640, 320, 1),) and trained.config.rates == SlotRates(unit_upsample=8)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(1)}, "cfg": {"model": {"arch": "transformer"}}}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="no checkpoint of a NAST-S2X model"):
        read_trained_model([tmp_path / "c.pt"])


@pytest.mark.parametrize(
    ("context", "expected"),
    [((32, 32), (320, 320)), ((32, 16), (320, 160)), ((32, 0), (320, 0)), ((6000, 6000), (None, 0))],
)
def test_policy_of_a_released_checkpoint(
    tmp_path: Path, context: tuple[int, int], expected: tuple[int | None, int | None]
) -> None:
    state = load_checkpoint(PUBLISHED / "checkpoint.pt")
    state["cfg"]["model"].main_context, state["cfg"]["model"].right_context = context
    torch.save(state, tmp_path / "c.pt")
    (policy,) = read_trained_model([tmp_path / "c.pt"]).policies
    assert (policy.chunk_ms, policy.lookahead_ms) == expected


@pytest.mark.parametrize("through_bundle", [False, True])
def test_the_released_checkpoint_gives_the_expected_output(tmp_path: Path, through_bundle: bool) -> None:
    expected = json.loads((PUBLISHED / "expected.json").read_text())
    system = load_system(PUBLISHED / "checkpoint.pt")
    if through_bundle:
        system = load_system(save_bundle(system, tmp_path / "bundle"))
    features = np.load(PUBLISHED / "features.npy")
    result = translate_batch(system, [features], system.policy(), normalized=True)[0]
    assert result.labels == expected["text_alignment"]
    assert result.unit_labels == expected["unit_alignment"]
    assert result.units == expected["units"]
    assert " ".join(system.text.pieces(result.tokens)) == expected["text_pieces"]
    assert sum(parameter.numel() for parameter in system.model.parameters()) == expected["n_params"]


def test_average(tmp_path: Path) -> None:
    paths = [our_checkpoint(tmp_path / f"{seed}.pt", seed) for seed in range(3)]
    result = average_checkpoints(paths, tmp_path / "sub" / "average.pt")
    states = [load_checkpoint(path)["model"] for path in paths]
    read = load_checkpoint(tmp_path / "sub" / "average.pt")
    for name, value in read["model"].items():
        mean = sum(state[name].double() for state in states) / 3
        assert value.dtype == torch.float32 and torch.allclose(value.double(), mean, atol=1e-7)
        assert torch.equal(value, result["model"][name])
    assert "last_optimizer_state" not in read and num_updates(read) == 123
    trained = read_trained_model(paths)
    assert all(torch.equal(value, read["model"][name]) for name, value in trained.weights.items())
    assert read_trained_model([tmp_path / "sub" / "average.pt"]).origin["averaged"] == 3 == trained.origin["averaged"]


def test_averaging_reads_each_checkpoint_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [our_checkpoint(tmp_path / f"{seed}.pt", seed) for seed in range(3)]
    read: list[Path] = []

    def load(path: Path, *arguments: Any) -> dict[str, Any]:
        read.append(path)
        return load_checkpoint(path, *arguments)

    for module in (fairseq, trained):
        monkeypatch.setattr(module, "load_checkpoint", load)
    average_checkpoints(paths, tmp_path / "average.pt")
    read_trained_model(paths)
    assert read == 2 * paths


def test_averaging_does_not_lose_small_differences(tmp_path: Path) -> None:
    paths = []
    for index in range(200):
        paths.append(tmp_path / f"{index}.pt")
        value = torch.tensor([1.0 + 2.0**-20 * (index % 2), 1e8 if index % 2 else -1e8])
        torch.save({"model": {"w": value, "n": torch.tensor([3])}}, paths[-1])
    model = average_checkpoints(paths, tmp_path / "a.pt")["model"]
    assert model["w"].tolist() == [1.0 + 2.0**-21, 0.0] and model["n"].tolist() == [3]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"w": torch.ones(2, 2)}, "shapes"),
        ({"v": torch.ones(2)}, "exists only in"),
        ({"w": torch.tensor([1.0, float("nan")])}, "NaN or infinite values in parameter w"),
    ],
)
def test_checkpoints_that_do_not_average(tmp_path: Path, other: dict[str, torch.Tensor], message: str) -> None:
    torch.save({"model": {"w": torch.ones(2)}}, tmp_path / "a.pt")
    torch.save({"model": other}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match=message):
        average_checkpoints([tmp_path / "a.pt", tmp_path / "b.pt"], tmp_path / "c.pt")
    assert not (tmp_path / "c.pt").exists()


def test_average_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(our_checkpoint(tmp_path / f"{seed}.pt", seed)) for seed in range(2)]
    assert main(["average", *paths, "--output", str(tmp_path / "a.pt")]) == 0
    assert "averaged 2 checkpoints" in capsys.readouterr().err and (tmp_path / "a.pt").is_file()
    assert main(["average", str(tmp_path / "none.pt"), "--output", str(tmp_path / "b.pt")]) == 1
    assert "none.pt" in capsys.readouterr().err


def test_policies_of_a_training() -> None:
    trained = ChunkPolicy.parse("640, 160,offline")
    assert streaming_default(trained).chunk_ms == 160 and offline_default(trained).is_offline
    assert choose_policy(trained, "320").lookahead_ms == 320 and choose_policy(trained, 320, 0).lookahead_ms == 0
    assert choose_policy(trained) == trained[0] and choose_policy(trained, prefer_offline=True).is_offline
    assert training_note(trained, choose_policy(trained, "offline")) is None
    assert training_note(trained, choose_policy(trained, 160)) is None
    assert "not for 320 ms chunks" in str(training_note(trained, choose_policy(trained, 320)))
    fixed = ChunkPolicy.parse("320,1280", lookahead_ms=160, wait_chunks=1, left_ms=2560)
    assert choose_policy(fixed).lookahead_ms == 160 and choose_policy(fixed).wait_chunks == 1
    assert choose_policy(fixed, 640) == ChunkPolicy(640, 160, 1, 4) and choose_policy(fixed, 1280) == fixed[1]
    several = ChunkPolicy.parse("320,640,offline", left_ms="unlimited,5120,2560")
    assert choose_policy(several) == ChunkPolicy(320, left_chunks=16)  # the longest limited one
    assert choose_policy(several, 160) == ChunkPolicy(160, left_chunks=32)
    assert choose_policy(several, 640, left_ms="unlimited") == ChunkPolicy(640)
    assert choose_policy(several, 640, left_ms=1000) == ChunkPolicy(640, left_chunks=2)
    assert offline_default(fixed).chunk_ms == 1280 and choose_policy(fixed, "offline") == ChunkPolicy(None)
    # One look-ahead for all sizes stays, also where it is as long as the first chunk.
    equal = ChunkPolicy.parse("320,640,offline", lookahead_ms=320)
    assert choose_policy(equal, 1280) == choose_policy(equal[::-1], 1280) == ChunkPolicy(1280, 320)
    assert choose_policy(equal, 640).lookahead_ms == 320 and choose_policy(equal, "offline").is_offline
    mixed = (ChunkPolicy(320, 160), ChunkPolicy(640, 320))
    assert choose_policy(mixed, 1280) == ChunkPolicy(1280) and choose_policy(mixed, 640) == mixed[1]
    assert choose_policy(ChunkPolicy.parse("offline"), 640) == ChunkPolicy(640)
    for wrong in ("-320", "x", "0", "320,640"):
        with pytest.raises(ConfigError, match="chunk"):
            choose_policy(trained, wrong)
    with pytest.raises(ConfigError, match="`lookahead_ms` must be a multiple of 10, but is 15"):
        choose_policy(trained, 320, 15)


# --- names of numpy 1, as the released checkpoints have them


def test_arrays_and_numbers_of_numpy_1_load_as_data(tmp_path: Path) -> None:
    extra = {
        "array": np.arange(3.0),
        "number": np.float64(2.5),
        "double": torch.arange(3, dtype=torch.float64),
        "flags": Namespace(lr=[0.1]),
    }
    state = load_checkpoint(numpy_1_checkpoint(tmp_path / "c.pt", extra))
    measured = state["extra_state"]["measured"]
    assert measured["array"].tolist() == [0.0, 1.0, 2.0] and measured["number"] == 2.5
    assert measured["double"].dtype == torch.float64 and measured["flags"].lr == [0.1]
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_a_numpy_1_checkpoint_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = numpy_1_checkpoint(tmp_path / "c.pt", np.arange(4.0))
    arguments = ["export", str(checkpoint), "--output", str(tmp_path / "b")]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "config.yaml" in error and "gcmvn.npz" in error and "--data" in error
    assert main([*arguments, "--data", str(PUBLISHED)]) == 0
    assert load_system(tmp_path / "b").num_units == 100


def test_other_names_of_numpy_are_still_refused(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple:
            return np.load, (str(tmp_path / "x.npy"),)

    torch.save({"model": {"w": torch.ones(1)}, "extra_state": Runs()}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="numpy.*load"):
        load_checkpoint(tmp_path / "c.pt")


# --- mistakes


def test_files_of_bundles_and_pointers(tmp_path: Path) -> None:
    folder = save_bundle(load_system(PUBLISHED / "checkpoint.pt"), tmp_path / "bundle")
    for name in ("config.json", "model.safetensors", "dict.txt"):
        with pytest.raises(CheckpointError, match=f"{name} is a file of a bundle: give its folder, {folder}"):
            load_system(folder / name)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "model.safetensors").write_bytes(pointer)
    (tmp_path / "c.pt").write_bytes(pointer)
    for path in (folder, tmp_path / "c.pt"):
        with pytest.raises(CheckpointError, match="is a Git LFS pointer, not the file itself: run `git lfs pull`"):
            load_system(path, PUBLISHED)
    with pytest.raises(CheckpointError, match="not a readable"):
        (tmp_path / "d.pt").write_bytes(b"junk" * 9)
        load_system(tmp_path / "d.pt", PUBLISHED)


def test_export_does_not_replace_what_it_should_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "b"
    arguments = ["export", str(PUBLISHED / "checkpoint.pt"), "--output", str(output)]
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    for flags in ([], ["--overwrite"]):
        assert main([*arguments, *flags]) == 1
        assert "holds something other than a bundle" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["notes.txt"]
    (output / "notes.txt").unlink()
    assert main(arguments) == 0
    assert main(arguments) == 1
    assert "already holds a bundle: choose another output folder, or pass --overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--half"]) == 0
    assert main(["export", str(output), "--output", str(tmp_path / "c")]) == 1
    assert f"{output} is a bundle already" in capsys.readouterr().err


def test_average_does_not_replace_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(our_checkpoint(tmp_path / "c.pt"))
    arguments = ["average", checkpoint, "--output", str(tmp_path / "a.pt")]
    assert main(arguments) == 0 and main(arguments) == 1
    assert "a.pt already exists" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


def test_a_full_disk_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    checkpoint = str(our_checkpoint(tmp_path / "c.pt"))
    for arguments in (["average", checkpoint], ["export", str(PUBLISHED / "checkpoint.pt")]):
        assert main([*arguments, "--output", str(tmp_path / "out")]) == 1
        error = capsys.readouterr().err
        assert "No space left on device" in error and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.pt"]


def test_a_foreign_encoder_is_refused_with_what_can_be_used(tmp_path: Path) -> None:
    torch.save({"model": {"encoder.layers.0.w": torch.ones(1)}, "cfg": {"model": {"arch": "s2t"}}}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="Encoders of other fairseq models .* cannot be used.* --start-from PATH"):
        read_trained_model([tmp_path / "c.pt"])
    with pytest.raises(CheckpointError, match="Only encoders of NAST-S2X checkpoints .* can be used"):
        load_pretrained_encoder(make_model(50, units=False), tmp_path / "c.pt")
