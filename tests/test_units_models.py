"""Features of HuBERT networks: tiny random ones, saved and loaded locally."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from unit_corpus import read_rows, signal, units, write_corpus

from nast_s2x.errors import ConfigError
from nast_s2x.units.centroids import Centroids
from nast_s2x.units.features import BackEnd, UnitFeatures, Windows

CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
LAYERS, WIDTH = 3, 16


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection fails the test."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("the network was used"))


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny random ``HubertModel`` in evaluation mode, and the folder that it was saved in."""
    pytest.importorskip("transformers")
    from nast_s2x.checkpoints.huggingface import without_torchaudio

    with without_torchaudio():
        from transformers import HubertConfig, HubertModel
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=24,
        conv_dim=[8] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, initializer_range=0.1,
    )  # fmt: skip
    model = HubertModel(config).eval()
    folder = tmp_path_factory.mktemp("hubert")
    model.save_pretrained(folder)
    return model, folder


def hidden_states(model: Any, samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    with torch.inference_mode():
        found = model(torch.from_numpy(samples)[None], output_hidden_states=True).hidden_states
    return [state[0].numpy() for state in found]


def load(folder: Path, layer: int = 2) -> UnitFeatures:
    return BackEnd("mhubert", str(folder), layer).build()


def test_hubert_layers_are_hidden_states(hubert: Any) -> None:
    model, folder = hubert
    samples = signal(1.3)
    expected = hidden_states(model, samples)
    for layer in range(1, LAYERS + 1):
        features = load(folder, layer)
        np.testing.assert_allclose(features(samples), expected[layer], atol=1e-5)
        assert (features.dim, features.context_samples) == (WIDTH, None)
    assert np.abs(expected[1] - expected[2]).max() > 0.1  # the layers do differ
    assert len(expected[1]) == (len(samples) - 80) // 320


def test_hubert_of_short_recordings(hubert: Any) -> None:
    features = load(hubert[1])
    assert [len(features(signal(1.0)[:n])) for n in (0, 399, 400, 719, 720)] == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("asked", [None, {}, {"do_normalize": False}, {"do_normalize": True}])
def test_hubert_normalises_as_the_folder_is_configured(
    hubert: Any, tmp_path: Path, asked: dict[str, bool] | None
) -> None:
    model, folder = hubert
    shutil.copytree(folder, tmp_path / "m")
    if asked is not None:
        (tmp_path / "m/preprocessor_config.json").write_text(json.dumps(asked), "utf-8")
    normalize = bool(asked and asked.get("do_normalize"))
    samples = 0.2 * signal(0.8) + 0.1
    wanted = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7) if normalize else samples
    features = load(tmp_path / "m")
    np.testing.assert_allclose(features(samples), hidden_states(model, wanted)[2], atol=1e-4)
    assert features.describe()["normalize"] is normalize
    # Windows are parts of the normalised recording, not normalised parts.
    loud = np.concatenate([0.01 * signal(1.0), signal(1.0, seed=1)])
    parts = Windows(1.2, 0.4).compute(features, loud)
    own = Windows(1.2, 0.4).compute(load(folder), features.normalized(loud))
    np.testing.assert_array_equal(parts, own)


def seam_errors(features: UnitFeatures, overlap: float) -> tuple[float, float]:
    """Mean errors of windows with a kept centre of 2 s against the whole recording: at the seams, and elsewhere."""
    samples = signal(8.0)
    whole = features(samples)
    parts = Windows(2.0 + 2 * overlap, overlap).compute(features, samples)
    assert parts.shape == whole.shape
    errors = np.abs(parts - whole).mean(axis=1)
    at_seam = np.zeros(len(errors), bool)
    for seam in (100, 200, 300):
        at_seam[seam - 3 : seam + 3] = True
    return float(errors[at_seam].mean()), float(errors[~at_seam].mean())


def check_windows(features: UnitFeatures) -> None:
    samples = signal(3.0)
    np.testing.assert_array_equal(Windows(3.0, 0.2).compute(features, samples), features(samples))
    assert len(Windows(1.0, 0.2).compute(features, samples[:-7])) == len(features(samples[:-7]))
    # Windows that hardly overlap show: frames at a seam are worse than the others. With 2 s of overlap they are not.
    bad, rest = seam_errors(features, overlap=0.02)
    assert bad > 1.3 * rest
    good, rest = seam_errors(features, overlap=2.0)
    assert good < 1.2 * rest and good < 0.5 * bad


def test_hubert_windows(hubert: Any) -> None:
    check_windows(load(hubert[1]))


