"""Properties of streams for drawn audio: any rate, form, content, cut and end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from random_system import make_bundle, make_signal

from nast_s2x.errors import AudioError
from nast_s2x.inference.emission import Emission
from nast_s2x.inference.system import System

hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis (extra dev)")
from hypothesis import strategies as st  # noqa: E402

# Drawn anew from one seed each time: a failure is found again, and a run takes as long as the one before.
few = hypothesis.settings(max_examples=25, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    return make_bundle(tmp_path_factory.mktemp("properties"), dtype=torch.float64)


@dataclass(frozen=True)
class Source:
    """Samples (n,) or (n, channels), their rate, and where they are cut."""

    samples: np.ndarray
    rate: int
    cuts: list[int]

    @property
    def pieces(self) -> list[np.ndarray]:
        """The samples in pieces, some of them empty."""
        return np.split(self.samples, sorted(self.cuts))


def content(kind: str, size: int, seed: int) -> np.ndarray:
    """Samples (size,) in -1..1."""
    speech = make_signal(max(0.1, size / 16000), seed=seed)[:size].astype(np.float64)
    return {
        "speech": speech,
        "clipped": np.clip(30 * speech, -1, 1),
        "constant": np.full(len(speech), 0.7),
        "silence": np.zeros(len(speech)),
        "offset": np.clip(speech + 0.5, -1, 1),
        "loud, then silent": speech * (np.arange(len(speech)) < len(speech) / 2),
    }[kind]


KINDS = ("speech", "clipped", "constant", "silence", "offset", "loud, then silent")


@st.composite
def sources(draw: st.DrawFn) -> Source:
    """Any source of up to about a second."""
    rate = draw(st.one_of(st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000, 96000]), st.integers(8000, 96000)))
    samples = content(draw(st.sampled_from(KINDS)), draw(st.integers(0, 24000)), draw(st.integers(0, 50)))
    if draw(st.booleans()):
        samples = np.stack([samples, samples[::-1]], axis=1)
    form = draw(st.sampled_from(["float32", "float64", "int16"]))
    samples = np.round(samples * 32767).astype(np.int16) if form == "int16" else samples.astype(form)
    return Source(samples, rate, draw(st.lists(st.integers(0, len(samples)), max_size=8)))


def told(emissions: list[Emission]) -> tuple[list[int], list[int], str]:
    """Tokens, units and words."""
    return (
        [token for emission in emissions for token in emission.tokens],
        [unit for emission in emissions for unit in emission.units],
        "".join(emission.delta for emission in emissions),
    )


def pushed(system: System, source: Source, pieces: list[np.ndarray], ends_with_samples: bool) -> list[Emission]:
    stream, emissions = system.stream(chunk_ms=320), []
    for index, piece in enumerate(pieces):
        emissions += stream.push(piece, source.rate, final=ends_with_samples and index == len(pieces) - 1)
    return emissions if ends_with_samples else emissions + stream.push([], final=True)


@few
@hypothesis.given(source=sources(), ends_with_samples=st.booleans())
def test_the_cut_of_the_samples_never_matters(system: System, source: Source, ends_with_samples: bool) -> None:
    whole = pushed(system, source, [source.samples], True)
    parts = pushed(system, source, source.pieces, ends_with_samples)
    assert told(parts) == told(whole)
    assert [emission.final for emission in parts] == [False] * (len(parts) - 1) + [True] * bool(parts)
    times = [emission.source_ms for emission in parts]
    assert times == sorted(times) and all(time <= 1000 * len(source.samples) / source.rate + 1e-6 for time in times)


@few
@hypothesis.given(
    source=sources(),
    bad=st.sampled_from([np.nan, np.inf, -np.inf, 1e30]),
    place=st.floats(0, 1),
    size=st.integers(1, 900),
)
def test_a_bad_piece_is_refused_and_changes_nothing(
    system: System, source: Source, bad: float, place: float, size: int
) -> None:
    stream, emissions = system.stream(chunk_ms=320), []
    pieces = [*source.pieces, source.samples[:0]]
    refused = int(place * (len(pieces) - 1))
    for index, piece in enumerate(pieces):
        if index == refused:
            wrong = np.zeros((size, *source.samples.shape[1:]))
            wrong.flat[size // 2] = bad
            with pytest.raises(AudioError):
                stream.push(wrong, source.rate)
        emissions += stream.push(piece, source.rate, final=index == len(pieces) - 1)
    assert told(emissions) == told(pushed(system, source, [source.samples], True))


@few
@hypothesis.given(source=sources())
def test_what_was_emitted_does_not_depend_on_what_follows(system: System, source: Source) -> None:
    stream, first = system.stream(chunk_ms=320), []
    for piece in source.pieces:
        first += stream.push(piece, source.rate)
    again = system.stream(chunk_ms=320)
    second = again.push(source.samples, source.rate)
    tail = np.zeros((source.rate, *source.samples.shape[1:]), source.samples.dtype)
    second += again.push(tail, source.rate, final=True)
    count = len(first)
    assert [(e.chunk, e.tokens, e.units, e.text) for e in first] == [
        (e.chunk, e.tokens, e.units, e.text) for e in second[:count]
    ]


def test_a_million_samples_in_one_push(system: System) -> None:
    samples = make_signal(1_000_000 / 48000, rate=48000, seed=7)
    source = Source(samples, 48000, list(range(0, len(samples), 48_000)))
    assert told(pushed(system, source, [samples], True)) == told(pushed(system, source, source.pieces, False))
