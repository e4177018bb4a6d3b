"""Glancing: schedule, probabilities against recorded ones, and what a glancer shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from loss_inputs import glance_probability, make_glancer

from nast_s2x.losses import GlancingSchedule

PARITY = Path(__file__).parent / "fixtures" / "parity"


def test_schedule_is_piecewise_linear() -> None:
    schedule = GlancingSchedule("0.5:0.3@50k")
    values = [schedule(update) for update in (0, 10_000, 25_000, 50_000, 1_000_000)]
    assert values == pytest.approx([0.5, 0.46, 0.4, 0.3, 0.3])
    assert GlancingSchedule("0.3")(7) == 0.3
    longer = GlancingSchedule("0.5 : 0.3@500 : 0.1@1.5k : 1@0.002M")
    assert [longer(update) for update in (250, 500, 1000, 1500, 1750, 9999)] == pytest.approx(
        [0.4, 0.3, 0.2, 0.1, 0.55, 1.0]
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [("", "''"), ("half", "'half'"), ("0.5:0.3", "'0.3'"), ("1.5", "1.5"), ("0.5:-1@5", "-1"), ("0.5:nan@5", "nan"),
     ("0.5:0.3@5:0.1@5", "must increase, got 5"), ("0.5:0.3@0", "must increase, got 0"), ("0.5:0.3@1.2.3", "1.2.3")],
)  # fmt: skip
def test_schedule_refuses_what_it_does_not_understand(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        GlancingSchedule(text)


@pytest.mark.parametrize("path", sorted(PARITY.glob("s2*.npz")), ids=lambda path: path.stem)
def test_recorded_keep_probabilities(path: Path) -> None:
    data = np.load(path)
    for kind, ratio in (("text", 0.5), ("unit", 0.3)):
        if f"out/glance/{kind}_labels" not in data:
            continue
        predictions = torch.from_numpy(data[f"out/{kind}_log_probs"]).argmax(-1)
        lengths = torch.from_numpy(~data[f"out/{kind}_padding_mask"]).sum(1)
        labels = torch.from_numpy(data[f"out/glance/{kind}_labels"])
        probability = glance_probability(predictions, labels, lengths, ratio)
        assert np.allclose(probability.numpy(), data[f"out/glance/{kind}_keep_probability"], atol=1e-6)


def glance_inputs() -> tuple[torch.Tensor, ...]:
    """Two long sentences and one whose target does not fit: logits, lengths, targets, target lengths; blank 5."""
    logits = torch.randn(3, 400, 6, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[0, 4, 3, 4, 2], [0, 3, 2, 1, 1], [0, 4, 4, 2, 1]])
    return logits, torch.tensor([400, 300, 4]), targets, torch.tensor([5, 3, 4])


def test_glancer_shows_aligned_labels_at_the_asked_rate() -> None:
    logits, lengths, targets, target_lengths = glance_inputs()
    statistics: dict[str, float] = {}
    generator = torch.Generator().manual_seed(1)
    glancer = make_glancer(targets, target_lengths, 5, 0.5, generator, statistics)
    labels, mask = glancer(logits.requires_grad_(), lengths)
    assert not labels.requires_grad
    assert mask.dtype == torch.bool and mask.shape == labels.shape == (3, 400)
    assert not mask[1, 300:].any() and (labels[1, 300:] == 1).all()
    assert not mask[2].any() and (labels[2] == 1).all()  # the infeasible one
    probability = glance_probability(logits.argmax(-1), labels, lengths, 0.5)
    rate = mask.sum(1) / lengths
    assert torch.allclose(rate[:2], probability[:2], atol=0.08) and probability[:2].min() > 0.2
    assert (labels[0][mask[0]] == 5).any()  # blanks are shown too
    labelled = (labels != 1) & (labels != 5)
    same = int(((logits.argmax(-1) == labels) & labelled).sum())
    assert statistics == {
        "slots": 700,
        "labelled": int(labelled.sum()),
        "same": same,
        "glanced": int(mask.sum()),
        "infeasible": 1,
    }
    glancer(logits, lengths)
    assert statistics["slots"] == 1400 and statistics["infeasible"] == 2  # counts add up


def test_blanks_do_not_count_as_right() -> None:
    """A model that outputs blanks only has no slot right, though most aligned labels are blanks."""
    _, lengths, targets, target_lengths = glance_inputs()
    statistics: dict[str, float] = {}
    logits = torch.nn.functional.one_hot(torch.full((3, 400), 5), 6).float() * 20
    make_glancer(targets, target_lengths, 5, 0.5, statistics=statistics)(logits, lengths)
    assert statistics["same"] == 0 and 0 < statistics["labelled"] < statistics["slots"] / 2


def test_glancer_is_reproducible_by_its_generator() -> None:
    logits, lengths, targets, target_lengths = glance_inputs()
    masks = [
        make_glancer(targets, target_lengths, 5, 0.5, torch.Generator().manual_seed(seed))(logits, lengths)[1]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    torch.manual_seed(4)
    first = make_glancer(targets, target_lengths, 5, 0.5)(logits, lengths)[1]
    torch.manual_seed(4)
    assert torch.equal(make_glancer(targets, target_lengths, 5, 0.5)(logits, lengths)[1], first)


def test_nothing_is_shown_of_what_the_model_knows_or_at_ratio_zero() -> None:
    logits, lengths, targets, target_lengths = glance_inputs()
    assert not make_glancer(targets, target_lengths, 5, 0.0)(logits, lengths)[1].any()
    path = torch.tensor([[0, 5, 4, 4, 3, 4, 2]])
    known = torch.nn.functional.one_hot(path, 6).float() * 20
    labels, mask = make_glancer(targets[:1], target_lengths[:1], 5, 1.0)(known, torch.tensor([7]))
    assert torch.equal(labels, path) and not mask.any()
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got 1.2"):
        make_glancer(targets, target_lengths, 5, 1.2)


def test_glancer_shows_the_recorded_labels_within_the_valid_slots() -> None:
    data = np.load(PARITY / "s2t_offline.npz")
    blank = json.loads(str(data["meta"]))["blank_text"]
    targets, logits = torch.from_numpy(data["in/target_text"]), torch.from_numpy(data["out/text_log_probs"])
    lengths = torch.from_numpy(~data["out/text_padding_mask"]).sum(1)
    labels, mask = make_glancer(targets, (targets != 1).sum(1), blank, 0.5)(logits, lengths)
    assert np.array_equal(labels.numpy(), data["out/glance/text_labels"])
    assert not (mask.numpy() & data["out/text_padding_mask"]).any()
