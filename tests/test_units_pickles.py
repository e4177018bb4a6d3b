"""``nast-s2x units convert-kmeans``: centres of pickles, and nothing else of them."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import pickletools
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit_corpus import units

from nast_s2x.checkpoints.kmeans import read_kmeans_centers
from nast_s2x.units.centroids import Centroids

CENTERS = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)


def fitted() -> Any:
    """A fitted model of scikit-learn whose centres are CENTERS, with a random generator among its attributes."""
    cluster = pytest.importorskip("sklearn.cluster")
    vectors = np.repeat(CENTERS, 30, axis=0)
    model = cluster.MiniBatchKMeans(7, random_state=np.random.RandomState(3), n_init=1, batch_size=210).fit(vectors)
    model.cluster_centers_ = CENTERS
    return model


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_scikit_learn(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "km.pkl").write_bytes(pickle.dumps(fitted(), protocol))
    np.testing.assert_array_equal(read_kmeans_centers(tmp_path / "km.pkl"), CENTERS)


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_files_of_joblib(tmp_path: Path, compress: Any, order: str) -> None:
    joblib = pytest.importorskip("joblib")
    model = fitted()
    model.cluster_centers_ = np.array(CENTERS, np.float64, order=order)
    joblib.dump(model, tmp_path / "km.bin", compress=compress)
    np.testing.assert_array_equal(read_kmeans_centers(tmp_path / "km.bin"), CENTERS)


def old_pickle() -> bytes:
    """What a scikit-learn of other times and modules wrote: a class that exists no more, and old numpy names."""
    data = pickle.dumps({"n_clusters": 7, "cluster_centers_": CENTERS}, 2)
    data = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    build = b"csklearn.cluster.k_means_\nMiniBatchKMeans\n)\x81" + data[2:-1] + b"b."
    return b"\x80\x02" + build


def test_pickles_of_an_old_scikit_learn(tmp_path: Path) -> None:
    assert b"sklearn.cluster.k_means_" in old_pickle() and b"numpy.core.multiarray" in old_pickle()
    for name, data in (
        ("plain", old_pickle()),
        ("gz", gzip.compress(old_pickle())),
        ("z", zlib.compress(old_pickle())),
    ):
        (tmp_path / name).write_bytes(data)
        np.testing.assert_array_equal(read_kmeans_centers(tmp_path / name), CENTERS)


def test_a_plain_table_or_dictionary_will_do(tmp_path: Path) -> None:
    for value in (CENTERS, {"centers": CENTERS}):
        (tmp_path / "c.pkl").write_bytes(pickle.dumps(value))
        np.testing.assert_array_equal(read_kmeans_centers(tmp_path / "c.pkl"), CENTERS)


class Touch:
    """Unpickles by creating a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def evil_pickles(target: Path) -> dict[str, bytes]:
    """Pickles that would make the folder ``target``."""
    call = f"(S{str(target)!r}\ntR.".encode()
    return {
        "object": pickle.dumps(Touch(target)),
        "attribute": pickle.dumps({"cluster_centers_": CENTERS, "labels_": Touch(target)}),
        "inner": b"cos\nmkdir\n" + call,
        "dotted": b"\x80\x04\x8c\x0csklearn.base\x8c\x08os.mkdir\x93" + call,
        "through a box": b"csklearn.utils\nos.mkdir\n" + call,
        "builtin": b'cbuiltins\neval\n(S\'__import__("os").mkdir(' + str(target).encode() + b")'\ntR.",
        "numpy": b"cnumpy.testing._private.utils\nrunstring\n" + call,
        "getattr": b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'tofile'\ntR.",
        "codec": b"\x80\x02c_codecs\nencode\n(S'a'\nS'no_such_codec'\ntR.",
    }


@pytest.mark.parametrize("kind", sorted(evil_pickles(Path("/x"))))
def test_nothing_in_a_pickle_is_executed(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "made"
    data = evil_pickles(target)[kind]
    pickletools.dis(data, out=io.StringIO())  # it is a well-formed pickle
    (tmp_path / "evil.pkl").write_bytes(data)
    output = tmp_path / "c.safetensors"
    assert units("convert-kmeans", tmp_path / "evil.pkl", "--trust-pickle", "--output", output) == 1
    assert not target.exists() and not output.exists()
    assert "evil.pkl: not a pickled k-means model" in capsys.readouterr().err


def test_the_evil_pickles_work_where_pickle_loads_them(tmp_path: Path) -> None:
    for kind in ("object", "attribute", "inner"):
        pickle.loads(evil_pickles(tmp_path / kind)[kind])
        assert (tmp_path / kind).is_dir()


def test_damaged_pickles(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    joblib.dump({"cluster_centers_": CENTERS}, tmp_path / "whole.bin")
    data = (tmp_path / "whole.bin").read_bytes()
    objects = tmp_path / "objects.bin"
    joblib.dump({"cluster_centers_": np.array([Touch(tmp_path / "made")], object)}, objects)
    pieces = {"cut": data[: data.index(CENTERS.tobytes()) + 9], "empty": b"", "text": b"hello", "head": data[:20]}
    nan = pickle.dumps(np.full((2, 2), np.nan))
    for name, content in {**pieces, "objects": objects.read_bytes(), "nan": nan, "none": pickle.dumps({})}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: not a pickled k-means model"):
            read_kmeans_centers(tmp_path / name)
    assert not (tmp_path / "made").exists()
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_kmeans_centers(tmp_path / "nothing")


def test_convert_needs_trust_and_keeps_the_centres(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "km.bin").write_bytes(old_pickle())
    output = tmp_path / "c.safetensors"
    assert units("convert-kmeans", tmp_path / "km.bin", "--output", output) == 1
    assert "loading a pickle can execute code" in capsys.readouterr().err and not output.exists()
    assert units("convert-kmeans", tmp_path / "km.bin", "--trust-pickle", "--output", output) == 0
    loaded = Centroids.load(output)
    np.testing.assert_array_equal(loaded.centers, CENTERS)
    assert loaded.features == {} and f"7 units of width 5, hash {loaded.hash}" in capsys.readouterr().out
    assert units("convert-kmeans", tmp_path / "km.bin", "--trust-pickle", "--output", tmp_path / "c.npy") == 1
    assert "written as .safetensors" in capsys.readouterr().err
