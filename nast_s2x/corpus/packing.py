"""Features of many recordings, computed in parallel and packed where random access is cheap.

Work is cut into parts of a fixed number of recordings. A finished part is a file of ``.npy`` bytes and a small JSON
beside it, written last: that is what an interrupted preparation resumes from.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import struct
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nast_s2x.corpus.audio_ref import load_features, split_segment
from nast_s2x.frontend.cmvn import CmvnAccumulator

PART_SIZE = 32
ARCHIVE = "fbank80.zip"
FOLDER = "fbank80"


@dataclass(frozen=True)
class Recording:
    """One recording to compute features of: ``audio`` as :func:`load_features` takes it, absolute."""

    id: str
    audio: str
    is_train: bool

    def stamp(self) -> str:
        """Text that changes when the file behind it does."""
        status = os.stat(split_segment(self.audio)[0])
        return f"{self.id}\t{self.audio}\t{self.is_train}\t{status.st_size}\t{status.st_mtime_ns}"


@dataclass
class Packed:
    """What became of one recording: frames and place of its bytes in the part, or the problem with it."""

    id: str
    frames: int = 0
    offset: int = 0
    length: int = 0
    problem: str = ""


@dataclass
class Part:
    """A finished part: its recordings in order, and sums over the training features for CMVN."""

    digest: str
    packed: list[Packed] = field(default_factory=list)
    cmvn_frames: int = 0
    cmvn_sums: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class PartJob:
    """Everything a worker needs for one part; ``stem`` is the path of its files without suffix."""

    stem: str
    recordings: tuple[Recording, ...]
    dtype: str | None  # None: features are measured, not kept

    def digest(self) -> str:
        lines = [str(self.dtype), *(recording.stamp() for recording in self.recordings)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def compute_part(job: PartJob) -> Part:
    """Compute the features of one part, or load what an earlier run has finished."""
    digest = job.digest()
    done = _finished_part(job.stem, digest)
    if done is not None:
        return done
    # What stood here for other recordings is void from the moment its bytes are overwritten.
    Path(job.stem + ".json").unlink(missing_ok=True)
    part, cmvn = Part(digest), CmvnAccumulator()
    data = Path(job.stem + ".bin")
    with open(data, "wb") as file:
        for recording in job.recordings:
            part.packed.append(_pack(recording, job.dtype, file, cmvn))
    part.cmvn_frames, part.cmvn_sums = cmvn.frames, cmvn.sums.tolist()
    write_json(Path(job.stem + ".json"), asdict(part))
    return part


def _finished_part(stem: str, digest: str) -> Part | None:
    path = Path(stem + ".json")
    if not path.is_file():
        return None
    values = json.loads(path.read_text("utf-8"))
    if values["digest"] != digest:
        return None
    values["packed"] = [Packed(**item) for item in values["packed"]]
    return Part(**values)


def _pack(recording: Recording, dtype: str | None, file: io.BufferedWriter, cmvn: CmvnAccumulator) -> Packed:
    try:
        features = load_features(recording.audio)
        if len(features) == 0:
            raise ValueError(f"{recording.audio}: shorter than one frame of 25 ms")
        if not np.isfinite(features).all():
            raise ValueError(f"{recording.audio}: features are not finite")
    except (ValueError, OSError) as error:
        return Packed(recording.id, problem=str(error))
    if recording.is_train:
        cmvn.add(features)
    packed = Packed(recording.id, frames=len(features), offset=file.tell())
    if dtype is not None:
        packed.length = file.write(_npy_bytes(features.astype(dtype, copy=False)))
    return packed


def _npy_bytes(features: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, features, allow_pickle=False)
    return buffer.getvalue()


def write_json(path: Path, values: Any) -> None:
    """Write JSON so that the file is either whole or not there."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, path)


def compute_parts(
    recordings: Sequence[Recording], folder: Path, dtype: str | None, jobs: int, progress: bool
) -> list[tuple[PartJob, Part]]:
    """Compute the features of all recordings under ``folder``, by ``jobs`` processes; parts come in order."""
    todo = [
        PartJob(str(folder / f"{start // PART_SIZE:06d}"), tuple(recordings[start : start + PART_SIZE]), dtype)
        for start in range(0, len(recordings), PART_SIZE)
    ]
    done: list[tuple[PartJob, Part]] = []
    with tqdm(total=len(recordings), desc="features", unit="utt", disable=not progress) as bar:
        for job, part in zip(todo, _run(todo, min(jobs, len(todo)))):
            done.append((job, part))
            bar.update(len(job.recordings))
    return done


def _run(todo: Sequence[PartJob], jobs: int) -> Iterator[Part]:
    # A process costs two seconds to start: small corpora are done sooner without.
    if jobs <= 1 or len(todo) <= 2:
        yield from map(compute_part, todo)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(compute_part, todo)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def pack_zip(parts: Sequence[tuple[PartJob, Part]], output: Path) -> dict[str, str]:
    """Write all features into one uncompressed zip; returns ``id -> "fbank80.zip:offset:length"``."""
    temporary = output / (ARCHIVE + ".part")
    entries: list[tuple[str, zipfile.ZipInfo]] = []
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for packed, data in _stored(parts):
            info = zipfile.ZipInfo(f"{file_stem(packed.id)}.npy")  # a constant date: the same features, the same bytes
            archive.writestr(info, data)
            entries.append((packed.id, info))
    with open(temporary, "rb") as file:
        places = {name: f"{ARCHIVE}:{_data_offset(file, info)}:{info.file_size}" for name, info in entries}
    os.replace(temporary, output / ARCHIVE)
    return places


def _data_offset(file: io.BufferedReader, info: zipfile.ZipInfo) -> int:
    """Where the bytes of an entry start: behind its local header of 30 bytes, its name and its extra field."""
    file.seek(info.header_offset + 26)
    name_length, extra_length = struct.unpack("<HH", file.read(4))
    return info.header_offset + 30 + name_length + extra_length


def pack_npy(parts: Sequence[tuple[PartJob, Part]], output: Path) -> dict[str, str]:
    """Write one ``.npy`` per recording; returns ``id -> "fbank80/NAME.npy"``."""
    places: dict[str, str] = {}
    (output / FOLDER).mkdir(exist_ok=True)
    for packed, data in _stored(parts):
        places[packed.id] = f"{FOLDER}/{file_stem(packed.id)}.npy"
        (output / places[packed.id]).write_bytes(data)
    return places


def _stored(parts: Sequence[tuple[PartJob, Part]]) -> Iterator[tuple[Packed, bytes]]:
    for job, part in parts:
        with open(job.stem + ".bin", "rb") as file:
            for packed in part.packed:
                if not packed.problem:
                    file.seek(packed.offset)
                    yield packed, file.read(packed.length)


def file_stem(name: str) -> str:
    """A file name for any id: other characters than letters, digits and ``_.-~`` are escaped, long names shortened."""
    stem = quote(name, safe="")
    if len(stem) > 150:
        stem = f"{stem[:120]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return stem
