"""Centres of k-means models that scikit-learn pickled, read as data only: nothing in the file is executed.

A pickle names functions to call and classes to fill. The few that arrays consist of are implemented here, and all
classes of scikit-learn (of any version, installed or not) are replaced by empty ones; any other name is an error. Files
of joblib, in which the bytes of arrays lie between those of the pickle, are read too.
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nast_s2x.errors import CheckpointError

_ARRAY = np.zeros(0).__reduce__()[0]
_SCALAR = np.float64(0).__reduce__()[0]
_ATTRIBUTES = ("cluster_centers_", "centroids", "centers")


class _Box:
    """Replaces a class or function: keeps its arguments and state as plain data."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments, self.state = arguments, {}

    def __setstate__(self, state: Any) -> None:
        # Objects with slots have a pair of states.
        self.state = state[0] if isinstance(state, tuple) and state and isinstance(state[0], dict) else state

    def __setitem__(self, _key: Any, _value: Any) -> None:
        """Drop an entry of what was a dictionary."""

    def append(self, _value: Any) -> None:
        """Drop an entry of what was a list."""


class _Wrapper(_Box):
    """Replaces joblib's ``NumpyArrayWrapper``; the bytes of its array follow it in the file."""


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes in the form of protocols before 3; other codecs are refused."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"codec {encoding!r}")
    return text.encode("latin1")


def _new(kind: type, _base: Any = None, _state: Any = None) -> Any:
    """An empty object, in the form of protocols 0 and 1."""
    if not (isinstance(kind, type) and issubclass(kind, _Box)):
        raise pickle.UnpicklingError("an object of an unknown class")
    return kind()


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: Any, order: str, _axes: Any = None) -> NDArray[Any]:
    """An array whose bytes are in the pickle, in the form of protocol 5."""
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    **{(module, "_reconstructor"): _new for module in ("copyreg", "copy_reg")},
    **{(module, "object"): object for module in ("builtins", "__builtin__")},
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _Wrapper,
    ("sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper"): _Wrapper,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _ARRAY for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _SCALAR for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}
# Random generators are among the attributes of a model.
_BOXED = ("sklearn", "numpy.random", "scipy.sparse")


class _Reader(pickle._Unpickler):  # type: ignore[name-defined]  # the one in Python: single opcodes can be replaced
    """Unpickler with the replacements above; see the module's docstring."""

    dispatch = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of a name; nothing is imported."""
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if any(module == room or module.startswith(room + ".") for room in _BOXED):
            return type(name.rsplit(".", 1)[-1], (_Box,), {})
        raise pickle.UnpicklingError(f"it names {module}.{name}, which a k-means model does not need")

    def get_extension(self, code: int) -> None:
        """Refuse codes of registered classes: their names cannot be checked."""
        raise pickle.UnpicklingError(f"extension code {code}")

    def load_build(self) -> None:
        """Fill an object, and replace joblib's wrapper by its array."""
        super().load_build()
        if isinstance(self.stack[-1], _Wrapper):
            self.stack[-1] = _array_behind(self.stack[-1].state, self.file)

    dispatch[pickle.BUILD[0]] = load_build


def _array_behind(state: dict[str, Any], file: IO[bytes]) -> NDArray[Any]:
    """The array whose bytes come next in the file; aligned ones follow a count byte and padding."""
    dtype, shape = state["dtype"], tuple(int(size) for size in state["shape"])
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise pickle.UnpicklingError("an array of objects")
    if state.get("numpy_array_alignment_bytes") is not None:
        file.read(file.read(1)[0])
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    data = file.read(size)
    if len(data) != size:
        raise EOFError("an array is cut short")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if state.get("order") == "F" else "C")


def read_kmeans_centers(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Read the centres (K, D) of a pickled k-means model (pickle or joblib, also compressed by gzip or zlib).

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not such a pickle, one that names anything a k-means model does not need, or centres that are
            not a table of finite numbers; names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with io.BytesIO(_plain(path.read_bytes())) as file:
            model = _Reader(file).load()
        return _table(_find(model))
    except (pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(f"{path}: not a pickled k-means model ({error}); nothing in it was executed") from error
    # A damaged pickle can raise any exception while it is read.
    except Exception as error:
        raise CheckpointError(f"{path}: not a pickled k-means model ({type(error).__name__}: {error})") from error


def _plain(data: bytes) -> bytes:
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    return zlib.decompress(data) if data.startswith(b"\x78") else data


def _table(centers: NDArray[Any]) -> NDArray[np.float32]:
    if centers.ndim != 2 or not centers.size or centers.dtype.kind not in "fiu" or not np.isfinite(centers).all():
        raise pickle.UnpicklingError(f"its centres, of shape {centers.shape}, are not a table of finite numbers")
    return np.ascontiguousarray(centers, dtype=np.float32)


def _find(model: Any) -> NDArray[Any]:
    if isinstance(model, np.ndarray):
        return model
    values = model.state if isinstance(model, _Box) else model
    if isinstance(values, dict):
        for name in _ATTRIBUTES:
            if isinstance(values.get(name), np.ndarray):
                return values[name]
    raise pickle.UnpicklingError(f"it has no {_ATTRIBUTES[0]}")
