"""Features of an utterance, from wherever its manifest says they are."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from nast_s2x.frontend.audio import load_audio
from nast_s2x.frontend.fbank import NUM_BINS, fbank

_NPY_MAGIC = b"\x93NUMPY"


def load_features(audio: str, folder: str | os.PathLike[str] = ".") -> NDArray[np.float32]:
    """Load the features of an utterance, without CMVN.

    Args:
        audio: one of
            * ``x.npy``: features (F, 80), float16 or float32;
            * ``x.zip:offset:length``: an ``.npy`` or a sound file of ``length`` bytes at byte ``offset`` of an
              uncompressed zip;
            * ``x.wav`` (or flac, ogg, mp3, ...): features are computed on the fly;
            * ``x.wav:start:samples``: the same for a part of the file, in samples at its own rate.
        folder: where relative paths start.

    Returns:
        (F, 80) float32.

    Raises:
        FileNotFoundError, ValueError: missing or unusable; the message names ``audio``.
    """
    path, segment = split_segment(audio)
    full = Path(folder) / path
    if full.suffix == ".zip":
        if segment is None:
            raise ValueError(f"{audio}: a zip needs a byte offset and length, as in x.zip:offset:length")
        return _features_of_bytes(_read_bytes(full, *segment, name=audio), audio)
    if full.suffix == ".npy":
        if not full.is_file():
            raise FileNotFoundError(f"{full}: no such feature file")
        with open(full, "rb") as file:
            return _load_npy(file, str(full))
    start, frames = segment or (0, -1)
    return fbank(load_audio(full, start=start, frames=frames)).numpy()


def split_segment(audio: str) -> tuple[str, tuple[int, int] | None]:
    """Split ``path:first:second`` into the path and its two numbers; None if the path has no such ending."""
    path, *numbers = audio.rsplit(":", 2)
    if len(numbers) == 2 and all(number.isascii() and number.isdecimal() for number in numbers):
        return path, (int(numbers[0]), int(numbers[1]))
    return audio, None


def _read_bytes(path: Path, offset: int, length: int, name: str) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such feature archive")
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise ValueError(f"{name}: the archive ends before byte {offset + length}")
    return data


def _features_of_bytes(data: bytes, name: str) -> NDArray[np.float32]:
    if data.startswith(_NPY_MAGIC):
        return _load_npy(io.BytesIO(data), name)
    return fbank(load_audio(io.BytesIO(data), name=name)).numpy()


def _load_npy(file: IO[bytes], name: str) -> NDArray[np.float32]:
    try:
        features = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{name}: not a numpy array ({error})") from error
    if features.ndim != 2 or features.shape[1] != NUM_BINS:
        raise ValueError(f"{name}: features must have shape (frames, {NUM_BINS}), not {features.shape}")
    return features.astype(np.float32, copy=False)
