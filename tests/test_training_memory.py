"""Flags of speed and memory: checkpointed activations, compiled layers; losses in each number type."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from nast_s2x.batches import Lengths, SpeechBatch, TargetBatch, TrainingBatch
from nast_s2x.chunking import ChunkPolicy
from nast_s2x.ctc import viterbi_align
from nast_s2x.losses import Objective, ctc_loss, nmla_loss
from nast_s2x.network import NastModel, preset

TEXT, UNITS = 12, 20
SIZES = {"encoder_layers": 2, "decoder_layers": 2, "unit_layers": 1, "max_position_shift": 0}


def make_model(dropout: float) -> NastModel:
    torch.manual_seed(0)
    rates = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), dropout)
    return NastModel(preset("tiny", text_vocab=TEXT, unit_vocab=UNITS, **SIZES, **rates)).train()


def make_batch() -> TrainingBatch:
    generator = torch.Generator().manual_seed(1)
    speech = SpeechBatch(torch.randn(2, 160, 80, generator=generator), Lengths((160, 97)))
    text, units = TargetBatch.pad([[0, 5, 6, 2], [0, 7, 2]]), TargetBatch.pad([[0, 5, 6, 7, 8, 2], [0, 7, 9, 2]])
    return TrainingBatch(speech, text, text, units)


def run(model: NastModel, glancing: float = 0.5, bf16: bool = False) -> tuple[Tensor, dict[str, Tensor], int]:
    """Loss, gradients, and the bytes kept for the backward pass, parameters left out."""
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(2)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        objective = Objective(TEXT - 1, UNITS - 1, "nmla", "nmla", autocast_bf16=bf16)
        loss = objective(model, make_batch(), ChunkPolicy(320), glancing, glancing)[0]
    saved = sum(kept.values())
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    return loss.detach(), gradients, saved


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("bf16", [False, True])
def test_checkpointed_activations_give_equal_gradients_from_fewer_bytes(dropout: float, bf16: bool) -> None:
    """With dropout too: the second computation draws the same masks."""
    model = make_model(dropout)
    loss, gradients, kept = run(model, bf16=bf16)
    model.checkpoint_activations()
    again, gradients_again, kept_again = run(model, bf16=bf16)
    torch.testing.assert_close(again, loss, atol=1e-6, rtol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_again[name], gradient, atol=1e-6, rtol=1e-6, msg=name)
    assert kept_again < 0.6 * kept


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_layers_are_traced_without_a_change_of_names_or_results() -> None:
    """The backend runs the traced graph as it is, so no compiler is needed."""
    model = make_model(0.0)
    names, (loss, gradients, _) = list(model.state_dict()), run(model)
    model.compile_layers(backend="eager")
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    again, gradients_again, _ = run(model)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before
    assert list(model.state_dict()) == names
    torch.testing.assert_close(again, loss, atol=1e-6, rtol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_again[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_layers_give_the_same_loss_in_bf16() -> None:
    model = make_model(0.0)
    loss = run(copy.deepcopy(model), bf16=True)[0]
    model.compile_layers()
    torch.testing.assert_close(run(model, bf16=True)[0], loss, atol=1e-3, rtol=1e-3)


def test_flags_reach_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fairseq")
    from plugin_data import make_data_folder
    from plugin_runs import build_task

    compiled: list[NastModel] = []
    monkeypatch.setattr(NastModel, "compile_layers", lambda model: compiled.append(model))
    data = make_data_folder(tmp_path / "data", train=2, valid=2)
    before = torch.get_float32_matmul_precision()
    try:
        flags = ("--checkpoint-activations", "--compile", "--tf32")
        _, plain, _ = build_task(data, "--arch", "nast_s2s_tiny")
        assert not plain.encoder.checkpointed and not compiled and torch.get_float32_matmul_precision() == before
        _, model, _ = build_task(data, "--arch", "nast_s2s_tiny", *flags)
        assert all(part.checkpointed for part in (model.encoder, model.decoder, model.unit_decoder))
        assert compiled == [model] and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("flag", ["--bf16", "--autocast-bf16"])
def test_number_types_train(tmp_path: Path, flag: str) -> None:
    """fairseq takes --bf16 for a request of a TPU, which stopped a training at its start."""
    pytest.importorskip("fairseq")
    from plugin_data import make_data_folder
    from plugin_runs import train

    data = make_data_folder(tmp_path / "data", train=4, valid=2)
    flags = ("--arch", "nast_s2s_tiny", "--max-update", "2", "--disable-validation", "--no-save", flag)
    updates = train(data, tmp_path / "save", *flags).updates
    assert len(updates) == 2 and all(math.isfinite(float(update["loss"])) for update in updates)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_losses_and_alignment_stay_finite(dtype: torch.dtype) -> None:
    """Logits of 1e4 and a target of nearly as many labels as slots."""
    generator = torch.Generator().manual_seed(0)
    slots, vocab = 600, 50
    logits = (1e4 * torch.randn(2, slots, vocab, generator=generator).clamp(-1, 1)).to(dtype).requires_grad_()
    rows = [[4 + number % (vocab - 6) for number in range(length)] for length in (590, 3)]
    targets, lengths, blank = TargetBatch.pad(rows), Lengths((slots, slots - 7)), vocab - 1
    for loss in (
        ctc_loss(logits, lengths, targets, blank, 0.01),
        nmla_loss(logits, lengths, targets, blank),
        nmla_loss(logits, lengths, targets, blank, order=1, normalization="sentence"),
    ):
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()
    log_probs = logits.detach().float().log_softmax(-1)
    states = viterbi_align(log_probs, lengths, targets.labels, targets.lengths, blank)
    assert states[0].min() == 0 or states[0].min() == 1
    assert (
        states[0].max() >= 2 * 590 - 1 and (states[1, : slots - 7] >= 0).all() and (states[1, slots - 7 :] == -1).all()
    )
