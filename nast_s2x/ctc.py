"""CTC bookkeeping: collapsing label sequences, feasibility and best (Viterbi) alignments.

A CTC model predicts one *label* per *slot*; merging runs of equal labels and dropping the blank gives the *tokens*
(Graves et al., 2006, "Connectionist Temporal Classification"). Nothing here knows about chunks or networks.

Alignment states, for a target of L labels: state ``s`` runs from 0 to 2L; odd states stand for ``target[(s - 1) // 2]``,
even states for the blank before, between and after the labels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

NEGATIVE_INFINITY = float("-inf")


def ctc_collapse(labels: Sequence[int] | Tensor, blank: int, drop: Collection[int] = ()) -> list[int]:
    """Merge runs of equal labels, then leave out the blank and the labels in ``drop``.

    >>> ctc_collapse([5, 5, 9, 5, 0, 7, 7], blank=9, drop={0})
    [5, 5, 7]
    """
    return CtcCollapser(blank, drop).push(labels)


class CtcCollapser:
    """Collapse of a label stream that arrives in pieces: any cut gives the tokens of :func:`ctc_collapse`.

    What is remembered between pieces is the last *label*, blank and dropped labels included: a piece that begins with
    the label the previous piece ended with continues the same token.

    >>> collapser = CtcCollapser(blank=9)
    >>> collapser.push([5, 5]), collapser.push([5, 9]), collapser.push([5])
    ([5], [], [5])
    """

    def __init__(self, blank: int, drop: Collection[int] = ()) -> None:
        self.blank = blank
        self.drop = frozenset(drop) | {blank}
        self.reset()

    def reset(self) -> None:
        """Forget the stream: the next piece is the first one of another stream."""
        self._last_label: int | None = None
        self._slots = 0

    def push(self, labels: Sequence[int] | Tensor) -> list[int]:
        """Take the labels of the next slots (T,) and return the tokens that begin in them."""
        return [token for token, _ in self.push_with_slots(labels)]

    def push_with_slots(self, labels: Sequence[int] | Tensor) -> list[tuple[int, int]]:
        """As :meth:`push`, each token with the index of its first slot, counted from the beginning of the stream."""
        new: list[tuple[int, int]] = []
        for label in _as_list(labels):
            if label != self._last_label and label not in self.drop:
                new.append((label, self._slots))
            self._last_label = label
            self._slots += 1
        return new


def _as_list(labels: Sequence[int] | Tensor) -> list[int]:
    if not isinstance(labels, Tensor):
        return [int(label) for label in labels]
    if labels.dim() != 1:
        raise ValueError(f"labels must be one sequence of shape (T,), got a tensor of shape {tuple(labels.shape)}")
    return labels.tolist()


def is_feasible(targets: Tensor, target_lengths: Tensor, slot_lengths: Tensor) -> Tensor:
    """Whether each target fits its slots: its labels plus one blank between equal neighbours are at most the slots.

    targets (B, L), target_lengths (B,), slot_lengths (B,) -> (B,) bool.
    """
    repeats = _repeated(targets) & (_positions(targets, 1) < target_lengths.to(targets.device)[:, None])
    needed = target_lengths.to(targets.device) + repeats.sum(1)
    return needed <= slot_lengths.to(targets.device)


def _positions(matrix: Tensor, dim: int) -> Tensor:
    return torch.arange(matrix.size(dim), device=matrix.device)


def _repeated(targets: Tensor) -> Tensor:
    """(B, L) bool: the label equals the one before it (never at the first)."""
    repeated = torch.zeros_like(targets, dtype=torch.bool)
    repeated[:, 1:] = targets[:, 1:] == targets[:, :-1]
    return repeated


@torch.no_grad()
def viterbi_align(
    log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, blank: int
) -> Tensor:
    """Most probable CTC alignment of each target to its slots, all sentences and states in one batch.

    Ties are decided alike on every device, by comparisons and never by an ``argmax``: between equally good
    predecessors the nearest state wins (stay, then one state back, then two), and a path that ends in the last label
    wins over an equally good one that ends in the blank behind it.

    Args:
        log_probs: (B, T, V) log-probabilities; half precision is computed in float32.
        lengths: (B,) valid slots.
        targets: (B, L) labels; entries past ``target_lengths`` are ignored.
        target_lengths: (B,) valid labels.
        blank: the blank label.
    Returns:
        (B, T) long states; -1 past the end of a sentence, and everywhere in a sentence whose target has no alignment
        of non-zero probability (see :func:`is_feasible`).
    Raises:
        ValueError: if shapes disagree or a length exceeds its tensor.
    """
    device = log_probs.device
    targets, target_lengths = targets.to(device), target_lengths.to(device)
    lengths = lengths.to(device)
    _check_alignment_inputs(log_probs, lengths, targets, target_lengths)
    batch, slots, _ = log_probs.shape
    if slots == 0:
        return torch.full((batch, 0), -1, dtype=torch.long, device=device)
    states = _extended_labels(targets, target_lengths, blank)  # (B, S), S = 2L + 1
    # A jump over the blank (two states) is allowed onto a label that differs from the one before it.
    skip_cost = torch.full(states.shape, NEGATIVE_INFINITY, device=device, dtype=_score_dtype(log_probs))
    skip_cost[:, 3::2] = skip_cost[:, 3::2].masked_fill(~_repeated(targets)[:, 1:], 0.0)
    scores, moves = _best_scores(log_probs, lengths, states, skip_cost)
    return _backtrace(scores, moves, lengths, target_lengths)


def _check_alignment_inputs(log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> None:
    batch = log_probs.size(0)
    if log_probs.dim() != 3 or targets.dim() != 2 or targets.size(0) != batch:
        shapes = f"{tuple(log_probs.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"log_probs must be (B, T, V) and targets (B, L) with the same B, got {shapes}")
    for name, values, limit in (
        ("lengths", lengths, log_probs.size(1)),
        ("target_lengths", target_lengths, targets.size(1)),
    ):
        if values.shape != (batch,):
            raise ValueError(f"{name} must have shape ({batch},), got {tuple(values.shape)}")
        if batch and not bool(((values >= 0) & (values <= limit)).all()):
            raise ValueError(f"{name} must lie between 0 and {limit}, got {values.tolist()}")


def _score_dtype(log_probs: Tensor) -> torch.dtype:
    return torch.promote_types(log_probs.dtype, torch.float32)


def _extended_labels(targets: Tensor, target_lengths: Tensor, blank: int) -> Tensor:
    """(B, L) targets -> (B, 2L + 1) labels of the states, blanks between; padding reads as blank, always in range."""
    batch, labels = targets.shape
    extended = targets.new_full((batch, 2 * labels + 1), blank)
    padded = _positions(targets, 1) >= target_lengths[:, None]
    extended[:, 1::2] = targets.masked_fill(padded, blank)
    return extended


def _best_scores(log_probs: Tensor, lengths: Tensor, states: Tensor, skip_cost: Tensor) -> tuple[Tensor, Tensor]:
    """Forward pass: final scores (B, S) at each sentence's last slot and moves (T, B, S), states gone forward."""
    (batch, count), slots = states.shape, log_probs.size(1)
    dtype = _score_dtype(log_probs)
    moves = torch.zeros(slots, batch, count, dtype=torch.int8, device=log_probs.device)
    two = torch.full((), 2, dtype=torch.int8, device=log_probs.device)
    # Two states of -inf in front make the neighbours below plain slices.
    padded = torch.full((batch, count + 2), NEGATIVE_INFINITY, dtype=dtype, device=log_probs.device)
    scores = padded[:, 2:]
    first = log_probs[:, 0].gather(1, states[:, :2]).to(dtype)
    scores[:, :2] = torch.where(lengths[:, None] > 0, first, first.new_full((), NEGATIVE_INFINITY))
    # An empty sentence aligns an empty target only: its score is that of the empty path.
    scores[:, 0] = torch.where(lengths > 0, scores[:, 0], 0.0)
    running = torch.arange(slots, device=log_probs.device)[:, None, None] < lengths[None, :, None]  # (T, B, 1)
    for slot in range(1, slots):
        stay, step, skip = scores, padded[:, 1:-1], padded[:, :-2] + skip_cost
        stepped = step > stay
        best = torch.where(stepped, step, stay)
        skipped = skip > best
        best = torch.where(skipped, skip, best)
        moves[slot] = torch.where(skipped, two, stepped.to(torch.int8))
        best = best + log_probs[:, slot].gather(1, states)
        # Past its end a sentence keeps the scores of its last slot.
        scores.copy_(torch.where(running[slot], best, stay))
    return scores, moves


def _backtrace(scores: Tensor, moves: Tensor, lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """Final scores (B, S) and moves (T, B, S) -> states (B, T)."""
    slots = moves.size(0)
    last_blank = 2 * target_lengths
    last_label = (last_blank - 1).clamp(min=0)
    blank_score = scores.gather(1, last_blank[:, None])[:, 0]
    label_score = scores.gather(1, last_label[:, None])[:, 0]
    state = torch.where(blank_score > label_score, last_blank, last_label)
    possible = torch.maximum(blank_score, label_score) > NEGATIVE_INFINITY
    aligned = torch.full((slots, state.size(0)), -1, dtype=torch.long, device=scores.device)
    running = (_positions(moves, 0)[:, None] < lengths) & possible  # (T, B)
    for slot in range(slots - 1, -1, -1):
        aligned[slot] = torch.where(running[slot], state, -1)
        move = moves[slot].gather(1, state[:, None])[:, 0]
        state = torch.where(running[slot], (state - move).clamp(min=0), state)
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
