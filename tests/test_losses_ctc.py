"""CTC loss against enumeration of all paths and against recorded values."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from loss_inputs import ctc_loss
from recorded_cases import CASES, recorded_losses

from nast_s2x.ctc import ctc_collapse


def example(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Three sentences over labels 0-2 and blank 3; the second does not fit its slots."""
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    lengths = torch.tensor([5, 2, 4])
    targets = torch.tensor([[0, 2, 2], [2, 2, 1], [1, 1, 1]])
    return logits, lengths, targets, torch.tensor([3, 2, 1])


def likelihood(log_probs: torch.Tensor, target: list[int], blank: int) -> float:
    paths = itertools.product(range(log_probs.size(1)), repeat=log_probs.size(0))
    return sum(
        math.exp(sum(float(log_probs[slot, label]) for slot, label in enumerate(path)))
        for path in paths
        if ctc_collapse(path, blank) == target
    )


def test_loss_is_the_likelihood_of_all_paths_per_label() -> None:
    logits, lengths, targets, target_lengths = example()
    log_probs = logits.detach().log_softmax(-1)
    values = []
    for row in range(3):
        size = int(target_lengths[row])
        value = likelihood(log_probs[row, : lengths[row]], targets[row, :size].tolist(), 3)
        values.append(-math.log(value) / size if value else 0.0)
    assert values[1] == 0.0 and values[0] > 0  # an infeasible sentence counts as 0, and counts
    assert float(ctc_loss(logits, lengths, targets, target_lengths, 3)) == pytest.approx(sum(values) / 3, rel=1e-12)


def test_smoothing_is_one_mean_over_the_valid_slots_of_the_batch() -> None:
    batch = example()
    log_probs = batch[0].detach().log_softmax(-1)
    slots = [log_probs[row, slot] for row, length in enumerate([5, 2, 4]) for slot in range(length)]
    uniform = -float(torch.stack(slots).mean(-1).mean())
    plain, smoothed = float(ctc_loss(*batch, 3)), float(ctc_loss(*batch, 3, label_smoothing=0.1))
    assert smoothed == pytest.approx(0.9 * plain + 0.1 * uniform, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_of_an_infeasible_sentence_is_exactly_zero(dtype: torch.dtype) -> None:
    logits, lengths, targets, target_lengths = example(dtype)
    ctc_loss(logits.requires_grad_(), lengths, targets, target_lengths, 3).backward()
    assert torch.isfinite(logits.grad).all()
    assert torch.equal(logits.grad[1], torch.zeros_like(logits.grad[1]))
    assert (logits.grad[0] != 0).all()
    assert torch.equal(logits.grad[2, 4:], torch.zeros_like(logits.grad[2, 4:]))  # nor has padding a gradient


def test_gradient_is_the_derivative() -> None:
    logits, *rest = example()
    assert torch.autograd.gradcheck(lambda x: ctc_loss(x, *rest, 3, label_smoothing=0.1), (logits.requires_grad_(),))


def test_sentences_without_slots_or_labels() -> None:
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    lengths, target_lengths = torch.tensor([0, 3, 0]), torch.tensor([2, 0, 0])
    loss = ctc_loss(logits, lengths, torch.full((3, 2), 1), target_lengths, 4, label_smoothing=0.01)
    loss.backward()
    # The first does not fit, the others have no target.
    assert loss.item() == 0.0 and logits.grad.abs().max() == 0
    # Rows without a target change nothing, smoothing included.
    lengths, targets = torch.tensor([4, 3, 2]), torch.tensor([[1, 2], [1, 1], [3, 1]])
    mixed = ctc_loss(logits, lengths, targets, torch.tensor([2, 0, 1]), 4, label_smoothing=0.01)
    rows = [0, 2]
    alone = ctc_loss(logits[rows], lengths[rows], targets[rows], torch.tensor([2, 1]), 4, label_smoothing=0.01)
    assert mixed.item() == pytest.approx(alone.item(), rel=1e-6) and mixed.item() > 0


def test_a_batch_without_slots() -> None:
    logits = torch.zeros(2, 0, 5, requires_grad=True)
    loss = ctc_loss(logits, torch.tensor([0, 0]), torch.tensor([[1, 2], [1, 1]]), torch.tensor([2, 0]), 4, 0.01)
    loss.backward()
    assert loss.item() == 0.0 and logits.grad.shape == (2, 0, 5)


def test_padding_and_precision_do_not_matter() -> None:
    logits, lengths, targets, target_lengths = example(torch.float32)
    loss = ctc_loss(logits, lengths, targets, target_lengths, 3, 0.01)
    longer = torch.cat([logits, torch.full((3, 4, 4), 50.0)], 1)
    wider = torch.cat([targets, torch.full((3, 2), 2)], 1)
    assert torch.equal(ctc_loss(longer, lengths, wider, target_lengths, 3, 0.01), loss)
    half = ctc_loss(logits.half(), lengths, targets, target_lengths, 3, 0.01)
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(loss), rel=2e-3)


def test_errors_name_the_argument_and_its_value() -> None:
    logits, lengths, targets, target_lengths = example()
    with pytest.raises(ValueError, match="label_smoothing must lie in .0, 1., got 1.5"):
        ctc_loss(logits, lengths, targets, target_lengths, 3, 1.5)
    with pytest.raises(ValueError, match="blank must be a label of the 4 in logits, got 4"):
        ctc_loss(logits, lengths, targets, target_lengths, 4)
    with pytest.raises(ValueError, match=r"one per row and at most 5, got \(5, 2\) for logits of shape \(3, 5, 4\)"):
        ctc_loss(logits, lengths[:2], targets, target_lengths, 3)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_recorded_losses(path: Path) -> None:
    cases = list(recorded_losses(path, "ctc"))
    assert cases
    for arguments, expected in cases:
        assert float(ctc_loss(*arguments, 0.01)) == pytest.approx(expected, rel=1e-6)
