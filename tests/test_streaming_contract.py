"""The streaming contract, from samples to words: a stream in any pieces gives what the whole utterance gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product

import numpy as np
import pytest
import torch
from random_system import NUM_UNITS, make_bundle, make_signal

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.frontend.fbank import fbank
from nast_s2x.frontend.resampling import StreamResampler
from nast_s2x.inference.offline import translate_batch
from nast_s2x.inference.streaming import Emission, TranslationStream
from nast_s2x.inference.system import System

CHUNKS_MS = (160, 320, 640, 1280)
LOOKAHEADS = ("none", "half", "full", "longer", "odd")
WAITS = (0, 1, 2)
LENGTHS = (0, 1, 399, 400, 401, 720, 5200, 16000, 24680, 40000, 61234)
SIGNAL = make_signal(15.0, seed=7)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> System:
    """Labels are compared in float64, where no near-tie flips."""
    return make_bundle(tmp_path_factory.mktemp("exact"), dtype=torch.float64)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> System:
    return make_bundle(tmp_path_factory.mktemp("single"))


def policy_of(bundle: System, chunk_ms: int, lookahead: str, wait: int, left_ms: int | None = None) -> ChunkPolicy:
    milliseconds = {"none": 0, "half": chunk_ms // 2, "full": chunk_ms, "longer": 2 * chunk_ms + 40, "odd": 120}
    return bundle.policy(chunk_ms, milliseconds[lookahead], wait, left_ms)


def random_cuts(total: int, rng: np.random.Generator, pushes: int = 12) -> list[int]:
    """Ends of pieces: random places, some twice (empty pieces), and a few neighbours (pieces of one sample)."""
    if total == 0:
        return [0, 0]
    ends = rng.integers(0, total + 1, size=pushes).tolist()
    ends += [ends[0], min(total, ends[1] + 1), min(total, ends[1] + 2), total]
    return sorted(ends)


def stream(
    translator: TranslationStream, samples: np.ndarray, ends: list[int], rate: int | None = None
) -> list[tuple[int, Emission]]:
    """Push ``samples`` in pieces and finish; each emission with the number of samples heard when it came."""
    heard, emissions = 0, []
    for end in ends:
        emissions += [(end, emission) for emission in translator.push(samples[heard:end], rate)]
        heard = end
    assert heard == len(samples)
    return emissions + [(heard, emission) for emission in translator.push([], final=True)]


@contextmanager
def recorded(bundle: System) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Log-probabilities (1, N, V) and (1, U, Vu) of the slots of one stream or utterance, as they are computed."""
    outputs: dict[str, list[torch.Tensor]] = {"text": [], "unit": []}
    model = bundle.model

    def watch(name: str) -> Callable[..., object]:
        function = getattr(model, name)

        def watched(*args: object, **options: object) -> object:
            output = function(*args, **options)
            for kind in outputs if output is not None else ():
                size = getattr(output, f"{kind}_lengths").host[0]
                outputs[kind].append(getattr(output, f"{kind}_logits")[:, :size].log_softmax(-1))
            return output

        return watched

    with pytest.MonkeyPatch.context() as patch:
        for name in ("step", "whole"):
            patch.setattr(model, name, watch(name))
        yield outputs


