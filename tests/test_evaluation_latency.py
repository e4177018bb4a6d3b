"""Latency metrics on examples worked by hand, from the definitions."""

from __future__ import annotations

import pytest

from nast_s2x.metrics import latency
from nast_s2x.metrics.latency import (
    average_lagging,
    average_proportion,
    average_token_delay,
    differentiable_average_lagging,
    end_offset,
    length_adaptive_average_lagging,
    num_chunks,
    playback_gaps,
    playback_intervals,
    speech_latency,
    start_offset,
    text_latency,
    word_ends,
)

# Four words of a source of 4 s: two after 1 s, one after 3 s, one at the end; the reference has five words.
DELAYS, SOURCE, REFERENCE = [1000, 1000, 3000, 4000], 4000, 5
# Computing took 100 ms for the first two words, 50 more for the third, 200 more for the last.
ELAPSED = [1100, 1100, 3150, 4350]


def test_average_lagging() -> None:
    # |X| / |Y*| = 4000 / 5 = 800; d - (i - 1) * 800: 1000, 200, 1400, 1600; tau = 4.
    assert average_lagging(DELAYS, SOURCE, REFERENCE) == (1000 + 200 + 1400 + 1600) / 4 == 1050
    # Elapsed: 1100, 300, 1550, 1950.
    assert average_lagging(ELAPSED, SOURCE, REFERENCE) == (1100 + 300 + 1550 + 1950) / 4 == 1225


def test_average_lagging_ends_with_the_first_word_after_the_source() -> None:
    # tau = 2: the second word comes with the end; the two after it do not count. Step 3000 / 4 = 750.
    assert average_lagging([1500, 3000, 3000, 3000], 3000, 4) == (1500 + (3000 - 750)) / 2 == 1875
    # Nothing before the end: one word counts, whatever the others are.
    assert average_lagging([3000, 3000, 3000], 3000, 3) == 3000
    # Later than the end: the first delay.
    assert average_lagging([3500, 9000], 3000, 1) == 3500


def test_average_lagging_of_many_pieces_against_few_words_is_negative() -> None:
    # The published form for speech. Two pieces against ten words, step 400: 640, then 960 - 400.
    assert average_lagging([640, 960], 4000, 10) == (640 + 560) / 2
    # Five pieces against two words, step 2000: 640, 960 - 2000, 1280 - 4000, 1600 - 6000, 1920 - 8000.
    assert average_lagging([640, 960, 1280, 1600, 1920], 4000, 2) == (640 - 1040 - 2720 - 4400 - 6080) / 5 == -2720


def test_length_adaptive_average_lagging() -> None:
    # Output of four, reference of five: as AL. Reference of two: 4000 / max(4, 2) = 1000: 1000, 0, 1000, 1000.
    assert length_adaptive_average_lagging(DELAYS, SOURCE, 5) == 1050
    assert length_adaptive_average_lagging(DELAYS, SOURCE, 2) == (1000 + 0 + 1000 + 1000) / 4 == 750
    # Where AL gives 1000, -1000, -1000, -2000: too much output looks quick.
    assert average_lagging(DELAYS, SOURCE, 2) == (1000 - 1000 - 1000 - 2000) / 4 == -750
    assert length_adaptive_average_lagging(ELAPSED, SOURCE, 2) == (1100 + 100 + 1150 + 1350) / 4 == 925


def test_average_proportion() -> None:
    assert average_proportion(DELAYS, SOURCE, REFERENCE) == (1000 + 1000 + 3000 + 4000) / (4000 * 5) == 0.45
    assert average_proportion(ELAPSED, SOURCE, REFERENCE) == (1100 + 1100 + 3150 + 4350) / (4000 * 5) == 0.485


