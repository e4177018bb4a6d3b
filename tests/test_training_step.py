"""The training step reads nothing back from the device, and its work does not grow where a kernel does it."""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nast_s2x.batches import Lengths, SpeechBatch, TargetBatch, TrainingBatch
from nast_s2x.benchmarks.shares import PARTS
from nast_s2x.benchmarks.timing import Setting, peak_bytes
from nast_s2x.benchmarks.training import StepCounter, make_step, run_training, to_device
from nast_s2x.chunking import ChunkPolicy
from nast_s2x.cli.main import main
from nast_s2x.errors import ConfigError
from nast_s2x.losses import Objective, glancing
from nast_s2x.network import NastModel, NastOutput, preset

TEXT, UNITS = 12, 20


@pytest.fixture(scope="module")
def model() -> NastModel:
    torch.manual_seed(0)
    config = preset("tiny", text_vocab=TEXT, unit_vocab=UNITS, encoder_layers=2, decoder_layers=1, unit_layers=1)
    return NastModel(config).train()


def batch(labels: int = 6, missing: bool = True, frames: tuple[int, ...] = (160, 97, 130)) -> TrainingBatch:
    """Three sentences; the second has no units, and the third no transcript."""
    generator = torch.Generator().manual_seed(1)

    def targets(vocab: int, count: int, without: int | None) -> TargetBatch:
        rows = [torch.randint(4, vocab - 1, (count - row,), generator=generator).tolist() for row in range(3)]
        return TargetBatch.pad([None if row == without and missing else values for row, values in enumerate(rows)])

    speech = SpeechBatch(torch.randn(3, max(frames), 80, generator=generator), Lengths(frames))
    return TrainingBatch(speech, targets(TEXT, labels, 2), targets(TEXT, labels, None), targets(UNITS, 2 * labels, 1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text_loss": "CTC"}, "--text-loss must be ctc or nmla, got 'CTC'"),
        ({"unit_loss": "mse"}, "--unit-loss must be ctc or nmla, got 'mse'"),
        ({"asr_weight": -1.0}, "--asr-weight must be at least 0, got -1.0"),
        ({"unit_weight": float("nan")}, "--unit-weight must be at least 0, got nan"),
    ],
)
def test_objectives_that_cannot_be_used(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Objective(TEXT - 1, **values)


def run_step(model: nn.Module, objective: Objective, data: TrainingBatch, policy: ChunkPolicy) -> StepCounter:
    """Forward with glancing and backward, counted."""
    with StepCounter() as counter:
        objective(model, data, policy, 0.5, 0.3)[0].backward()
    return counter


@pytest.mark.parametrize("policy", [ChunkPolicy(320), ChunkPolicy(320, 640, 1, 1), ChunkPolicy(None)])
@pytest.mark.parametrize("loss", ["ctc", "nmla"])
@pytest.mark.parametrize("missing", [False, True])
def test_nothing_is_read_back(model: NastModel, loss: str, policy: ChunkPolicy, missing: bool) -> None:
    """Defect 5: 37 (CTC) and 43 (NMLA) reads before."""
    objective = Objective(TEXT - 1, UNITS - 1, loss, loss)
    counter = run_step(model, objective, batch(missing=missing), policy)
    assert counter.reads == [] and counter.launches > 100
    grads = [parameter.grad for parameter in model.parameters()]
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)
    model.zero_grad()


@pytest.mark.parametrize("order", [1, 2])
def test_nothing_is_read_back_by_any_form_of_nmla(model: NastModel, order: int) -> None:
    objective = Objective(
        TEXT - 1, UNITS - 1, "nmla", "nmla", nmla_order=order, nmla_normalization="sentence", autocast_bf16=True
    )
    assert run_step(model, objective, batch(), ChunkPolicy(640)).reads == []


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: x.long().unique(),
        lambda x: x.index_put_((x > 0,), torch.zeros(())),
    ],
)
def test_the_counter_sees_reads(model: NastModel, read: Callable[[Tensor], Any]) -> None:
    """A read anywhere in the step is found: here in a hook of the decoder."""

    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        read(output.detach().clone())

    handle = model.decoder.register_forward_hook(hook)
    counter = run_step(model, Objective(TEXT - 1, UNITS - 1), batch(), ChunkPolicy(320))
    handle.remove()
    assert counter.host_reads >= 2  # both passes


