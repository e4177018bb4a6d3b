"""Vocoder folders and released checkpoints: the same network as fairseq's, and nothing in a file is ever executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from killed import killed_before_each_write
from random_vocoder import make_vocoder, vocoder_config
from released_files import released_vocoder, with_weight_norm
from torch import Tensor, nn

from nast_s2x.errors import CheckpointError, ConfigError
from nast_s2x.vocoder.checkpoint import fold_weight_norm, load_vocoder, read_card, save_vocoder
from nast_s2x.vocoder.config import VocoderConfig
from nast_s2x.vocoder.network import UnitVocoder


def assert_same_weights(model: UnitVocoder, other: UnitVocoder, tolerance: float = 1e-6) -> None:
    assert model.config == other.config
    expected = other.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=tolerance, atol=tolerance)


class _Opens:
    """Pickles to a call that would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("durations", [True, False])
def test_equal_to_fairseq(tmp_path: Path, durations: bool, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fairseq")
    from fairseq.models.text_to_speech.vocoder import CodeHiFiGANVocoder

    checkpoint = released_vocoder(tmp_path, make_vocoder(durations))
    settings = json.loads((tmp_path / "config.json").read_text())
    theirs, ours = CodeHiFiGANVocoder(str(checkpoint), settings).eval(), load_vocoder(checkpoint)
    units = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9]])
    if durations:
        frames = units.repeat_interleave(ours.durations(units)[0], dim=1)
        assert frames.shape[1] > units.shape[1]
        expected = theirs({"code": units.clone()}, dur_prediction=True)
        torch.testing.assert_close(ours(frames)[0], expected, rtol=0, atol=1e-5)
    expected = theirs({"code": units.clone()})
    assert expected.abs().max() > 0.2
    torch.testing.assert_close(ours(units)[0], expected, rtol=0, atol=1e-5)


