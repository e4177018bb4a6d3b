"""Features of many recordings, computed in parallel and packed where random access is cheap.

Work is cut into parts of a fixed number of recordings. The bytes of a part are a file named by a digest of everything
that they depend on, and its summary is a line of a :class:`~nast_s2x.processes.ResultFile`, from which an interrupted
preparation continues.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.files import digest, open_atomic, write_atomic
from nast_s2x.frontend.cmvn import CmvnAccumulator
from nast_s2x.frontend.noise_floor import noise_floor
from nast_s2x.processes import ResultFile, resumable_map
from nast_s2x.progress import progress_bar

PART_SIZE = 32
ARCHIVE = "fbank80.zip"
FOLDER = "fbank80"
_RESULTS = "features.jsonl"


@dataclass(frozen=True)
class Recording:
    """A recording to compute features of; those of training rows count for CMVN."""

    id: str
    audio: AudioRef
    is_train: bool


@dataclass(frozen=True)
class PackedFeatures:
    """Result for one recording: number of frames, sample rate (0 for stored features), place of its bytes in the part;
    or what is wrong with it."""

    id: str
    frames: int = 0
    rate: int = 0
    offset: int = 0
    length: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Part:
    """Results of a part: its recordings in order, and sums over the training features for CMVN.

    Attributes:
        path: file of the bytes.
    """

    path: Path
    packed: tuple[PackedFeatures, ...]
    cmvn_frames: int
    cmvn_sums: list[list[float]]


@dataclass(frozen=True)
class _PartJob:
    """What a process needs to compute a part."""

    folder: str
    recordings: tuple[Recording, ...]
    dtype: str | None  # None: features are measured, not kept
    floor_db: float | None

    def key(self) -> str:
        stamps = [f"{item.id}\t{item.is_train}\t{item.audio.stamp()}" for item in self.recordings]
        return digest(str(self.dtype), str(self.floor_db), *stamps)


def compute_parts(
    recordings: Sequence[Recording],
    folder: Path,
    dtype: str | None,
    jobs: int,
    progress: bool,
    floor_db: float | None = None,
) -> list[Part]:
    """Compute the features of all recordings with ``jobs`` processes; parts that an earlier run finished are kept.

    Args:
        folder: for the bytes and the record of what is done.
        dtype: type that features are stored in, None to store none.
        floor_db: noise floor of the statistics; stored features are without it.
    """
    groups = [tuple(recordings[start : start + PART_SIZE]) for start in range(0, len(recordings), PART_SIZE)]
    todo = [_PartJob(str(folder), group, dtype, floor_db) for group in groups]
    # A process takes two seconds to start: small corpora are faster without.
    jobs = jobs if len(todo) > 2 else 1
    keys = [part.key() for part in todo]
    with progress_bar(len(recordings), "features", show=progress) as bar:
        results = resumable_map(
            _compute_part, todo, keys, ResultFile(folder / _RESULTS), jobs,
            advance=lambda index: bar.update(len(groups[index])),
        )  # fmt: skip
    return [
        Part(_bytes_path(folder, key), tuple(PackedFeatures(**item) for item in values["packed"]), *values["cmvn"])
        for key, values in zip(keys, results)
    ]


def _bytes_path(folder: Path, key: str) -> Path:
    return folder / f"{key[:32]}.bin"


def _compute_part(job: _PartJob) -> dict[str, Any]:
    key = job.key()  # before the audio is read: files that change meanwhile are computed again
    cmvn = CmvnAccumulator(floor=None if job.floor_db is None else noise_floor(job.floor_db))
    with open_atomic(_bytes_path(Path(job.folder), key), "wb") as file:
        packed = [_pack(recording, job.dtype, file, cmvn) for recording in job.recordings]
    return {"packed": [asdict(item) for item in packed], "cmvn": [cmvn.frames, cmvn.sums.tolist()]}


def _pack(recording: Recording, dtype: str | None, file: IO[bytes], cmvn: CmvnAccumulator) -> PackedFeatures:
    try:
        features = recording.audio.features()
        rate = 0 if recording.audio.has_features() else recording.audio.header()[1]
        if len(features) == 0:
            raise ValueError(f"{recording.audio}: shorter than one frame of 25 ms")
    except (ValueError, OSError) as error:
        return PackedFeatures(recording.id, problem=str(error))
    if recording.is_train:
        cmvn.add(features)
    offset = file.tell()
    length = 0 if dtype is None else file.write(_npy_bytes(features.astype(dtype, copy=False)))
    return PackedFeatures(recording.id, len(features), rate, offset, length)


def _npy_bytes(features: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, features, allow_pickle=False)
    return buffer.getvalue()


def pack_zip(parts: Sequence[Part], output: Path) -> dict[str, AudioRef]:
    """Write all features into one uncompressed zip; returns the reference of each id."""
    places: dict[str, AudioRef] = {}
    with open_atomic(output / ARCHIVE, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for item, data in _stored(parts):
            # ZipInfo has a constant date: the same features give the same bytes.
            archive.writestr(zipfile.ZipInfo(f"{file_stem(item.id)}.npy"), data)
            places[item.id] = AudioRef(output / ARCHIVE, file.tell() - len(data), len(data), relative=True)
    return places


def pack_npy(parts: Sequence[Part], output: Path) -> dict[str, AudioRef]:
    """Write one ``.npy`` per recording; returns the reference of each id."""
    places: dict[str, AudioRef] = {}
    for item, data in _stored(parts):
        places[item.id] = AudioRef(output / FOLDER / f"{file_stem(item.id)}.npy", relative=True)
        write_atomic(places[item.id].path, data)
    return places


def _stored(parts: Sequence[Part]) -> Iterator[tuple[PackedFeatures, bytes]]:
    for part in parts:
        with open(part.path, "rb") as file:
            for item in part.packed:
                if not item.problem:
                    file.seek(item.offset)
                    yield item, file.read(item.length)


def file_stem(name: str) -> str:
    """A file name for any id: other characters than letters, digits and ``_.-~`` are escaped, long names shortened."""
    stem = quote(name, safe="")
    if len(stem) > 150:
        stem = f"{stem[:120]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return stem