@pytest.mark.parametrize("loss", ["ctc", "nmla"])
def test_a_step_needs_no_values(model: NastModel, loss: str) -> None:
    """On the device "meta", where tensors have no values, every read is an error, ``tolist`` included.

    torch has no backward of CTC there: it is left out of the part with NMLA, and of the other the forward is run.
    """
    shapes = copy.deepcopy(model).to("meta")
    data = to_device(batch(), torch.device("meta"))
    objective = Objective(TEXT - 1, UNITS - 1, loss, loss, asr_weight=float(loss == "ctc"))
    total = objective(shapes, data, ChunkPolicy(320), 0.5, 0.3)[0]
    if loss == "nmla":
        total.backward()
        assert all(parameter.grad is not None for parameter in shapes.parameters())
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.zeros(2, device="meta").tolist()


def test_operations_do_not_grow_with_targets_or_slots(model: NastModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defect 6: with the alignment as one operation, as on a GPU, a step has as many operations for any sizes.

    NMLA's scan takes 2 sqrt(slots) operations for each of its directions, and is left out here.
    """
    calls: list[int] = []

    def kernel(log_probs: Tensor, lengths: Lengths, targets: Tensor, sizes: Lengths, blank: int) -> Tensor:
        calls.append(targets.size(1))
        return torch.zeros(log_probs.shape[:2], dtype=torch.long)

    monkeypatch.setattr(glancing, "viterbi_align", kernel)
    objective = Objective(TEXT - 1, UNITS - 1)
    policy = ChunkPolicy(320)
    run_step(model, objective, batch(), policy)  # lengths are copied to the device once
    sizes = ((4, (320, 240, 300)), (8, (320, 240, 300)), (8, (1200, 600, 800)))
    small, many_labels, many_slots = (
        run_step(model, objective, batch(labels, frames=frames), policy) for labels, frames in sizes
    )
    assert small.launches == many_labels.launches == many_slots.launches
    assert calls == [6, 12, 4, 8, 8, 16, 8, 16]


def test_missing_targets_change_nothing_for_the_others(model: NastModel) -> None:
    """The unit loss of a batch in which a row has no units is that of the other rows."""
    data = batch()
    objective = Objective(TEXT - 1, UNITS - 1, unit_loss="nmla", label_smoothing=0.0)
    with torch.no_grad():
        model.eval()
        losses = objective(model, data, ChunkPolicy(320))[1]
        rows = [0, 2]
        units = TargetBatch.pad([data.units.labels[row, : data.units.lengths.host[row]].tolist() for row in rows])
        frames = Lengths(tuple(data.speech.frames.host[row] for row in rows))
        part = TrainingBatch(SpeechBatch(data.speech.fbank[rows], frames), None, None, units)
        alone = objective(model, part, ChunkPolicy(320))[1]
        model.train()
    assert losses["unit_loss"].item() == pytest.approx(alone["unit_loss"].item(), rel=1e-5)


def test_target_batches() -> None:
    data = TargetBatch.pad([[0, 5, 5, 6, 5, 5, 2], None, [4, 4, 4]])
    assert data.lengths.host == (7, 0, 3) and data.needed.host == (9, 0, 5) and data.count == 2
    assert data.bigrams.tolist() == [[1, 2, 1, 1, 0, 1], [0] * 6, [2, 0, 0, 0, 0, 0]]
    assert data.fits(Lengths((9, 0, 4))) == (True, True, False) and data.given.host == (1, 0, 1)
    again = TargetBatch.from_dict(data.to_dict())
    assert again.needed == data.needed and torch.equal(again.bigrams, data.bigrams)
    with pytest.raises(ValueError, match=r"lengths \(3,\) do not belong to labels of shape \(1, 2\)"):
        TargetBatch.of(torch.zeros(1, 2, dtype=torch.long), Lengths((3,)))


def arguments(**changes: object) -> argparse.Namespace:
    values = {"preset": "tiny", "frames": 700, "loss": "nmla", "dtype": "fp32", "device": "cpu", "threads": 1}
    return argparse.Namespace(**{**values, **changes})


@pytest.mark.parametrize(("loss", "dtype"), [("ctc", "bf16"), pytest.param("nmla", "fp32", marks=pytest.mark.slow)])
def test_benchmark_training(loss: str, dtype: str) -> None:
    result = run_training(arguments(loss=loss, dtype=dtype))
    assert result["host_reads"] == 0 and result["launches"] > 1000
    assert result["frames_per_second"] == pytest.approx(1000 * 700 / result["step_ms"])
    assert (result["sentences"], result["device"], result["dtype"]) == (1, "cpu", dtype) and result["peak_bytes"] > 0
    json.dumps(result)
    assert list(result["shares"]) == list(PARTS) and sum(result["shares"].values()) == pytest.approx(1.0)
    assert min(result["shares"].values()) > 0


def test_clipping_applies_to_gradients_without_the_loss_scale() -> None:
    model = nn.Linear(1, 1, bias=False)

    def objective(*_: object) -> tuple[Tensor]:
        return (20 * model.weight.sum(),)

    step = make_step(model, objective, batch(), ChunkPolicy(320), Setting(torch.device("cpu"), "fp16"))
    step()
    assert model.weight.grad.item() == pytest.approx(10.0)


def test_peak_memory_on_systems_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert peak_bytes(cpu) > 10_000_000
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert peak_bytes(cpu) > 10_000_000
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_bytes(cpu) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["training", "--dtype", "int8"], "--dtype of training must be one of fp32, bf16, fp16, but is int8"),
        (["training", "--frames", "10"], "--frames must be at least 100, but is 10"),
        (["nmla", "--dtype", "int8"], "--dtype of nmla must be one of"),
        (["alignment", "--dtype", "int8"], "--dtype of alignment must be one of"),
        (["attention", "--dtype", "int8"], "--dtype of attention must be one of"),
        (["nmla", "--device", "cuda:77"], "device cuda:77 is not available"),
        (["streaming", "--device", "cuda:77"], "device cuda:77 is not available"),
        (["voice", "--device", "cuda:77"], "device cuda:77 is not available"),
        (["streaming", "--chunk-ms", "offline"], "streaming needs --chunk-ms in ms, but it is offline"),
        (["attention", "--seconds", "0.001"], "--seconds must be at least 0.01 for attention, but is 0.001"),
        (["attention", "--seconds", "2,5"], "takes one --seconds, got 2,5"),
    ],
)
def test_wrong_flags_are_refused(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *flags]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("part", ["nmla", "alignment"])
def test_parts_of_losses_honour_the_number_type(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--threads", "1", "--batch", "1", "--slots", "30", "--vocab", "12", "--targets", "5"]
    assert main(["benchmark", part, "--json", "--dtype", "bf16", *sizes]) == 0
    assert json.loads(capsys.readouterr().out)["dtype"] == "bf16"


# The criterion and the task, with fairseq


class Addend(float):
    """A number that counts additions."""

    count = 0

    def __add__(self, other: float) -> Addend:
        Addend.count += 1
        return Addend(float(self) + float(other))

    __radd__ = __add__


def test_logs_are_added_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defect 7: each value of each log is added once, not once for every log."""
    pytest.importorskip("fairseq")
    from fairseq.logging import metrics

    from nast_s2x.criterions.nast_ctc_nmla import NastCriterion

    keys = ("loss", "text_loss", "text_slots", "text_labelled", "text_same", "text_glanced", "text_ratio", "batches")
    with metrics.aggregate(new_root=True) as meters:
        for count in (100, 400):
            Addend.count = 0
            NastCriterion.reduce_metrics([{key: Addend(2.0) for key in keys} for _ in range(count)])
            assert Addend.count == count * len(keys)
    assert meters["loss"].avg == 1.0 and meters["text_accuracy"].avg == 100.0


def test_the_accuracy_is_that_of_labelled_slots() -> None:
    pytest.importorskip("fairseq")
    from fairseq.logging import metrics

    from nast_s2x.criterions.nast_ctc_nmla import NastCriterion

    log = {"text_slots": 100, "text_labelled": 20, "text_same": 5, "text_glanced": 50, "text_ratio": 0.5, "batches": 1}
    with metrics.aggregate(new_root=True) as meters:
        NastCriterion.reduce_metrics([log, log])
    assert meters["text_accuracy"].avg == 25.0 and meters["text_glanced"].avg == 0.5


@pytest.mark.parametrize(
    "flags",
    [
        pair
        for number, first in enumerate(("--autocast-bf16", "--fp16", "--bf16", "--amp"))
        for pair in ((first, second) for second in ("--autocast-bf16", "--fp16", "--bf16", "--amp")[number + 1 :])
    ],
)
def test_forms_of_half_precision_exclude_each_other(tmp_path: Path, flags: tuple[str, str]) -> None:
    """Defect 11."""
    pytest.importorskip("fairseq")
    from plugin_data import make_data_folder
    from plugin_runs import build_task

    data = make_data_folder(tmp_path / "data", train=2, valid=2)
    # fairseq itself refuses --fp16 with --bf16, in words of its own.
    message = "Cannot combine --fp16" if flags == ("--fp16", "--bf16") else f"{flags[0]} and {flags[1]} exclude"
    with pytest.raises(ValueError, match=message):
        build_task(data, "--arch", "nast_s2t_tiny", *flags)


def test_the_task_states_what_it_sets(tmp_path: Path) -> None:
    """Defect 26."""
    pytest.importorskip("fairseq")
    from nast_s2x.tasks.nast_s2x import NastTaskConfig

    help_text = NastTaskConfig.__dataclass_fields__["data"].metadata["help"]
    assert "--load-checkpoint-on-all-dp-ranks" in help_text and "batches of each epoch anew" in help_text


def test_explicit_values_of_generation_win(tmp_path: Path) -> None:
    """Defect 12: a 0 that is given is not taken for "not given"."""
    pytest.importorskip("fairseq")
    from plugin_data import make_data_folder
    from plugin_runs import build_task

    data = make_data_folder(tmp_path / "data", train=2, valid=2)
    trained, _, _ = build_task(data, "--arch", "nast_s2t_tiny", "--wait-chunks", "2", "--chunk-ms", "320,640")
    for flags, expected in (
        ((), ChunkPolicy(640, wait_chunks=2)),
        (("--wait-chunks", "0"), ChunkPolicy(640)),
        (("--chunk-ms", "320,640,1280,offline"), ChunkPolicy(None, wait_chunks=2)),
    ):
        task, model, _ = build_task(data, "--arch", "nast_s2t_tiny", *flags)
        if "--chunk-ms" not in flags:  # build_task gives one
            task.cfg.chunk_ms = None
        model.cfg = argparse.Namespace(**dict(trained.cfg))
        policy = task.build_generator([model], None).policy
        assert (policy.chunk_ms, policy.wait_chunks) == (expected.chunk_ms, expected.wait_chunks)


def test_validation_drops_repeats_as_inference_does(tmp_path: Path) -> None:
    """Defect 13."""
    pytest.importorskip("fairseq")
    from plugin_data import make_data_folder
    from plugin_runs import build_task

    data = make_data_folder(tmp_path / "data", train=2, valid=2)
    units = []
    for flags in ((), ("--drop-repeats", "2")):
        task, _, _ = build_task(data, "--arch", "nast_s2s_tiny", *flags)
        blank = task.unit_labels.blank
        row = torch.tensor([[4, blank, 5, blank, 4, blank, 5, blank, 6]])  # units 0 1 0 1 2
        logits = nn.functional.one_hot(row, task.unit_labels.size).float()
        text = torch.zeros(1, 1, task.labels.size)
        output = NastOutput(
            encoder_out=text,
            encoder_lengths=Lengths((1,)),
            text_logits=text,
            text_lengths=Lengths((1,)),
            unit_logits=logits,
            unit_lengths=Lengths((9,)),
        )
        units.append(task.translate(output, ChunkPolicy(None))[1])
        expected = task.unit_labels.collapser().push(row[0].tolist())
        assert units[-1] == [" ".join(map(str, expected))]
    assert units == [["0 1 0 1 2"], ["0 1 2"]]