def test_equal_to_fairseq_at_the_published_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fairseq")
    from fairseq.models.text_to_speech.codehifigan import CodeGenerator

    config = VocoderConfig()
    torch.manual_seed(0)
    theirs = CodeGenerator(config.to_dict()).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith("weight_g"):  # a level as in speech
                parameter *= 0.7 if "resblocks" in name else 3
    torch.save({"generator": theirs.state_dict()}, tmp_path / "g_00000000")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    ours = load_vocoder(tmp_path)
    assert 13e6 < sum(p.numel() for p in ours.parameters()) < 14e6
    units = torch.randint(1000, (1, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(code=units, dur_prediction=True)[0, 0]
    frames = units.repeat_interleave(ours.durations(units)[0], dim=1)
    assert 0.2 < expected.abs().max() < 1
    torch.testing.assert_close(ours(frames)[0], expected, rtol=0, atol=1e-5)


def test_own_folder_round_trip(tmp_path: Path) -> None:
    model = make_vocoder(unit_hash="0123456789abcdef")
    save_vocoder(model, tmp_path / "v")
    assert {path.name for path in (tmp_path / "v").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    loaded = load_vocoder(tmp_path / "v")
    assert_same_weights(loaded, model, tolerance=0)
    assert (
        loaded.config.unit_hash == "0123456789abcdef" and "0123456789abcdef" in (tmp_path / "v/README.md").read_text()
    )
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())


def test_half_weights_and_a_card(tmp_path: Path) -> None:
    model = make_vocoder()
    full, half = save_vocoder(model, tmp_path / "f"), save_vocoder(model, tmp_path / "h", half=True, card="# A voice\n")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (full, half)]
    assert sizes[1] < 0.6 * sizes[0] and (half / "README.md").read_text() == "# A voice\n"
    loaded = load_vocoder(half)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert_same_weights(loaded, model, tolerance=1e-3)
    model.conv_pre.weight[0, 0, 0] = 1e6
    with pytest.raises(ValueError, match="float16, but conv_pre.weight"):
        save_vocoder(model, tmp_path / "h", half=True)
    assert_same_weights(load_vocoder(half), loaded, tolerance=0)  # the folder is as it was


def test_a_save_that_is_killed_leaves_the_old_or_the_new_vocoder(tmp_path: Path) -> None:
    old, new, found = make_vocoder(seed=1), make_vocoder(seed=2), set()
    folder = save_vocoder(old, tmp_path / "v", card="old")
    for _ in killed_before_each_write(lambda: save_vocoder(new, folder, card="new"), tmp_path):
        loaded, card = load_vocoder(folder), read_card(folder)
        assert_same_weights(loaded, {"old": old, "new": new}[card], tolerance=0)
        found.add(card)
        if card == "new":
            save_vocoder(old, folder, card="old")
    assert found == {"old", "new"}
    assert read_card(folder) == "new"  # the last process reached the end


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match="holds something other than a vocoder"):
        save_vocoder(make_vocoder(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_vocoder(make_vocoder(seed=1), tmp_path / "v", card="old")
    opened = open

    def open_full(path: Any, mode: str = "r", **options: Any) -> Any:
        if "model.safetensors" in str(path) and "w" in mode:
            return opened("/dev/full", mode)
        return opened(path, mode, **options)

    monkeypatch.setattr("builtins.open", open_full)
    with pytest.raises(OSError, match="No space left"):
        save_vocoder(make_vocoder(seed=2), folder)
    monkeypatch.undo()
    assert read_card(folder) == "old" and load_vocoder(folder)


def test_weights_are_laid_out_for_the_device_they_are_on(tmp_path: Path) -> None:
    folder = save_vocoder(make_vocoder(), tmp_path / "v")
    convolutions = ["conv_pre", "ups.0", "resblocks.4.convs1.2", "conv_post"]

    def are_contiguous(model: UnitVocoder) -> set[bool]:
        weights = [model.get_submodule(name).weight for name in convolutions]
        return {weight.is_contiguous() for weight in weights if min(weight.shape[1:]) > 1}

    assert are_contiguous(load_vocoder(folder)) == {False}  # channels-last, for CPUs
    # The meta device stands for a GPU: anything other than a CPU.
    moved = load_vocoder(folder, device="meta")
    assert are_contiguous(moved) == {True}
    assert are_contiguous(load_vocoder(folder).to("meta")) == {True}
    assert are_contiguous(moved.to_empty(device="cpu")) == {False}
    assert are_contiguous(make_vocoder().to("meta")) == {True}
    if torch.cuda.is_available():
        assert are_contiguous(load_vocoder(folder, device="cuda")) == {True}
        assert are_contiguous(load_vocoder(folder).to("cuda")) == {True}


def test_sizes_that_the_weights_do_not_have_take_no_memory(tmp_path: Path) -> None:
    path = released_vocoder(tmp_path, make_vocoder(), num_embeddings=10**6)
    with pytest.raises(CheckpointError, match=r"dict.weight has shape \(20, 16\), not \(1000000, 16\)"):
        load_vocoder(path)


def test_released_folder_file_and_bundle(tmp_path: Path) -> None:
    model = make_vocoder()
    checkpoint = released_vocoder(tmp_path / "released", model)
    for path in (checkpoint, checkpoint.parent, str(checkpoint)):
        assert_same_weights(load_vocoder(path), model)
    save_vocoder(model, tmp_path / "bundle" / "vocoder")
    (tmp_path / "bundle" / "config.json").write_text("{}")
    assert_same_weights(load_vocoder(tmp_path / "bundle"), model)


def test_weight_norm_in_both_spellings() -> None:
    plain = make_vocoder()
    assert_folds_to(fold_weight_norm(with_weight_norm(plain)), plain)
    normed = make_vocoder()
    for module in normed.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            nn.utils.parametrizations.weight_norm(module)
    state = normed.state_dict()
    assert any("original0" in name for name in state)
    assert_folds_to(fold_weight_norm(state), plain)
    for name in ("conv_pre.weight_g", "conv_pre.weight_v"):
        broken = with_weight_norm(plain)
        del broken[name]
        with pytest.raises(ValueError, match=f"incomplete: .* has no {name}"):
            fold_weight_norm(broken)


@pytest.mark.parametrize(
    ("part", "shape"), [("v", ()), ("v", (32,)), ("v", (32, 16, 7)), ("g", (7,)), ("g", (1, 1, 1))]
)
def test_weight_norm_of_shapes_that_do_not_fit(tmp_path: Path, part: str, shape: tuple[int, ...]) -> None:
    path = released_vocoder(tmp_path, make_vocoder())
    torch.save({"generator": with_weight_norm(make_vocoder()) | {f"conv_pre.weight_{part}": torch.ones(shape)}}, path)
    with pytest.raises(CheckpointError, match="weight norm: conv_pre.weight_v has shape .*, its magnitude"):
        load_vocoder(path)


def assert_folds_to(state: dict[str, Tensor], model: UnitVocoder) -> None:
    expected = model.state_dict()
    assert state.keys() == expected.keys()
    for name, value in state.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7)


def test_a_vocoder_in_training_can_be_saved(tmp_path: Path) -> None:
    model = make_vocoder()
    units = torch.arange(10)[None]
    expected = model(units)
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            nn.utils.parametrizations.weight_norm(module)
    torch.testing.assert_close(load_vocoder(save_vocoder(model, tmp_path))(units), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_checkpoint_is_refused_and_runs_nothing(tmp_path: Path, legacy: bool) -> None:
    mark = tmp_path / "was-here"
    path = released_vocoder(tmp_path / "bad", make_vocoder())
    state = {"generator": {"a": torch.ones(1)}, "steps": _Opens(mark)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match="g_00500000 was not loaded: .*nothing in the file was executed"):
        load_vocoder(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)["steps"].close()  # without the safe loader the code would run
    assert mark.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04 broken zip"])
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes) -> None:
    path = released_vocoder(tmp_path, make_vocoder())
    path.write_bytes(content)
    with pytest.raises(ValueError, match="g_00500000"):
        load_vocoder(path)
    path.rename(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="model.safetensors is not a readable safetensors file"):
        load_vocoder(tmp_path)


@pytest.mark.parametrize("state", [{"model": {}}, [1], {"generator": {}}, {"generator": {"a": 3}}])
def test_checkpoints_without_a_generator(tmp_path: Path, state: Any) -> None:
    path = released_vocoder(tmp_path, make_vocoder())
    torch.save(state, path)
    with pytest.raises(ValueError, match="g_00500000 is not a vocoder checkpoint"):
        load_vocoder(path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such vocoder folder or checkpoint: .*nothing"):
        load_vocoder(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="is not a vocoder folder"):
        load_vocoder(tmp_path)
    path = released_vocoder(tmp_path, make_vocoder())
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="config.json not found"):
        load_vocoder(path)
    (tmp_path / "g_00600000").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"several checkpoints \(g_00500000, g_00600000\)"):
        load_vocoder(tmp_path)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"multispkr": "from_input_file"}, r"multispkr \(several speakers\) is not supported"),
        ({"embedder_params": {"x": 1}}, r"embedder_params \(a speaker embedding\) is not supported"),
        ({"f0": True}, r"f0 \(pitch input\) is not supported"),
        ({"f0_quant_num_bin": 32}, r"f0_quant_num_bin \(quantised pitch input\) is not supported"),
        ({"resblock": "2"}, "resblock must be '1'"),
        ({"sampling_rate": 22050}, "sampling_rate must be 16000, not 22050"),
        ({"model_in_dim": 300}, "model_in_dim differs from embedding_dim"),
        ({"upsample_rates": [5, 4, 4, 2]}, "must multiply to 320"),
        ({"num_embeddings": 21}, r"does not fit its configuration: dict.weight has shape \(20, 16\), not \(21, 16\)"),
        ({"dur_predictor_params": None}, "unknown parameter dur_predictor"),
        (
            {"dur_predictor_params": {"encoder_embed_dim": 16}},
            "needs the entry `dur_predictor_params.var_pred_hidden_dim`",
        ),
        ({"dur_predictor_params": [16]}, "`dur_predictor_params` must be a table"),
        ({"num_embeddings": "20"}, "`num_embeddings` must be a whole number of at least 1, but is '20'"),
        (
            {"embedding_dim": True, "model_in_dim": True},
            "`embedding_dim` must be a whole number of at least 1, but is True",
        ),
        ({"upsample_rates": 320}, "`upsample_rates` must be a list, but is 320"),
        ({"resblock_kernel_sizes": [0.5, 7, 11]}, r"`resblock_kernel_sizes\[0\]` must be .* but is 0.5"),
        ({"resblock_dilation_sizes": 3}, "`resblock_dilation_sizes` must be a list"),
        ({"resblock_dilation_sizes": [[1], [1], [-1]]}, r"`resblock_dilation_sizes\[2\]\[0\]` must be .* but is -1"),
        ({"unit_hash": 7}, "`unit_hash` must be text, but is 7"),
    ],
)
def test_configurations_that_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_vocoder(released_vocoder(tmp_path, make_vocoder(), **settings))


