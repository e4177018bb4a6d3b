"""The training objective: recognition, text and unit losses with glancing (Ma et al., 2024, section 3.4)."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nast_s2x.batches import Glancer, Lengths, TargetBatch, TrainingBatch
from nast_s2x.chunking import ChunkPolicy
from nast_s2x.errors import ConfigError
from nast_s2x.losses.ctc import ctc_loss
from nast_s2x.losses.glancing import make_glancer
from nast_s2x.losses.nmla import nmla_loss

Counts = dict[str, int | float | Tensor]


@dataclass(frozen=True)
class Objective:
    """Weighted sum of the recognition, text and unit losses of a batch.

    No value is read from the device: losses and counts are tensors there, everything else is known on the host.

    Attributes:
        text_blank, unit_blank: blank labels of the two label sets.
        text_loss, unit_loss: ``ctc`` or ``nmla``; the recognition loss is always CTC.
        asr_weight, text_weight, unit_weight: weights of the losses.
        nmla_order, nmla_normalization: see :func:`~nast_s2x.losses.nmla.nmla_loss`.
        label_smoothing: of the CTC losses.
        autocast_bf16: compute the network's products in bfloat16 while it trains.
    Raises:
        ConfigError: an unknown loss or a value out of range; names the flag of ``fairseq-train``.
    """

    text_blank: int
    unit_blank: int = 0
    text_loss: str = "ctc"
    unit_loss: str = "ctc"
    asr_weight: float = 1.0
    text_weight: float = 1.0
    unit_weight: float = 1.0
    nmla_order: int = 2
    nmla_normalization: str = "batch"
    label_smoothing: float = 0.01
    autocast_bf16: bool = False

    def __post_init__(self) -> None:
        for name in ("text", "unit"):
            if getattr(self, f"{name}_loss") not in ("ctc", "nmla"):
                raise ConfigError(f"--{name}-loss must be ctc or nmla, got {getattr(self, f'{name}_loss')!r}")
        if self.nmla_order not in (1, 2):
            raise ConfigError(f"--nmla-order must be 1 or 2, got {self.nmla_order}")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"--label-smoothing must lie in [0, 1), got {self.label_smoothing}")
        weights = {name: getattr(self, f"{name}_weight") for name in ("asr", "text", "unit")}
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise ConfigError(f"--{name}-weight must be at least 0, got {weight}")
        if not any(weights.values()):
            raise ConfigError("one of --asr-weight, --text-weight and --unit-weight must be positive")

    def __call__(
        self,
        model: nn.Module,
        batch: TrainingBatch,
        policy: ChunkPolicy,
        text_ratio: float = 0.0,
        unit_ratio: float = 0.0,
    ) -> tuple[Tensor, dict[str, Tensor], Counts, Any]:
        """Loss of a batch; the whole glancing procedure runs inside the one call of ``model``.

        Args:
            model: a :class:`~nast_s2x.network.NastModel`, perhaps wrapped for data-parallel training.
            batch: on the device of the model.
            policy: chunk policy.
            text_ratio, unit_ratio: glancing ratios; 0: no first pass.
        Returns:
            the loss (scalar), the losses by name, the counts of glancing (``text_slots`` ...), the network's output.
        Raises:
            ConfigError: no loss with a positive weight applies to the model.
        """
        glancers, statistics = self._glancers(batch, text_ratio, unit_ratio)
        speech, bf16 = batch.speech, self.autocast_bf16 and model.training
        with torch.autocast(speech.fbank.device.type, torch.bfloat16) if bf16 else nullcontext():
            output = model(speech.fbank, speech.frames, policy, with_asr=self.asr_weight > 0, **glancers)
        losses = {}
        if self.text_weight > 0:
            losses["text_loss"] = self._loss("text", output.text_logits, output.text_lengths, batch.text)
        if output.asr_logits is not None:
            losses["asr_loss"] = self._loss("asr", output.asr_logits, output.encoder_lengths, batch.source)
        if output.unit_logits is not None:
            losses["unit_loss"] = self._loss("unit", output.unit_logits, output.unit_lengths, batch.units)
        weights = {"text_loss": self.text_weight, "asr_loss": self.asr_weight, "unit_loss": self.unit_weight}
        total = sum(weights[name] * value for name, value in losses.items())
        if not isinstance(total, Tensor):
            raise ConfigError("no loss with a positive weight applies to this model: it has no unit decoder")
        counts: Counts = {f"{name}_{key}": value for name, part in statistics.items() for key, value in part.items()}
        return total, losses, counts, output

    def _glancers(
        self, batch: TrainingBatch, text_ratio: float, unit_ratio: float
    ) -> tuple[dict[str, Glancer], dict[str, Counts]]:
        """Glancers as arguments of the model, and the counts that they add to while the model runs."""
        glancers: dict[str, Glancer] = {}
        counts: dict[str, Counts] = {}
        for name, targets, ratio, blank in (
            ("text", batch.text, text_ratio, self.text_blank),
            ("unit", batch.units, unit_ratio, self.unit_blank),
        ):
            if ratio == 0:
                continue
            # Every process logs the same keys, whatever its batch holds: fairseq adds them up by position.
            counts[name] = {"ratio": ratio, "slots": 0, "labelled": 0, "same": 0, "glanced": 0, "infeasible": 0}
            if targets is not None and targets.count:
                glancers[f"{name}_glancer"] = make_glancer(targets, blank, ratio, statistics=counts[name])
        return glancers, counts

    def _loss(self, name: str, logits: Tensor, lengths: Lengths, targets: TargetBatch | None) -> Tensor:
        """One loss over the rows that have a target; without any, 0 with a zero gradient for every parameter."""
        if targets is None or not targets.count:
            return 0.0 * logits.float().sum()
        blank = self.unit_blank if name == "unit" else self.text_blank
        kind = {"asr": "ctc", "text": self.text_loss, "unit": self.unit_loss}[name]
        if kind == "ctc":
            return ctc_loss(logits, lengths, targets, blank, self.label_smoothing)
        return nmla_loss(logits, lengths, targets, blank, self.nmla_order, self.nmla_normalization)
