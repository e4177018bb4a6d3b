"""Rates, policies, lengths, emission times, and visibility written out as literal matrices."""

import itertools

import pytest
import torch

from nast_s2x.batches import Lengths
from nast_s2x.chunking import ChunkGeometry, ChunkPolicy, SequenceLayout, SlotRates, attention_mask, may_attend
from nast_s2x.errors import ConfigError
from nast_s2x.tasks.policies import draw_policy


def matrix(*rows: str) -> torch.Tensor:
    """Rows of x (visible) and . (hidden)."""
    return torch.tensor([[mark == "x" for mark in row] for row in rows])


def geometry(chunk_ms: int | None, lookahead_ms: int | None = None, **rates: int) -> ChunkGeometry:
    return ChunkGeometry(SlotRates(**rates), ChunkPolicy(chunk_ms, lookahead_ms))


def test_encoder_visibility_with_lookahead() -> None:
    # Five frames in chunks of two, one look-ahead copy for each complete chunk: copies of frames 2 and 4.
    sequence = SequenceLayout.plain(0, 5, 2) + SequenceLayout.copies((0, 2), 2, 1, available=5)
    assert sequence.position.tolist() == [0, 1, 2, 3, 4, 2, 4]
    expected = matrix(
        "xx...x.",
        "xx...x.",
        "xxxx..x",
        "xxxx..x",
        "xxxxx..",
        "xx...x.",
        "xxxx..x",
    )
    assert torch.equal(may_attend(sequence, sequence), expected)


def test_left_context_of_0_1_and_2_chunks() -> None:
    sequence = SequenceLayout.plain(0, 4, 1) + SequenceLayout.copies((0, 4), 1, 1, available=4)
    assert sequence.position.tolist() == [0, 1, 2, 3, 1, 2, 3]
    none = matrix("x...x..", ".x...x.", "..x...x", "...x...", "x...x..", ".x...x.", "..x...x")
    one = matrix("x...x..", "xx...x.", ".xx...x", "..xx...", "x...x..", "xx...x.", ".xx...x")
    two = matrix("x...x..", "xx...x.", "xxx...x", ".xxx...", "x...x..", "xx...x.", "xxx...x")
    for left, expected in ((0, none), (1, one), (2, two)):
        assert torch.equal(may_attend(sequence, sequence, left=left), expected), left
    everything = may_attend(sequence, sequence)
    assert torch.equal(may_attend(sequence, sequence, left=3), everything)


def test_left_context_with_wait() -> None:
    slots, frames = SequenceLayout.plain(0, 4, 1), SequenceLayout.plain(0, 4, 1)
    assert torch.equal(may_attend(slots, frames, wait=1, left=0), matrix("xx..", ".xx.", "..xx", "...x"))
    assert torch.equal(may_attend(slots, frames, wait=1, left=1), matrix("xx..", "xxx.", ".xxx", "..xx"))


def test_lookahead_longer_than_the_chunk_and_cut_at_the_end() -> None:
    copies = SequenceLayout.copies((0, 2), 2, 3, available=5)
    assert copies.position.tolist() == [2, 3, 4, 4]
    assert copies.chunk.tolist() == [0, 0, 0, 1]


def test_cross_visibility_with_wait() -> None:
    slots, frames = SequenceLayout.plain(0, 3, 1), SequenceLayout.plain(0, 6, 2)
    assert torch.equal(may_attend(slots, frames), matrix("xx....", "xxxx..", "xxxxxx"))
    assert torch.equal(may_attend(slots, frames, wait=1), matrix("xxxx..", "xxxxxx", "xxxxxx"))


def test_a_stream_continues_the_whole_matrix() -> None:
    whole = SequenceLayout.plain(0, 9, 2)
    rows = [may_attend(SequenceLayout.plain(a, b, 2), SequenceLayout.plain(0, 9, 2)) for a, b in ((0, 4), (4, 9))]
    assert torch.equal(torch.cat(rows), may_attend(whole, whole))


def test_rows_at_different_places() -> None:
    # Layouts (B, T): each row has its own positions.
    chunk = torch.tensor([[0, 1], [5, 6]])
    rows = SequenceLayout(chunk, chunk, torch.zeros_like(chunk, dtype=torch.bool))
    assert may_attend(rows, rows, left=0).tolist() == [[[True, False], [False, True]]] * 2
    assert attention_mask(rows, rows).shape == (2, 1, 2, 2)


def test_padding_and_full_visibility() -> None:
    whole = SequenceLayout.plain(0, 3, None)
    assert attention_mask(whole, whole) is None
    padded = SequenceLayout.plain(0, 3, None, Lengths((3, 1)))
    assert attention_mask(whole, padded)[1, 0].tolist() == [[True, False, False]] * 3
    assert attention_mask(whole, SequenceLayout.plain(0, 3, None, Lengths((3, 3)))) is None