@pytest.mark.parametrize("key", sorted(vocoder_config().to_dict().keys() - {"unit_hash", "dur_predictor_params"}))
def test_a_configuration_without_a_key(tmp_path: Path, key: str) -> None:
    path = released_vocoder(tmp_path, make_vocoder())
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings[key]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    if key in ("model_in_dim", "resblock", "sampling_rate", "code_hop_size"):  # not needed
        load_vocoder(path)
    else:
        with pytest.raises(ValueError, match=f"config.json: vocoder configuration lacks {key}"):
            load_vocoder(path)


@pytest.mark.parametrize("text", ["{", "[]", '{"num_embeddings": "many"}', "null"])
def test_configurations_that_are_none(tmp_path: Path, text: str) -> None:
    path = released_vocoder(tmp_path, make_vocoder())
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json"):
        load_vocoder(path)


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = released_vocoder(tmp_path, make_vocoder())
    for name, message in (
        ("spkr.weight", r"spkr.weight \(speakers\) is not supported"),
        ("f0_quant_embed.weight", "quantised pitch"),
        ("conv_other.weight", "unknown parameter conv_other.weight"),
    ):
        torch.save({"generator": with_weight_norm(make_vocoder()) | {name: torch.ones(2, 2)}}, path)
        with pytest.raises(ValueError, match=message):
            load_vocoder(path)
    state = with_weight_norm(make_vocoder())
    del state["conv_post.bias"]
    torch.save({"generator": state}, path)
    with pytest.raises(ValueError, match="lacks conv_post.bias"):
        load_vocoder(path)
    torch.save({"generator": state | {"conv_post.bias": torch.tensor([torch.nan])}}, path)
    with pytest.raises(ValueError, match="conv_post.bias holds NaN"):
        load_vocoder(path)
