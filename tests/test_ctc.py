"""Collapse, feasibility and alignment against enumeration of all paths and against recorded alignments."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from loss_inputs import is_feasible, viterbi_align

from nast_s2x.benchmarks.losses import viterbi_one
from nast_s2x.ctc import CtcCollapser, aligned_labels, ctc_collapse

PARITY = Path(__file__).parent / "fixtures" / "parity"


def test_collapse_merges_runs_then_drops() -> None:
    assert ctc_collapse([5, 5, 9, 5, 7, 7, 9, 9], blank=9) == [5, 5, 7]
    assert ctc_collapse([0, 5, 5, 0, 5, 2, 9], blank=9, drop={0, 2}) == [5, 5]
    assert ctc_collapse([], blank=9) == []
    assert ctc_collapse(torch.tensor([4, 4, 9, 4]), blank=9) == [4, 4]
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        ctc_collapse(torch.tensor([[4, 4]]), blank=9)


def test_every_cut_of_a_stream_gives_the_tokens_of_the_whole() -> None:
    rng = random.Random(0)
    for _ in range(20):
        labels = [rng.choice([0, 2, 4, 5, 9]) for _ in range(8)]
        whole = ctc_collapse(labels, 9, {0, 2})
        for cuts in itertools.product([False, True], repeat=len(labels) - 1):
            collapser, pieces, piece = CtcCollapser(9, {0, 2}), [], [labels[0]]
            for label, cut in zip(labels[1:], cuts, strict=True):
                if cut:
                    pieces.append(piece)
                    piece = []
                piece.append(label)
            pieces.append(piece)
            assert [token for piece in pieces for token in collapser.push(piece)] == whole


def test_stream_remembers_the_last_label_and_not_the_last_token() -> None:
    collapser = CtcCollapser(blank=9, drop={2})
    assert collapser.push([4, 4]) == [4]
    assert collapser.push([]) == []
    assert collapser.push([4, 9]) == []  # the same token goes on
    assert collapser.push([4, 2]) == [4]  # after a blank it is another one
    assert collapser.push(torch.tensor([5])) == [5]  # </s> at the end of a piece drops nothing after it


def test_slots_are_counted_from_the_beginning_of_the_stream() -> None:
    collapser = CtcCollapser(blank=9)
    assert collapser.push_with_slots([9, 4, 4]) == [(4, 1)]
    assert collapser.push_with_slots([4, 5, 9, 5]) == [(5, 4), (5, 6)]


def all_targets(labels: int, longest: int) -> list[tuple[int, ...]]:
    return [target for size in range(longest + 1) for target in itertools.product(range(labels), repeat=size)]


def padded(targets: list[tuple[int, ...]], width: int, pad: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [list(target) + [pad] * (width - len(target)) for target in targets]
    return torch.tensor(rows).reshape(len(targets), width), torch.tensor([len(target) for target in targets])


@pytest.mark.parametrize("slots", [0, 1, 3, 5])
def test_feasible_exactly_when_some_path_collapses_to_the_target(slots: int) -> None:
    reachable = {tuple(ctc_collapse(path, 2)) for path in itertools.product(range(3), repeat=slots)}
    targets = all_targets(2, 4)
    matrix, lengths = padded(targets, 4)
    feasible = is_feasible(matrix, lengths, torch.full((len(targets),), slots))
    assert feasible.tolist() == [target in reachable for target in targets]


def test_alignment_is_the_best_of_all_paths() -> None:
    targets, blank, slots = all_targets(2, 3), 2, 5
    generator = torch.Generator().manual_seed(1)
    log_probs = torch.randn(len(targets), slots, 3, generator=generator, dtype=torch.float64).log_softmax(-1)
    lengths = torch.tensor([slots - index % 4 for index in range(len(targets))])
    matrix, target_lengths = padded(targets, 3)
    labels = aligned_labels(viterbi_align(log_probs, lengths, matrix, target_lengths, blank), matrix, blank, pad=7)
    for row, target in enumerate(targets):
        length = int(lengths[row])
        best, score = [7] * length, -np.inf
        for path in itertools.product(range(3), repeat=length):
            value = sum(float(log_probs[row, slot, label]) for slot, label in enumerate(path))
            if tuple(ctc_collapse(path, blank)) == target and value > score:
                best, score = list(path), value
        assert labels[row].tolist() == best + [7] * (slots - length), target


def test_states_name_the_target_position() -> None:
    matrix = torch.tensor([[5, 5, 6]])
    log_probs = torch.full((1, 6, 8), -9.0)
    for slot, label in enumerate([7, 5, 7, 5, 6, 6]):
        log_probs[0, slot, label] = 0.0
    states = viterbi_align(log_probs, torch.tensor([6]), matrix, torch.tensor([3]), 7)
    assert states.tolist() == [[0, 1, 2, 3, 5, 5]]
    assert aligned_labels(states, matrix, 7).tolist() == [[7, 5, 7, 5, 6, 6]]


def test_ties_take_the_nearest_predecessor_and_end_in_the_label() -> None:
    log_probs = torch.zeros(2, 4, 6)
    states = viterbi_align(log_probs, torch.tensor([4, 4]), torch.tensor([[4, 3], [4, 1]]), torch.tensor([2, 1]), 5)
    assert states.tolist() == [[1, 3, 3, 3], [1, 1, 1, 1]]


def random_batch(batch: int, slots: int, vocab: int, labels: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    log_probs = torch.randn(batch, slots, vocab, generator=generator).log_softmax(-1)
    lengths = torch.randint(slots // 2, slots + 1, (batch,), generator=generator)
    targets = torch.randint(0, vocab - 1, (batch, labels), generator=generator)
    target_lengths = torch.randint(0, labels + 1, (batch,), generator=generator)
    return log_probs, lengths, targets, target_lengths


def test_batch_equals_single_sentences_and_plain_python() -> None:
    # float64: summed in another order, float32 scores may decide a near-tie the other way.
    log_probs, lengths, targets, target_lengths = random_batch(6, 40, 5, 15)
    log_probs = log_probs.double()
    states = viterbi_align(log_probs, lengths, targets, target_lengths, 4)
    infeasible = 0
    for row in range(6):
        length, size = int(lengths[row]), int(target_lengths[row])
        one = [part[row : row + 1] for part in (log_probs[:, :length], lengths, targets[:, :size], target_lengths)]
        alone = viterbi_align(*one, 4)[0].tolist()
        assert states[row].tolist() == alone + [-1] * (40 - length)
        plain = viterbi_one(log_probs[row, :length].tolist(), targets[row, :size].tolist(), 4)
        infeasible += not plain
        assert alone == (plain or [-1] * length)
    assert infeasible < 6


def test_infeasible_and_impossible_sentences_have_no_alignment() -> None:
    log_probs = torch.zeros(4, 3, 6)
    log_probs[2, :, 4] = float("-inf")  # label 4 never happens
    lengths, target_lengths = torch.tensor([3, 3, 3, 0]), torch.tensor([3, 2, 1, 1])
    targets = torch.tensor([[4, 4, 3], [4, 4, 1], [4, 1, 1], [4, 1, 1]])
    states = viterbi_align(log_probs, lengths, targets, target_lengths, 5)
    assert states.tolist() == [[-1] * 3, [1, 2, 3], [-1] * 3, [-1] * 3]
    assert aligned_labels(states, targets, 5)[0].tolist() == [1, 1, 1]


def test_empty_targets_and_empty_batches_of_slots() -> None:
    empty = torch.zeros(2, 0, dtype=torch.long)
    none = torch.tensor([0, 0])
    states = viterbi_align(torch.zeros(2, 3, 6), torch.tensor([3, 1]), empty, none, 5)
    assert states.tolist() == [[0, 0, 0], [0, -1, -1]]
    assert aligned_labels(states, empty, 5).tolist() == [[5, 5, 5], [5, 1, 1]]
    assert viterbi_align(torch.zeros(2, 0, 6), none, empty, none, 5).shape == (2, 0)


def test_half_precision_is_computed_in_float32() -> None:
    log_probs, lengths, targets, target_lengths = random_batch(3, 200, 5, 30)
    half = log_probs.half()
    expected = viterbi_align(half.float(), lengths, targets, target_lengths, 4)
    assert torch.equal(viterbi_align(half, lengths, targets, target_lengths, 4), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_alignments_of_the_cpu() -> None:
    batch = random_batch(4, 60, 5, 20)
    coarse = (batch[0] * 2).round() / 2  # many ties
    expected = viterbi_align(coarse, *batch[1:], 4)
    assert torch.equal(viterbi_align(*(part.cuda() for part in (coarse, *batch[1:])), 4).cpu(), expected)


def test_errors_name_the_argument_and_its_value() -> None:
    log_probs, targets, one = torch.zeros(1, 3, 6), torch.tensor([[4]]), torch.tensor([1])
    with pytest.raises(ValueError, match=r"lengths must lie between 0 and 3, got \[4\]"):
        viterbi_align(log_probs, torch.tensor([4]), targets, one, 5)
    with pytest.raises(ValueError, match="target_lengths must have 1 entries, got 2"):
        viterbi_align(log_probs, one, targets, torch.tensor([1, 1]), 5)
    with pytest.raises(ValueError, match=r"\(1, 3\)"):
        viterbi_align(log_probs[:, :, 0], one, targets, one, 5)


@pytest.mark.parametrize("path", sorted(PARITY.glob("s2*.npz")), ids=lambda path: path.stem)
def test_recorded_alignments(path: Path) -> None:
    data = np.load(path)
    meta = json.loads(str(data["meta"]))
    for kind, target_name in (("text", "in/target_text"), ("unit", "in/target_units")):
        if f"out/{kind}_log_probs" not in data:
            continue
        log_probs, targets = torch.from_numpy(data[f"out/{kind}_log_probs"]), torch.from_numpy(data[target_name])
        lengths = torch.from_numpy(~data[f"out/{kind}_padding_mask"]).sum(1)
        blank = meta[f"blank_{kind}"]
        states = viterbi_align(log_probs, lengths, targets, (targets != 1).sum(1), blank)
        if kind == "text":
            assert np.array_equal(states.numpy(), data["out/text_best_alignment"])
        labels = aligned_labels(states, targets, blank)
        assert np.array_equal(labels.numpy(), data[f"out/glance/{kind}_labels"])
