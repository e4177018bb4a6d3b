"""The streaming contract, from samples to waveform: a stream in any pieces says what the whole utterance says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_system import make_bundle, make_signal, make_voice
from test_streaming_contract import SIGNAL, check_contents, random_cuts, stream

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.frontend.audio import StreamResampler
from nast_s2x.frontend.fbank import fbank
from nast_s2x.inference.offline import Translation, translate_batch, translate_samples, waveform_of
from nast_s2x.inference.streaming import Emission, TranslationStream
from nast_s2x.inference.system import System
from nast_s2x.vocoder.offline import synthesize
from nast_s2x.vocoder.streaming import SynthesisWindow


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> System:
    """A model in float64, where no near-tie of labels flips; its voice is float32 as always."""
    return make_bundle(tmp_path_factory.mktemp("exact"), dtype=torch.float64, voice=True)


def speaker(bundle: System, policy: ChunkPolicy, lookahead_frames: int = 5) -> TranslationStream:
    return TranslationStream(bundle, policy, with_speech=True, synthesis=SynthesisWindow(lookahead_frames))


def waveform(emissions: list[Emission]) -> np.ndarray:
    assert all(emission.waveform is not None and emission.waveform.dtype == np.float32 for emission in emissions)
    return np.concatenate([np.zeros(0, np.float32), *(emission.waveform for emission in emissions)])


def offline(bundle: System, samples: np.ndarray, policy: ChunkPolicy, lookahead_frames: int = 5) -> Translation:
    return translate_batch(
        bundle, [fbank(samples)], policy, with_speech=True, synthesis=SynthesisWindow(lookahead_frames)
    )[0]


@pytest.mark.parametrize(
    ("chunk_ms", "lookahead_ms", "wait", "lookahead_frames", "length"),
    [
        (160, 0, 0, 5, 24000),
        (160, 360, 1, 0, 24000),
        (320, 320, 0, 0, 30234),
        (320, 320, 0, 5, 30234),
        (320, 320, 0, 10, 24000),
        (320, 320, 0, 25, 30234),
        (320, 0, 0, 5, 15360 + 240),  # three chunks to the sample: the end of the source brings none
        (640, 120, 2, 5, 40000),
        (1280, 1280, 0, 5, 72000),
        (320, 320, 0, 5, 400),
        (320, 320, 0, 5, 399),
        (320, 320, 0, 5, 0),
    ],
)
def test_any_cut_says_the_same(
    exact: System, chunk_ms: int, lookahead_ms: int, wait: int, lookahead_frames: int, length: int
) -> None:
    policy, samples = exact.policy(chunk_ms, lookahead_ms, wait), SIGNAL[:length]
    expected = offline(exact, samples, policy, lookahead_frames)
    rng = np.random.default_rng([chunk_ms, length, lookahead_frames])
    for ends in ([length], random_cuts(length, rng)):
        emissions = [emission for _, emission in stream(speaker(exact, policy, lookahead_frames), samples, ends)]
        check_contents(exact, samples, policy, emissions)
        said = waveform(emissions)
        assert said.shape == expected.waveform.shape and np.array_equal(said, expected.waveform)
        assert [e.units for e in emissions][: len(expected.unit_chunks)] == expected.unit_chunks
    # It says something: all units last at least a frame, and nobody speaks without units.
    assert len(expected.waveform) >= 320 * len(expected.units) and len(expected.waveform) % 320 == 0
    assert (len(expected.waveform) > 0) == (len(expected.units) > 0)
    if length > 16000:
        assert len(expected.units) > 10 and expected.waveform.std() > 0.05


def test_offline_is_one_window_and_batches_change_nothing(exact: System) -> None:
    policy = exact.policy("offline")
    sources = [SIGNAL[:20000], SIGNAL[:0], SIGNAL[40000:52000], SIGNAL[:300]]
    together = translate_batch(exact, [fbank(source) for source in sources], policy, with_speech=True)
    for source, one in zip(sources, together):
        said = waveform(
            [emission for _, emission in stream(speaker(exact, policy), source, [len(source) // 2, len(source)])]
        )
        alone = translate_samples(exact, source, policy=policy, with_speech=True).waveform
        (window,) = synthesize(exact.require_vocoder(), [one.units])
        for other in (said, alone, window):
            assert other.shape == one.waveform.shape and np.allclose(other, one.waveform, atol=1e-5)
    assert [len(one.waveform) > 0 for one in together] == [True, False, True, False]


def test_a_long_lookahead_is_one_window(exact: System) -> None:
    reach = exact.require_vocoder().receptive_frames
    one = offline(exact, SIGNAL[:61234], exact.policy(320), lookahead_frames=reach)
    # Durations fixed at the end of a chunk may differ from the utterance's, so compare with the same frames.
    chunked = waveform_of(exact.require_vocoder(), one.unit_chunks, exact.policy(320), SynthesisWindow(reach, reach))
    assert np.allclose(chunked, offline(exact, SIGNAL[:61234], exact.policy(320), reach).waveform, atol=1e-4)


def test_a_chunk_without_units_lets_everything_out(exact: System) -> None:
    """While chunks bring units, sound is held back; in a pause of the source, nothing is."""
    policy = exact.policy(160)
    source = np.concatenate([SIGNAL[:24000], np.zeros(16000, np.float32), SIGNAL[24000:28000]])
    emissions = [emission for _, emission in stream(speaker(exact, policy, 10), source, [len(source)])]
    said = np.cumsum([len(emission.waveform) for emission in emissions])
    pause = next(place for place, emission in enumerate(emissions) if not emission.units)
    assert emissions[pause - 1].units and emissions[pause + 1].units
    held = {}
    for place in (pause - 1, pause):
        units = [emission.units for emission in emissions[: place + 1]]
        held[place] = len(waveform_of(exact.require_vocoder(), units, policy)) - said[place]
    # Two units (of 1 to 3 frames) had waited for those that follow, and 10 frames for their right context.
    assert 12 * 320 <= held[pause - 1] <= 16 * 320 and held[pause] == 0
    assert len(emissions[pause].waveform) == held[pause - 1]


def test_other_rates_and_stereo(exact: System) -> None:
    mono = make_signal(2.3, seed=5, rate=44100)
    both, policy = np.stack([mono, mono / 2], axis=1), exact.policy(320)
    expected = offline(exact, StreamResampler(44100).push(both, final=True), policy).waveform
    for ends in ([len(both)], [*range(0, len(both), 441), len(both)]):
        said = waveform([emission for _, emission in stream(speaker(exact, policy), both, ends, 44100)])
        assert np.array_equal(said, expected)


def test_two_streams_share_one_voice(exact: System) -> None:
    sources, policy = [SIGNAL[:40000], make_signal(2.5, seed=3)], exact.policy(320)
    translators = [speaker(exact, policy), speaker(exact, policy, 0)]
    emissions: list[list[Emission]] = [[], []]
    for start in range(0, 40000, 700):
        for source, translator, out in zip(sources, translators, emissions):
            out += translator.push(source[start : start + 700])
    for source, translator, out, frames in zip(sources, translators, emissions, (5, 0)):
        out += translator.push([], final=True)
        assert np.array_equal(waveform(out), offline(exact, source, policy, frames).waveform)


def test_speech_brings_units_even_if_they_were_not_asked_for(exact: System) -> None:
    translator = TranslationStream(exact, with_units=False, with_speech=True)
    emissions = translator.push(SIGNAL[:30000]) + translator.push([], final=True)
    assert any(emission.units for emission in emissions) and len(waveform(emissions)) > 0
    silent = TranslationStream(exact)
    assert all(e.waveform is None for e in silent.push(SIGNAL[:30000]) + silent.push([], final=True))
    assert translate_samples(exact, SIGNAL[:30000]).waveform is None


def test_no_voice_no_speech(exact: System, tmp_path_factory: pytest.TempPathFactory) -> None:
    mute = make_bundle(tmp_path_factory.mktemp("mute"))
    text = make_bundle(tmp_path_factory.mktemp("text"), units=False)
    for bundle, message in ((mute, "has no vocoder: give one with --vocoder"), (text, "it produces text only")):
        with pytest.raises(ValueError, match=message):
            TranslationStream(bundle, with_speech=True)
        with pytest.raises(ValueError, match=message):
            translate_batch(bundle, [], with_speech=True)
    mute.vocoder = make_voice(3)  # past the check: units out of its range are told, not spoken
    with pytest.raises(ValueError, match=r"unit \d+ is outside 0..2"):
        translate_samples(mute, SIGNAL[:30000], with_speech=True)


def test_bad_samples_leave_the_voice_alone(exact: System) -> None:
    translator = speaker(exact, exact.policy(320))
    emissions = translator.push(SIGNAL[:30000])
    with pytest.raises(ValueError, match="NaN"):
        translator.push(np.full(8000, np.nan))
    emissions += translator.push(SIGNAL[30000:45000]) + translator.push([], final=True)
    assert np.array_equal(waveform(emissions), offline(exact, SIGNAL[:45000], exact.policy(320)).waveform)