def check_contents(bundle: System, samples: np.ndarray, policy: ChunkPolicy, emissions: list[Emission]) -> None:
    """Concatenated emissions are the offline translation of the same policy, and look as emissions should."""
    offline = translate_batch(bundle, [fbank(samples)], policy)[0]
    assert [token for emission in emissions for token in emission.tokens] == offline.tokens
    assert [unit for emission in emissions for unit in emission.units] == offline.units
    assert "".join(emission.delta for emission in emissions) == offline.text
    assert all(0 <= unit < NUM_UNITS for unit in offline.units)
    geometry = bundle.model.geometry(policy)
    slots = geometry.length("text", offline.num_frames)
    assert len(offline.labels) == slots
    assert len(offline.unit_labels) == geometry.length("unit", offline.num_frames)
    if emissions:
        assert [emission.final for emission in emissions] == [False] * (len(emissions) - 1) + [True]
        size = geometry.per_chunk("text") or slots
        assert emissions[-1].chunk == -(-slots // size) - 1
        chunks = [emission.chunk for emission in emissions]
        assert sorted(set(chunks)) == list(range(chunks[-1] + 1)) and chunks == sorted(chunks)
    else:
        assert offline.num_frames == 0 and not offline.text and not offline.tokens


def check_times(
    bundle: System, samples: np.ndarray, policy: ChunkPolicy, emissions: list[tuple[int, Emission]]
) -> None:
    """At 16 kHz an emission bears the geometry's time (or the end's), and came neither before it nor late."""
    end_ms = len(samples) / 16
    for heard, emission in emissions:
        due = end_ms if policy.is_offline else min(bundle.model.geometry(policy).emission_ms(emission.chunk), end_ms)
        assert emission.source_ms == pytest.approx(end_ms if emission.final else due)
        assert heard / 16 >= emission.source_ms
    times = [emission.source_ms for _, emission in emissions]
    assert times == sorted(times)


CASES = [
    (chunk, lookahead, wait, LENGTHS[(7 * case) % len(LENGTHS)], LENGTHS[(7 * case + 5) % len(LENGTHS)])
    for case, (chunk, lookahead, wait) in enumerate(product(CHUNKS_MS, LOOKAHEADS, WAITS))
]


@pytest.mark.parametrize(("chunk_ms", "lookahead", "wait", "first", "second"), CASES)
def test_any_cut_gives_the_offline_translation(
    exact: System, chunk_ms: int, lookahead: str, wait: int, first: int, second: int
) -> None:
    # Every third case has a limited left context.
    left_ms = chunk_ms * wait if lookahead in ("half", "longer") else None
    policy = policy_of(exact, chunk_ms, lookahead, wait, left_ms)
    rng = np.random.default_rng([chunk_ms, len(lookahead), wait])
    for length in (first, second):
        samples = SIGNAL[length : 2 * length] if 2 * length <= len(SIGNAL) else SIGNAL[:length]
        emissions = stream(TranslationStream(exact, policy), samples, random_cuts(length, rng))
        check_contents(exact, samples, policy, [emission for _, emission in emissions])
        check_times(exact, samples, policy, emissions)


@pytest.mark.parametrize("length", LENGTHS)
def test_every_length_at_the_usual_chunk_and_offline(exact: System, length: int) -> None:
    samples = SIGNAL[:length]
    for policy in (exact.policy(320), exact.policy("offline")):
        at_once = stream(TranslationStream(exact, policy), samples, [length])
        in_pieces = stream(TranslationStream(exact, policy), samples, [*range(0, length, 640), length])
        assert [emission for _, emission in at_once] == [emission for _, emission in in_pieces]
        check_contents(exact, samples, policy, [emission for _, emission in at_once])
        check_times(exact, samples, policy, in_pieces)
        if policy.is_offline:
            assert len(at_once) == (length >= 400)


@pytest.mark.parametrize(
    ("chunk_ms", "lookahead", "wait"),
    [(160, "longer", 1), (320, "full", 0), (640, "odd", 2), (1280, "half", 0)],
)
def test_fifteen_seconds(exact: System, chunk_ms: int, lookahead: str, wait: int) -> None:
    policy = policy_of(exact, chunk_ms, lookahead, wait)
    emissions = stream(TranslationStream(exact, policy), SIGNAL, [*range(1280, len(SIGNAL), 1280), len(SIGNAL)])
    check_contents(exact, SIGNAL, policy, [emission for _, emission in emissions])
    check_times(exact, SIGNAL, policy, emissions)
    # The labels must vary for all this to mean something.
    tokens = [token for _, emission in emissions for token in emission.tokens]
    words = [word for _, emission in emissions for word in emission.text.split()]
    assert len(set(tokens)) > 10 and len(words) > 10


@pytest.mark.parametrize("chunk_ms", [160, 320, 1280])
def test_emissions_come_as_soon_as_the_geometry_permits(exact: System, chunk_ms: int) -> None:
    policy = policy_of(exact, chunk_ms, "half", 1)
    translator = TranslationStream(exact, policy)
    emitted = 0
    for heard in range(80, 24000, 80):
        emitted += len(translator.push(SIGNAL[heard - 80 : heard]))
        due = 0
        while exact.model.geometry(policy).emission_ms(due) <= heard / 16:
            due += 1
        assert emitted == due


@pytest.mark.parametrize(
    ("chunk_ms", "lookahead", "wait"), [(160, "none", 0), (320, "full", 0), (320, "longer", 2), (640, "odd", 1)]
)
def test_log_probabilities_in_float32(single: System, chunk_ms: int, lookahead: str, wait: int) -> None:
    policy = policy_of(single, chunk_ms, lookahead, wait)
    samples = SIGNAL[:80000]
    with recorded(single) as pieces:
        stream(TranslationStream(single, policy), samples, random_cuts(len(samples), np.random.default_rng(1)))
    with recorded(single) as whole, torch.inference_mode():
        translate_batch(single, [fbank(samples)], policy)
    assert len(pieces["text"]) > 3
    for kind in ("text", "unit"):
        streamed, expected = torch.cat(pieces[kind], 1), whole[kind][0]
        assert streamed.shape == expected.shape and torch.isfinite(streamed).all()
        assert (streamed - expected).abs().max() < 1e-4


def test_offline_pieces_equal_the_whole_in_float32(single: System) -> None:
    samples = SIGNAL[:50000]
    with recorded(single) as outputs:
        stream(TranslationStream(single, single.policy("offline")), samples, [1000, 30000, 50000])
        translate_batch(single, [fbank(samples)], single.policy("offline"))
    streamed, whole = outputs["text"]
    assert (streamed - whole).abs().max() < 1e-4


def test_two_interleaved_streams_share_one_model(exact: System) -> None:
    sources = [SIGNAL[:50000], make_signal(2.7, seed=3)]
    translators = [
        TranslationStream(exact, exact.policy(160)),
        TranslationStream(exact, exact.policy(320, 160, 1)),
    ]
    emissions: list[list[Emission]] = [[], []]
    for start in range(0, 50000, 700):
        for source, translator, out in zip(sources, translators, emissions, strict=True):
            out += translator.push(source[start : start + 700])
    for source, translator, out in zip(sources, translators, emissions, strict=True):
        out += translator.push([], final=True)
        check_contents(exact, source, translator.policy, out)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("chunk_ms", [160, 640])
def test_other_rates_and_stereo(exact: System, rate: int, chunk_ms: int) -> None:
    mono = make_signal(2.3, seed=rate, rate=rate)
    stereo = np.stack([mono, 0.5 * np.roll(mono, 50)], axis=1)
    policy = exact.policy(chunk_ms)
    cuts = random_cuts(len(stereo), np.random.default_rng(rate), pushes=20)
    emissions = stream(TranslationStream(exact, policy), stereo, cuts, rate)
    resampled = StreamResampler(rate).push(stereo, final=True)
    check_contents(exact, resampled, policy, [emission for _, emission in emissions])
    for heard, emission in emissions:
        end_ms = 1000 * len(stereo) / rate
        assert (
            min(exact.model.geometry(policy).emission_ms(emission.chunk), end_ms)
            <= emission.source_ms
            <= 1000 * heard / rate + 1e-6
        )


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_times_of_a_resampled_stream_do_not_depend_on_the_cut(exact: System, rate: int) -> None:
    samples = make_signal(2.2, seed=5, rate=rate)
    rng = np.random.default_rng(rate)
    cuts = ([len(samples)], [*range(0, len(samples), 97), len(samples)], np.cumsum(rng.integers(0, 40, 9999)).tolist())
    ends = [[end for end in cut if end <= len(samples)] for cut in cuts]
    runs = [
        [emission for _, emission in stream(TranslationStream(exact), samples, [*cut, len(samples)], rate)]
        for cut in ends
    ]
    assert runs[0] == runs[1] == runs[2]  # source_ms included
    for emission in runs[0]:
        needed = exact.model.geometry(exact.policy()).emission_ms(emission.chunk)
        assert min(needed, 2200) <= emission.source_ms <= needed + 100  # what the filter holds back


@pytest.mark.parametrize(("chunk_ms", "lookahead", "wait"), [(160, "half", 0), (320, "longer", 1), (640, "none", 2)])
def test_nothing_depends_on_what_comes_later(exact: System, chunk_ms: int, lookahead: str, wait: int) -> None:
    policy = policy_of(exact, chunk_ms, lookahead, wait)
    other = SIGNAL.copy()
    shared = 40000
    other[shared:] = make_signal(15.0, seed=11)[shared:]
    runs = []
    for source in (SIGNAL[:70000], other[:70000]):
        emissions = [emission for _, emission in stream(TranslationStream(exact, policy), source, [70000])]
        runs.append([emission for emission in emissions if emission.source_ms <= shared / 16])
    assert runs[0] == runs[1] and runs[0]


def test_silence_noise_and_full_scale(exact: System) -> None:
    policy = exact.policy(320)
    for samples in (
        np.zeros(20000, np.float32),
        np.sign(make_signal(1.3, seed=2)),
        np.full(9000, 1e-30, np.float32),
        np.concatenate([np.zeros(8000, np.float32), SIGNAL[:8000], np.zeros(16000, np.float32)]),
    ):
        with recorded(exact) as outputs:
            emissions = stream(TranslationStream(exact, policy), samples, [5000, len(samples)])
        assert outputs["text"] and all(torch.isfinite(part).all() for part in [*outputs["text"], *outputs["unit"]])
        check_contents(exact, samples, policy, [emission for _, emission in emissions])
