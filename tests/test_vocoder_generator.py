"""The unit vocoder's generator: batches, context, durations."""

from __future__ import annotations

import pytest
import torch
from random_vocoder import NUM_UNITS, make_vocoder

from nast_s2x.vocoder.config import UNIT_SAMPLES


def random_frames(*shape: int) -> torch.Tensor:
    return torch.randint(NUM_UNITS, shape, generator=torch.Generator().manual_seed(1))


def test_a_batch_equals_its_sequences_one_by_one() -> None:
    model, lengths = make_vocoder(), torch.tensor([31, 7, 1, 20, 0])
    frames = random_frames(5, 31)
    batch = model(frames, lengths)
    assert batch.shape == (5, 31 * UNIT_SAMPLES)
    for row, length in enumerate(lengths.tolist()):
        alone = model(frames[row : row + 1, :length])[0]
        torch.testing.assert_close(batch[row, : length * UNIT_SAMPLES], alone, rtol=0, atol=1e-5)
        assert not batch[row, length * UNIT_SAMPLES :].any()


def test_what_lies_behind_a_sequence_changes_nothing() -> None:
    model, lengths = make_vocoder(), torch.tensor([12, 5])
    frames = random_frames(2, 12)
    other = frames.clone()
    other[1, 5:] = (other[1, 5:] + 1) % NUM_UNITS
    assert torch.equal(model(frames, lengths), model(other, lengths))
    assert torch.equal(model.durations(frames, lengths), model.durations(other, lengths))


def test_durations_of_a_batch() -> None:
    model, lengths = make_vocoder(), torch.tensor([15, 4, 1])
    units = random_frames(3, 15)
    batch = model.durations(units, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(batch[row, :length], model.durations(units[row : row + 1, :length])[0])
        assert not batch[row, length:].any()
    assert batch[0].min() >= 1 and batch[0].max() > 1


def test_a_unit_reaches_no_further_than_the_receptive_field() -> None:
    model = make_vocoder().double()
    frames = random_frames(1, 71)
    other = frames.clone()
    other[0, 35] = (other[0, 35] + 1) % NUM_UNITS
    changed = (model(frames) != model(other))[0].view(-1, UNIT_SAMPLES).any(1).nonzero()[:, 0]
    reach = max(35 - int(changed[0]), int(changed[-1]) - 35)
    # The outermost frame counts for less than float64 can tell.
    assert 19 <= reach <= model.receptive_frames == 21


@pytest.mark.parametrize("skip", [0, 1, 5, 20, 23, 30, 39])
def test_skipped_context_counts_in_full_and_is_not_returned(skip: int) -> None:
    model, frames = make_vocoder(), random_frames(1, 40)
    whole = model(frames)
    torch.testing.assert_close(model(frames, skip=skip), whole[:, skip * UNIT_SAMPLES :], rtol=0, atol=1e-5)
    lengths = torch.tensor([33])
    torch.testing.assert_close(
        model(frames, lengths, skip=skip), model(frames, lengths)[:, skip * UNIT_SAMPLES :], rtol=0, atol=1e-5
    )


def test_empty_input_gives_empty_output() -> None:
    model = make_vocoder()
    assert model(torch.zeros(1, 0, dtype=torch.long)).shape == (1, 0)
    assert model(random_frames(2, 3), skip=3).shape == (2, 0)
    assert model.durations(torch.zeros(2, 0, dtype=torch.long)).shape == (2, 0)


def test_durations_need_a_predictor() -> None:
    with pytest.raises(ValueError, match="no duration predictor"):
        make_vocoder(durations=False).durations(random_frames(1, 3))


def test_half_precision_with_lengths() -> None:
    model, frames, lengths = make_vocoder(), random_frames(2, 9), torch.tensor([9, 4])
    expected = model(frames, lengths)
    found = model.to(torch.bfloat16)(frames, lengths)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.2)