def test_hubert_weights_in_a_bin_file(hubert: Any, tmp_path: Path) -> None:
    model, folder = hubert
    shutil.copy(folder / "config.json", tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    samples = signal(0.5)
    np.testing.assert_array_equal(load(tmp_path)(samples), load(folder)(samples))
    assert load(tmp_path).describe() == load(folder).describe()
    changed = {name: value + 1e-3 for name, value in model.state_dict().items()}
    torch.save(changed, tmp_path / "pytorch_model.bin")
    assert load(tmp_path).describe()["weights"] != load(folder).describe()["weights"]


class Touch:
    """Unpickles by creating a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_unusable_hubert_folders(hubert: Any, tmp_path: Path) -> None:
    model, folder = hubert

    def changed(name: str, config: dict[str, Any] | None = None, weights: object = None) -> Path:
        shutil.copytree(folder, tmp_path / name)
        if config is not None:
            values = json.loads((folder / "config.json").read_text("utf-8")) | config
            (tmp_path / name / "config.json").write_text(json.dumps(values), "utf-8")
        if weights is not None:
            (tmp_path / name / "model.safetensors").unlink()
            torch.save(weights, tmp_path / name / "pytorch_model.bin")
        return tmp_path / name

    state = dict(model.state_dict())
    del state["encoder.layers.0.final_layer_norm.weight"]
    (tmp_path / "bare").mkdir()
    (changed("wrong rate") / "preprocessor_config.json").write_text('{"sampling_rate": 8000}', "utf-8")
    (changed("no json") / "config.json").write_text("{", "utf-8")
    (changed("no weights") / "model.safetensors").unlink()
    (changed("cut") / "model.safetensors").write_bytes(b"no")
    reasons = {
        tmp_path / "gone": "no such model folder",
        tmp_path / "bare": "config.json: no such file",
        tmp_path / "wrong rate": "sampling_rate must be 16000, not 8000",
        tmp_path / "no json": "not valid JSON",
        tmp_path / "no weights": "no weights, model.safetensors or",
        tmp_path / "cut": "the model does not load",
        changed("bert", {"model_type": "bert"}): "model_type must be hubert, not 'bert'",
        changed("stride", {"conv_stride": [5, 2, 2, 2, 2, 2, 1]}): "a frame every 160 samples",
        changed("missing", weights=state): "lack 1 parameters, encoder.layers.0.final_layer_norm.weight",
        changed("evil", weights={"a": Touch(tmp_path / "made")}): "the model does not load",
    }
    for path, reason in reasons.items():
        with pytest.raises((ValueError, FileNotFoundError), match=reason):
            load(path)
    assert not (tmp_path / "made").exists()
    for layer in (0, 4):
        with pytest.raises(ValueError, match=f"layer must be in 1..3, not {layer}"):
            load(folder, layer)
    with pytest.raises(ConfigError, match="device cuda:99 is not available"):
        BackEnd("mhubert", str(folder), 2, "cuda:99").build()


def test_units_of_hubert(hubert: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = hubert
    manifest = write_corpus(tmp_path / "corpus", (0.8, 1.0, 0.6))
    centroids, output = tmp_path / "c.safetensors", tmp_path / "units.tsv"
    model = ("--features", "mhubert", "--model", folder)
    fitting = ("fit", manifest, *model, "--layer", 2, "--num-units", 5, "--jobs", 1, "--output", centroids)
    assert units(*fitting) == 0
    features = load(folder)
    assert Centroids.load(centroids).features == features.describe() and features.describe()["layer"] == 2
    extracting = ("extract", manifest, "--centroids", centroids, "--jobs", 1, "--output", output)
    assert units(*extracting) == 1
    assert "features mhubert need a model (--model)" in capsys.readouterr().err
    assert units(*extracting, "--model", folder) == 0  # the layer is known
    first = Centroids.load(centroids).nearest(features(signal(0.8, seed=0)))
    row = read_rows(output)[0]
    codes, durations = (np.array(row[name].split(), int) for name in ("tgt_audio", "tgt_durations"))
    np.testing.assert_array_equal(np.repeat(codes, durations), first)
    record = json.loads((tmp_path / "units.units.json").read_text("utf-8"))
    assert record["features"] == features.describe() and record["windows"] == {"seconds": 30.0, "overlap": 2.0}
    assert units(*extracting, "--model", folder, "--layer", 3) == 1
    assert "of layer 2, not 3" in capsys.readouterr().err


def fairseq_checkpoint(path: Path, **task: object) -> Any:
    """Save a tiny random fairseq HuBERT as its trainer does, label dictionary and all; returns the model."""
    pytest.importorskip("fairseq")
    from types import SimpleNamespace

    from fairseq.data import Dictionary
    from fairseq.models.hubert.hubert import HubertConfig, HubertModel

    from nast_s2x.units.speech_models.fairseq import _defaults

    torch.manual_seed(0)
    cfg = {
        "_name": "hubert", "encoder_layers": LAYERS, "encoder_embed_dim": WIDTH, "encoder_ffn_embed_dim": 24,
        "encoder_attention_heads": 2, "conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2",
        "conv_pos": 16, "conv_pos_groups": 4, "final_dim": 8, "label_rate": 50.0,
    }  # fmt: skip
    dictionary = Dictionary()
    dictionary.add_symbol("7")
    settings = SimpleNamespace(**(_defaults(HubertConfig) | cfg))
    model = HubertModel(settings, SimpleNamespace(sample_rate=16000), [dictionary]).eval()
    torch.nn.init.normal_(model.encoder.layers[0].fc1.weight, std=0.3)
    state = {
        "args": None,
        "cfg": {
            "model": cfg,
            "task": {"_name": "hubert_pretraining", "sample_rate": 16000, "label_rate": 50.0, **task},
        },
        "model": model.state_dict(),
        "task_state": {"dictionaries": [dictionary]},
        "optimizer_history": [{"num_updates": 3, "best_loss": np.float64(1.5)}],
        "extra_state": {"args": argparse.Namespace(lr=[0.1])},
    }
    torch.save(state, path)
    return model


def load_fairseq(path: Path, layer: int = 2) -> UnitFeatures:
    return BackEnd("fairseq", str(path), layer).build()


@pytest.mark.parametrize("normalize", [False, True])
def test_fairseq_hubert(tmp_path: Path, normalize: bool) -> None:
    model = fairseq_checkpoint(tmp_path / "h.pt", normalize=normalize)
    samples = 0.3 * signal(1.3) + 0.05
    source = torch.from_numpy(samples)[None]
    source = torch.nn.functional.layer_norm(source, source.shape) if normalize else source
    for layer in range(1, LAYERS + 1):
        features = load_fairseq(tmp_path / "h.pt", layer)
        for cut in (len(samples), len(samples) - 320):  # one of them has an odd number of frames
            with torch.inference_mode():
                expected, _ = model.extract_features(source[:, :cut], output_layer=layer)
            if not normalize or cut == len(samples):
                np.testing.assert_allclose(features(samples[:cut]), expected[0].numpy(), atol=2e-5)
    description = load_fairseq(tmp_path / "h.pt").describe()
    assert description["normalize"] is normalize and description["layer"] == 2
    assert [len(features(samples[:n])) for n in (0, 399, 400, 719, 720)] == [0, 0, 1, 1, 2]


def test_fairseq_windows(tmp_path: Path) -> None:
    fairseq_checkpoint(tmp_path / "h.pt")
    check_windows(load_fairseq(tmp_path / "h.pt"))


def test_unusable_fairseq_checkpoints(tmp_path: Path) -> None:
    fairseq_checkpoint(tmp_path / "good.pt")
    from nast_s2x.checkpoints.fairseq import load_checkpoint
    from nast_s2x.units.speech_models.fairseq import _LABELS

    state = load_checkpoint(tmp_path / "good.pt", _LABELS)
    del state["task_state"]
    cfg, weights = state["cfg"], state["model"]
    made = tmp_path / "made"

    def changed(name: str, **values: object) -> Path:
        torch.save(state | values, tmp_path / name)
        return tmp_path / name

    def convolutions(name: str, text: str) -> Path:
        return changed(name, cfg=cfg | {"model": cfg["model"] | {"conv_feature_layers": text}})

    (tmp_path / "text.pt").write_text("no", "utf-8")
    few = {name: value for name, value in weights.items() if "layers.1.fc1" not in name}
    reasons = {
        tmp_path / "gone.pt": "checkpoint file not found",
        tmp_path / "text.pt": "text.pt",
        changed(
            "evil.pt", extra_state=Touch(made)
        ): "mkdir, which is not on the short list .*; nothing in the file was executed",
        changed("other.pt", cfg={"model": {"encoder_layers": 3}}): "not a HuBERT checkpoint: lacks encoder_embed_dim",
        changed("none.pt", model=None): "no 'model' entry",
        changed("few.pt", model=few): "the weights do not fit the network",
        convolutions("code.pt", f"__import__('os').mkdir({str(made)!r})"): "not a list of convolutions",
        convolutions("huge.pt", "[(8,10,5)] * 9 * 9 * 9"): "not a list of convolutions",
        convolutions("fast.pt", "[(8,10,5)] + [(8,3,2)] * 4"): "a frame every 80 samples",
    }
    for path, reason in reasons.items():
        with pytest.raises((ValueError, FileNotFoundError), match=reason):
            load_fairseq(path)
    assert not made.exists()
    with pytest.raises(ValueError, match="layer must be in 1..3, not 4"):
        load_fairseq(tmp_path / "good.pt", 4)
