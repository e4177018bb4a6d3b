"""The three stages through fairseq: training, exact resuming, starting from other checkpoints, generation."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("fairseq")

from plugin_data import make_data_folder  # noqa: E402
from plugin_runs import TINY, generate, settings, train  # noqa: E402

from nast_s2x.checkpoints.fairseq import load_checkpoint  # noqa: E402
from nast_s2x.corpus.prepare import PrepareOptions, prepare  # noqa: E402
from nast_s2x.frontend.audio import write_wav  # noqa: E402
from nast_s2x.inference.bundle import save_bundle


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_folder(tmp_path_factory.mktemp("data"), train=20)


@pytest.fixture(scope="module")
def asr(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage 0."""
    folder = tmp_path_factory.mktemp("asr")
    run = train(data, folder, "--arch", "nast_s2t_tiny", "--target-text", "source", "--max-update", "2")
    assert [update["num_updates"] for update in run.updates] == ["1", "2"]
    assert "unit_loss" not in run.validations[-1]
    return folder


@pytest.fixture(scope="module")
def ctc(data: Path, asr: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage 1, speech to units, samples of up to two rows; resumed in a test below. Checkpoints of updates 2 and 5."""
    folder = tmp_path_factory.mktemp("ctc")
    flags = ["--arch", "nast_s2s_tiny", "--load-pretrained-encoder-from", str(asr / "checkpoint_last.pt")]
    run = train(data, folder, *flags, "--save-interval-updates", "2", "--max-update", "5", "--join-samples", "2")
    torch.save(run.updates, folder / "updates.pt")
    torch.save(run.validations, folder / "validations.pt")
    return folder


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(checkpoint)["model"]


def test_validation_scores_exist_from_the_first_one(ctc: Path) -> None:
    first = torch.load(ctc / "validations.pt")[0]
    names = [f"valid_{kind}{size}" for kind in ("bleu", "unit_bleu") for size in ("", "_320", "_offline")]
    assert {name: first.get(name) for name in names}.keys() == set(names)
    assert all(first[name] is not None for name in names)
    assert "valid_bleu_640" not in first  # the smallest and the largest chunk only
    assert (ctc / "checkpoint_best.pt").exists()


def test_all_losses_and_ratios_are_logged(ctc: Path) -> None:
    update = torch.load(ctc / "updates.pt")[0]
    for name in ("loss", "asr_loss", "text_loss", "unit_loss", "text_accuracy", "unit_accuracy"):
        assert name in update
    assert float(update["text_glancing"]) == 0.5 and float(update["unit_glancing"]) == 0.3
    total = sum(float(update[name]) for name in ("asr_loss", "text_loss", "unit_loss"))
    assert float(update["loss"]) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_resuming_equals_never_having_stopped(data: Path, ctc: Path, tmp_path: Path, workers: str) -> None:
    checkpoint = next(ctc.glob("checkpoint_1_2.pt"))
    shutil.copy(checkpoint, tmp_path / "checkpoint_last.pt")
    flags = ["--arch", "nast_s2s_tiny", "--save-interval-updates", "2", "--max-update", "5", "--join-samples", "2"]
    run = train(data, tmp_path, *flags, "--num-workers", workers)
    expected = torch.load(ctc / "updates.pt")[2:]
    assert len(run.updates) == 3
    for ours, theirs in zip(run.updates, expected, strict=True):
        for name in ("epoch", "num_updates", "loss", "text_loss", "unit_loss", "gnorm", "text_glanced"):
            assert ours[name] == theirs[name], name
    final = weights(ctc / "checkpoint_last.pt")
    for name, value in weights(tmp_path / "checkpoint_last.pt").items():
        assert torch.equal(value, final[name]), name


def test_pretrained_encoder_is_loaded_and_nothing_else(data: Path, asr: Path) -> None:
    from fairseq import tasks

    path = asr / "checkpoint_last.pt"
    flags = [*TINY, "--arch", "nast_s2s_tiny", "--load-pretrained-encoder-from", str(path)]
    cfg = settings(data, *flags)
    model = tasks.setup_task(cfg.task).build_model(cfg.model)
    pretrained = weights(path)
    state = model.state_dict()
    for name, value in pretrained.items():
        if name.startswith("encoder."):
            assert torch.equal(state[name], value)
    assert not torch.equal(state["decoder.embed_tokens.weight"], pretrained["decoder.embed_tokens.weight"])
    wider = settings(data, *flags, "--encoder-ffn-dim", "24")
    with pytest.raises(ValueError, match="encoder.layers.0.fc1"):
        tasks.setup_task(wider.task).build_model(wider.model)


def test_stage_two_starts_from_the_whole_model(data: Path, ctc: Path, tmp_path: Path) -> None:
    flags = ["--arch", "nast_s2s_tiny", "--finetune-from-model", str(ctc / "checkpoint_last.pt")]
    losses = ["--text-loss", "nmla", "--unit-loss", "nmla", "--text-glancing", "0.3", "--unit-glancing", "0.1"]
    run = train(data, tmp_path, *flags, *losses, "--max-update", "2", "--lr", "0")
    assert -1 <= float(run.updates[0]["text_loss"]) <= 0 and -1 <= float(run.updates[0]["unit_loss"]) <= 0
    assert float(run.updates[0]["text_glancing"]) == 0.3
    start = weights(ctc / "checkpoint_last.pt")
    for name, value in weights(tmp_path / "checkpoint_last.pt").items():
        assert torch.equal(value, start[name]), name


def test_speech_to_speech_starts_from_a_model_of_text(data: Path, asr: Path, ctc: Path, tmp_path: Path) -> None:
    start = weights(asr / "checkpoint_last.pt")
    flags = ["--arch", "nast_s2s_tiny", "--finetune-from-model", str(asr / "checkpoint_last.pt"), "--lr", "0"]
    run = train(data, tmp_path / "grown", *flags, "--max-update", "1")
    assert any("has no unit decoder" in message for message in run.messages)
    grown = weights(tmp_path / "grown/checkpoint_last.pt")
    assert start.keys() < grown.keys()
    assert all(name.startswith("unit_decoder.") for name in grown.keys() - start.keys())
    assert all(torch.equal(grown[name], value) for name, value in start.items())
    broken = torch.load(ctc / "checkpoint_last.pt", weights_only=False)
    del broken["model"]["unit_decoder.embed_tokens.weight"]  # a part of a unit decoder is a damaged file, not none
    torch.save(broken, tmp_path / "broken.pt")
    with pytest.raises(Exception, match="unit_decoder.embed_tokens|architectures match"):
        train(data, tmp_path / "b", "--arch", "nast_s2s_tiny", "--finetune-from-model", str(tmp_path / "broken.pt"))


def test_a_unit_decoder_becomes_deeper(data: Path, ctc: Path, tmp_path: Path) -> None:
    start = weights(ctc / "checkpoint_last.pt")
    layers = {name.split(".")[2] for name in start if name.startswith("unit_decoder.layers.")}
    deeper = str(len(layers) + 1)
    flags = ["--arch", "nast_s2s_tiny", "--unit-layers", deeper, "--lr", "0", "--max-update", "1"]
    run = train(data, tmp_path / "deeper", *flags, "--finetune-from-model", str(ctc / "checkpoint_last.pt"))
    assert any(f"has no unit decoder layers [{len(layers)}]" in message for message in run.messages)
    grown = weights(tmp_path / "deeper/checkpoint_last.pt")
    assert all(torch.equal(grown[name], value) for name, value in start.items())
    assert {name.split(".")[2] for name in grown.keys() - start.keys()} == {str(len(layers))}
    gap = torch.load(ctc / "checkpoint_last.pt", weights_only=False)
    del gap["model"]["unit_decoder.layers.0.fc1.weight"]  # a hole is damage, not a shallower decoder
    torch.save(gap, tmp_path / "gap.pt")
    with pytest.raises(Exception, match="fc1.weight|architectures match"):
        train(data, tmp_path / "g", *flags, "--finetune-from-model", str(tmp_path / "gap.pt"))


def make_text_bundle(data: Path, asr: Path, folder: Path) -> Path:
    from nast_s2x.inference.loading import system_from_checkpoints

    return save_bundle(system_from_checkpoints([asr / "checkpoint_last.pt"], data), folder)


def test_the_unit_decoder_learns_alone_on_top_of_a_bundle(data: Path, asr: Path, tmp_path: Path) -> None:
    bundle = make_text_bundle(data, asr, tmp_path / "bundle")
    flags = ["--arch", "nast_s2s_tiny", "--start-from", str(bundle), "--train-only", "units", "--unit-rotary"]
    losses = ["--asr-weight", "0", "--text-weight", "0", "--text-glancing", "0", "--dropout", "0.3"]
    run = train(data, tmp_path / "units", *flags, *losses, "--max-update", "2")
    assert float(run.updates[0]["loss"]) == float(run.updates[0]["unit_loss"]) > 0
    assert not {"text_loss", "asr_loss", "text_glancing"} & run.updates[0].keys()
    start, trained = weights(asr / "checkpoint_last.pt"), weights(tmp_path / "units/checkpoint_last.pt")
    assert all(torch.equal(trained[name], value) for name, value in start.items())
    first = weights(tmp_path / "units/checkpoint_best.pt")
    assert len(first["unit_decoder.embed_positions.weight"]) == 6 + 2  # rotary: one for each slot of a text slot
    # From the checkpoint itself, the same training.
    again = train(
        data, tmp_path / "again", *flags, *losses, "--start-from", str(asr / "checkpoint_last.pt"), "--max-update", "2"
    )
    assert again.updates[1]["loss"] == run.updates[1]["loss"]


def test_only_the_unit_decoder_is_trained(data: Path) -> None:
    from fairseq import tasks

    cfg = settings(data, *TINY, "--arch", "nast_s2s_tiny", "--train-only", "units", "--dropout", "0.3")
    model = tasks.setup_task(cfg.task).build_model(cfg.model).train()
    assert {name.split(".")[0] for name, value in model.named_parameters() if value.requires_grad} == {"unit_decoder"}
    assert model.unit_decoder.training and not model.encoder.training and not model.decoder.training
    cfg = settings(data, *TINY, "--arch", "nast_s2t_tiny", "--train-only", "units")
    with pytest.raises(ValueError, match="needs a unit decoder"):
        tasks.setup_task(cfg.task).build_model(cfg.model)


def test_what_training_cannot_start_from_is_named(data: Path, asr: Path, tmp_path: Path) -> None:
    from fairseq import tasks

    def build(*flags: str) -> None:
        cfg = settings(data, *TINY, "--arch", "nast_s2s_tiny", *flags)
        tasks.setup_task(cfg.task).build_model(cfg.model)

    bundle = make_text_bundle(data, asr, tmp_path / "bundle")
    with pytest.raises(ValueError, match=r"bundle: .*encoder\.layers\.0\.fc1\.weight has shape"):
        build("--start-from", str(bundle), "--encoder-ffn-dim", "24")
    (bundle / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="not a readable safetensors"):
        build("--start-from", str(bundle))
    for missing in ("nothing", "bundle/vocoder"):
        with pytest.raises(FileNotFoundError):
            build("--start-from", str(tmp_path / missing))


def test_bfloat16_is_close_to_float32(data: Path, ctc: Path, tmp_path: Path) -> None:
    flags = ["--arch", "nast_s2s_tiny", "--finetune-from-model", str(ctc / "checkpoint_last.pt"), "--max-update", "1"]
    exact = train(data, tmp_path / "exact", *flags, "--text-glancing", "0", "--unit-glancing", "0")
    rough = train(data, tmp_path / "rough", *flags, "--text-glancing", "0", "--unit-glancing", "0", "--autocast-bf16")
    names = ("text_loss", "asr_loss", "unit_loss", "gnorm")
    assert any(rough.updates[0][name] != exact.updates[0][name] for name in names)
    for name in names:
        assert float(rough.updates[0][name]) == pytest.approx(float(exact.updates[0][name]), rel=2e-2)
    assert all(value.dtype == torch.float32 for value in weights(tmp_path / "rough/checkpoint_last.pt").values())


def test_some_loss_must_count(data: Path) -> None:
    from fairseq import tasks

    cfg = settings(
        data, *TINY, "--arch", "nast_s2t_tiny", "--asr-weight", "0", "--text-weight", "0", "--unit-weight", "0"
    )
    with pytest.raises(ValueError, match="must be positive"):
        tasks.setup_task(cfg.task).build_criterion(cfg.criterion)


def test_checkpoints_need_no_exception_from_weights_only_loading(ctc: Path) -> None:
    checkpoint = ctc / "checkpoint_last.pt"
    allowed = set(torch.serialization.get_safe_globals())
    torch.serialization.clear_safe_globals()
    try:
        assert torch.serialization.get_unsafe_globals_in_checkpoint(checkpoint) == []
        state = torch.load(checkpoint, weights_only=True)
    finally:
        torch.serialization.add_safe_globals(list(allowed))
    described = state["task_state"]["nast_s2x"]
    assert [policy["chunk_ms"] for policy in described["policies"]] == [320, 640, None]
    assert described["network"]["unit_vocab"] == 17


def test_generate_prints_hypotheses_of_the_asked_chunk_size(data: Path, ctc: Path) -> None:
    from nast_s2x.checkpoints.fairseq import load_checkpoint
    from nast_s2x.chunking import ChunkPolicy
    from nast_s2x.corpus import AudioRef
    from nast_s2x.ctc import ctc_collapse
    from nast_s2x.network import NastConfig, NastModel

    lines = generate(
        data, ctc / "checkpoint_last.pt", "--gen-subset", "test", "--chunk-ms", "320", "--max-tokens", "900"
    )
    fields = {line.split("\t")[0]: line.split("\t") for line in lines if line[:2] in ("T-", "H-", "D-")}
    assert {name for name in fields if name.startswith("H-")} == {f"H-{index}" for index in range(5)}
    reference = (data / "test.tsv").read_text(encoding="utf-8").splitlines()[1].split("\t")[4]
    assert fields["T-0"][1] == reference

    state = load_checkpoint(ctc / "checkpoint_last.pt")
    model = NastModel(NastConfig.from_dict(state["task_state"]["nast_s2x"]["network"])).eval()
    model.load_state_dict(state["model"])
    features = torch.from_numpy(AudioRef(data / "test-0.npy").features())[None]
    labels = model(features, None, ChunkPolicy(320)).text_logits[0].argmax(-1)
    tokens = ctc_collapse(labels, blank=model.config.text_vocab - 1, drop=(0, 1, 2))
    pieces = ["<unk>" if token == 3 else _pieces(data)[token - 4] for token in tokens]
    assert fields["H-0"][2] == " ".join(pieces)


def _pieces(data: Path) -> list[str]:
    return [line.split(" ")[0] for line in (data / "spm.txt").read_text(encoding="utf-8").splitlines()]


def test_features_on_the_fly_give_the_losses_of_the_archive(tmp_path: Path) -> None:
    """``prepare --features audio``: recordings and segments of them, read in training, against the zip."""
    rng = np.random.default_rng(0)
    write_wav(tmp_path / "talk.wav", 0.1 * rng.standard_normal(16 * 16000))
    write_wav(tmp_path / "whole.wav", 0.1 * rng.standard_normal(30000))
    audio = [f"talk.wav:{16000 * index}:{24000 + 300 * index}" for index in range(14)] + ["whole.wav"] * 2
    rows = [
        f"{index}\t{name}\tab {'cde'[index % 3]}\tfg {'hij'[index % 3]}\t{'train' if index % 7 else 'dev'}"
        for index, name in enumerate(audio)
    ]
    manifest = tmp_path / "manifest.tsv"
    manifest.write_text("\n".join(["id\taudio\tsrc_text\ttgt_text\tsplit", *rows]) + "\n", encoding="utf-8")
    losses = {}
    for features in ("zip", "audio"):
        data = tmp_path / features
        prepare(manifest, data, PrepareOptions(vocab_size=40, features=features), jobs=1)
        run = train(data, tmp_path / f"save-{features}", "--arch", "nast_s2t_tiny", "--max-update", "3",
                    "--valid-subset", "dev", "--skip-bleu", "--best-checkpoint-metric", "loss")  # fmt: skip
        losses[features] = [float(update["loss"]) for update in run.updates]
        assert len(losses[features]) == 3 and not any("left out" in message for message in run.messages)
    assert losses["audio"] == pytest.approx(losses["zip"], rel=1e-5)
