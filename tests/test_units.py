"""Centroids, features and windows: what a unit is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from safetensors.torch import save_file
from unit_corpus import signal

from nast_s2x.errors import CheckpointError, ConfigError
from nast_s2x.frontend.fbank import fbank
from nast_s2x.units import centroids as centroids_module
from nast_s2x.units.centroids import Centroids, back_end_of, check_fits
from nast_s2x.units.extract import runs
from nast_s2x.units.features import BackEnd, LogMel, Mfcc, Windows
from nast_s2x.units.fit import cluster, take_frames


def table(rows: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


@pytest.mark.parametrize("block", [1, 40, 1 << 22])
def test_nearest_is_what_brute_force_finds(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(centroids_module, "_BLOCK_ELEMENTS", block)
    centers, vectors = 3 + table(17, 5), 3 + table(203, 5, seed=1)
    distances = ((vectors[:, None].astype(np.float64) - centers[None]) ** 2).sum(axis=-1)
    np.testing.assert_array_equal(Centroids(centers).nearest(vectors), distances.argmin(axis=1))


def test_of_equally_near_centres_the_first_is_taken() -> None:
    centers = np.array([[0, 4], [2, 0], [-2, 0], [2, 0]], np.float32)
    vectors = np.array([[0, 0], [2, 0], [2, 1], [-3, 0]], np.float32)
    assert Centroids(centers).nearest(vectors).tolist() == [1, 1, 1, 2]
    copies = np.repeat(table(9, 20), 12, axis=0)
    found = Centroids(copies).nearest(table(300, 20, seed=1))
    assert (found % 12 == 0).all() and len(set(found)) > 5


def slowly_smoothed(centers: NDArray[np.float32], vectors: NDArray[np.float32], change_cost: float) -> list[int]:
    """Frame by frame, with all distances computed from differences."""
    cost, came_from = np.zeros(len(centers)), []
    for vector in vectors.astype(np.float64):
        cheapest = int(cost.argmin())
        stays = cost <= cost[cheapest] + change_cost
        came_from.append(np.where(stays, np.arange(len(centers)), cheapest))
        cost = np.minimum(cost, cost[cheapest] + change_cost) + ((centers - vector) ** 2).sum(axis=1)
    units = [int(cost.argmin())]
    for origin in came_from[:0:-1]:
        units.append(int(origin[units[-1]]))
    return units[::-1]


@pytest.mark.parametrize("block", [1, 40, 1 << 22])
@pytest.mark.parametrize("size", [(2, 3), (9, 4), (64, 20), (129, 7)])
def test_smoothing_equals_the_frame_by_frame_form(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], block: int
) -> None:
    """The same units, with one matrix product for each block of frames."""
    monkeypatch.setattr(centroids_module, "_BLOCK_ELEMENTS", block)
    products: list[int] = []
    real = Centroids._distances

    def counted(self: Centroids, vectors: NDArray[np.float32]) -> object:
        for distances in real(self, vectors):
            products.append(len(distances))
            yield distances

    monkeypatch.setattr(Centroids, "_distances", counted)
    centers, vectors = table(*size), np.repeat(table(60, size[1], seed=1), 3, axis=0)
    lengths = set()
    for cost in (0.1, 2.0, 20.0, 1e6):
        products.clear()
        found = Centroids(centers).smoothed(vectors, cost)
        assert found.tolist() == slowly_smoothed(centers, vectors, cost)
        assert len(products) == -(-len(vectors) // max(1, block // size[0])) and sum(products) == len(vectors)
        lengths.add(len(runs(found)[0]))
    assert len(lengths) > 1 and min(lengths) == 1
    for count in (0, 1):
        assert len(Centroids(centers).smoothed(vectors[:count], 1.0)) == count


def test_smoothing_prefers_to_stay_and_then_the_first() -> None:
    centers = np.array([[0, 1], [0, -1], [5, 0]], np.float32)
    vectors = np.array([[0, 0], [0, 0], [0, -1], [0, 0], [5, 0], [0, 0]], np.float32)
    for cost in (0.25, 0.5, 1.0, 4.0, 30.0):
        assert Centroids(centers).smoothed(vectors, cost).tolist() == slowly_smoothed(centers, vectors, cost)


def test_nearest_of_nothing_and_of_another_width() -> None:
    assert Centroids(table(4, 3)).nearest(np.zeros((0, 3), np.float32)).shape == (0,)
    with pytest.raises(ValueError, match="width 3: they are of another kind, model or layer"):
        Centroids(table(4, 3)).nearest(table(5, 2))


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((0, 3)), np.array([[np.nan, 1]])])
def test_centroids_must_be_a_table_of_numbers(bad: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="centroids"):
        Centroids(bad)


def test_centroids_in_all_file_formats(tmp_path: Path) -> None:
    made = Centroids(table(6, 4), Mfcc().describe())
    made.save(tmp_path / "c.safetensors")
    np.save(tmp_path / "c.npy", made.centers)
    np.savez(tmp_path / "c.npz", cluster_centers_=made.centers, other=np.zeros(3))
    np.save(tmp_path / "double.npy", made.centers.astype(np.float64))
    for name in ("c.safetensors", "c.npy", "c.npz", "double.npy"):
        loaded = Centroids.load(tmp_path / name)
        np.testing.assert_array_equal(loaded.centers, made.centers)
        assert loaded.hash == made.hash and len(loaded.hash) == 16
    assert Centroids.load(tmp_path / "c.safetensors").features == Mfcc().describe()
    assert Centroids.load(tmp_path / "c.npy").features == {}
    assert Centroids(made.centers + 1).hash != made.hash


def test_unusable_files_of_centroids(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "many.npz", a=np.zeros((2, 2)), b=np.zeros((2, 2)))
    (tmp_path / "many.npz").rename(tmp_path / "zip.npy")
    np.savez(tmp_path / "many.npz", a=np.zeros((2, 2)), b=np.zeros((2, 2)))
    (tmp_path / "empty.npz").touch(), (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "array.npy", np.zeros((2, 2)))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    np.savez(tmp_path / "cut.npz", centroids=np.ones((50, 20)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:2000])
    np.savez_compressed(tmp_path / "bits.npz", centroids=table(50, 20))
    content = bytearray((tmp_path / "bits.npz").read_bytes())
    content[500:520] = bytes(20)
    (tmp_path / "bits.npz").write_bytes(content)
    np.save(tmp_path / "complex.npy", np.ones((2, 2), complex))
    np.save(tmp_path / "dates.npy", np.array([["2020-01-01"]], "datetime64[D]"))
    with open(tmp_path / "huge.npy", "wb") as file:
        shape = (10**9, 10**6)
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    save_file({"centroids": torch.ones(2, 2, dtype=torch.bfloat16)}, tmp_path / "bfloat16.safetensors")
    (tmp_path / "deep.safetensors").write_bytes(save({"c": table(2, 2)}, metadata={"features": "[" * 5000}))
    (tmp_path / "list.safetensors").write_bytes(save({"c": table(2, 2)}, metadata={"features": "[1]"}))
    (tmp_path / "c.safetensors").write_bytes(b"no")
    (tmp_path / "c.bin").write_bytes(b"no")
    reasons = {
        "objects.npy": "not a numpy array of numbers, but of type object",
        "many.npz": "centroids are called centroids or cluster_centers_",
        "c.safetensors": "c.safetensors: ",
        "c.bin": "convert-kmeans --trust-pickle",
        "zip.npy": "not a numpy array",
        "array.npz": "not an archive of numpy arrays",
        "cut.npz": "cut.npz: ",
        "bits.npz": "bits.npz: ",
        "complex.npy": "not a numpy array of numbers, but of type complex128",
        "dates.npy": "not a numpy array of numbers, but of type datetime64",
        "huge.npy": "huge.npy: ",
        "bfloat16.safetensors": "bfloat16",
        "empty.npz": "empty.npz: ",
        "empty.npy": "empty.npy: ",
        "deep.safetensors": "deep.safetensors: ",
        "list.safetensors": "description of its features must be a JSON object, not list",
    }
    for name, reason in reasons.items():
        with pytest.raises(CheckpointError, match=reason):
            Centroids.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such file of centroids"):
        Centroids.load(tmp_path / "nothing.npy")


def test_runs() -> None:
    units, durations = runs([5, 5, 2, 5, 5, 5])
    assert (units.tolist(), durations.tolist()) == ([5, 2, 5], [2, 1, 3])
    np.testing.assert_array_equal(np.repeat(units, durations), [5, 5, 2, 5, 5, 5])
    assert [part.tolist() for part in runs([])] == [[], []]


def test_features_are_frames_of_20_ms() -> None:
    samples = signal(1.0)
    frames = fbank(samples).numpy()
    energies = LogMel()(samples)
    np.testing.assert_allclose(energies[3], (frames[6] + frames[7]) / 2, rtol=1e-6)
    assert len(energies) == (len(samples) - 240) // 320
    assert len(LogMel()(samples[:560])) == 1 and len(LogMel()(samples[:559])) == 0
    # A vector's own samples decide: those before 320 u change nothing.
    np.testing.assert_array_equal(LogMel()(samples[320 * 5 :]), energies[5:])
    scaled = Mfcc(loudness=0.25)(samples)[:, 0] * 2
    np.testing.assert_allclose(scaled, Mfcc(loudness=0.5)(samples)[:, 0], rtol=1e-5)


@pytest.mark.parametrize("features", [LogMel(), Mfcc()], ids=lambda features: features.name)
@pytest.mark.parametrize("window", [0.06, 0.1, 0.5, 1.99, 2.2])
def test_windows_do_not_change_plain_features(features: LogMel, window: float) -> None:
    for samples in (signal(2.0), signal(2.0)[:-133], signal(2.0)[:-319]):
        np.testing.assert_array_equal(Windows(window).compute(features, samples), features(samples))


class Counted:
    """Features that depend on the whole window: the sum of a frame's samples, and the samples of the window."""

    dim, context_samples = 2, None

    def __init__(self) -> None:
        self.longest = 0

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        self.longest = max(self.longest, len(samples))
        count = max(0, (len(samples) - 80) // 320)
        sums = samples[: 320 * count].reshape(count, 320).sum(axis=1)
        return np.stack([sums, np.full(count, len(samples))], axis=1).astype(np.float32)


@pytest.mark.parametrize("length", [0, 100, 48000, 48001, 16000 * 10 + 79, 16000 * 10 + 80, 16000 * 10 + 319])
def test_windows_keep_order_count_and_bounds(length: int) -> None:
    samples, features = np.arange(length, dtype=np.float32), Counted()
    whole = features(samples)
    features.longest = 0
    found = Windows(3, 0.5).compute(features, samples)
    np.testing.assert_array_equal(found[:, 0], whole[:, 0])
    assert features.longest <= 3 * 16000 + 319
    if length <= 48000:
        assert (found[:, 1] == length).all()
    else:  # every frame has the overlap on both sides: no window is short
        assert found[:, 1].min() >= 1.5 * 16000


def test_windows_must_hold_more_than_their_overlaps() -> None:
    for window, overlap, reason in (
        (1.0, 0.5, "windows of 1.0 s leave nothing between overlaps of 25 frames"),
        (-3.0, 0.5, "windows of -3.0 s leave nothing"),
        (0.02, 0.0, "windows must overlap by at least one unit frame of 0.02 s, not by 0.0 s"),
        (3.0, -1.0, "not by -1.0 s"),
        (float("inf"), 0.5, "lengths of windows must be numbers"),
    ):
        with pytest.raises(ConfigError, match=reason):
            Windows(window, overlap).compute(Counted(), signal(1.0))


def test_clusters_are_found_and_their_features_recorded() -> None:
    means = 20 * table(5, 20, seed=3)
    vectors = np.repeat(means, 60, axis=0) + 0.01 * table(300, 20)
    found = cluster(vectors[np.random.default_rng(0).permutation(300)], 5, Mfcc(), seed=1)
    gaps = np.abs(found.centers[:, None] - means[None]).max(axis=-1)
    assert gaps.min(axis=0).max() < 0.1 and found.features == Mfcc().describe()
    with pytest.raises(ValueError, match="fewer than 4 different vectors"):
        cluster(np.zeros((100, 20), np.float32), 4, Mfcc())
    with pytest.raises(ValueError, match="at least 2, not 1"):
        cluster(vectors, 1, Mfcc())


def test_take_frames_stops_where_it_has_enough() -> None:
    def tables():
        yield table(4, 2)
        yield table(4, 2, seed=1)
        pytest.fail("read on")

    np.testing.assert_array_equal(take_frames(tables(), 6), np.concatenate([table(4, 2), table(4, 2, seed=1)[:2]]))
    assert len(take_frames(iter([np.zeros((0, 2), np.float32)]), 6)) == 0


def test_back_end_of_centroids() -> None:
    known = Centroids(table(4, 12), Mfcc(12, 0.25).describe())
    features = back_end_of(known).build()
    assert features.describe() == known.features
    check_fits(known, features)
    foreign = Centroids(table(4, 80))
    check_fits(foreign, back_end_of(foreign, "logmel").build())
    for wrong, arguments, reason in (
        (foreign, {}, "do not record the features .*: pass --features"),
        (known, {"name": "logmel"}, "of features mfcc, not logmel"),
        (foreign, {"name": "mhubert"}, "HubertModel folder"),
        (foreign, {"name": "logmel", "layer": 3}, "no model and no layer"),
        (foreign, {"name": "logmel", "device": "tpu?"}, "a device is cpu, cuda or cuda:N, got 'tpu\\?'"),
        (Centroids(table(4, 80), {"features": "waves"}), {}, "not 'waves'"),
    ):
        with pytest.raises(ValueError, match=reason):
            back_end_of(wrong, **arguments)
    with pytest.raises(ValueError, match="80 wide, the features 20"):
        check_fits(foreign, Mfcc())
    with pytest.raises(ValueError, match="made with loudness 0.25, these features have 0.5"):
        check_fits(known, Mfcc(12))
    assert json.loads(json.dumps(known.features)) == known.features and not BackEnd("mfcc").has_network
