"""Synthesis: the waveform of a stream depends on its chunks alone, that of an utterance on its units alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from random_vocoder import NUM_UNITS, make_smooth_vocoder, make_vocoder

from nast_s2x.vocoder import offline
from nast_s2x.vocoder.config import UNIT_SAMPLES
from nast_s2x.vocoder.network import UnitVocoder
from nast_s2x.vocoder.offline import synthesize
from nast_s2x.vocoder.streaming import SynthesisWindow, VocoderStream, synthesize_chunks

LOOKAHEADS = [0, 2, 5, 10, 20]
Chunks = list[list[int]]


@pytest.fixture(scope="module")
def vocoder() -> UnitVocoder:
    return make_vocoder()


def random_chunks(sizes: Sequence[int], seed: int = 0) -> Chunks:
    rng = np.random.default_rng(seed)
    return [rng.integers(NUM_UNITS, size=size).tolist() for size in sizes]


# Empty first, pauses of one and of several chunks, one unit alone, many at once, an empty last one.
SIZES = [0, 3, 1, 0, 0, 4, 5, 1, 1, 1, 0, 1, 0, 12, 2, 0]


def pieces_of(
    vocoder: UnitVocoder, chunks: Chunks, geometry: SynthesisWindow | None = None
) -> list[NDArray[np.float32]]:
    stream = VocoderStream(vocoder, geometry)
    pieces = [stream.push(units, final=index == len(chunks) - 1) for index, units in enumerate(chunks)]
    assert stream.num_samples == sum(map(len, pieces))
    return pieces


def durations_by_the_rule(vocoder: UnitVocoder, chunks: Chunks) -> list[int]:
    """Durations by their definition, from all units available when a duration is fixed."""
    units: list[int] = []
    fixed: list[int] = []
    for index, new in enumerate(chunks):
        units += new
        settled = len(units) if index == len(chunks) - 1 or not new else max(len(fixed), len(units) - 2)
        predicted = vocoder.durations(torch.tensor([units], dtype=torch.long))[0].tolist()
        fixed += predicted[len(fixed) : settled]
    return fixed


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
@pytest.mark.parametrize("sizes", [SIZES, [1] * 8, [0, 0, 1], [2, 0, 2, 0, 2], [30, 3]])
def test_every_unit_lasts_for_its_duration(vocoder: UnitVocoder, lookahead: int, sizes: list[int]) -> None:
    chunks = random_chunks(sizes)
    pieces = pieces_of(vocoder, chunks, SynthesisWindow(lookahead))
    durations = durations_by_the_rule(vocoder, chunks)
    assert len(durations) == sum(sizes)
    assert sum(map(len, pieces)) == UNIT_SAMPLES * sum(durations)
    assert all(piece.dtype == np.float32 and len(piece) % UNIT_SAMPLES == 0 for piece in pieces)


def test_nothing_is_held_through_a_pause_and_the_lookahead_otherwise(vocoder: UnitVocoder) -> None:
    chunks = random_chunks(SIZES)
    stream, fixed = VocoderStream(vocoder, SynthesisWindow(lookahead_frames=3)), 0
    for index, units in enumerate(chunks[:-1]):
        stream.push(units)
        known = chunks[: index + 1]
        # The rule gives the last two units their durations early, unless the chunk is empty: leave them out.
        settled = sum(map(len, known)) - (2 if units else 0)
        fixed = max(fixed, sum(durations_by_the_rule(vocoder, known)[: max(0, settled)]))
        held = fixed - stream.num_samples // UNIT_SAMPLES
        if units:
            assert 0 <= held <= 3
        else:
            assert held == 0


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_the_offline_form_is_the_stream(vocoder: UnitVocoder, lookahead: int) -> None:
    chunks, geometry = random_chunks(SIZES), SynthesisWindow(lookahead)
    pieces = pieces_of(vocoder, chunks, geometry)
    assert np.array_equal(synthesize_chunks(vocoder, chunks, geometry), np.concatenate(pieces))


def test_streams_that_share_a_vocoder_are_independent(vocoder: UnitVocoder) -> None:
    one, other = random_chunks(SIZES), random_chunks(SIZES, seed=5)
    expected = [np.concatenate(pieces_of(vocoder, chunks)) for chunks in (one, other)]
    streams, found = [VocoderStream(vocoder), VocoderStream(vocoder)], [[], []]
    for index, pair in enumerate(zip(one, other)):
        for stream, units, pieces in zip(streams, pair, found):
            pieces.append(stream.push(units, final=index == len(one) - 1))
    for pieces, whole in zip(found, expected):
        assert np.array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("sizes", [[4, 1, 1, 9, 3], [2, 0, 17]])
@pytest.mark.parametrize("lookahead, left", [(20, 20), (21, 21), (25, 40)])
def test_a_long_lookahead_equals_one_window(vocoder: UnitVocoder, sizes: list[int], lookahead: int, left: int) -> None:
    chunks = random_chunks(sizes)
    if 0 in sizes:  # a pause releases everything: only the samples after it can be compared
        before = VocoderStream(vocoder, SynthesisWindow(lookahead, left))
        edge = sum(len(before.push(units)) for units in chunks[:2]) + 21 * UNIT_SAMPLES
    else:
        edge = 0
    found = synthesize_chunks(vocoder, chunks, SynthesisWindow(lookahead, left))
    units = list(chain(*chunks))
    (expected,) = synthesize(vocoder, [units], [durations_by_the_rule(vocoder, chunks)])
    np.testing.assert_allclose(found[edge:], expected[edge:], rtol=0, atol=1e-4)
    if not edge:
        np.testing.assert_allclose(found, synthesize(vocoder, [units])[0], rtol=0, atol=1e-4)


def test_the_error_of_a_seam_falls_with_the_lookahead(vocoder: UnitVocoder) -> None:
    chunks = random_chunks([4] * 12)
    (expected,) = synthesize(vocoder, [list(chain(*chunks))])
    found = {n: synthesize_chunks(vocoder, chunks, SynthesisWindow(n)) for n in LOOKAHEADS}
    errors = [np.abs(found[n] - expected).max() for n in LOOKAHEADS]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1 > errors[2] > 1e-4 and errors[3] < 1e-2 and errors[4] < 1e-5


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_seams_do_not_click(lookahead: int) -> None:
    vocoder = make_smooth_vocoder()
    chunks = random_chunks([3, 5, 0, 1, 6, 0, 0, 4, 4, 1, 5, 2])
    durations = durations_by_the_rule(vocoder, chunks)
    (whole,) = synthesize(vocoder, [list(chain(*chunks))], [durations])
    natural = np.abs(np.diff(whole)).max()

    def jumps(crossfade: int) -> tuple[float, float]:
        """The largest step at a seam, and anywhere."""
        pieces = pieces_of(vocoder, chunks, SynthesisWindow(lookahead, 20, crossfade))
        samples = np.concatenate(pieces)
        steps, seams = np.abs(np.diff(samples)), np.cumsum([len(piece) for piece in pieces])
        return steps[[edge - 1 for edge in set(seams) if 0 < edge < len(samples)]].max(), steps.max()

    at_seams, anywhere = jumps(crossfade=80)
    assert at_seams < natural and anywhere < 1.2 * natural
    assert jumps(crossfade=0)[0] > 2 * natural  # the cross-fade makes the difference


@pytest.mark.parametrize("geometry", [SynthesisWindow(0), SynthesisWindow(5), SynthesisWindow(20)])
def test_a_chunk_costs_the_same_however_long_the_stream(
    vocoder: UnitVocoder, geometry: SynthesisWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[int] = []
    hook = vocoder.dict.register_forward_hook(lambda module, inputs, output: fed.append(inputs[0].shape[1]))
    monkeypatch.setattr(VocoderStream, "_fix_durations", fixed_durations)  # four frames a unit
    stream = VocoderStream(vocoder, geometry)
    for index in range(12):
        stream.push([index % NUM_UNITS] * 3)
    hook.remove()
    settled = fed[-6:]  # 12 new frames a chunk
    assert settled == [geometry.left_frames + 12 + max(1, geometry.lookahead_frames)] * 6
    assert len(stream._frames) <= geometry.left_frames + geometry.lookahead_frames and len(stream._units) <= 4


def fixed_durations(stream: VocoderStream, everything: bool) -> None:
    stream._frames += [unit for unit in stream._units for _ in range(4)]
    stream._units.clear()


def test_the_duration_predictor_receives_few_units(vocoder: UnitVocoder) -> None:
    seen: list[int] = []
    hook = vocoder.dur_predictor.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    stream = VocoderStream(vocoder)
    for _ in range(20):
        stream.push([1, 2, 3])
    hook.remove()
    assert seen[-1] == 2 + 2 + 3  # settled units as context, units without duration, new units


def test_errors_of_a_stream(vocoder: UnitVocoder) -> None:
    stream, other = VocoderStream(vocoder), VocoderStream(vocoder)
    for units in ([1, 2, 3, 4], [5, 6]):
        stream.push(units)
        other.push(units)
    with pytest.raises(ValueError, match=r"unit 20 is outside 0\.\.19: this vocoder has 20 units"):
        stream.push([7, 20])
    with pytest.raises(ValueError, match=r"unit -1 is outside"):
        stream.push([-1])
    assert np.array_equal(stream.push([7], final=True), other.push([7], final=True))  # the refused pushes had no effect
    with pytest.raises(ValueError, match="push after final=True"):
        stream.push([1])
    with pytest.raises(ValueError, match="needs a vocoder with a duration predictor"):
        VocoderStream(make_vocoder(durations=False))


def test_an_empty_stream(vocoder: UnitVocoder) -> None:
    assert synthesize_chunks(vocoder, []).shape == (0,)
    assert VocoderStream(vocoder).push([], final=True).shape == (0,)
    assert synthesize_chunks(vocoder, [[], [], []]).dtype == np.float32


@pytest.mark.parametrize("name", ["lookahead_frames", "left_frames", "crossfade_samples"])
def test_a_geometry_has_sizes(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot be negative, but is -1"):
        SynthesisWindow(**{name: -1})
    with pytest.raises(ValueError, match=r"at most one unit frame \(320\), not 321"):
        SynthesisWindow(crossfade_samples=321)
    assert SynthesisWindow().lookahead_ms == 100


def test_a_batch_equals_its_utterances_one_by_one(vocoder: UnitVocoder) -> None:
    batch = random_chunks([5, 0, 17, 1, 9, 9, 0, 30])
    found = synthesize(vocoder, batch, batch_size=3)
    for units, samples in zip(batch, found, strict=True):
        (alone,) = synthesize(vocoder, [units])
        assert samples.dtype == np.float32
        np.testing.assert_allclose(samples, alone, rtol=0, atol=1e-5)
    assert not len(found[1]) and not len(found[6]) and synthesize(vocoder, []) == []


def test_utterances_of_like_length_share_a_call(vocoder: UnitVocoder) -> None:
    shapes: list[tuple[int, int]] = []
    hook = vocoder.conv_pre.register_forward_hook(lambda module, inputs, output: shapes.append(output[:, 0].shape))
    batch = random_chunks([20, 10, 19, 9, 0, 18, 3])
    synthesize(vocoder, batch, [[1] * len(units) for units in batch], batch_size=2)
    hook.remove()
    assert shapes == [(2, 20), (1, 18), (2, 10), (1, 3)]


def test_given_durations(vocoder: UnitVocoder) -> None:
    (samples,) = synthesize(vocoder, [[3, 7, 5]], [[2, 1, 4]])
    expected = vocoder(torch.tensor([[3, 3, 7, 5, 5, 5, 5]]))[0].numpy()
    np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-6)
    plain = make_vocoder(durations=False)
    assert len(synthesize(plain, [[3, 7]], [[2, 1]])[0]) == 3 * UNIT_SAMPLES
    with pytest.raises(ValueError, match="no duration predictor"):
        synthesize(plain, [[3, 7]])


def test_a_long_utterance_needs_no_more_memory(vocoder: UnitVocoder, monkeypatch: pytest.MonkeyPatch) -> None:
    (units,) = random_chunks([90])
    (expected,) = synthesize(vocoder, [units], [[1] * 90])
    monkeypatch.setattr(offline, "_MAX_FRAMES", 25)
    fed: list[int] = []
    hook = vocoder.conv_pre.register_forward_hook(lambda module, inputs, output: fed.append(output.shape[2]))
    (found,) = synthesize(vocoder, [units], [[1] * 90])
    hook.remove()
    assert len(fed) == 4 and max(fed) <= 25 + 2 * 21
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "batch, durations, message",
    [
        ([[1], [20]], None, r"unit 20 is outside 0\.\.19"),
        ([[1, 2]], [[1]], "2 units, but 1 durations"),
        ([[1, 2]], [[1, 0]], "at least one frame, but a duration is 0"),
        ([[1], [2]], [[1]], "2 utterances, but durations of 1"),
    ],
)
def test_bad_utterances(vocoder: UnitVocoder, batch: Chunks, durations: list[list[int]] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthesize(vocoder, batch, durations)
