"""Best CTC alignments of targets to slots (Viterbi).

States of a target of L labels: state ``s`` runs from 0 to 2L; odd states stand for ``target[(s - 1) // 2]``, even
states for the blank before, between and after the labels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nast_s2x.batches import Lengths

NEGATIVE_INFINITY = float("-inf")


def _positions(matrix: Tensor, dim: int) -> Tensor:
    return torch.arange(matrix.size(dim), device=matrix.device)


def _repeated(targets: Tensor) -> Tensor:
    """(B, L) bool: the label equals the one before it (never at the first)."""
    repeated = torch.zeros_like(targets, dtype=torch.bool)
    repeated[:, 1:] = targets[:, 1:] == targets[:, :-1]
    return repeated


@torch.no_grad()
def viterbi_align(log_probs: Tensor, lengths: Lengths, targets: Tensor, target_lengths: Lengths, blank: int) -> Tensor:
    """Most probable CTC alignment of each target to its slots, all sentences and states in one batch.

    Ties are decided alike on every device, by comparisons and never by an ``argmax``: between equally good
    predecessors the nearest state wins (stay, then one state back, then two), and a path that ends in the last label
    wins over an equally good one that ends in the blank behind it.

    Args:
        log_probs: (B, T, V) log-probabilities; half precision is computed in float32.
        lengths: valid slots of each row.
        targets: (B, L) labels; entries past ``target_lengths`` are ignored.
        target_lengths: valid labels of each row.
        blank: the blank label.
    Returns:
        (B, T) long states; -1 past the end of a sentence, and everywhere in a sentence whose target has no alignment
        of non-zero probability (see :meth:`~nast_s2x.batches.TargetBatch.fits`).
    Raises:
        ValueError: if shapes disagree or a length exceeds its tensor.
    """
    device = log_probs.device
    targets = targets.to(device)
    _check_alignment_inputs(log_probs, lengths, targets, target_lengths)
    batch, slots, _ = log_probs.shape
    if slots == 0 or batch == 0:
        return torch.full((batch, slots), -1, dtype=torch.long, device=device)
    if log_probs.is_cuda:
        from nast_s2x.ctc.viterbi_triton import viterbi_align_triton

        return viterbi_align_triton(log_probs, lengths.on(device), targets, target_lengths.on(device), blank)
    return viterbi_align_torch(log_probs, lengths.on(device), targets, target_lengths.on(device), blank)


def viterbi_align_torch(
    log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, blank: int
) -> Tensor:
    """:func:`viterbi_align` in torch operations, slot by slot; lengths are tensors (B,) and are not checked."""
    skip_cost = _skip_cost(targets, torch.promote_types(log_probs.dtype, torch.float32))
    scores = _best_scores(log_probs, _state_labels(targets, target_lengths, blank), skip_cost)
    return _backtrace(scores, skip_cost, lengths, target_lengths)


def _check_alignment_inputs(log_probs: Tensor, lengths: Lengths, targets: Tensor, target_lengths: Lengths) -> None:
    batch = log_probs.size(0)
    if log_probs.dim() != 3 or targets.dim() != 2 or targets.size(0) != batch:
        shapes = f"{tuple(log_probs.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"log_probs must be (B, T, V) and targets (B, L) with the same B, got {shapes}")
    for name, values, limit in (
        ("lengths", lengths, log_probs.size(1)),
        ("target_lengths", target_lengths, targets.size(1)),
    ):
        if len(values) != batch:
            raise ValueError(f"{name} must have {batch} entries, got {len(values)}")
        if any(not 0 <= value <= limit for value in values.host):
            raise ValueError(f"{name} must lie between 0 and {limit}, got {list(values.host)}")


# Below, every row of states (..., 2L + 3) begins with two that cannot be reached, so that "one state back" and "two
# states back" are plain slices and never leave the tensor.
_MARGIN = 2


def _state_labels(targets: Tensor, target_lengths: Tensor, blank: int) -> Tensor:
    """Label of each state, (B, 2L + 3): blanks between the labels; padding reads as blank, which is always in range."""
    batch, labels = targets.shape
    result = targets.new_full((batch, 2 * labels + 1 + _MARGIN), blank)
    padded = _positions(targets, 1) >= target_lengths[:, None]
    result[:, _MARGIN + 1 :: 2] = targets.masked_fill(padded, blank)
    return result


def _skip_cost(targets: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 2L + 1): 0 where a state may be entered from two states back, else -inf.

    The blank between two labels may be left out if the labels differ.
    """
    cost = torch.full((targets.size(0), 2 * targets.size(1) + 1), NEGATIVE_INFINITY, dtype=dtype, device=targets.device)
    cost[:, 3::2] = cost[:, 3::2].masked_fill(~_repeated(targets)[:, 1:], 0.0)
    return cost


