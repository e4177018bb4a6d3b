"""The best CTC alignment as one Triton program for each sentence (GPUs); same results as the torch form.

The states of a target of L labels are held as two vectors: ``blank[k]``, the blank before label k, and ``label[k]``,
label k. A slot then needs only a shift by one place: a blank follows itself or the label before it; a label follows
itself, the blank before it or, if the two differ, the label before it. The moves of each slot are stored as int8, and
the same program follows them back.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor


@cache
def _kernel() -> Any:
    """The program, compiled at its first call; triton is imported here alone."""
    import triton
    import triton.language as tl

    @triton.jit
    def align(
        log_probs, targets, slot_counts, label_counts, moves, states,
        slots, labels, vocab, blank, SIZE: tl.constexpr, INFINITE: tl.constexpr,
    ):  # fmt: skip
        row = tl.program_id(0).to(tl.int64)
        place = tl.arange(0, SIZE)
        count = tl.load(label_counts + row)
        stop = tl.load(slot_counts + row)
        is_label = place < count
        is_blank = place <= count
        target = tl.load(targets + row * labels + place, mask=is_label, other=0).to(tl.int64)
        before = tl.load(targets + row * labels + place - 1, mask=is_label & (place > 0), other=-1).to(tl.int64)
        may_skip = is_label & (place > 0) & (target != before)
        base = log_probs + row * slots * vocab
        shifted = tl.maximum(place - 1, 0)
        first = (place == 0) & (place < stop)
        label = tl.load(base + target, mask=is_label & first, other=-INFINITE).to(tl.float32)
        blanks = tl.load(base + blank + place * 0, mask=first, other=-INFINITE).to(tl.float32)
        label = tl.where(is_label & (place == 0), label, -INFINITE)
        blanks = tl.where(place == 0, blanks, -INFINITE)
        for slot in range(1, stop):
            here = base + slot * vocab
            label_before = tl.where(place > 0, tl.gather(label, shifted, 0), -INFINITE)
            skip = tl.where(may_skip, label_before, -INFINITE)
            label_move = tl.where(skip > tl.maximum(label, blanks), 2, tl.where(blanks > label, 1, 0))
            blank_move = tl.where(label_before > blanks, 1, 0)
            # Blank moves in the third bit: one byte for both states of a place.
            tl.store(moves + (row * slots + slot) * SIZE + place, (label_move + 4 * blank_move).to(tl.int8))
            emit_label = tl.load(here + target, mask=is_label, other=-INFINITE).to(tl.float32)
            emit_blank = tl.load(here + blank).to(tl.float32)
            best_label = tl.maximum(tl.maximum(label, blanks), skip)
            best_blank = tl.maximum(blanks, label_before)
            label = tl.where(is_label, best_label + emit_label, -INFINITE)
            blanks = tl.where(is_blank, best_blank + emit_blank, -INFINITE)
        last = tl.max(tl.where(place == count - 1, label, -INFINITE), 0)
        behind = tl.max(tl.where(place == count, blanks, -INFINITE), 0)
        state = tl.where(behind > last, 2 * count, 2 * count - 1)
        possible = tl.maximum(behind, last) > -INFINITE
        tl.debug_barrier()  # the moves were stored by other threads
        for step in range(0, stop):
            slot = stop - 1 - step
            tl.store(states + row * slots + slot, tl.where(possible, state, -1).to(tl.int64))
            entry = tl.load(moves + (row * slots + slot) * SIZE + state // 2, mask=slot > 0, other=0).to(tl.int32)
            move = tl.where(state % 2 == 1, entry % 4, entry // 4)
            state = tl.where(possible & (slot > 0), state - move, state)

    return align


def viterbi_align_triton(
    log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, blank: int
) -> Tensor:
    """:func:`~nast_s2x.ctc.viterbi.viterbi_align` with lengths (B,) as tensors on the device; nothing is read back.

    Scores are computed in float32.
    """
    batch, slots, vocab = log_probs.shape
    labels = targets.size(1)
    size = max(2, 1 << labels.bit_length())  # a power of two above L: one place more than labels, for the last blank
    states = torch.full((batch, slots), -1, dtype=torch.long, device=log_probs.device)
    moves = torch.empty((batch, slots, size), dtype=torch.int8, device=log_probs.device)
    _kernel()[(batch,)](
        log_probs.contiguous(), targets.contiguous(), lengths, target_lengths, moves, states,
        slots, labels, vocab, blank, SIZE=size, INFINITE=float("inf"),
    )  # fmt: skip
    return states
