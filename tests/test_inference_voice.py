"""Bundles with a voice: saved, loaded, refused where vocoder and model do not belong together, exported."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from random_system import NUM_UNITS, UNIT_HASH, make_bundle, make_voice, unsealed
from test_checkpoints import PUBLISHED

from nast_s2x.cli.main import main
from nast_s2x.inference.bundle import save_bundle
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.system import System
from nast_s2x.vocoder.checkpoint import save_vocoder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> System:
    return make_bundle(tmp_path_factory.mktemp("system"), voice=True)


@pytest.fixture
def folder(bundle: System, tmp_path: Path) -> Path:
    return save_bundle(bundle, tmp_path / "bundle")


def edit(path: Path, **changes: object) -> None:
    """Change entries of a JSON file of a bundle, and remove the bundle's digests; ``None`` removes an entry."""
    unsealed(path.parent.parent if path.parent.name == "vocoder" else path.parent)
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_voice_is_the_same_voice(bundle: System, tmp_path: Path, half: bool) -> None:
    bundle = replace(bundle, info=replace(bundle.info, vocoder_card="# The voice\n"))
    read = load_system(save_bundle(bundle, tmp_path / "b", half=half))
    assert bundle.vocoder is not None and read.vocoder is not None
    assert (read.units.hash, read.info.vocoder_card) == (UNIT_HASH, "# The voice\n")
    assert read.vocoder.config == bundle.vocoder.config and read.vocoder.config.unit_hash == UNIT_HASH
    assert not read.vocoder.training and not any(p.requires_grad for p in read.vocoder.parameters())
    for name, value in bundle.vocoder.state_dict().items():
        stored = read.vocoder.state_dict()[name]
        assert stored.dtype == torch.float32 and torch.equal(stored, value.half().float() if half else value)
    for text in (read.info.card, (tmp_path / "b" / "README.md").read_text()):
        assert "vocoder" in text and UNIT_HASH in text and "--speech" in text and "main-speech.yaml" in text


def test_a_bundle_without_a_voice_is_as_before(tmp_path: Path) -> None:
    plain = save_bundle(make_bundle(tmp_path / "s"), tmp_path / "b")
    assert not {"units", "vocoder"} & set(json.loads((plain / "config.json").read_text()))
    assert not (plain / "vocoder").exists() and not list(plain.glob("*speech*"))
    assert "speech units" in (plain / "README.md").read_text() and "--speech" not in (plain / "README.md").read_text()
    assert load_system(plain).vocoder is None


def test_nothing_of_an_earlier_voice_stays(folder: Path, tmp_path: Path) -> None:
    save_bundle(make_bundle(tmp_path / "s"), folder)
    assert not (folder / "vocoder").exists() and not list(folder.glob("*speech*"))
    assert load_system(folder).vocoder is None


def test_simuleval_files_for_speech(folder: Path) -> None:
    files = {path.name: yaml.safe_load(path.read_text()) for path in folder.glob("main*.yaml")}
    texts = {name for name in files if "speech" not in name}
    assert {name.replace("main", "main-speech", 1) for name in texts} == set(files) - texts
    for name in texts:
        speech = files[name.replace("main", "main-speech", 1)]
        assert speech.pop("agent_class") == "nast_s2x.agents.speech_to_speech.NastSpeechToSpeechAgent"
        assert files[name].pop("agent_class") == "nast_s2x.agents.speech_to_text.NastSpeechToTextAgent"
        assert speech == files[name]


def test_the_voice_moves_but_stays_in_float32(tmp_path: Path) -> None:
    moved = make_bundle(tmp_path, voice=True).to("cpu", torch.float64)
    assert moved.vocoder is not None and moved.dtype == torch.float64
    assert {parameter.dtype for parameter in moved.vocoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_of_the_voice_is_named(folder: Path, name: str) -> None:
    (folder / "vocoder" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"incomplete: file vocoder/{name} is missing"):
        load_system(folder)


def test_a_voice_that_is_gone_is_missed(folder: Path) -> None:
    for path in (folder / "vocoder").iterdir():
        path.unlink()
    (folder / "vocoder").rmdir()
    with pytest.raises(FileNotFoundError, match="file vocoder/config.json is missing"):
        load_system(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding_dim": None}, "vocoder/config.json: vocoder configuration lacks embedding_dim"),
        ({"upsample_rates": [5, 4, 4, 2, 3]}, "vocoder/config.json: upsample_rates must multiply to 320"),
        ({"multispkr": "speaker"}, "vocoder/config.json: .*several speakers"),
        ({"embedding_dim": 4, "model_in_dim": 4, "dur_predictor_params": None}, "does not fit its configuration"),
        ({"unit_hash": "feed"}, f"units are of centroids {UNIT_HASH}, the vocoder's of feed"),
    ],
)
def test_a_damaged_voice_configuration(folder: Path, changes: dict[str, object], message: str) -> None:
    edit(folder / "vocoder" / "config.json", **changes)
    with pytest.raises(ValueError, match=message):
        load_system(folder)


