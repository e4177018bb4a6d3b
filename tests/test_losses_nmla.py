"""NMLA losses against enumeration of all paths, the pairwise definition, and recorded values."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch
from loss_inputs import bigram_counts, lengths_of, nmla_loss, targets_of, valid_positions
from recorded_cases import CASES, recorded_losses

from nast_s2x.ctc import ctc_collapse
from nast_s2x.losses.nmla import (
    ExpectedBigrams,
    ExpectedLength,
    add_columns,
    expected_bag_of_words,
    label_counts,
    linear_scan,
)
from nast_s2x.losses.nmla_pairwise import nmla_loss_pairwise

BLANK = 3


def example(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Four sentences over labels 0-2 and blank 3, with repeated labels and bigrams, one padded and one short target."""
    logits = torch.randn(4, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    targets = torch.tensor([[0, 2, 2, 0, 2], [2, 2, 2, 1, 1], [0, 2, 0, 1, 1], [2, 1, 1, 1, 1]])
    return logits, torch.tensor([6, 5, 3, 6]), targets, torch.tensor([5, 3, 3, 1])


def enumerate_counts(probs: torch.Tensor) -> tuple[Counter, Counter]:
    """Expected counts of labels and bigrams in the collapsed output, summed over all paths of probs (T, V)."""
    words, bigrams = Counter(), Counter()
    for path in itertools.product(range(probs.size(1)), repeat=probs.size(0)):
        weight = float(torch.stack([probs[slot, label] for slot, label in enumerate(path)]).prod())
        tokens = ctc_collapse(path, BLANK)
        for token in tokens:
            words[token] += weight
        for pair in zip(tokens, tokens[1:], strict=False):
            bigrams[pair] += weight
    return words, bigrams


@pytest.fixture(scope="module")
def enumerated() -> list[tuple[Counter, Counter]]:
    logits, lengths, *_ = example()
    probs = logits.detach().softmax(-1)
    return [enumerate_counts(probs[row, : lengths[row]]) for row in range(4)]


def test_expected_counts_are_those_of_all_paths(enumerated: list[tuple[Counter, Counter]]) -> None:
    logits, lengths, targets, _ = example()
    probs, valid = logits.detach().softmax(-1), valid_positions(lengths, 6)
    bigrams = ExpectedBigrams.apply(probs, valid, targets, BLANK)
    bag, length = expected_bag_of_words(probs, valid, BLANK), ExpectedLength.apply(probs, valid, BLANK)
    for row, (words, pairs) in enumerate(enumerated):
        assert bag[row].tolist() == pytest.approx([words[label] for label in range(4)], abs=1e-12)
        assert float(length[row]) == pytest.approx(sum(words.values()), abs=1e-12)
        labels = targets[row].tolist()
        assert bigrams[row].tolist() == pytest.approx([pairs[pair] for pair in zip(labels, labels[1:], strict=False)])


def reference_parts(enumerated: list[tuple[Counter, Counter]], order: int) -> list[tuple[float, float, int]]:
    """Score, expected n-grams and target length of each sentence, from the enumerated counts."""
    _, _, targets, target_lengths = example()
    parts = []
    for row, (words, pairs) in enumerate(enumerated):
        size = int(target_lengths[row])
        labels = [label for label in targets[row, :size].tolist() if label != 1]
        if order == 1:
            count = Counter(labels)
            score = sum(abs(words[label] - count[label]) for label in range(3))
        else:
            count = Counter(zip(labels, labels[1:], strict=False))
            score = -2 * sum(min(pairs[pair], number) for pair, number in count.items())
        parts.append((score, sum(words.values()), size))
    return parts


@pytest.mark.parametrize("order", [1, 2])
def test_loss_follows_its_definition(enumerated: list[tuple[Counter, Counter]], order: int) -> None:
    parts = reference_parts(enumerated, order)
    fixed = 2 if order == 2 else 0
    score, length, _ = (sum(column) / 4 for column in zip(*parts, strict=True))
    batch = nmla_loss(*example(), BLANK, order=order)
    assert float(batch) == pytest.approx(score / (5 + length - fixed), rel=1e-12)
    # The last target has one label, so no bigram, and (for order 2) an expected number of bigrams below 0.
    kept = [part[:4] for part in example()]
    sentence = nmla_loss(*kept, BLANK, order=order, normalization="sentence")
    values = [score / max(size + length - fixed, 1e-6) for score, length, size in parts]
    assert values[3] == 0.0 or order == 1
    assert float(sentence) == pytest.approx(sum(values) / 4, rel=1e-12)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("normalization", ["batch", "sentence"])
def test_gradient_is_the_derivative(order: int, normalization: str) -> None:
    logits, *rest = example()
    assert torch.autograd.gradcheck(
        lambda x: nmla_loss(x, *rest, BLANK, order=order, normalization=normalization), (logits.requires_grad_(),)
    )


@pytest.mark.parametrize("slots", [1, 2, 3, 7, 16, 23])
def test_scan_is_the_recurrence(slots: int) -> None:
    generator = torch.Generator().manual_seed(2)
    decay = torch.rand(slots, 2, 1, generator=generator, dtype=torch.float64)
    decay[slots // 2, 0], decay[slots - 1, 1] = 0.0, 1.0
    inputs = torch.randn(slots, 2, 3, generator=generator, dtype=torch.float64)
    state, expected = torch.zeros(2, 3, dtype=torch.float64), []
    for slot in range(slots):
        state = decay[slot] * state + inputs[slot]
        expected.append(state)
    assert torch.allclose(linear_scan(decay, inputs), torch.stack(expected), rtol=1e-12, atol=1e-12)
    assert linear_scan(decay[:0], inputs[:0]).shape == (0, 2, 3)


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_building_blocks_have_the_derivatives_of_their_forms(slots: int) -> None:
    generator = torch.Generator().manual_seed(2)
    probs = torch.rand(2, slots, 4, generator=generator, dtype=torch.float64)
    probs[0, slots // 2] = torch.tensor([0.0, 0.0, 0.0, 1.0])  # a certain blank, in the middle
    probs[1, slots // 2, BLANK] = 0.0
    probs.requires_grad_()
    valid = valid_positions(torch.tensor([slots, (slots + 1) // 2]), slots)
    targets = torch.tensor([[0, 2, 2, 0], [1, 1, 1, 2]])
    assert torch.autograd.gradcheck(lambda x: ExpectedLength.apply(x, valid, BLANK), (probs,))
    assert torch.autograd.gradcheck(lambda x: ExpectedBigrams.apply(x, valid, targets, BLANK), (probs,))
    bag = expected_bag_of_words(probs, valid, BLANK).sum(1)
    assert torch.allclose(ExpectedLength.apply(probs, valid, BLANK), bag)


def loss_and_gradient(loss: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


def longer_example(slots: int, scale: float, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(3, slots, 9, generator=generator, dtype=torch.float64) * scale
    lengths = torch.tensor([slots, slots - 3, slots // 2])
    targets = torch.randint(2, 8, (3, 12), generator=generator)
    return logits.to(dtype).requires_grad_(), lengths, targets, torch.tensor([12, 7, 2])


@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0, 2000.0])
def test_loss_and_gradient_equal_the_pairwise_form(scale: float) -> None:
    # At scale 2000 probabilities underflow to 0 and round to 1.
    logits, *rest = longer_example(30, scale)
    if scale == 2000.0:
        assert ((logits.softmax(-1) == 0) | (logits.softmax(-1) == 1)).float().mean() > 0.9
    ours = loss_and_gradient(nmla_loss(logits, *rest, 8), logits)
    pairwise = loss_and_gradient(nmla_loss_pairwise(logits, lengths_of(rest[0]), targets_of(*rest[1:]), 8), logits)
    for mine, oracle in zip(ours, pairwise, strict=True):
        assert torch.isfinite(mine).all()
        assert torch.allclose(mine, oracle, rtol=1e-10, atol=1e-13)
    assert ours[0].item() < -1e-3


def test_certain_output_equal_to_the_target_is_best() -> None:
    # <s> 5 5 6 </s> as labels 0 5 blank 5 6 2 with probability exactly 1 each.
    path, targets = torch.tensor([[0, 5, 7, 5, 6, 6, 2]]), torch.tensor([[0, 5, 5, 6, 2]])
    logits = torch.nn.functional.one_hot(path, 8).float().mul(1e4).requires_grad_()
    sizes = torch.tensor([7]), targets, torch.tensor([5])
    for normalization in ("batch", "sentence"):
        best = nmla_loss(logits, *sizes, 7, normalization=normalization)
        assert best.item() == -1.0
        assert nmla_loss(logits, *sizes, 7, order=1, normalization=normalization).item() == 0.0
        assert torch.isfinite(torch.autograd.grad(best, logits)[0]).all()


def test_float32_is_stable_over_thousands_of_slots() -> None:
    logits, *rest = longer_example(3000, 3.0)
    with torch.no_grad():
        logits[:, :, 8] += 14.0  # mostly blanks, as trained models have them
    exact = loss_and_gradient(nmla_loss(logits, *rest, 8), logits)
    single = logits.detach().float().requires_grad_()
    ours = loss_and_gradient(nmla_loss(single, *rest, 8), single)
    assert ours[0].item() == pytest.approx(exact[0].item(), rel=1e-5)
    assert float((ours[1] - exact[1]).abs().max()) < 1e-5 * float(exact[1].abs().max())


@pytest.mark.parametrize("order", [1, 2])
def test_padding_does_not_matter(order: int) -> None:
    logits, lengths, targets, target_lengths = example()
    logits.requires_grad_()
    loss = nmla_loss(logits, lengths, targets, target_lengths, BLANK, order=order)
    longer = torch.cat([logits, torch.full((4, 3, 4), 50.0, dtype=torch.float64)], 1)
    assert nmla_loss(longer, lengths, targets, target_lengths, BLANK, order=order).item() == pytest.approx(loss.item())
    gradient = torch.autograd.grad(nmla_loss(longer, lengths, targets, target_lengths, BLANK, order=order), logits)[0]
    assert gradient[2, 3:].abs().max() == 0  # slots past the end of a sentence
    # The paper's normalisation does not even depend on the padded target length or on the other sentences.
    wider = torch.cat([targets, torch.full((4, 2), 1)], 1)
    whole = nmla_loss(longer, lengths, wider, target_lengths, BLANK, order=order, normalization="sentence")
    rows = [
        nmla_loss(logits[row : row + 1, :length], lengths[row : row + 1], targets[row : row + 1, :size],
                  target_lengths[row : row + 1], BLANK, order=order, normalization="sentence")
        for row, (length, size) in enumerate(zip([6, 5, 3, 6], [5, 3, 3, 1], strict=True))
    ]  # fmt: skip
    assert whole.item() == pytest.approx(sum(row.item() for row in rows) / 4)


@pytest.mark.parametrize("normalization", ["batch", "sentence"])
@pytest.mark.parametrize("width", [0, 1, 2])
def test_targets_without_bigrams_match_nothing(width: int, normalization: str) -> None:
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.full((2, width), 2)
    target_lengths = torch.tensor([min(width, 1), 0])
    for order in (1, 2):
        loss = nmla_loss(logits, torch.tensor([4, 0]), targets, target_lengths, 4, order, normalization)
        gradient = torch.autograd.grad(loss, logits)[0]
        assert torch.isfinite(gradient).all()
        if order == 2:
            assert loss.item() == 0.0 and gradient.abs().max() == 0


def test_half_precision_is_computed_in_float32() -> None:
    logits, *rest = longer_example(40, 1.0)
    half = logits.detach().half()
    loss = nmla_loss(half, *rest, 8)
    assert loss.dtype == torch.float32
    assert loss.item() == float(nmla_loss(half.float(), *rest, 8))


def test_counts_of_target_bigrams_are_told_once() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 3, (5, 9), generator=generator)
    lengths = torch.tensor([9, 5, 2, 1, 0])
    valid = valid_positions(lengths, 9) & (targets != 1)
    told = bigram_counts(targets, valid)
    for row in range(5):
        labels = targets[row, : lengths[row]].tolist()
        expected = Counter(pair for pair in zip(labels, labels[1:], strict=False) if 1 not in pair)
        found: dict[tuple[int, int], int] = {}
        for slot in told[row].nonzero()[:, 0].tolist():
            pair = (int(targets[row, slot]), int(targets[row, slot + 1]))
            assert pair not in found
            found[pair] = int(told[row, slot])
        assert found == expected
    counts = label_counts(targets, valid, 4)
    assert counts.tolist() == [[int((valid & (targets == label))[row].sum()) for label in range(4)] for row in range(5)]


def test_errors_name_the_argument_and_its_value() -> None:
    with pytest.raises(ValueError, match="order must be 1 or 2, got 3"):
        nmla_loss(*example(), BLANK, order=3)
    with pytest.raises(ValueError, match="normalization must be 'batch' or 'sentence', got 'token'"):
        nmla_loss(*example(), BLANK, normalization="token")
    logits, lengths, targets, target_lengths = example()
    with pytest.raises(ValueError, match="targets must have 4 rows, got 3"):
        nmla_loss(logits, lengths, targets[:3], target_lengths[:3], BLANK)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_recorded_losses(path: Path) -> None:
    cases = list(recorded_losses(path, "nmla"))
    assert cases
    for arguments, expected in cases:
        assert float(nmla_loss(*arguments)) == pytest.approx(expected, rel=1e-5)


def test_columns_of_equal_labels_are_added_without_collisions() -> None:
    """The form for GPUs equals a scatter that adds, also where a label repeats."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (3, 9), generator=generator)
    labels[1, 4:] = 1
    columns = torch.randn(7, 3, 9, generator=generator, dtype=torch.float64)
    expected = torch.zeros(7, 3, 6, dtype=torch.float64)
    expected.scatter_add_(2, labels.expand(7, 3, 9), columns)
    found = torch.zeros_like(expected)
    add_columns(found, labels, columns)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
