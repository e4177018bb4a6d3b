"""Bundles: what is written is what is read, and what is missing is named."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from random_system import NUM_UNITS, make_bundle, make_signal, unsealed
from test_checkpoints import PUBLISHED

from nast_s2x import files
from nast_s2x.cli.main import main
from nast_s2x.device import find_device
from nast_s2x.errors import CheckpointError, NastError
from nast_s2x.inference.bundle import save_bundle
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.offline import translate_samples
from nast_s2x.inference.system import System


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> System:
    return make_bundle(tmp_path_factory.mktemp("system"), example="It knows houses and dogs.")


@pytest.fixture
def folder(bundle: System, tmp_path: Path) -> Path:
    return save_bundle(bundle, tmp_path / "bundle")


def test_a_saved_bundle_is_the_same_system(bundle: System, folder: Path) -> None:
    read = load_system(folder)
    assert read.model.config == bundle.model.config and read.trained == bundle.trained
    for name, value in bundle.model.state_dict().items():
        assert torch.equal(value, read.model.state_dict()[name])
    assert (read.info.source_lang, read.info.target_lang, read.num_units) == ("fr", "en", NUM_UNITS)
    assert read.info.example == "It knows houses and dogs." and read.info.example in read.info.card
    assert not read.model.training and not any(p.requires_grad for p in read.model.parameters())
    samples = make_signal(2.0, seed=1)
    for policy in read.trained:
        expected = translate_samples(bundle, samples, policy=policy)
        assert translate_samples(read, samples, policy=policy) == expected and expected.text


def test_a_bundle_does_not_depend_on_where_it_came_from(bundle: System, tmp_path: Path) -> None:
    first = save_bundle(make_bundle(tmp_path / "origin"), tmp_path / "first")
    shutil.rmtree(tmp_path / "origin")
    second = save_bundle(load_system(first), tmp_path / "second")
    assert sorted(path.name for path in first.iterdir()) == sorted(path.name for path in second.iterdir())
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name
    save_bundle(load_system(first), first)  # onto itself
    load_system(first)


def test_tied_weights_are_stored_once(folder: Path, bundle: System) -> None:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
        stored = sum(file.get_tensor(name).numel() for name in names)
    assert stored == sum(parameter.numel() for parameter in bundle.model.parameters())
    assert not [name for name in names if "output_projection" in name]


def test_half_precision_storage(bundle: System, tmp_path: Path) -> None:
    half, full = save_bundle(bundle, tmp_path / "half", half=True), save_bundle(bundle, tmp_path / "full")
    sizes = [(path / "model.safetensors").stat().st_size for path in (half, full)]
    assert sizes[0] < 0.6 * sizes[1]
    read = load_system(half)
    assert read.dtype == torch.float32
    for name, value in bundle.model.state_dict().items():
        assert torch.allclose(read.model.state_dict()[name], value, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        next(bundle.model.parameters()).view(-1)[0] = 1e6
        with pytest.raises(ValueError, match="must be finite numbers in torch.float16, but encoder.conv"):
            save_bundle(bundle, tmp_path / "other", half=True)
        next(bundle.model.parameters()).view(-1)[0] = 0.0


def test_weights_that_are_not_numbers_are_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["decoder.layers.0.fc1.bias"][3] = float("nan")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="decoder.layers.0.fc1.bias holds NaN"):
        load_system(unsealed(folder))


@pytest.mark.parametrize(
    "step", ["dict.txt", "spm.model", "gcmvn.npz", "README.md", "main.yaml", "config.json", "exchange"]
)
def test_an_interrupted_save_leaves_the_old_bundle(
    bundle: System, folder: Path, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever write fails: the folder holds the old bundle as a whole, and nothing lies beside it."""
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def failing(path: Path, content: str | bytes) -> None:
        if Path(path).name == step:
            raise OSError(28, "No space left on device")
        files.write_atomic(path, content)

    monkeypatch.setattr("nast_s2x.inference.bundle.write_atomic", failing)
    monkeypatch.setattr("nast_s2x.labels.write_atomic", failing)
    if step == "gcmvn.npz":
        monkeypatch.setattr(type(bundle.cmvn), "save", lambda self, path: failing(path, b""))
    if step == "exchange":
        monkeypatch.setattr(files, "_exchange", lambda *_: (_ for _ in ()).throw(OSError("interrupted")))
    with pytest.raises(OSError):
        save_bundle(make_bundle(tmp_path / "other", seed=5), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert not [path.name for path in folder.parent.iterdir() if path.name.startswith(".")]


def version_1(folder: Path) -> dict:
    """Rewrite the configuration of a bundle as version 1 had it; returns it."""
    config = json.loads((unsealed(folder) / "config.json").read_text())
    rates = config["architecture"].pop("rates")
    policies = config.pop("policies")
    config["geometries"] = {
        "chunk_ms": [policy["chunk_ms"] or "offline" for policy in policies],
        "lookahead_ms": "chunk",
        "wait_chunks": 0,
        **rates,
    }
    config["version"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    return config


def test_version_1_is_read(bundle: System, folder: Path) -> None:
    version_1(folder)
    read = load_system(folder)
    assert read.model.config == bundle.model.config and read.trained == bundle.trained


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("unit_upsample", 4, "`unit_upsample` is 4, but the weights have 6 unit slots per text slot"),
        ("subsampling", 2, "`subsampling` must be 4, but is 2"),
        ("pooling", 0, "`pooling` must be a whole number of at least 1, but is 0"),
        ("chunk_ms", [200], "`chunk_ms` must be a multiple of 80 for this model, but is 200"),
    ],
)
def test_rates_of_version_1_that_do_not_fit_the_weights(folder: Path, name: str, value: object, message: str) -> None:
    config = version_1(folder)
    config["geometries"][name] = value
    config["origin"] = {"checkpoint": "nast_s2x"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(NastError, match=message):
        load_system(folder)


def test_speech_to_text_only(tmp_path: Path) -> None:
    read = load_system(save_bundle(make_bundle(tmp_path / "s", units=False), tmp_path / "b"))
    result = translate_samples(read, make_signal(1.0))
    assert read.num_units is None and not read.has_units and result.units == [] and result.tokens


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "dict.txt", "spm.model", "gcmvn.npz"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_system(folder)


def test_the_card_is_not_needed(folder: Path) -> None:
    (folder / "README.md").unlink()
    assert load_system(folder).info.card == ""
    (folder / "README.md").write_bytes("Übersetzung".encode("latin-1"))
    assert load_system(folder).info.card == "\ufffdbersetzung"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "not valid JSON"),
        ("config.json", '{"format": "other"}', "does not describe a bundle"),
        ("config.json", '{"format": "nast_s2x bundle", "version": 99}', "'version' must be one of 1, 2, but is 99"),
        ("config.json", '{"format": "nast_s2x bundle", "version": 1}', "lacks architecture"),
        ("model.safetensors", "junk", "not a readable safetensors file"),
        ("dict.txt", "\u2581a 1\n", "they do not belong together"),
        ("spm.model", "junk", "not a SentencePiece model"),
        ("gcmvn.npz", "junk", "not a CMVN file"),
    ],
)
def test_damaged_files(folder: Path, name: str, content: str, message: str) -> None:
    (unsealed(folder) / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_system(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "dict.txt", "spm.model", "gcmvn.npz"])