def _best_scores(log_probs: Tensor, labels: Tensor, skip_cost: Tensor) -> Tensor:
    """Log-probability of the best path that is in each state at each slot, (T, B, 2L + 3)."""
    slots = log_probs.size(1)
    scores = log_probs.transpose(0, 1).gather(2, labels.expand(slots, *labels.shape)).to(skip_cost.dtype)
    scores[:, :, :_MARGIN] = NEGATIVE_INFINITY
    scores[0, :, _MARGIN + 2 :] = NEGATIVE_INFINITY  # a path begins in the first blank or the first label
    for before, current in zip(scores, scores[1:], strict=False):
        best = torch.maximum(before[:, 2:], before[:, 1:-1])
        current[:, _MARGIN:] += torch.maximum(best, before[:, :-2] + skip_cost)
    return scores


def _backtrace(scores: Tensor, skip_cost: Tensor, lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """Scores (T, B, 2L + 3) of all states -> states (B, T) of the best path; its decisions are taken here."""
    slots, batch, _ = scores.shape
    sentence = torch.arange(batch, device=scores.device)
    final = scores[(lengths - 1).clamp(min=0), sentence]  # (B, 2L + 3)
    ends = torch.stack([(2 * target_lengths - 1).clamp(min=0), 2 * target_lengths], 1)  # last label, blank behind it
    label_score, blank_score = final.gather(1, ends + _MARGIN).unbind(1)
    state = torch.where(blank_score > label_score, ends[:, 1], ends[:, 0])
    possible = torch.maximum(blank_score, label_score) > NEGATIVE_INFINITY
    running = (torch.arange(slots, device=scores.device)[:, None] < lengths) & possible  # (T, B)
    back = torch.arange(_MARGIN, -1, -1, device=scores.device)  # columns of states s, s - 1, s - 2, behind the margin
    aligned = torch.full((slots, batch), -1, dtype=torch.long, device=scores.device)
    for slot in range(slots - 1, 0, -1):
        aligned[slot] = torch.where(running[slot], state, -1)
        stay, step, skip = scores[slot - 1].gather(1, state[:, None] + back).unbind(1)
        skip = skip + skip_cost.gather(1, state[:, None])[:, 0]
        move = torch.where(skip > torch.maximum(stay, step), 2, (step > stay).long())
        state = torch.where(running[slot], state - move, state)
    aligned[0] = torch.where(running[0], state, -1)
    return aligned.transpose(0, 1).contiguous()


def aligned_labels(states: Tensor, targets: Tensor, blank: int, pad: int = 1) -> Tensor:
    """Labels that an alignment shows: states (B, T) of targets (B, L) -> (B, T), ``pad`` where the state is -1."""
    targets = targets.to(states.device)
    if targets.size(1) == 0:
        labels = torch.full_like(states, blank)
    else:
        index = ((states - 1) // 2).clamp(0, targets.size(1) - 1)
        labels = torch.where(states % 2 == 1, targets.gather(1, index), blank)
    return labels.masked_fill(states < 0, pad)
