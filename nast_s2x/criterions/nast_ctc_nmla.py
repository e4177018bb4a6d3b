"""Training criterion: recognition, text and unit losses, CTC or NMLA, with glancing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor, nn

from nast_s2x.batches import Lengths, SpeechBatch, TargetBatch, TrainingBatch
from nast_s2x.chunking import ChunkPolicy
from nast_s2x.errors import ConfigError
from nast_s2x.losses import GlancingSchedule, Objective
from nast_s2x.network import NastOutput

LOSS_CHOICES = ChoiceEnum(["ctc", "nmla"])
_NUMBER_TYPES = ("autocast_bf16", "fp16", "bf16", "amp")
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
            "that have it (avx512_bf16, amx_bf16); not together with --fp16, --bf16 or --amp"
        },
    )
    fp16: bool = II("common.fp16")
    bf16: bool = II("common.bf16")
    amp: bool = II("common.amp")


def training_batch(sample: Mapping[str, Any]) -> TrainingBatch:
    """The batch of :meth:`NastDataset.collater <nast_s2x.tasks.dataset.NastDataset.collater>`, moved by fairseq."""
    speech = SpeechBatch(sample["net_input"]["fbank"], Lengths(tuple(sample["net_input"]["frames"])))
    targets = (sample.get(name) for name in ("source", "text", "units"))
    return TrainingBatch(speech, *(None if item is None else TargetBatch.from_dict(item) for item in targets))


@register_criterion("nast_ctc_nmla", dataclass=NastCriterionConfig)
class NastCriterion(FairseqCriterion):
    """Sum of the recognition, text and unit losses; ``sample_size`` is 1 for a batch, as published.

    The whole glancing procedure runs inside one ``model(...)`` call, as data-parallel wrappers require.
    """

    def __init__(self, cfg: NastCriterionConfig, task: Any) -> None:
        super().__init__(task)
        given = [f"--{name.replace('_', '-')}" for name in _NUMBER_TYPES if getattr(cfg, name)]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} exclude each other: give one of them")
        self.text_schedule = GlancingSchedule(cfg.text_glancing)
        self.unit_schedule = GlancingSchedule(cfg.unit_glancing)
        self.objective = Objective(
            text_blank=task.labels.blank,
            unit_blank=task.unit_labels.blank if task.unit_labels is not None else 0,
            text_loss=str(cfg.text_loss),
            unit_loss=str(cfg.unit_loss),
            asr_weight=cfg.asr_weight,
            text_weight=cfg.text_weight,
            unit_weight=cfg.unit_weight,
            nmla_order=cfg.nmla_order,
            nmla_normalization=str(cfg.nmla_normalization),
            label_smoothing=cfg.label_smoothing,
            autocast_bf16=cfg.autocast_bf16,
        )

    def forward(self, model: nn.Module, sample: Mapping[str, Any], reduce: bool = True) -> tuple[Tensor, int, dict]:
        """Loss of one batch: (scalar, 1, numbers to log). The task adds ``policy`` and ``update`` to the batch."""
        loss, log, _ = self.compute(model, sample, sample["policy"], sample["update"])
        return loss, 1, log

    def compute(
        self, model: nn.Module, sample: Mapping[str, Any], policy: ChunkPolicy, update: int
    ) -> tuple[Tensor, dict[str, Any], NastOutput]:
        """Loss, numbers to log and the network's output, for ``policy``; glancing while the model trains."""
        text_ratio = self.text_schedule(update) if model.training else 0.0
        unit_ratio = self.unit_schedule(update) if model.training and self.task.trains_units else 0.0
        total, losses, counts, output = self.objective(model, training_batch(sample), policy, text_ratio, unit_ratio)
        log = {
            "loss": total.detach(),
            **{name: value.detach() for name, value in losses.items()},
            **counts,
            "batches": 1,
            "ntokens": sum(sample["net_input"]["frames"]),
            "nsentences": sample["nsentences"],
            "sample_size": 1,
        }
        return total, log, output

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Average over batches (of all processes), and derive accuracies and glancing ratios from counts."""
        sums: dict[str, Any] = {}
        for log in logging_outputs:
            for key, value in log.items():
                sums[key] = sums.get(key, 0) + value
        total = {key: float(value) for key, value in sums.items()}
        batches = max(total.get("batches", 0.0), 1.0)
        for key in ("loss", "asr_loss", "text_loss", "unit_loss"):
            if key in total:
                metrics.log_scalar(key, total[key] / batches, batches, round=4)
        for name in ("text", "unit"):
            slots = total.get(f"{name}_slots", 0.0)
            if slots:
                # Of the slots whose aligned label is not blank: those whose best label is the aligned one, before any
                # label was shown. A model that outputs blanks only has 0.
                labelled = max(total[f"{name}_labelled"], 1.0)
                metrics.log_scalar(f"{name}_accuracy", 100 * total[f"{name}_same"] / labelled, labelled, round=2)
                metrics.log_scalar(f"{name}_glanced", total[f"{name}_glanced"] / slots, slots, round=3)
                metrics.log_scalar(f"{name}_glancing", total[f"{name}_ratio"] / batches, batches, round=3)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All logged numbers are sums."""
        return True
