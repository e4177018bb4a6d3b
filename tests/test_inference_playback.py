"""Playback, stereo mix and captions: worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nast_s2x.inference.playback import Playback, captions, stereo

RATE = 1000  # a sample a millisecond


def play(*pieces: tuple[float, int], buffer_ms: float = 0.0) -> Playback:
    """Pieces of (time available, number of samples), filled with 1, 2, 3, ..."""
    playback = Playback(buffer_ms, RATE)
    for value, (available, samples) in enumerate(pieces, 1):
        playback.add(available, np.full(samples, value, np.float32))
    return playback


def starts(playback: Playback) -> list[float]:
    return [start for start, _ in playback.pieces]


def test_a_piece_waits_for_the_one_before_it_and_a_late_one_leaves_a_gap() -> None:
    # The first sounds 5..8; the second is there at 6 and waits; the third is there at 14, when 8..12 have ended.
    playback = play((5, 3), (6, 4), (14, 1), (14, 2))
    assert starts(playback) == [5, 8, 14, 15] and playback.gaps == [(12, 2)]
    assert playback.mix().tolist() == [0] * 5 + [1] * 3 + [2] * 4 + [0] * 2 + [3] + [4] * 2
    assert playback.speech().tolist() == [1] * 3 + [2] * 4 + [3] + [4] * 2
    expected = {"gaps": 1, "gap_mean_ms": 2.0, "gap_sum_ms": 2.0, "start_ms": 5.0, "end_ms": 17.0}
    assert playback.statistics() == expected


def test_a_buffer_trades_delay_for_gaps() -> None:
    pieces = ((10, 8), (20, 6), (30, 5), (40, 5))
    assert play(*pieces).gaps == [(18, 2), (26, 4), (35, 5)]
    statistics = play(*pieces).statistics()
    assert statistics["gap_sum_ms"] == 11 and statistics["gap_mean_ms"] == pytest.approx(11 / 3)
    buffered = play(*pieces, buffer_ms=7)
    assert starts(buffered) == [17, 25, 31, 40] and buffered.gaps == [(36, 4)]
    assert play(*pieces, buffer_ms=11).gaps == [] and play(*pieces, buffer_ms=11).start_ms == 21


def test_pieces_without_samples_are_not_heard() -> None:
    playback = play((5, 0), (9, 2), (10, 0), (20, 0), buffer_ms=1)
    assert starts(playback) == [10] and playback.gaps == [] and playback.end_ms == 12
    nothing = play((5, 0))
    assert nothing.statistics() == {
        "gaps": 0, "gap_mean_ms": 0.0, "gap_sum_ms": 0.0, "start_ms": None, "end_ms": None
    }  # fmt: skip
    assert nothing.mix().shape == nothing.speech().shape == (0,) and nothing.add(3, []) is None


def test_times_are_rounded_up_to_samples_but_not_for_floating_point() -> None:
    playback = Playback(sample_rate=16000)
    assert playback.add(0.03, np.ones(16)) == 1000 / 16000  # 0.48 samples: sample 1
    assert playback.add(100.1 * 3 + 0.05, np.ones(1)) == 300.375  # 4805.6 samples: sample 4806
    assert Playback(sample_rate=16000).add(0.1 + 0.2, [1.0]) == pytest.approx(5 / 16)  # 4.8 samples: sample 5
    assert Playback(sample_rate=10000).add(0.1 + 0.2, [1.0]) == pytest.approx(0.3)  # 3.0000000000000004 samples


def test_mix_at_another_rate() -> None:
    playback = Playback(sample_rate=16000)
    playback.add(500, np.ones(8000))
    mixed = playback.mix(48000)
    assert len(mixed) == 48000
    assert np.abs(mixed[:23000]).max() < 1e-3 and np.abs(mixed[25000:47000] - 1).max() < 1e-3


def test_stereo_covers_both_sides() -> None:
    playback = play((2, 2))
    assert stereo([9.0, 8.0, 7.0], playback).tolist() == [[9, 0], [8, 0], [7, 1], [0, 1]]
    assert stereo(np.arange(1.0, 7.0), playback)[:, 1].tolist() == [0, 0, 1, 1, 0, 0]
    assert stereo([], play()).shape == (0, 2) and stereo([1.0], play()).tolist() == [[1, 0]]


@pytest.mark.parametrize("buffer", [-1.0, float("nan"), float("inf")])
def test_a_buffer_that_is_no_time(buffer: float) -> None:
    with pytest.raises(ValueError, match=f"playback buffer must be a time of 0 ms or more, got {buffer}"):
        Playback(buffer)
    with pytest.raises(ValueError, match=f"0 ms or more, got {buffer}"):
        Playback().add(buffer, [0.0])


def test_wrong_samples_and_rates() -> None:
    playback = play((1, 1))
    with pytest.raises(ValueError, match="NaN"):
        playback.add(2, [np.nan])
    assert playback.mix().tolist() == [0, 1]
    with pytest.raises(ValueError, match="sample rate must be positive, got 0"):
        Playback(sample_rate=0)


def test_captions_grow_along_a_line() -> None:
    text = captions([(640, "the small"), (960, ""), (1280, " house"), (3723004.4, " is red")])
    assert text == (
        "1\n00:00:00,640 --> 00:00:01,280\nthe small\n\n"
        "2\n00:00:01,280 --> 00:00:04,280\nthe small house\n\n"
        "3\n01:02:03,004 --> 01:02:06,004\nis red\n"
    )
    assert captions([]) == "" and captions([(5, "")]) == ""


def test_captions_begin_a_new_line_when_one_is_full() -> None:
    words = ["word" + str(number) for number in range(10, 40)]
    lines = [block.split("\n", 2)[2].strip() for block in captions(
        (100.0 * place, f" {word}") for place, word in enumerate(words)
    ).split("\n\n")]  # fmt: skip
    assert len(lines) == 30 and max(map(len, lines)) <= 80
    full = [line for line, following in zip(lines, [*lines[1:], ""]) if not following.startswith(line)]
    assert " ".join(full) == " ".join(words) and all(len(line) > 70 for line in full[:-1])


def test_captions_without_spaces_grow_by_characters_which_count_twice() -> None:
    text = captions([(640, "我们"), (960, "用GPT。"), (960.2, "他"), (1280, " ok"), (1600, "好" * 33)])
    lines = [block.split("\n", 2)[2].strip() for block in text.split("\n\n")]
    assert lines == ["我们", "我们用GPT。他", "我们用GPT。他 ok", "好" * 33]


def test_words_of_one_moment_share_a_caption() -> None:
    assert captions([(640, "the"), (640.2, " house"), (641, " is")]).count("-->") == 2
    assert "\nthe house\n" in captions([(640, "the"), (640.2, " house")])
