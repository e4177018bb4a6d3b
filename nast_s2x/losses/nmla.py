"""Non-monotonic latent alignments: matching a target's n-grams in expectation over all CTC alignments.

Shao and Feng, 2022, "Non-Monotonic Latent Alignments for CTC-Based Non-Autoregressive Machine Translation". Notation:
p_t(v) is the probability of label v at slot t (0 at padded slots), b the blank.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nast_s2x.batches import Lengths, TargetBatch
from nast_s2x.losses.common import at_least_float32, check_loss_inputs, mean_of_given

# Guards divisions by an expected number of n-grams that is zero; far below any number a sentence can have.
_SMALLEST_COUNT = 1e-6


def nmla_loss(
    logits: Tensor,
    lengths: Lengths,
    targets: TargetBatch,
    blank: int,
    order: int = 2,
    normalization: str = "batch",
    pad: int = 1,
) -> Tensor:
    """NMLA loss of order 2 (bigrams, the published training loss) or 1 (bag of words).

    Order 2, with C_xy the expected count of bigram (x, y) in the collapsed output (:class:`ExpectedBigrams`), n_xy its
    count in the target, E the expected output length and S the target length:
    ``-2 * sum_xy min(C_xy, n_xy) / (S + E - 2)``, between -1 (best) and 0.
    Order 1, with bow(v) the expected count of label v: ``sum_v |bow(v) - n_v| / (S + E)``, between 0 (best) and 1.

    Args:
        logits: (B, T, V) scores before the softmax (log-probabilities serve as well).
        lengths: valid slots of each row.
        targets: labels with ``<s>`` and ``</s>``; rows without a target are ignored. A target of fewer than two
            labels has no bigram and matches 0.
        blank: the blank label.
        order: 2 or 1.
        normalization: "batch", the published ratio of batch means with the padded target length L for S, or
            "sentence", the paper's definition: one ratio per sentence with its own S, then the mean.
        pad: the padding label, ignored inside a target too.
    Returns:
        scalar, float32 or float64.
    Raises:
        ValueError: shapes or blank that do not fit; another order or normalization.
    """
    check_loss_inputs(logits, lengths, targets, blank)
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    if normalization not in ("batch", "sentence"):
        raise ValueError(f"normalization must be 'batch' or 'sentence', got {normalization!r}")
    probs = at_least_float32(logits).softmax(-1)
    valid = lengths.mask(logits.size(1), logits.device)
    if order == 2:
        scores = matched_bigrams(probs, valid, targets, blank) * -2.0
        length: Tensor = ExpectedLength.apply(probs, valid, blank)
        sizes = length - 2.0
    else:
        bag = expected_bag_of_words(probs, valid, blank)
        labels = targets.labels.to(logits.device)
        counted = targets.lengths.mask(labels.size(1), labels.device) & (labels != pad)
        reference = label_counts(labels, counted, logits.size(2)).to(bag.dtype)
        reference[:, blank] = 0.0
        scores, sizes = (bag - reference).abs().sum(1), bag.sum(1)
    if normalization == "batch":
        size = targets.labels.size(1) + mean_of_given(sizes, targets)
        return mean_of_given(scores, targets) / size.clamp(min=_SMALLEST_COUNT)
    ratios = scores / (targets.lengths.on(logits.device) + sizes).clamp(min=_SMALLEST_COUNT)
    return mean_of_given(ratios, targets)


def expected_bag_of_words(probs: Tensor, valid: Tensor, blank: int) -> Tensor:
    """Expected count of each label in the collapsed output, 0 for the blank.

    ``bow(v) = p_1(v) + sum_{t>1} p_t(v) (1 - p_{t-1}(v))``; probs (B, T, V), valid (B, T) -> (B, V).
    """
    probs = probs * valid[:, :, None]
    bag = probs.sum(1) - (probs[:, 1:] * probs[:, :-1]).sum(1)
    keep = torch.ones_like(bag[0])
    keep[blank] = 0.0
    return bag * keep


class ExpectedLength(torch.autograd.Function):
    """Expected length of the collapsed output, the sum of :func:`expected_bag_of_words`; one pass over (B, T, V).

    ``E = sum_t (1 - p_t(b)) - sum_{t>1} [ sum_v p_t(v) p_{t-1}(v) - p_t(b) p_{t-1}(b) ]``, its gradient written out:
    ``dE/dp_t(v) = 1 - p_{t-1}(v) - p_{t+1}(v)`` for v != b, 0 for b. (The rows of p sum to one, but the gradient is
    that of the sum over v != b, as autograd would give.)
    """

    @staticmethod
    def forward(ctx: Any, probs: Tensor, valid: Tensor, blank: int) -> Tensor:
        """probs (B, T, V) that sum to 1 over V, valid (B, T) -> (B,)."""
        ctx.blank = blank
        ctx.save_for_backward(probs, valid)
        blanks = probs[:, :, blank]
        begun = (probs.sum(-1) - blanks).masked_fill(~valid, 0.0).sum(1)
        stay = (probs[:, 1:] * probs[:, :-1]).sum(-1) - blanks[:, 1:] * blanks[:, :-1]
        return begun - stay.masked_fill(~valid[:, 1:], 0.0).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        probs, valid = ctx.saved_tensors
        weight = grad[:, None] * valid  # (B, T)
        # Both slots of a neighbouring pair are valid exactly where the later one is.
        later = weight[:, 1:, None]
        result = weight[:, :, None].expand_as(probs).contiguous()
        result[:, 1:].addcmul_(probs[:, :-1], later, value=-1.0)
        result[:, :-1].addcmul_(probs[:, 1:], later, value=-1.0)
        result[:, :, ctx.blank] = 0.0
        return result, None, None


def linear_scan(decay: Tensor, inputs: Tensor) -> Tensor:
    """``s_t = a_t * s_{t-1} + u_t`` over the first axis, s = 0 before it; decay a (T, B, 1), inputs u (T, B, X) -> s.

    Takes 2 sqrt(T) steps instead of T. Exact for any a, 0 and 1 included: nothing is divided, no logarithm is taken.
    Not recorded by autograd.
    """
    slots = inputs.size(0)
    size = max(1, math.isqrt(slots))
    blocks = -(-slots // size)
    result = inputs.new_zeros(blocks * size, *inputs.shape[1:])
    result[:slots] = inputs
    factors = decay.new_zeros(blocks * size, *decay.shape[1:])
    factors[:slots] = decay
    result, factors = result.unflatten(0, (blocks, size)), factors.unflatten(0, (blocks, size))  # (blocks, size, B, .)
    # First the recurrence inside all blocks at once, then the value carried over from block to block.
    for step in range(1, size):
        result[:, step].addcmul_(factors[:, step], result[:, step - 1])
    carried = factors.cumprod(1)
    for block in range(1, blocks):
        result[block].addcmul_(carried[block], result[block - 1, -1])
    flat: Tensor = result.flatten(0, 1)
    return flat[:slots]


class ExpectedBigrams(torch.autograd.Function):
    """Expected counts of the bigrams (x, y) of a target in the collapsed output.

    ``C_xy = sum_{i<j} p_i(x) prod_{i<k<j} p_k(b) p_j(y)``, less the terms j = i + 1 when x = y (the two would merge).
    With ``s_t(x) = p_t(b) s_{t-1}(x) + p_t(x)``, the weight of "x is the last label at or before slot t", this is
    ``C_xy = sum_t p_t(y) w_t(x)``, ``w_t(x) = s_{t-1}(x) - [x = y] p_{t-1}(x)``: O(B * L * T) time and memory.
    """

    @staticmethod
    def forward(ctx: Any, probs: Tensor, valid: Tensor, targets: Tensor, blank: int) -> Tensor:
        """probs (B, T, V), valid (B, T), targets (B, L) with L >= 2 -> (B, L - 1), entry l for labels l and l + 1."""
        # One gather for all that is needed of (B, T, V), the blank as one more label.
        labels = torch.cat([targets, targets.new_full((targets.size(0), 1), blank)], 1)
        columns = probs.transpose(0, 1).gather(2, labels.expand(probs.size(1), *labels.shape))  # (T, B, L + 1)
        columns *= valid.t()[:, :, None]
        first, second = columns[:-1, :, :-2], columns[1:, :, 1:-1]  # p_{t-1}(x), p_t(y); (T - 1, B, L - 1)
        repeated = (targets[:, 1:] == targets[:, :-1]).to(probs.dtype)
        last = linear_scan(columns[:-1, :, -1:], first)  # s_{t-1}(x)
        weight = torch.addcmul(last, first, repeated, value=-1.0)
        ctx.save_for_backward(columns, last, weight, valid, labels, repeated)
        ctx.shape = probs.shape
        return (second * weight).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        columns, last, weight, valid, labels, repeated = ctx.saved_tensors
        result = torch.zeros_like(columns)
        torch.mul(weight, grad, out=result[1:, :, 1:-1])  # by p_t(y)
        by_weight = columns[1:, :, 1:-1] * grad
        # The adjoint d_t = dw_t + p_{t+1}(b) d_{t+1} is the same recurrence, from the end and with decays moved by one
        # (a scan never uses its first decay).
        later = columns[:-1, :, -1:].flip(0).roll(1, 0)
        adjoint = linear_scan(later, by_weight.flip(0)).flip(0)
        result[:-1, :, :-2] += adjoint.addcmul(by_weight, repeated, value=-1.0)  # by p_{t-1}(x)
        result[1:-1, :, -1] = (adjoint[1:] * last[:-1]).sum(-1)  # by p_t(b)
        result *= valid.t()[:, :, None]
        full = result.new_zeros(ctx.shape)
        put = add_columns if result.is_cuda else _scatter_add
        put(full.transpose(0, 1), labels, result)
        return full, None, None, None


def _scatter_add(full: Tensor, labels: Tensor, columns: Tensor) -> None:
    full.scatter_add_(2, labels.expand(full.size(0), *labels.shape), columns)


def add_columns(full: Tensor, labels: Tensor, columns: Tensor) -> None:
    """Add columns (T, B, L) to the places ``labels`` (B, L) of ``full`` (T, B, V), which holds zeros.

    Columns of equal labels are added up by a matrix product first, so that nothing collides: on a GPU a scatter that
    adds waits for atomics wherever a label repeats, the padding of a batch included.
    """
    equal = (labels[:, :, None] == labels[:, None, :]).to(columns.dtype)  # (B, L, L)
    sums = (columns.transpose(0, 1) @ equal).transpose(0, 1)
    full.scatter_(2, labels.expand(full.size(0), *labels.shape), sums)


def matched_bigrams(probs: Tensor, valid: Tensor, targets: TargetBatch, blank: int) -> Tensor:
    """``sum_xy min(C_xy, n_xy)`` over the distinct bigrams of each target, (B,)."""
    if targets.labels.size(1) < 2:
        return probs.new_zeros(probs.size(0)) + 0.0 * probs.sum((1, 2))
    counts = targets.bigrams.to(probs.device)
    expected: Tensor = ExpectedBigrams.apply(probs, valid, targets.labels.to(probs.device), blank)
    # Where nothing is counted the minimum is 0 whatever is expected there; the mask keeps its gradient at 0 too.
    return torch.minimum(expected, counts.to(expected.dtype)).masked_fill(counts == 0, 0.0).sum(1)


def label_counts(targets: Tensor, valid: Tensor, labels: int) -> Tensor:
    """targets (B, L), valid (B, L) bool -> (B, labels) counts of each label."""
    counts = torch.zeros(targets.size(0), labels, dtype=torch.long, device=targets.device)
    return counts.scatter_add_(1, targets.masked_fill(~valid, 0), valid.long())