def test_voices_for_other_units(bundle: System, folder: Path, tmp_path: Path) -> None:
    small = save_vocoder(make_voice(NUM_UNITS - 1), tmp_path / "small")
    with pytest.raises(ValueError, match=f"small: the model has {NUM_UNITS} units, the vocoder {NUM_UNITS - 1}"):
        bundle.with_vocoder(small)
    other = save_vocoder(make_voice(unit_hash="feed"), tmp_path / "other")
    with pytest.raises(ValueError, match=f"other: the model's units are of centroids {UNIT_HASH}, .* of feed"):
        bundle.with_vocoder(other)
    with pytest.raises(ValueError, match="no duration predictor"):
        bundle.with_vocoder(save_vocoder(make_voice(durations=False), tmp_path / "plain"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        bundle.with_vocoder(tmp_path / "nowhere")
    assert bundle.vocoder is not None and bundle.vocoder.config.unit_hash == UNIT_HASH  # the old one stays
    with pytest.raises(ValueError, match="needs a model with a unit decoder"):
        make_bundle(tmp_path / "text", units=False).with_vocoder(folder)


def test_unknown_hashes_are_no_obstacle(folder: Path, tmp_path: Path) -> None:
    silent = save_vocoder(make_voice(NUM_UNITS + 3, None, seed=4), tmp_path / "silent", card="Silent.\n")
    bundle = load_system(folder).with_vocoder(silent)
    assert bundle.info.vocoder_card == "Silent.\n" and bundle.vocoder.config.num_embeddings == NUM_UNITS + 3
    edit(folder / "config.json", units=None)
    assert load_system(folder).units.hash is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": [{"lookahead_ms": 320}]}, "config.json: policies: a chunk policy needs the entry `chunk_ms`"),
        ({"policies": {"chunk_ms": 320}}, "config.json: `policies` must be a list"),
        ({"policies": [{"chunk_ms": "x"}]}, "policies: `chunk_ms` must be a whole number .* but is 'x'"),
        ({"policies": [{"chunk_ms": 320, "wait_chunks": None}]}, "policies: `wait_chunks` must be a whole number"),
        ({"policies": None}, "config.json lacks policies"),
        ({"version": 1}, "config.json lacks geometries"),
        ({"version": 1, "geometries": {"chunk_ms": [320]}}, "geometries: `wait_chunks` is missing"),
        ({"version": 1, "geometries": {"wait_chunks": 0, "chunk_ms": 320}}, "`chunk_ms` must be a list .* but is 320"),
        ({"version": 1, "geometries": {"wait_chunks": 0, "chunk_ms": ["x"]}}, "a chunk size is .* but is 'x'"),
        ({"front_end": {"cmvn": None}}, "config.json: `front_end` needs the entry `front_end.sample_rate`"),
        ({"front_end": "mel"}, "config.json: `front_end` must be a table"),
        ({"architecture": {"width": 3}}, "config.json: architecture: .* no entry 'width'"),
        ({"architecture": {"unit_vocab": 30}}, "config.json: architecture: .*text_vocab"),
        ({"units": "hash"}, "config.json: `units` must be a table"),
        (
            {"architecture": {"text_vocab": 30, "encoder_heads": 0}},
            "`encoder_heads` must be a whole number of at least 1",
        ),
    ],
)
def test_a_damaged_description(folder: Path, changes: dict[str, object], message: str) -> None:
    edit(folder / "config.json", **changes)
    with pytest.raises(ValueError, match=message):
        load_system(folder)


def test_export_with_a_voice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    units = load_system(PUBLISHED / "checkpoint.pt").num_units
    assert units is not None
    voice = save_vocoder(make_voice(units, "beef"), tmp_path / "v", card="# Its own card\n")
    arguments = ["export", str(PUBLISHED / "checkpoint.pt"), "-o", str(tmp_path / "b")]
    assert main([*arguments, "--vocoder", str(voice), "--half"]) == 0
    folder = tmp_path / "b"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    inside = sum(path.stat().st_size for path in (folder / "vocoder").iterdir())
    assert f"wrote {folder} ({size / 1e6:.1f} MB, vocoder {inside / 1e6:.1f} MB)" in capsys.readouterr().err
    system = load_system(folder)
    assert system.vocoder is not None and system.vocoder.config.unit_hash == "beef" and system.units.hash is None
    assert (folder / "vocoder" / "README.md").read_text() == "# Its own card\n"
    small = save_vocoder(make_voice(units - 1), tmp_path / "small")
    assert main(["export", str(PUBLISHED / "checkpoint.pt"), "-o", str(tmp_path / "c"), "--vocoder", str(small)]) == 1
    assert "they do not belong together" in capsys.readouterr().err and not (tmp_path / "c").exists()


def test_the_data_folder_names_the_centroids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    shutil.copytree(PUBLISHED, data)
    with (data / "config.yaml").open("a") as file:
        file.write("unit_hash: feedbeef\n")
    units = load_system(data / "checkpoint.pt").num_units
    arguments = ["export", str(data / "checkpoint.pt"), "-o", str(tmp_path / "b"), "--vocoder"]
    wrong = save_vocoder(make_voice(units, "beef"), tmp_path / "wrong")
    assert main([*arguments, str(wrong)]) == 1
    assert "units are of centroids feedbeef, the vocoder's of beef" in capsys.readouterr().err
    assert main([*arguments, str(save_vocoder(make_voice(units, "feedbeef"), tmp_path / "right"))]) == 0
    assert load_system(tmp_path / "b").units.hash == "feedbeef"
