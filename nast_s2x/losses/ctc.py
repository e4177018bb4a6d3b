"""Connectionist temporal classification, in the published form with batch-level label smoothing."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nast_s2x.batches import Lengths, TargetBatch
from nast_s2x.losses.common import at_least_float32, check_loss_inputs, mean_of_given


def ctc_loss(
    logits: Tensor, lengths: Lengths, targets: TargetBatch, blank: int, label_smoothing: float = 0.0
) -> Tensor:
    """CTC loss (Graves et al., 2006, eq. 14), negative log-likelihood per target label, mean over the batch.

    Rows without a target are ignored. A row whose target does not fit its slots has no likelihood; it counts as 0 in
    the mean and its gradient is exactly zero. With smoothing e the result is ``(1 - e) * ctc + e * u``, where u is the
    mean over all valid slots of the batch of ``-mean_v log p(v)``: one mean for the batch, rows that do not fit
    included.

    Args:
        logits: (B, T, V) scores before the softmax (log-probabilities serve as well).
        lengths: valid slots of each row.
        targets: labels of each row.
        blank: the blank label.
        label_smoothing: e, in [0, 1).
    Returns:
        scalar, float32 or float64.
    Raises:
        ValueError: shapes, blank or smoothing that do not fit.
    """
    check_loss_inputs(logits, lengths, targets, blank)
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    log_probs = at_least_float32(logits).log_softmax(-1)
    sizes = targets.lengths.map(lambda length: max(length, 1)).on(logits.device)
    loss = mean_of_given(_nll(log_probs, lengths, targets, blank) / sizes, targets)
    if label_smoothing == 0.0:
        return loss
    used = Lengths(tuple(a * b for a, b in zip(lengths.host, targets.given.host, strict=True)))
    outside = ~used.mask(logits.size(1), logits.device)
    uniform = -(log_probs.mean(-1).masked_fill(outside, 0.0).sum() / max(used.total, 1))
    return (1.0 - label_smoothing) * loss + label_smoothing * uniform


def _nll(log_probs: Tensor, lengths: Lengths, targets: TargetBatch, blank: int) -> Tensor:
    """(B,) negative log-likelihoods, 0 where infinite and without a target."""
    if not log_probs.size(1):
        return log_probs.sum((1, 2))  # torch's CTC refuses tensors without slots
    # Whether a target fits is decided on the host and kept out of the recursion, so that no infinity is ever
    # differentiated: a row that does not fit is computed against an empty target and then left out.
    sizes = [
        (length, size) if fits and size else (length, 0)
        for length, size, fits in zip(lengths.host, targets.lengths.host, targets.fits(lengths), strict=True)
    ]
    used = Lengths(tuple(int(size > 0) for _, size in sizes))
    nll = F.ctc_loss(
        log_probs.transpose(0, 1),
        targets.labels.to(log_probs.device),
        # Lengths on the host: torch would copy tensors back from a GPU.
        tuple(length for length, _ in sizes),  # type: ignore[arg-type]  # torch takes them, its stub does not
        tuple(size for _, size in sizes),  # type: ignore[arg-type]
        blank=blank,
        reduction="none",
        zero_infinity=True,
    )
    return nll if used.total == len(used) else nll.masked_fill(used.on(nll.device) == 0, 0.0)