def test_full_visibility_is_decided_on_the_host_and_exactly() -> None:
    """No mask if and only if every pair is visible, for chunks, copies, wait and left context."""
    seen = {True: 0, False: 0}
    for start, size, width, wait, left in itertools.product((0, 2, 4), (1, 2, 4), (0, 1, 3), (0, 1, 9), (0, 1, None)):
        stop = start + size
        query, key = SequenceLayout.plain(start, stop, 2), SequenceLayout.plain(0, stop, 2)
        if width:
            copies = SequenceLayout.copies((start // 2, stop // 2), 2, width, available=stop + width)
            query, key = query + copies, key + copies
        everything = bool(may_attend(query, key, wait, left).all())
        assert (attention_mask(query, key, wait, left) is None) == everything
        seen[everything] += 1
    assert min(seen.values()) > 20


@pytest.mark.parametrize(
    "frames, encoder, text, unit", [(0, 0, 0, 0), (1, 1, 1, 6), (4, 1, 1, 6), (5, 2, 1, 6), (9, 3, 2, 12)]
)
def test_lengths(frames: int, encoder: int, text: int, unit: int) -> None:
    axes = ("encoder", "text", "unit")
    assert tuple(geometry(320).length(axis, frames) for axis in axes) == (encoder, text, unit)


def test_upsampled_slots() -> None:
    cut = geometry(320, 160, text_upsample=3, unit_upsample=2)
    assert (cut.per_chunk("text"), cut.per_chunk("unit"), cut.length("text", 33)) == (12, 24, 15)
    assert (cut.step_ms("encoder"), cut.step_ms("text"), cut.step_ms("unit")) == (40.0, 80 / 3, 80 / 6)


def test_emission_times() -> None:
    cut = ChunkGeometry(SlotRates(), ChunkPolicy(320, wait_chunks=1))
    assert [cut.emission_ms(chunk) for chunk in (0, 1)] == [975.0, 1295.0]
    assert geometry(320).emission_ms(0) == 655.0
    assert [cut.ready_chunks(frames) for frames in (0, 63, 64, 95, 96)] == [0, 0, 1, 1, 2]
    with pytest.raises(ConfigError, match="offline"):
        geometry(None).emission_frames(0)


def test_offline_is_one_chunk() -> None:
    policy = ChunkPolicy(None, lookahead_ms=320, wait_chunks=2, left_chunks=1)
    assert policy == ChunkPolicy(None) and policy.is_offline and policy.name == str(policy) == "offline"
    assert geometry(None).ready_chunks(10**6) == 0 and geometry(None).per_chunk("text") is None
    assert ChunkPolicy.from_dict(policy.to_dict()) == policy


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"chunk_ms": 200}, "`chunk_ms` must be a multiple of 80 for this model, but is 200"),
        ({"chunk_ms": 0}, "`chunk_ms` must be a whole number of at least 1, but is 0"),
        ({"chunk_ms": 325}, "`chunk_ms` must be a multiple of 10, but is 325"),
        ({"chunk_ms": 320.0}, "`chunk_ms` must be a whole number .* but is 320.0"),
        ({"chunk_ms": 320, "lookahead_ms": 30}, "`lookahead_ms` must be a multiple of 40 for this model, but is 30"),
        ({"chunk_ms": 320, "lookahead_ms": -40}, "`lookahead_ms` must be a whole number of at least 0, but is -40"),
        ({"chunk_ms": 320, "wait_chunks": -1}, "`wait_chunks` must be a whole number of at least 0, but is -1"),
        ({"chunk_ms": 320, "left_chunks": True}, "`left_chunks` must be a whole number of at least 0, but is True"),
    ],
)
def test_a_bad_policy_names_the_value(fields: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ChunkGeometry(SlotRates(), ChunkPolicy(**fields))


def test_bad_rates_and_dictionaries() -> None:
    with pytest.raises(ConfigError, match="`pooling` must be a whole number of at least 1, but is 0"):
        SlotRates(pooling=0)
    with pytest.raises(ConfigError, match="a table of slot rates has no entry 'poling'"):
        SlotRates.from_dict({"poling": 2})
    with pytest.raises(ConfigError, match="a chunk policy has no entry 'chunk'"):
        ChunkPolicy.from_dict({"chunk_ms": 320, "chunk": 1})
    with pytest.raises(ConfigError, match="needs the entry `chunk_ms`"):
        ChunkPolicy.from_dict({})


def test_parse() -> None:
    assert [policy.chunk_ms for policy in ChunkPolicy.parse("1280, Offline 320,320")] == [320, 1280, None]
    assert ChunkPolicy.parse(320, 160, 1, 1000) == (ChunkPolicy(320, 160, 1, 4),)
    for text in ("0", "-320", "325", "fast", " , "):
        with pytest.raises(ConfigError, match=text.strip() or "chunk_ms"):
            ChunkPolicy.parse(text)


def test_left_contexts_of_a_list() -> None:
    policies = ChunkPolicy.parse("640,320,offline", left_ms="unlimited, 1000")
    assert [(policy.name, policy.left_chunks) for policy in policies] == [
        ("320", None), ("320", 4), ("640", None), ("640", 2), ("offline", None),
    ]  # fmt: skip
    assert ChunkPolicy.parse("320", left_ms="1000") == ChunkPolicy.parse("320", left_ms=1000)
    for wrong in ("", "1.5", "all"):
        with pytest.raises(ConfigError, match="left_ms"):
            ChunkPolicy.parse("320", left_ms=wrong)


def test_training_draws_chunk_sizes_first() -> None:
    """A list of left contexts does not change how often a chunk size is drawn, nor which."""
    plain, both = ChunkPolicy.parse("320,640,offline"), ChunkPolicy.parse("320,640,offline", left_ms="unlimited,1000")
    drawn = [(draw_policy(plain, 1, update), draw_policy(both, 1, update)) for update in range(300)]
    assert all(one.name == other.name for one, other in drawn)
    limited = sum(other.left_chunks is not None for _, other in drawn)
    assert 70 < limited < 130
