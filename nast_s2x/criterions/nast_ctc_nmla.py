"""Training criterion: recognition, text and unit losses, CTC or NMLA, with glancing (SPEC sections 6 and 7)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor, nn

from nast_s2x.batches import Lengths
from nast_s2x.chunking import ChunkPolicy
from nast_s2x.errors import ConfigError
from nast_s2x.losses import Glancer, GlancingSchedule, ctc_loss, make_glancer, nmla_loss
from nast_s2x.network import NastOutput

LOSS_CHOICES = ChoiceEnum(["ctc", "nmla"])
NORMALIZATION_CHOICES = ChoiceEnum(["batch", "sentence"])


@dataclass
class NastCriterionConfig(FairseqDataclass):
    """Flags of the losses."""

    text_loss: LOSS_CHOICES = field(
        default="ctc", metadata={"help": "loss of the text decoder: ctc (stages 0 and 1) or nmla (stage 2)"}
    )
    unit_loss: LOSS_CHOICES = field(default="ctc", metadata={"help": "loss of the unit decoder: ctc or nmla"})
    nmla_order: int = field(
        default=2, metadata={"help": "n-grams that NMLA matches: 2 (bigrams, published) or 1 (bag of words)"}
    )
    nmla_normalization: NORMALIZATION_CHOICES = field(
        default="batch",
        metadata={"help": "batch: the published ratio of batch means; sentence: the paper's ratio per sentence"},
    )
    label_smoothing: float = field(
        default=0.01, metadata={"help": "label smoothing of CTC losses (the recognition loss in every stage)"}
    )
    asr_weight: float = field(
        default=1.0, metadata={"help": "weight of the recognition loss: CTC of the source transcript on the encoder"}
    )
    text_weight: float = field(default=1.0, metadata={"help": "weight of the text loss"})
    unit_weight: float = field(default=1.0, metadata={"help": "weight of the unit loss"})
    text_glancing: str = field(
        default="0.5:0.3@50k",
        metadata={"help": "glancing ratio of the text decoder over updates, START:VALUE@UPDATE...; 0 = no glancing"},
    )
    unit_glancing: str = field(default="0.3:0.1@50k", metadata={"help": "glancing ratio of the unit decoder"})
    autocast_bf16: bool = field(
        default=False,
        metadata={
            "help": "train with the network's products in bfloat16, weights and losses in float32; for GPUs and CPUs "
            "that have it (avx512_bf16, amx_bf16)"
        },
    )


@dataclass(frozen=True)
class Targets:
    """Labels of a batch for one loss; sentences without a target have length 0.

    Attributes:
        labels: (B, L), ``<s> ... </s>`` and pad 1.
        lengths: (B,).
    """

    labels: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, sample: Mapping[str, Any], name: str) -> Optional["Targets"]:
        """The targets ``name`` of a batch, ``None`` where the batch has none."""
        if sample.get(name) is None:
            return None
        return cls(sample[name], sample[f"{name}_lengths"])

    @property
    def rows(self) -> Tensor:
        """(R,) sentences that have a target."""
        return self.lengths.nonzero().squeeze(1)

    @property
    def complete(self) -> bool:
        """True when every sentence has a target."""
        return bool((self.lengths > 0).all())

    def select(self, rows: Tensor) -> "Targets":
        """The targets of some sentences."""
        return Targets(self.labels[rows], self.lengths[rows])


def glancer_for(targets: Targets, blank: int, ratio: float, statistics: dict[str, float]) -> Glancer:
    """A glancer that shows nothing to sentences without a target."""
    if targets.complete:
        whole = make_glancer(targets.labels, targets.lengths, blank, ratio, statistics=statistics)
        return lambda logits, lengths: whole(logits, lengths.on(logits.device))
    rows = targets.rows
    chosen = targets.select(rows)
    inner = make_glancer(chosen.labels, chosen.lengths, blank, ratio, statistics=statistics)

    def glance(logits: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        labels = torch.full(logits.shape[:2], blank, dtype=torch.long, device=logits.device)
        mask = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device)
        labels[rows], mask[rows] = inner(logits[rows], lengths.on(logits.device)[rows])
        return labels, mask

    return glance


@register_criterion("nast_ctc_nmla", dataclass=NastCriterionConfig)
class NastCriterion(FairseqCriterion):
    """Sum of the recognition, text and unit losses; ``sample_size`` is 1 for a batch, as published.

    The whole glancing procedure runs inside one ``model(...)`` call, so that data-parallel wrappers see it.
    """

    def __init__(self, cfg: NastCriterionConfig, task: Any) -> None:
        super().__init__(task)
        if cfg.nmla_order not in (1, 2):
            raise ConfigError(f"--nmla-order must be 1 or 2, got {cfg.nmla_order}")
        if not 0 <= cfg.label_smoothing < 1:
            raise ConfigError(f"--label-smoothing must lie in [0, 1), got {cfg.label_smoothing}")
        if max(cfg.asr_weight, cfg.text_weight, cfg.unit_weight) <= 0:
            raise ConfigError("one of --asr-weight, --text-weight and --unit-weight must be positive")
        self.cfg = cfg
        self.text_schedule = GlancingSchedule(cfg.text_glancing)
        self.unit_schedule = GlancingSchedule(cfg.unit_glancing)
        self.text_blank = task.labels.blank
        self.unit_blank = task.unit_labels.blank if task.unit_labels is not None else 0

    def forward(self, model: nn.Module, sample: Mapping[str, Any], reduce: bool = True) -> tuple[Tensor, int, dict]:
        """Loss of one batch: (scalar, 1, numbers to log). The task adds ``policy`` and ``update`` to the batch."""
        loss, log, _ = self.compute(model, sample, sample["policy"], sample["update"])
        return loss, 1, log

    def compute(
        self, model: nn.Module, sample: Mapping[str, Any], policy: ChunkPolicy, update: int
    ) -> tuple[Tensor, dict[str, Any], NastOutput]:
        """Loss, numbers to log and the network's output, for ``policy``; glancing while the model trains."""
        source, text, units = (Targets.of(sample, name) for name in ("source", "text", "units"))
        glancers, log = self._glancers(text, units, update) if model.training else ({}, {})
        bf16 = self.cfg.autocast_bf16 and model.training
        with torch.autocast(sample["net_input"]["fbank"].device.type, torch.bfloat16, enabled=bf16):
            frames = Lengths(tuple(sample["net_input"]["frames"]))
            fbank = sample["net_input"]["fbank"]
            output = model(fbank, frames, policy, with_asr=self.cfg.asr_weight > 0, **glancers)
        losses = {}
        if self.cfg.text_weight > 0:
            losses["text_loss"] = self._loss("text", output.text_logits, output.text_lengths, text)
        if output.asr_logits is not None:
            losses["asr_loss"] = self._loss("asr", output.asr_logits, output.encoder_lengths, source)
        if output.unit_logits is not None:
            losses["unit_loss"] = self._loss("unit", output.unit_logits, output.unit_lengths, units)
        weights = {
            "text_loss": self.cfg.text_weight,
            "asr_loss": self.cfg.asr_weight,
            "unit_loss": self.cfg.unit_weight,
        }
        total = sum(weights[name] * value for name, value in losses.items())
        log = {
            "loss": total.detach(),
            **{name: value.detach() for name, value in losses.items()},
            **_flatten(log),
            "batches": 1,
            "ntokens": sum(sample["net_input"]["frames"]),
            "nsentences": sample["nsentences"],
            "sample_size": 1,
        }
        return total, log, output

    def _glancers(
        self, text: Targets, units: Targets | None, update: int
    ) -> tuple[dict[str, Glancer], dict[str, dict[str, float]]]:
        """Glancers as arguments of the model, and the dictionaries in which they count while the model runs."""
        glancers: dict[str, Glancer] = {}
        counts: dict[str, dict[str, float]] = {}
        for name, targets, schedule, blank in (
            ("text", text, self.text_schedule, self.text_blank),
            ("unit", units, self.unit_schedule, self.unit_blank),
        ):
            ratio = schedule(update)
            if ratio == 0 or (name == "unit" and not self.task.trains_units):
                continue
            # Every process logs the same keys, whatever its batch holds: fairseq adds them up by position.
            counts[name] = {"ratio": ratio, "slots": 0, "same": 0, "glanced": 0, "infeasible": 0}
            if targets is not None and targets.rows.numel():
                glancers[f"{name}_glancer"] = glancer_for(targets, blank, ratio, counts[name])
        return glancers, counts

    def _loss(self, name: str, logits: Tensor, lengths: Lengths, targets: Targets | None) -> Tensor:
        """One loss over the sentences that have a target; without any, zero that still reaches the parameters."""
        if targets is None or not bool((targets.lengths > 0).any()):
            return 0.0 * logits.float().sum()
        lengths = lengths.on(logits.device)
        if not targets.complete:
            rows = targets.rows
            logits, lengths, targets = logits[rows], lengths[rows], targets.select(rows)
        blank = self.unit_blank if name == "unit" else self.text_blank
        kind = {"asr": "ctc", "text": self.cfg.text_loss, "unit": self.cfg.unit_loss}[name]
        if str(kind) == "ctc":
            return ctc_loss(logits, lengths, targets.labels, targets.lengths, blank, self.cfg.label_smoothing)
        return nmla_loss(
            logits,
            lengths,
            targets.labels,
            targets.lengths,
            blank,
            order=self.cfg.nmla_order,
            normalization=str(self.cfg.nmla_normalization),
        )

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Average over batches (of all processes), and derive accuracies and glancing ratios from counts."""
        total = {key: sum(float(log.get(key, 0)) for log in logging_outputs) for log in logging_outputs for key in log}
        batches = max(total.get("batches", 0.0), 1.0)
        for key in ("loss", "asr_loss", "text_loss", "unit_loss"):
            if key in total:
                metrics.log_scalar(key, total[key] / batches, batches, round=4)
        for name in ("text", "unit"):
            slots = total.get(f"{name}_slots", 0.0)
            if slots:
                # Accuracy: slots whose best label is the aligned one, before any label was shown.
                metrics.log_scalar(f"{name}_accuracy", 100 * total[f"{name}_same"] / slots, slots, round=2)
                metrics.log_scalar(f"{name}_glanced", total[f"{name}_glanced"] / slots, slots, round=3)
                metrics.log_scalar(f"{name}_glancing", total[f"{name}_ratio"] / batches, batches, round=3)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All logged numbers are sums."""
        return True


def _flatten(counts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {f"{name}_{key}": float(value) for name, part in counts.items() for key, value in part.items()}
