"""CTC collapse: from the labels of slots to tokens.

A CTC model predicts one *label* per *slot*; merging runs of equal labels and dropping the blank gives the *tokens*
(Graves et al., 2006, "Connectionist Temporal Classification").
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor


def ctc_collapse(labels: Sequence[int] | Tensor, blank: int, drop: Collection[int] = ()) -> list[int]:
    """Merge runs of equal labels, then leave out the blank and the labels in ``drop``.

    >>> ctc_collapse([5, 5, 9, 5, 0, 7, 7], blank=9, drop={0})
    [5, 5, 7]
    """
    return CtcCollapser(blank, drop).push(labels)


class CtcCollapser:
    """Collapse of a label stream that arrives in pieces: any cut gives the tokens of :func:`ctc_collapse`.

    The state is the last *label*, blank and dropped labels included: a piece that begins with the label that the
    previous piece ended with continues the same token.

    >>> collapser = CtcCollapser(blank=9)
    >>> collapser.push([5, 5]), collapser.push([5, 9]), collapser.push([5])
    ([5], [], [5])
    """

    def __init__(self, blank: int, drop: Collection[int] = ()) -> None:
        self.blank = blank
        self.drop = frozenset(drop) | {blank}
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