def test_a_file_of_another_content_is_refused(folder: Path, name: str) -> None:
    """Each would be readable: a bit of a weight, another order of the vocabulary, other statistics."""
    content = bytearray((folder / name).read_bytes())
    content[-100] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} is damaged or from another bundle: its SHA-256 is .* records"):
        load_system(folder)


def test_a_changed_entry_of_the_description_is_refused(folder: Path) -> None:
    """Weights do not show the number of heads, nor whether features are normalised."""
    original = (folder / "config.json").read_text()
    for part, entry, value in (("architecture", "decoder_heads", 2), ("front_end", "cmvn", None)):
        config = json.loads(original)
        config[part][entry] = value
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match="config.json: its entries do not have the digest `sha256`"):
            load_system(folder)
    config = json.loads(original)
    config["languages"]["source"], config["example"] = "gsw", None
    (folder / "config.json").write_text(json.dumps(config, indent=None, sort_keys=True))
    assert load_system(folder).info.source_lang == "gsw"
    del config["files"]["spm.model"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="`files` has no digest of spm.model"):
        load_system(folder)
    load_system(unsealed(folder))  # as bundles of earlier versions are


def test_sizes_that_the_weights_do_not_have_take_no_memory(folder: Path) -> None:
    config = json.loads((unsealed(folder) / "config.json").read_text())
    sizes = {"encoder_ffn_dim": 10**6, "max_unit_positions": 10**6, "conv_channels": 10**6, "encoder_layers": 256}
    config["architecture"].update(sizes)
    (folder / "config.json").write_text(json.dumps(config))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"bundle: the weights do not fit this network: .*; and \d+ more"):
        load_system(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_weights_of_another_architecture(folder: Path) -> None:
    config = json.loads((unsealed(folder) / "config.json").read_text())
    config["architecture"]["encoder_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"missing encoder\.layers\.2"):
        load_system(folder)


def test_checkpoint_and_data_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such bundle folder or checkpoint file"):
        load_system(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="is not a bundle: file config.json is missing"):
        load_system(tmp_path)
    lonely = tmp_path / "lonely.pt"
    shutil.copyfile(PUBLISHED / "checkpoint.pt", lonely)
    with pytest.raises(
        FileNotFoundError, match=r"needs the data folder of its training.*config\.yaml not found; give .*--data"
    ):
        load_system(lonely)
    system = load_system(lonely, data=PUBLISHED)
    assert system.num_units == 100 and system.trained[0].chunk_ms == 320 and system.cmvn is not None
    assert load_system(lonely, data=PUBLISHED / "config.yaml", dtype=torch.float64).dtype == torch.float64
    data = tmp_path / "data"
    shutil.copytree(PUBLISHED, data)
    (data / "gcmvn.npz").unlink()
    with pytest.raises(FileNotFoundError, match="gcmvn.npz"):
        load_system(lonely, data)


def test_data_folder_of_another_model(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(PUBLISHED, data)
    settings = yaml.safe_load((data / "config.yaml").read_text())
    (data / "config.yaml").write_text(yaml.safe_dump({**settings, "num_units": 7}))
    with pytest.raises(ValueError, match="num_units: 7, but the checkpoint's unit decoder has 100 units"):
        load_system(PUBLISHED / "checkpoint.pt", data)
    with open(data / "spm.txt", "a") as file:
        file.write("more 1\n")
    (data / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ValueError, match="has 42 labels .* the model has 41"):
        load_system(PUBLISHED / "checkpoint.pt", data)


def test_export_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(PUBLISHED / "checkpoint.pt")
    (tmp_path / "card.md").write_text("# My card\n")
    arguments = ["--output", str(tmp_path / "b"), "--card", str(tmp_path / "card.md"), "--example", "Random.", "--half"]
    assert main(["export", checkpoint, checkpoint, *arguments]) == 0
    assert "wrote" in capsys.readouterr().err
    system = load_system(tmp_path / "b")
    assert system.info.card == "# My card\n" and system.info.example == "Random."
    assert system.info.origin == {"checkpoint": "published", "updates": 2, "averaged": 2}
    assert main(["export", checkpoint, "-o", str(tmp_path / "c"), "--card", str(tmp_path / "no.md")]) == 1
    assert main(["export", str(tmp_path / "no.pt"), "-o", str(tmp_path / "c")]) == 1
    error = capsys.readouterr().err
    assert "no.md" in error and "no.pt" in error and not (tmp_path / "c").exists()


def test_simuleval_configurations(folder: Path) -> None:
    main_config = yaml.safe_load((folder / "main.yaml").read_text())
    assert main_config["agent_class"] == "nast_s2x.agents.speech_to_text.NastSpeechToTextAgent"
    assert (main_config["model"], main_config["chunk_ms"], main_config["lookahead_ms"]) == (".", 320, 320)
    assert yaml.safe_load((folder / "main-offline.yaml").read_text())["chunk_ms"] == "offline"
    # SimulEval splits the values at spaces and turns any boolean into a set flag.
    values = [value for path in folder.glob("main*.yaml") for value in yaml.safe_load(path.read_text()).values()]
    assert not [value for value in values if " " in str(value) or isinstance(value, bool)]


def test_devices() -> None:
    assert find_device("gpu", must_exist=False) == torch.device("cuda") and find_device(
        "gpu:1", must_exist=False
    ) == torch.device("cuda:1")
    assert find_device("cpu", must_exist=False) == torch.device("cpu")
    with pytest.raises(ValueError, match="a device is cpu, cuda"):
        find_device("toaster", must_exist=False)


def test_a_gpu_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="device cuda:99 is not available"):
        load_system(folder, device="cuda:99")
    assert main(["translate", "x.wav", "--model", str(folder), "--device", "gpu:99"]) == 1
    assert "error: device cuda:99 is not available" in capsys.readouterr().err
