"""The part ``training`` of ``nast-s2x benchmark``: one training step with random data."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nast_s2x.batches import Lengths, SpeechBatch, TargetBatch, TrainingBatch
from nast_s2x.benchmarks.shares import measure_shares
from nast_s2x.benchmarks.timing import Setting, peak_bytes, timed
from nast_s2x.chunking import FRAMES_PER_SECOND, ChunkPolicy
from nast_s2x.errors import ConfigError
from nast_s2x.labels import PAD
from nast_s2x.losses import Objective
from nast_s2x.network import NastModel, positions_for_seconds, preset

SENTENCE_FRAMES = 10 * FRAMES_PER_SECOND
TEXT_LABELS, UNIT_LABELS = 42, 202
"""Labels of a sentence of 10 s, including ``<s>`` and ``</s>``."""
TEXT_VOCAB, UNIT_VOCAB = 10_000, 1005
RATIO = 0.3
"""Glancing ratio."""
RUNS = 5
HOST_READS = frozenset(
    {"_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "unique_dim", "unique_consecutive"}
    | {"is_nonzero", "item", "equal", "bincount"}
)
"""Operations that wait for a value from the device."""


class StepCounter(TorchDispatchMode):
    """Counts the operations that run in its block, and the host reads: those that read a value back from the device.

    Attributes:
        launches: number of operations dispatched, without views.
        reads: names of the host reads: operations of :data:`HOST_READS`, boolean indexing, copies from GPU to host.
        host_reads: their number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches = 0
        self.reads: list[str] = []

    @property
    def host_reads(self) -> int:
        """Number of host reads."""
        return len(self.reads)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        self.launches += not func.is_view
        indices = args[1] if name in ("index", "index_put", "index_put_", "_unsafe_index") and len(args) > 1 else ()
        if name in HOST_READS or any(isinstance(item, Tensor) and item.dtype == torch.bool for item in indices):
            self.reads.append(name)
        result = func(*args, **(kwargs or {}))
        copied = args[0] if args and isinstance(args[0], Tensor) else None
        if name in ("_to_copy", "copy_") and copied is not None and isinstance(result, Tensor):
            source = args[1] if name == "copy_" else copied
            if isinstance(source, Tensor) and source.is_cuda and result.device.type == "cpu":
                self.reads.append(name)
        return result