def test_differentiable_average_lagging() -> None:
    # 1/g = 4000 / 4 = 1000. d': 1000, max(1000, 2000), max(3000, 3000), max(4000, 4000).
    # Less 0, 1000, 2000, 3000: 1000 each.
    assert differentiable_average_lagging(DELAYS, SOURCE) == 1000
    # Elapsed: d' = 1100, 2100, max(3150, 3100) = 3150, max(4350, 4150) = 4350: 1100, 1100, 1150, 1350.
    assert differentiable_average_lagging(ELAPSED, SOURCE) == (1100 + 1100 + 1150 + 1350) / 4 == 1175


def test_average_token_delay_of_text() -> None:
    # Source tokens of 300 ms in each chunk: 0..1000 ends at 300, 600, 900, 1000 (4); 1000..3000 at 1300, 1600, 1900,
    # 2200, 2500, 2800, 3000 (11); 3000..4000 at 3300, 3600, 3900, 4000 (15). Output: 2, 1, 1 words.
    # s(1) = 1, s(2) = 2, s(3) = 3 - max(0, 2 - 4) = 3, s(4) = 4 - max(0, 3 - 11) = 4.
    # Delays: 1000 - 300, 1000 - 600, 3000 - 900, 4000 - 1000.
    assert average_token_delay(DELAYS) == (700 + 400 + 2100 + 3000) / 4 == 1550
    # Computing: 100 before the first word, none before the second, 50, 200. Ends: 1100; max(1000, 1100) = 1100;
    # 3000 + 50; 4000 + 200.
    assert average_token_delay(DELAYS, elapsed=ELAPSED) == (800 + 500 + 2150 + 3200) / 4 == 1662.5


def test_average_token_delay_of_an_output_longer_than_its_source() -> None:
    # Source tokens end at 300 (1) and 600 (2). Output: three words at 300, two at 600.
    # Words 1 to 3: s = 1, 2, 3, but only 1 token was read: 300 - 300 each = 0.
    # Words 4, 5: three words came before, of one token: s = 4 - (3 - 1) = 2, 5 - 2 = 3 > 2: 2. 600 - 600 = 0.
    assert average_token_delay([300, 300, 300, 600, 600]) == 0
    # Two words at 300 (s = 1, 2 -> 1), then at 900 (source tokens end at 300, 600, 900):
    # s(3) = 3 - (2 - 1) = 2: 900 - 600; s(4) = 3: 900 - 900.
    assert average_token_delay([300, 300, 900, 900]) == (0 + 0 + 300 + 0) / 4 == 75


def test_average_token_delay_of_speech() -> None:
    # A piece of 700 ms at 640, one of 300 ms at 960.
    # Source: 0..640 ends at 300, 600, 640 (3 tokens); 640..960 at 940, 960 (5 in all).
    # Output: 300, 300, 100 (ends 940, 1240, 1340), and 300: starts max(960, 1340), ends 1640.
    # s = 1, 2, 3; s(4) = 4 - max(0, 3 - 3) = 4: T(x) = 300, 600, 640, 940.
    expected = ((940 - 300) + (1240 - 600) + (1340 - 640) + (1640 - 940)) / 4
    assert average_token_delay([640, 960], [700, 300]) == expected == 670
    # Computing 30 and 60 more: 10 for each token of the first piece, 60 for that of the second:
    # 950, 1260, 1370; 1370 + 300 + 60 = 1730.
    expected = ((950 - 300) + (1260 - 600) + (1370 - 640) + (1730 - 940)) / 4
    assert average_token_delay([640, 960], [700, 300], [670, 1050]) == expected == 707.5


def test_average_token_delay_takes_pieces_of_one_time_as_one() -> None:
    # 200 + 400 = 600 ms at 900: two tokens, ends 1200, 1500; source 300, 600, 900. 1200 - 300, 1500 - 600.
    assert average_token_delay([900, 900], [200, 400]) == average_token_delay([900], [600]) == 900


