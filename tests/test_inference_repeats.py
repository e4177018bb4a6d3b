"""Repeated runs of units: what is dropped, what stays, and that streams and offline translation agree."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from random_system import make_bundle, make_signal

from nast_s2x.inference.bundle import save_bundle
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.offline import translate_samples
from nast_s2x.inference.streaming import TranslationStream
from nast_s2x.labels import RepeatFilter


def drop_at_once(units: list[int], longest: int) -> list[int]:
    """The definition, on a whole sequence: after each unit, drop the longest run that equals the one before it."""
    kept: list[int] = []
    for unit in units:
        kept.append(unit)
        sizes = [n for n in range(2, longest + 1) if kept[-n:] == kept[-2 * n : -n]]
        if sizes:
            del kept[-max(sizes) :]
    return kept


def test_runs_are_dropped_and_single_units_stay() -> None:
    assert RepeatFilter(8).push([1, 2, 3, 1, 2, 3, 4]) == [1, 2, 3, 4]
    assert RepeatFilter(8).push([1, 2, 1, 2, 1, 2, 5]) == [1, 2, 5]
    assert RepeatFilter(8).push([7, 1, 7, 3, 7]) == [7, 1, 7, 3, 7]  # no run of two comes twice in a row
    assert RepeatFilter(2).push([1, 2, 3, 1, 2, 3]) == [1, 2, 3, 1, 2, 3]
    assert RepeatFilter(0).push([1, 2, 1, 2]) == [1, 2, 1, 2]


def test_one_push_is_the_definition() -> None:
    rng = random.Random(5)
    for longest, _ in itertools.product((2, 3, 8), range(60)):
        units = [rng.randrange(3) for _ in range(rng.randrange(40))]
        assert RepeatFilter(longest).push(units) == drop_at_once(units, longest)


def test_what_an_earlier_push_let_through_stays_and_is_remembered() -> None:
    stream = RepeatFilter(8)
    assert stream.push([1, 2, 3]) == [1, 2, 3]
    assert stream.push([1, 2, 3, 9]) == [9]  # a whole run in one push, of the push before
    stream = RepeatFilter(8)
    assert stream.push([1, 2, 3, 1]) == [1, 2, 3, 1]
    assert stream.push([2, 3]) == [2, 3]  # its first unit was heard already: nothing heard is taken back
    assert stream.push([]) == []
    assert stream.push([2, 3, 4]) == [4]


@pytest.mark.parametrize("longest", [-1, 1])
def test_sizes_that_mean_nothing_are_refused(longest: int) -> None:
    with pytest.raises(ValueError, match=f"at least 2 units, but is {longest}"):
        RepeatFilter(longest)


@pytest.mark.parametrize("chunk_ms", [160, 640])
def test_streams_and_offline_translation_drop_the_same(tmp_path: Path, chunk_ms: int) -> None:
    bundle = make_bundle(tmp_path / "b", dtype=torch.float64, voice=True)
    policy, samples = bundle.policy(chunk_ms, 160, 0), make_signal(4.0, seed=3)
    plain = translate_samples(bundle, samples, policy=policy)
    bundle.units.drop_repeats = 8
    filtered = translate_samples(bundle, samples, policy=policy, with_speech=True)
    by_hand = RepeatFilter(8)
    assert 0 < len(filtered.units) < len(plain.units)
    assert filtered.unit_chunks == [by_hand.push(chunk) for chunk in plain.unit_chunks]
    translator = TranslationStream(bundle, policy, with_speech=True)
    emissions = [e for start in range(0, len(samples), 1234) for e in translator.push(samples[start : start + 1234])]
    emissions += translator.push([], final=True)
    assert [unit for emission in emissions for unit in emission.units] == filtered.units
    assert np.array_equal(np.concatenate([emission.waveform for emission in emissions]), filtered.waveform)


def test_bundles_remember_it(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", voice=True)
    bundle.units.drop_repeats = 6
    assert load_system(save_bundle(bundle, tmp_path / "c")).units.drop_repeats == 6
    bundle.units.drop_repeats = 0
    assert load_system(save_bundle(bundle, tmp_path / "c")).units.drop_repeats == 0
