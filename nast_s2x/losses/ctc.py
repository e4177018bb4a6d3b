"""Connectionist temporal classification, in the published form with batch-level label smoothing."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nast_s2x.ctc import is_feasible
from nast_s2x.losses.common import at_least_float32, check_loss_inputs, valid_positions


def ctc_loss(
    logits: Tensor,
    lengths: Tensor,
    targets: Tensor,
    target_lengths: Tensor,
    blank: int,
    label_smoothing: float = 0.0,
) -> Tensor:
    """CTC loss (Graves et al., 2006, eq. 14), negative log-likelihood per target label, mean over the batch.

    A sentence whose target does not fit its slots has no likelihood; it counts as 0 in the mean and its gradient is
    exactly zero. With smoothing e the result is ``(1 - e) * ctc + e * u``, where u is the mean over all valid slots of
    the batch of ``-mean_v log p(v)``: one mean for the batch, infeasible sentences included.

    Args:
        logits: (B, T, V) scores before the softmax (log-probabilities serve as well).
        lengths: (B,) valid slots.
        targets: (B, L) labels; entries past ``target_lengths`` are ignored.
        target_lengths: (B,) valid labels.
        blank: the blank label.
        label_smoothing: e, in [0, 1).
    Returns:
        scalar, float32 or float64.
    """
    check_loss_inputs(logits, lengths, targets, target_lengths, blank)
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    log_probs = at_least_float32(logits).log_softmax(-1)
    loss = (_nll(log_probs, lengths, targets, target_lengths, blank) / target_lengths.clamp(min=1)).mean()
    if label_smoothing == 0.0:
        return loss
    valid = valid_positions(lengths, logits.size(1))
    uniform = -(log_probs.mean(-1).masked_fill(~valid, 0.0).sum() / valid.sum().clamp(min=1))
    return (1.0 - label_smoothing) * loss + label_smoothing * uniform


def _nll(log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, blank: int) -> Tensor:
    """(B,) negative log-likelihoods, 0 where infinite."""
    # Feasibility is decided on the labels alone and kept out of the recursion, so that no infinity is ever
    # differentiated: an infeasible sentence is computed against an empty target and then left out.
    feasible = is_feasible(targets, target_lengths, lengths) & (lengths > 0)
    nll = F.ctc_loss(
        log_probs.transpose(0, 1),
        targets,
        lengths,
        target_lengths.masked_fill(~feasible, 0),
        blank=blank,
        reduction="none",
        zero_infinity=True,
    )
    return nll.masked_fill(~feasible, 0.0)
