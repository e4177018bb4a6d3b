"""Sources longer than the positions of a model: segments, each as if translated alone, nothing lost or repeated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_system import make_bundle, make_signal

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.frontend.fbank import fbank
from nast_s2x.inference.engine import BatchedEngine
from nast_s2x.inference.offline import translate_batch
from nast_s2x.inference.segmenter import PAUSE_FRAMES, Segmenter
from nast_s2x.inference.streaming import Emission, TranslationStream
from nast_s2x.inference.system import System

SPEECH, QUIET = 2.0, -8.0
LIMIT = 400
POLICIES = (ChunkPolicy(320), ChunkPolicy(160, 120, wait_chunks=1), ChunkPolicy(320, left_chunks=2), ChunkPolicy(None))


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> System:
    """A system whose model has positions for 7 s."""
    return make_bundle(tmp_path_factory.mktemp("short"), dtype=torch.float64, seconds=7)


def levels(*parts: tuple[float, int]) -> np.ndarray:
    """Levels of frames: syllables in speech, a little noise everywhere."""
    random = np.random.default_rng(0)
    steady = np.concatenate([np.full(count, level) for level, count in parts])
    syllables = 3 * np.sin(np.arange(len(steady)) / 3) * (steady == SPEECH)
    return (steady + syllables + random.normal(0, 0.3, len(steady))).astype(np.float32)


def cuts_of(segmenter: Segmenter, frames: np.ndarray, random: np.random.Generator | None = None) -> list:
    edges = [len(frames)] if random is None else [*np.sort(random.integers(0, len(frames), 30)), len(frames)]
    return [cut for start, stop in zip([0, *edges], edges) for cut in segmenter.push(frames[start:stop])]


def test_short_sources_are_not_cut() -> None:
    assert cuts_of(Segmenter(LIMIT), levels((SPEECH, 100), (QUIET, 98))) == []
    assert cuts_of(Segmenter(LIMIT), levels((QUIET, 150), (SPEECH, 49))) == []


def test_a_pause_ends_a_segment_and_a_shorter_one_does_near_the_limit() -> None:
    talk = (SPEECH, 90), (QUIET, 20), (SPEECH, 120)
    (cut,) = cuts_of(Segmenter(LIMIT), levels(*talk, (QUIET, 60), (SPEECH, 40)))
    assert cut.pause and 230 < cut.frame <= 230 + PAUSE_FRAMES  # not in the pause of 20 frames after 90
    early = cuts_of(Segmenter(LIMIT), levels(*talk, (QUIET, 12), (SPEECH, 100)))
    late = cuts_of(Segmenter(LIMIT), levels((SPEECH, 90), (QUIET, 20), (SPEECH, 250), (QUIET, 12), (SPEECH, 20)))
    assert early == [] and len(late) == 1 and 360 < late[0].frame <= 372


def test_speech_without_a_pause_is_cut_at_the_limit() -> None:
    cuts = cuts_of(Segmenter(LIMIT), levels((SPEECH, 1300)))
    lengths = np.diff([0, *(cut.frame for cut in cuts)])
    assert len(cuts) >= 3 and not any(cut.pause for cut in cuts) and lengths.max() <= LIMIT and lengths.min() > 300


def test_cuts_do_not_depend_on_the_pieces() -> None:
    random = np.random.default_rng(1)
    talk = np.where(random.random(5000) < 0.02, 1, 0).cumsum() % 2 * 8.0 + random.normal(0, 0.5, 5000)
    whole = cuts_of(Segmenter(LIMIT), talk.astype(np.float32))
    assert len(whole) > 12 and any(cut.pause for cut in whole)
    for _ in range(5):
        assert cuts_of(Segmenter(LIMIT), talk.astype(np.float32), random) == whole


def signal(seconds: float, seed: int) -> np.ndarray:
    """Sound with pauses of half a second."""
    sound = make_signal(seconds, seed=seed)
    for start in range(30000, len(sound), 41000):
        sound[start : start + 8000] *= 1e-4
    return sound


def stream(system: System, policy: ChunkPolicy, samples: np.ndarray, seed: int) -> tuple[list[Emission], list]:
    random = np.random.default_rng(seed)
    made = TranslationStream(system, policy)
    ends = [*np.sort(random.integers(0, len(samples), 12)), len(samples)]
    emissions = [item for start, stop in zip([0, *ends], ends) for item in made.push(samples[start:stop])]
    return [*emissions, *made.push([], final=True)], made.cuts


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_each_segment_is_translated_as_if_alone(short: System, policy: ChunkPolicy) -> None:
    samples = signal(25.0, seed=3)
    emissions, cuts = stream(short, policy, samples, seed=1)
    assert len(cuts) >= 3 and any(cut.pause for cut in cuts)
    features = torch.as_tensor(fbank(samples))
    edges = [0, *(cut.frame for cut in cuts), len(features)]
    for number, (start, stop) in enumerate(zip(edges, edges[1:])):
        fbanks = short.normalize(features[start:stop])[None]
        with torch.inference_mode():
            output = short.model(fbanks, None, policy)
        own = [emission for emission in emissions if emission.segment == number]
        tokens = short.text.collapser().push(output.text_logits[0].argmax(-1).tolist())
        assert [token for emission in own for token in emission.tokens] == tokens, number
        assert short.text.decode(tokens).split() == "".join(emission.delta for emission in own).split()
        first, last = own[0], own[-1]
        end_ms = stop * 10 + 15 if stop < len(features) else len(samples) / 16
        assert last.source_ms == pytest.approx(end_ms) or last.source_ms < end_ms
        if not policy.is_offline:
            due = start * 10 + short.model.geometry(policy).emission_ms(0)
            assert first.source_ms == pytest.approx(min(due, end_ms))
    assert [emission.chunk for emission in emissions] == sorted(emission.chunk for emission in emissions)
    times = [emission.source_ms for emission in emissions]
    assert times == sorted(times) and [emission.final for emission in emissions] == [False] * (len(times) - 1) + [True]


def test_the_cut_of_the_samples_does_not_matter(short: System) -> None:
    samples = signal(25.0, seed=3)
    first = stream(short, POLICIES[0], samples, seed=1)
    for seed in (2, 3):
        again = stream(short, POLICIES[0], samples, seed)
        assert again[1] == first[1]
        kept = [[emission for emission in part if emission.text or emission.tokens] for part in (again[0], first[0])]
        assert [(e.chunk, e.tokens, e.units, e.segment) for e in kept[0]] == [
            (e.chunk, e.tokens, e.units, e.segment) for e in kept[1]
        ]


def test_pauses_of_a_given_length_end_segments_from_one_second_on() -> None:
    talk = levels((SPEECH, 60), (QUIET, 30), (SPEECH, 90), (QUIET, 30), (SPEECH, 300), (QUIET, 15), (SPEECH, 60))
    cuts = [cut.frame for cut in cuts_of(Segmenter(1000, pause=25), talk)]
    assert len(cuts) == 1 and 180 + 25 <= cuts[0] <= 180 + 30  # not after 60 frames, nor at the short pause
    assert [cut.frame for cut in cuts_of(Segmenter(None, pause=25), talk)] == cuts
    assert cuts_of(Segmenter(None, pause=50), talk) == []
    near = cuts_of(Segmenter(LIMIT, pause=25), talk)
    assert [cut.pause for cut in near] == [True, True] and 520 <= near[1].frame <= 526  # the short one, near the limit


def test_a_pause_with_louder_noise_than_the_one_before_is_found() -> None:
    random = np.random.default_rng(3)
    talk = levels((QUIET, 60), (SPEECH, 150), (SPEECH, 40), (SPEECH, 200))
    pause = slice(210, 250)  # the range of the last 3 s is from -8 to 4: noise of -4 is no quarter of it
    talk[pause] = random.normal(-4, 0.2, 40)
    (cut,) = cuts_of(Segmenter(None, pause=25), talk)
    assert cut.pause and 240 <= cut.frame <= 250
    talk[pause] = -4 + 2 * np.sin(np.arange(40) / 2)  # as loud, but not steady
    assert cuts_of(Segmenter(None, pause=25), talk) == []


@pytest.fixture(scope="module")
def systems(short: System, tmp_path_factory: pytest.TempPathFactory) -> dict[str, System]:
    speech = make_bundle(tmp_path_factory.mktemp("voice"), dtype=torch.float64, seconds=7, voice=True)
    endless = make_bundle(tmp_path_factory.mktemp("endless"), dtype=torch.float64, relative=True, voice=True)
    return {
        "limit": speech,
        "limit, pauses": replace(speech, pause_ms=300),
        "endless, pauses": replace(endless, pause_ms=300),
    }


@pytest.mark.parametrize("kind", ["limit", "limit, pauses", "endless, pauses"])
@pytest.mark.parametrize("policy", [POLICIES[0], POLICIES[2], POLICIES[3]], ids=str)
def test_offline_equals_the_stream_in_segments(systems: dict[str, System], kind: str, policy: ChunkPolicy) -> None:
    system, samples = systems[kind], signal(25.0, seed=4)
    made = TranslationStream(system, policy, with_speech=True)
    emissions = [*made.push(samples[:100_000]), *made.push(samples[100_000:]), *made.push([], final=True)]
    assert len(made.cuts) >= 3
    whole, other = translate_batch(system, [fbank(samples), fbank(samples[:20000])], policy, with_speech=True)
    assert whole.tokens == [token for emission in emissions for token in emission.tokens]
    assert whole.units == [unit for emission in emissions for unit in emission.units] and whole.units
    assert whole.text == "".join(emission.delta for emission in emissions)
    assert whole.num_frames == len(fbank(samples)) and other.num_frames == len(fbank(samples[:20000]))
    sound = np.concatenate([e.waveform for e in emissions if e.waveform is not None])
    assert whole.waveform is not None and len(sound) == len(whole.waveform)
    np.testing.assert_allclose(whole.waveform, sound, rtol=0, atol=1e-4)


def test_silence_of_any_length_ends_no_stream(short: System) -> None:
    made = TranslationStream(short, POLICIES[0])
    for _ in range(60):
        made.push(np.zeros(16000, np.float32))
    rest = made.push([], final=True)
    assert rest[-1].final and rest[-1].segment >= 8 and all(cut.pause for cut in made.cuts)
    assert rest[-1].source_ms == 60000


def test_a_source_that_ends_with_a_cut(short: System) -> None:
    samples = make_signal(20.0, seed=5)
    cut = TranslationStream(short, POLICIES[0])
    cut.push(samples, final=True)
    end = cut.cuts[0].frame * 160 + 240  # samples of so many frames
    for policy in POLICIES:
        emissions = [*(made := TranslationStream(short, policy)).push(samples[:end]), *made.push([], final=True)]
        assert made.cuts == cut.cuts[:1]
        assert [emission.final for emission in emissions] == [False] * (len(emissions) - 1) + [True]


@pytest.mark.parametrize("policy", [POLICIES[1], POLICIES[2]], ids=str)
def test_segments_in_an_engine(short: System, policy: ChunkPolicy) -> None:
    engine, sources = BatchedEngine(short, 3, policy), [signal(seconds, seed=3) for seconds in (25.0, 2.0, 12.0)]
    streams, got = [engine.open() for _ in sources], {}
    for made, samples in zip(streams, sources):
        made.push(samples, final=True)
    while len(engine):
        for made, emission in engine.step():
            got.setdefault(made, []).append(emission)
    for number, (made, samples) in enumerate(zip(streams, sources)):
        expected, cuts = stream(short, policy, samples, seed=number)
        assert made.error is None and (len(cuts) >= 3 or number > 0)
        assert [(e.tokens, e.units, e.segment) for e in got[made] if e.tokens or e.units] == [
            (e.tokens, e.units, e.segment) for e in expected if e.tokens or e.units
        ]