def test_offsets_and_chunks_of_text() -> None:
    assert start_offset(DELAYS) == 1000 and start_offset(ELAPSED) == 1100
    assert end_offset(DELAYS, SOURCE) == 0 and end_offset(ELAPSED, SOURCE) == 350
    assert num_chunks(DELAYS) == 3  # 1000 twice, 3000, 4000


def test_playback_of_pieces() -> None:
    # 640 + 500 = 1140; the second is there at 960 and waits, until 1240; the third is late: 1280, a gap of 40 ms.
    delays, durations = [640, 960, 1280, 1280], [500, 100, 20, 30]
    intervals = playback_intervals(delays, durations)
    assert intervals == [(640, 500), (1140, 100), (1280, 20), (1300, 30)]
    assert playback_gaps(intervals) == [(1240, 40)]
    assert start_offset(delays) == 640 and num_chunks(delays, durations) == 4
    assert end_offset(delays, 1000, durations) == 1330 - 1000
    assert playback_intervals([], []) == [] and playback_gaps([]) == []


def test_gaps_are_not_made_of_rounding() -> None:
    assert 0.1 + 0.2 > 0.3
    assert playback_gaps(playback_intervals([0.1, 0.1 + 0.2], [0.2, 1])) == []
    assert playback_gaps([(0, 0.3), (0.1 + 0.2, 1)]) == []
    assert average_token_delay([0.1 + 0.2 + 299.7]) == average_token_delay([300]) == 0


def test_playback_agrees_with_the_player() -> None:
    import numpy as np

    from nast_s2x.inference.playback import Playback

    player, delays, sizes = Playback(), [655.0, 975.0, 1295.0, 1615.0, 1615.0], [5120, 1600, 640, 8000, 160]
    for delay, size in zip(delays, sizes):
        player.add(delay, np.zeros(size))
    intervals = playback_intervals(delays, [size / 16 for size in sizes])
    assert [start for start, _ in intervals] == [start for start, _ in player.pieces]
    assert playback_gaps(intervals) == player.gaps and len(player.gaps) == 2


def test_words_are_heard_where_playback_puts_them() -> None:
    # 500 ms heard from 640, 100 from 1140, 50 from 1280. Words end at 0.3 s, at the border 0.5, at 0.55, 0.62 (in the
    # third piece: 1280 + 20), and past the end, 0.7 -> 0.65: 1330.
    intervals = [(640.0, 500.0), (1140.0, 100.0), (1280.0, 50.0)]
    assert word_ends(intervals, [0.3, 0.5, 0.55, 0.62, 0.7]) == pytest.approx([940, 1140, 1190, 1300, 1330])
    assert word_ends(intervals, [0.6]) == pytest.approx([1240])  # the end of the second piece, not after the gap
    assert word_ends(intervals, [0.4, 0.3]) == pytest.approx([1040, 1040])  # never before the word before it
    assert word_ends([], []) == []
    with pytest.raises(ValueError, match="2 words need at least one piece of speech"):
        word_ends([], [0.1, 0.2])


def test_all_figures_of_a_text() -> None:
    figures = text_latency(DELAYS, ELAPSED, SOURCE, REFERENCE)
    assert figures == {
        "AL": 1050, "LAAL": 1050, "AP": 0.45, "DAL": 1000, "ATD": 1550,
        "StartOffset": 1000, "EndOffset": 0, "NumChunks": 3,
        "AL_CA": 1225, "LAAL_CA": 1225, "AP_CA": 0.485, "DAL_CA": 1175, "ATD_CA": 1662.5,
        "StartOffset_CA": 1100, "EndOffset_CA": 350, "NumChunks_CA": 3,
    }  # fmt: skip


