"""Glancing: in training, the decoder is shown a part of the alignment of its target.

Qian et al., 2021, "Glancing Transformer for Non-Autoregressive Neural Machine Translation", in the form for CTC: the
target is aligned to the slots by the model itself, and the more slots disagree with that alignment, the more are shown.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nast_s2x.batches import Glancer, Lengths, TargetBatch
from nast_s2x.ctc import aligned_labels, viterbi_align
from nast_s2x.losses.common import at_least_float32


def glance_probability(predictions: Tensor, labels: Tensor, lengths: Lengths, ratio: float) -> Tensor:
    """Probability with which each slot of a sentence is shown: ``ratio * (length - same) / length``.

    predictions (B, N): the model's best label per slot; labels (B, N): the aligned ones; valid slots of each row;
    -> (B,) float32, 0 for an empty sentence.
    """
    size = lengths.on(labels.device)
    same = ((predictions == labels) & lengths.mask(labels.size(1), labels.device)).sum(1)
    return ratio * (size - same).float() / size.clamp(min=1).float()


def make_glancer(
    targets: TargetBatch,
    blank: int,
    ratio: float,
    generator: torch.Generator | None = None,
    statistics: dict[str, int | float | Tensor] | None = None,
) -> Glancer:
    """Build the function that selects, from first-pass logits, the target labels shown in the second pass.

    Args:
        targets: labels with ``<s>`` and ``</s>``; nothing is shown in rows without a target.
        blank: the blank label; it is shown like any other aligned label.
        ratio: in [0, 1]; 0 shows nothing.
        generator: source of randomness (of any device); None uses the global one.
        statistics: if given, each call adds the counts ``slots``, ``labelled`` (slots whose aligned label is not
            blank), ``same`` (those of them whose best label is the aligned one), ``glanced`` (slots shown), as tensors
            on the device, and ``infeasible`` (rows whose target does not fit: none of their slots is shown or counted
            elsewhere).
    Returns:
        Glancer. Its labels are pad (1) past the end and in rows that do not fit, where its mask is False.
    Raises:
        ValueError: a ratio outside [0, 1].
    """
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"glancing ratio must lie in [0, 1], got {ratio}")

    @torch.no_grad()
    def glance(logits: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        log_probs = at_least_float32(logits.detach()).log_softmax(-1)
        states = viterbi_align(log_probs, lengths, targets.labels, targets.lengths, blank)
        labels = aligned_labels(states, targets.labels, blank)
        shown = states >= 0  # valid slots of rows that fit
        if targets.count < len(targets):
            shown = shown & (targets.given.on(logits.device) > 0)[:, None]
        predictions = logits.argmax(-1)
        probability = glance_probability(predictions, labels, lengths, ratio)
        where = generator.device if generator is not None else logits.device
        chance = torch.rand(labels.shape, generator=generator, device=where).to(logits.device)
        mask = shown & (chance < probability[:, None])
        if statistics is not None:
            labelled = shown & (labels != blank)
            same = labelled & (predictions == labels)
            for name, flags in (("slots", shown), ("labelled", labelled), ("same", same), ("glanced", mask)):
                before, count = statistics.get(name, 0), flags.sum()
                statistics[name] = before + count if isinstance(before, Tensor) or before else count
            # An empty target fits any number of slots, so this counts targets alone.
            unfit = len(targets) - sum(targets.fits(lengths))
            statistics["infeasible"] = statistics.get("infeasible", 0) + unfit
        return labels, mask

    return glance
