"""Arrays of numbers in numpy's files ``.npy`` and ``.npz``: nothing is allocated that the file does not hold."""

from __future__ import annotations

import math
import os
import tokenize
import zipfile
import zlib
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nast_s2x.errors import NastError

_HEADER_BYTES = 4096
_MOST_BYTES = 1 << 30
"""Largest member of an archive; a compressed one may announce any size."""


# numpy evaluates the header as a Python literal.
_HEADER_ERRORS = (ValueError, OSError, EOFError, KeyError, TypeError, SyntaxError, RecursionError, tokenize.TokenError)


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, type and order (True for Fortran) of the array in a file, which is then at its first value.

    Raises:
        NastError: no array of real numbers.
    """
    try:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = readers[version](file, max_header_size=_HEADER_BYTES)
    except _HEADER_ERRORS as error:
        raise NastError(f"not a numpy array ({' '.join(str(error).split())[:200]})") from None
    if dtype.kind not in "fiu":
        raise NastError(f"not a numpy array of numbers, but of type {dtype}")
    if any(size < 0 for size in shape):
        raise NastError(f"not a numpy array: the sizes of its shape {shape} must not be negative")
    return shape, dtype, fortran


def read_npy(file: IO[bytes]) -> NDArray[Any]:
    """The array in a file.

    Raises:
        NastError: no array of real numbers, or one that is cut off.
    """
    shape, dtype, fortran = npy_header(file)
    size = math.prod(shape) * dtype.itemsize
    data = file.read(min(size, _MOST_BYTES))
    if len(data) != size:
        raise NastError(f"not a numpy array ({size} bytes announced, {len(data)} there)")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def read_npz(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """The arrays in an archive, by name.

    Raises:
        NastError: no such archive, or a member that is not an array of real numbers.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for member in archive.infolist():
                with archive.open(member) as file:
                    arrays[member.filename.removesuffix(".npy")] = read_npy(file)
            return arrays
    # An encrypted member is a RuntimeError, an unknown compression a NotImplementedError.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, UnicodeDecodeError) as error:
        raise NastError(f"not an archive of numpy arrays ({error})") from None
