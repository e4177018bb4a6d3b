"""Features of many recordings, computed in parallel and packed where random access is cheap.

Work is cut into parts of a fixed number of recordings. The bytes of a part are a file named by a digest of everything
that they depend on, and its summary is a line of a :class:`~nast_s2x.processes.ResultFile`, from which an interrupted
preparation continues.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import zipfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.compact import Strings
from nast_s2x.files import digest, open_atomic, write_atomic
from nast_s2x.frontend.cmvn import CmvnAccumulator
from nast_s2x.frontend.noise_floor import noise_floor
from nast_s2x.processes import ResultFile, store_results
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


class Parts:
    """Parts in order; each is read from the record of what is done when it is asked for."""

    def __init__(self, folder: Path, keys: Sequence[str], results: ResultFile) -> None:
        self._folder, self._keys, self._results = folder, keys, results

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Part]:
        for key, values in zip(self._keys, self._results.read(self._keys)):
            packed = tuple(PackedFeatures(**item) for item in values["packed"])
            yield Part(_bytes_path(self._folder, key), packed, *values["cmvn"])


def compute_parts(
    recordings: Iterable[Recording],
    folder: Path,
    dtype: str | None,
    jobs: int,
    progress: bool,
    floor_db: float | None = None,
    total: int | None = None,
) -> Parts:
    """Compute the features of all recordings with ``jobs`` processes; parts that an earlier run finished are kept.

    Args:
        recordings: read a little ahead of the work only.
        folder: for the bytes and the record of what is done.
        dtype: type that features are stored in, None to store none.
        floor_db: noise floor of the statistics; stored features are without it.
        total: number of recordings, for the progress and for small corpora.
    """
    results, keys = ResultFile(folder / _RESULTS), []

    def work() -> Iterator[tuple[str, _PartJob]]:
        rest = iter(recordings)
        while group := tuple(itertools.islice(rest, PART_SIZE)):
            job = _PartJob(str(folder), group, dtype, floor_db)
            keys.append(job.key())
            yield keys[-1], job

    # A process takes two seconds to start: small corpora are faster without.
    jobs = 1 if total is not None and total <= 2 * PART_SIZE else jobs
    with progress_bar(total, "features", show=progress) as bar:

        def advance(_key: str, job: _PartJob) -> None:
            bar.update(len(job.recordings))

        store_results(_compute_part, work(), results, jobs, advance=advance)
    return Parts(folder, keys, results)


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


class _Members(list[zipfile.ZipInfo]):
    """Members of an archive that is written: numbers and names instead of 800 bytes each.

    Takes the place of ``ZipFile.filelist``, which is written to the end of the archive.
    """

    def __init__(self) -> None:
        super().__init__()
        self._names, self._numbers = Strings(), array("q")

    def append(self, member: zipfile.ZipInfo) -> None:
        self._names.append(member.filename)
        self._numbers.extend((member.CRC, member.file_size, member.header_offset))

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[zipfile.ZipInfo]:
        for index in range(len(self)):
            member = zipfile.ZipInfo(self._names[index])
            member.CRC, member.file_size, member.header_offset = self._numbers[3 * index : 3 * index + 3]
            member.compress_size = member.file_size  # stored as it is
            member.external_attr = 0o600 << 16  # what ZipFile sets where nothing is set
            yield member


class _NoNames(dict[str, zipfile.ZipInfo]):
    """Takes the place of ``ZipFile.NameToInfo``, which is only read to find names that appear twice."""

    def __setitem__(self, name: str, member: zipfile.ZipInfo) -> None:
        pass


class Places(Protocol):
    """Where the features of each recording are: by its place among those without a problem, and its id."""

    def __call__(self, index: int, id: str) -> AudioRef: ...


def pack_zip(parts: Iterable[Part], folder: Path, bar: tqdm | None = None, home: Path | None = None) -> Places:
    """Write all features into one uncompressed zip of any size; returns the references.

    Args:
        home: folder that the archive is moved to afterwards.
    """
    starts, lengths = array("q"), array("q")
    with open_atomic(folder / ARCHIVE, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.filelist, archive.NameToInfo = _Members(), _NoNames()
        for item, data in _stored(parts):
            # ZipInfo has a constant date: the same features give the same bytes.
            archive.writestr(zipfile.ZipInfo(f"{file_stem(item.id)}.npy"), data)
            starts.append(file.tell() - len(data))
            lengths.append(len(data))
            if bar is not None:
                bar.update()
    return lambda index, id: AudioRef((home or folder) / ARCHIVE, starts[index], lengths[index], relative=True)


def pack_npy(parts: Iterable[Part], folder: Path, bar: tqdm | None = None, home: Path | None = None) -> Places:
    """Write one ``.npy`` per recording; returns the references. ``home``: as for :func:`pack_zip`."""
    for item, data in _stored(parts):
        write_atomic(folder / FOLDER / f"{file_stem(item.id)}.npy", data)
        if bar is not None:
            bar.update()
    return lambda index, id: AudioRef((home or folder) / FOLDER / f"{file_stem(id)}.npy", relative=True)


def _stored(parts: Iterable[Part]) -> Iterator[tuple[PackedFeatures, bytes]]:
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