def random_batch(frames: int, generator: torch.Generator) -> TrainingBatch:
    """Random sentences of 10 s with transcript, text and unit targets.

    Args:
        frames: feature frames of all sentences; what is left of the last 10 s makes a shorter sentence.
    """
    sizes = [SENTENCE_FRAMES] * (frames // SENTENCE_FRAMES)
    if frames % SENTENCE_FRAMES:
        sizes.append(frames % SENTENCE_FRAMES)
    lengths = Lengths(tuple(sizes))
    fbank = torch.randn(len(sizes), lengths.longest, 80, generator=generator)

    def targets(longest: int, vocab: int) -> TargetBatch:
        counts = [max(3, longest * size // SENTENCE_FRAMES) for size in sizes]
        rows = [torch.randint(4, vocab - 1, (count,), generator=generator).tolist() for count in counts]
        return TargetBatch.pad([[0, *row[1:-1], 2] for row in rows], PAD)

    text = targets(TEXT_LABELS, TEXT_VOCAB)
    return TrainingBatch(SpeechBatch(fbank, lengths), text, text, targets(UNIT_LABELS, UNIT_VOCAB))


def to_device(batch: TrainingBatch, device: torch.device) -> TrainingBatch:
    """Copy a batch to a device."""
    speech = SpeechBatch(batch.speech.fbank.to(device), batch.speech.frames)
    targets = (None if item is None else item.to(device) for item in (batch.source, batch.text, batch.units))
    return TrainingBatch(speech, *targets)


def build(args: argparse.Namespace, device: torch.device) -> tuple[NastModel, Objective]:
    """The model of a preset, for sources of up to 60 s, and the objective with the published settings."""
    torch.manual_seed(0)
    text, unit = positions_for_seconds(60.0, preset(args.preset, text_vocab=10).rates)
    sizes = {"text_vocab": TEXT_VOCAB, "unit_vocab": UNIT_VOCAB, "max_text_positions": text, "max_unit_positions": unit}
    model = NastModel(preset(args.preset, **sizes)).to(device).train()
    objective = Objective(TEXT_VOCAB - 1, UNIT_VOCAB - 1, args.loss, args.loss, autocast_bf16=args.dtype == "bf16")
    return model, objective


def run_training(args: argparse.Namespace) -> dict[str, Any]:
    """One training step: forward with glancing on text and units, recognition loss, backward, Adam.

    The batch is random: sentences of 10 s, ``--frames`` feature frames in all. ``--dtype`` is fp32, or bf16 or fp16 for
    matrix products (autocast; fp16 with loss scaling), with weights and losses in float32. Operations are counted in a
    step that is not timed.

    Returns:
        step_ms (median), frames_per_second, peak_bytes (on a GPU allocated during the steps; on a CPU the largest
        resident memory of the process since its start), launches (operations dispatched between the copy of the batch
        and the end of the optimizer step), host_reads (those of them that wait for a value from the device), shares
        (:func:`~nast_s2x.benchmarks.shares.measure_shares`, from steps that step_ms does not contain), sentences,
        frames, parameters, preset, loss, threads, device, dtype.
    Raises:
        ConfigError: fewer than 100 frames, a number type other than these, or a device that is not available.
    """
    setting = Setting.of(args, "training")
    if args.frames < 100:
        raise ConfigError(f"--frames must be at least 100, but is {args.frames}")
    model, objective = build(args, setting.device)
    batch = to_device(random_batch(args.frames, torch.Generator().manual_seed(0)), setting.device)
    step = make_step(model, objective, batch, ChunkPolicy(320), setting)
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(setting.device)
    step()
    with StepCounter() as counter:
        step()
    median = statistics.median(timed(setting.device, step) for _ in range(RUNS))
    return {
        "step_ms": 1000 * median,
        "frames_per_second": args.frames / median,
        "peak_bytes": peak_bytes(setting.device),
        "launches": counter.launches,
        "host_reads": counter.host_reads,
        "shares": measure_shares(model, setting.device, step.forward, step.backward, step.optimize),
        "sentences": len(batch.speech.frames),
        "frames": args.frames,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "preset": args.preset,
        "loss": args.loss,
        "threads": torch.get_num_threads(),
        **setting.describe(),
    }


class TrainingStep:
    """One training step on one batch: forward, backward, clipping to norm 10, Adam."""

    def __init__(
        self, model: NastModel, objective: Objective, batch: TrainingBatch, policy: ChunkPolicy, setting: Setting
    ) -> None:
        self.model, self.objective, self.batch, self.policy = model, objective, batch, policy
        self.kind, self.half = setting.device.type, setting.name == "fp16"
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)
        self.scaler = torch.amp.GradScaler(self.kind, enabled=self.half)

    def __call__(self) -> None:
        """Run it."""
        self.backward(self.forward(self.model))
        self.optimize()

    def forward(self, model: Any) -> Tensor:
        """The loss, with ``model`` in place of the network."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.kind, torch.float16, enabled=self.half):
            return self.objective(model, self.batch, self.policy, RATIO, RATIO)[0]

    def backward(self, loss: Tensor) -> None:
        """Gradients of the loss, scaled for fp16."""
        self.scaler.scale(loss).backward()

    def optimize(self) -> None:
        """Clip the gradients and update the weights."""
        self.scaler.unscale_(self.optimizer)  # the limit of the norm is for gradients without the scale
        nn.utils.clip_grad_norm_(self.model.parameters(), 10.0, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def make_step(
    model: NastModel, objective: Objective, batch: TrainingBatch, policy: ChunkPolicy, setting: Setting
) -> TrainingStep:
    """Return a callable that runs one training step: forward, backward, clipping to norm 10, Adam."""
    return TrainingStep(model, objective, batch, policy, setting)