def test_all_figures_of_speech() -> None:
    # Pieces of 700 and 300 ms at 640 and 1600 of 1600 ms: heard 640..1340 and 1600..1900, a gap of 260.
    # Elapsed 700 and 1800: heard 700..1400 and 1800..2100, a gap of 400.
    figures = speech_latency([640, 1600], [700, 1800], [700, 300], 1600, 4, ends_s=[0.35, 0.7, 0.9])
    # Words end at 640 + 350, 640 + 700, 1600 + 200 = 990, 1340, 1800; step 1600 / 4 = 400.
    words = (990 + (1340 - 400) + (1800 - 800)) / 3
    # Computing: 1050, 1400, 2000.
    words_ca = (1050 + (1400 - 400) + (2000 - 800)) / 3
    # DAL, step 1600 / 3: d' = 990, 1523.3, 2056.7: 990 each. Elapsed: 1050 each (1583.3, 2116.7).
    expected = {
        "StartOffset": 640, "EndOffset": 1900 - 1600, "NumChunks": 2, "GapNum": 1, "GapMean": 260, "GapSum": 260,
        # Tokens: 940, 1240, 1340; 1900. Source: 300, 600, 640; 940. s(4) = 4.
        "ATD": (640 + 640 + 700 + 960) / 4,
        "AL_chunks_vs_words": (640 + (1600 - 400)) / 2,
        "AL_words": words, "LAAL_words": words, "AP_words": (990 + 1340 + 1800) / (1600 * 4), "DAL_words": 990,
        "StartOffset_CA": 700, "EndOffset_CA": 2100 - 1600, "NumChunks_CA": 2,
        "GapNum_CA": 1, "GapMean_CA": 400, "GapSum_CA": 400,
        # 20 for each of three tokens, 140 for the last: 960, 1280, 1400; 1600 + 300 + 140 = 2040.
        "ATD_CA": (660 + 680 + 760 + 1100) / 4,
        "AL_chunks_vs_words_CA": (700 + (1800 - 400)) / 2,
        "AL_words_CA": words_ca, "LAAL_words_CA": words_ca, "AP_words_CA": (1050 + 1400 + 2000) / (1600 * 4),
        "DAL_words_CA": 1050,
    }  # fmt: skip
    assert figures == pytest.approx(expected)


def test_speech_without_gaps_has_a_mean_gap_of_nothing() -> None:
    figures = speech_latency([640, 960], [640, 960], [700, 300], 1600, 4)
    assert (figures["GapNum"], figures["GapMean"], figures["GapSum"]) == (0, 0, 0)
    assert figures["AL_words"] is None and figures["AL_words_CA"] is None


def test_what_was_not_measured_is_none_and_not_nothing() -> None:
    text = text_latency(DELAYS, [], SOURCE, REFERENCE)
    assert text["AL"] == 1050 and {value for name, value in text.items() if name.endswith("_CA")} == {None}
    empty = [text_latency([], [], SOURCE, REFERENCE), speech_latency([], [], [], SOURCE, REFERENCE, [])]
    names = [latency.TEXT_FIGURES, latency.SPEECH_FIGURES]
    for figures, known in zip(empty, names):
        assert list(figures) == [*known, *(f"{name}_CA" for name in known)]
        assert set(figures.values()) == {None}


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (average_lagging, (1000, 2)),
        (length_adaptive_average_lagging, (1000, 2)),
        (average_proportion, (1000, 2)),
        (differentiable_average_lagging, (1000,)),
        (average_token_delay, ()),
        (start_offset, ()),
        (end_offset, (1000,)),
        (num_chunks, ()),
    ],
)
def test_an_empty_output_has_no_latency(function: object, arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="empty output"):
        function([], *arguments)


def test_bad_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="not be empty, but have 0 ms and 3 words"):
        average_lagging([1], 0, 3)
    with pytest.raises(ValueError, match="not be empty, but have 10 ms and 0 words"):
        average_proportion([1], 10, 0)
    with pytest.raises(ValueError, match="must be 2 durations and elapsed times"):
        average_token_delay([1, 2], [1])
    with pytest.raises(ValueError, match="1 times do not match 2 durations"):
        playback_intervals([1], [1, 2])
    with pytest.raises(ValueError, match="must last longer than 0 ms"):
        average_token_delay([100], [0])
