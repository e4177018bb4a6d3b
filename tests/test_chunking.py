"""Geometry, length maps, emission times, and visibility written out as literal matrices."""

import pytest
import torch

from nast_s2x.chunking import ChunkGeometry, SequenceLayout, attention_mask, may_attend, parse_chunk_ms


def matrix(*rows: str) -> torch.Tensor:
    """Rows of x (visible) and . (hidden)."""
    return torch.tensor([[mark == "x" for mark in row] for row in rows])


def test_encoder_visibility_with_lookahead() -> None:
    # Five frames in chunks of two, one look-ahead copy for each complete chunk: copies of frames 2 and 4.
    sequence = SequenceLayout.plain(0, 5, 2) + SequenceLayout.copies(0, 2, 2, 1, available=5)
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


def test_lookahead_longer_than_the_chunk_and_cut_at_the_end() -> None:
    copies = SequenceLayout.copies(0, 2, 2, 3, available=5)
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


def test_padding_and_full_visibility() -> None:
    whole = SequenceLayout.plain(0, 3, None)
    assert attention_mask(whole, whole) is None
    padded = SequenceLayout.plain(0, 3, None, torch.tensor([3, 1]))
    assert attention_mask(whole, padded)[1, 0].tolist() == [[True, False, False]] * 3


@pytest.mark.parametrize(
    "frames, encoder, text, unit", [(0, 0, 0, 0), (1, 1, 1, 6), (4, 1, 1, 6), (5, 2, 1, 6), (9, 3, 2, 12)]
)
def test_length_maps(frames: int, encoder: int, text: int, unit: int) -> None:
    geometry = ChunkGeometry(32, 32)
    assert (geometry.encoder_frames(frames), geometry.text_slots(frames), geometry.unit_slots(frames)) == (
        encoder,
        text,
        unit,
    )
    assert geometry.unit_slots(torch.tensor([frames])).tolist() == [unit]


def test_upsampled_slots() -> None:
    geometry = ChunkGeometry(32, 16, text_upsample=3, unit_upsample=2)
    assert (geometry.chunk_text_slots, geometry.chunk_unit_slots, geometry.text_slots(33)) == (12, 24, 15)


def test_emission_times() -> None:
    geometry = ChunkGeometry(32, 32, wait_chunks=1)
    assert [geometry.emission_ms(chunk) for chunk in (0, 1)] == [975.0, 1295.0]
    assert ChunkGeometry(32, 32).emission_ms(0) == 655.0
    assert [geometry.ready_chunks(frames) for frames in (0, 63, 64, 95, 96)] == [0, 0, 1, 1, 2]
    with pytest.raises(ValueError, match="offline"):
        ChunkGeometry(None).emission_frames(0)


def test_offline_is_one_chunk() -> None:
    geometry = ChunkGeometry(None, lookahead_frames=32, wait_chunks=2)
    assert geometry.offline and geometry.lookahead_frames == 0 and geometry.wait_chunks == 0
    assert geometry.name == "offline" and geometry.chunk_ms is None and geometry.ready_chunks(10**6) == 0
    assert ChunkGeometry.from_dict(geometry.to_dict()) == geometry


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"chunk_frames": 20}, "multiple of subsampling \\* pooling = 8 frames \\(80 ms\\), got 20"),
        ({"chunk_frames": 0}, "got 0"),
        ({"chunk_frames": 32, "lookahead_frames": 3}, "multiple of subsampling = 4 frames .* got 3"),
        ({"chunk_frames": 32, "lookahead_frames": -4}, "must not be negative, got -4"),
        ({"chunk_frames": 32, "wait_chunks": -1}, "wait_chunks must not be negative"),
        ({"chunk_frames": 32, "pooling": 0}, "pooling must be at least 1, got 0"),
    ],
)
def test_bad_geometry_names_the_value(fields: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ChunkGeometry(**fields)


def test_parse_chunk_ms() -> None:
    assert [parse_chunk_ms(text) for text in ("320", " Offline ", "1280")] == [32, None, 128]
    for text in ("0", "-320", "325", "fast"):
        with pytest.raises(ValueError, match=text):
            parse_chunk_ms(text)
