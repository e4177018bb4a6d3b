"""Glancing: showing the decoder part of an alignment of its target while it trains.

Qian et al., 2021, "Glancing Transformer for Non-Autoregressive Neural Machine Translation", in the form for CTC: the
target is aligned to the slots by the model itself, and the more slots disagree with that alignment, the more are shown.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nast_s2x.ctc import aligned_labels, is_feasible, viterbi_align
from nast_s2x.losses.common import at_least_float32, valid_positions

Glancer = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""logits (B, N, V), lengths (B,) -> labels (B, N) to show and mask (B, N), True = show the label at this slot."""


def glance_probability(predictions: Tensor, labels: Tensor, lengths: Tensor, ratio: float) -> Tensor:
    """Probability with which each slot of a sentence is shown: ``ratio * (length - same) / length``.

    predictions (B, N): the model's best label per slot; labels (B, N): the aligned ones; lengths (B,) valid slots;
    -> (B,) float32, 0 for an empty sentence.
    """
    same = ((predictions == labels) & valid_positions(lengths, labels.size(1))).sum(1)
    return ratio * (lengths - same).float() / lengths.clamp(min=1).float()


def make_glancer(
    targets: Tensor,
    target_lengths: Tensor,
    blank: int,
    ratio: float,
    generator: torch.Generator | None = None,
    statistics: dict[str, float] | None = None,
) -> Glancer:
    """A function that a model calls on its first-pass logits to learn what to show in its second pass.

    Args:
        targets: (B, L) labels with ``<s>`` and ``</s>``; entries past ``target_lengths`` are ignored.
        target_lengths: (B,) valid labels.
        blank: the blank label; it is shown like any other aligned label.
        ratio: in [0, 1]; 0 shows nothing.
        generator: source of randomness (of any device); None uses the global one.
        statistics: if given, each call adds the counts ``slots``, ``same`` (slots whose best label is the aligned one),
            ``glanced`` (slots shown) and ``infeasible`` (sentences whose target does not fit; none of their slots is
            shown, nor counted elsewhere).
    Returns:
        Glancer. Its labels are pad (1) past the end and in infeasible sentences, where its mask is False.
    """
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"glancing ratio must lie in [0, 1], got {ratio}")

    @torch.no_grad()
    def glance(logits: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        log_probs = at_least_float32(logits.detach()).log_softmax(-1)
        lengths = lengths.to(logits.device)
        states = viterbi_align(log_probs, lengths, targets, target_lengths, blank)
        labels = aligned_labels(states, targets, blank)
        shown = states >= 0  # valid slots of feasible sentences
        predictions = logits.argmax(-1)
        probability = glance_probability(predictions, labels, lengths, ratio)
        where = generator.device if generator is not None else logits.device
        chance = torch.rand(labels.shape, generator=generator, device=where).to(logits.device)
        mask = shown & (chance < probability[:, None])
        if statistics is not None:
            counts = {
                "slots": shown,
                "same": shown & (predictions == labels),
                "glanced": mask,
                "infeasible": ~is_feasible(targets, target_lengths, lengths),
            }
            for name, flags in counts.items():
                statistics[name] = statistics.get(name, 0) + int(flags.sum())
        return labels, mask

    return glance
