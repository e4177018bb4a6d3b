"""References to recordings and their features, as the columns of tables write them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nast_s2x.arrays import npy_header, read_npy
from nast_s2x.errors import AudioError, NastError
from nast_s2x.files import file_stamp
from nast_s2x.frontend.audio import audio_pieces, read_header, read_samples
from nast_s2x.frontend.resampling import StreamResampler
from nast_s2x.frontend.samples import NUM_BINS, SAMPLE_RATE, as_mono

_NPY_MAGIC = b"\x93NUMPY"
_HEADER_BYTES = 4096  # enough for the header of a .npy file
# Lists of segments are rounded: an end this far behind the end of the file is the end of the file.
_SEGMENT_TOLERANCE = 0.1  # seconds
_MOST_FRAMES = 1 << 48  # of a feature file; more cannot be meant
_PIECE_MS = 10_000.0  # of a recording that is decoded piece by piece
AnyPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class AudioRef:
    """A recording, a segment of one, or stored features.

    ==========================  ======================================================================================
    ``x.wav`` (flac, mp3, ...)  a sound file of any rate and number of channels
    ``x.wav:START:SAMPLES``     a segment of it, counted in samples at the file's own rate
    ``x.npy``                   features (F, 80)
    ``x.zip:OFFSET:LENGTH``     a ``.npy`` or a sound file of LENGTH bytes at byte OFFSET of an uncompressed zip
    ==========================  ======================================================================================

    Attributes:
        path: the file.
        start, count: of the segment in samples, or of the bytes in the zip; ``count`` is None for a whole file.
        relative: True if a table named the file by a relative path; :func:`~nast_s2x.corpus.manifest.write_manifest`
            then writes a relative path too.

    Example:
        >>> AudioRef.parse("talk.flac:16000:8000", "/data")
        AudioRef(path=PosixPath('/data/talk.flac'), start=16000, count=8000, relative=True)
    """

    path: Path
    start: int = 0
    count: int | None = None
    relative: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if self.start < 0 or (self.count is None and self.start) or (self.count is not None and self.count < 1):
            raise AudioError(f"{self.path}: a segment has a start from 0 and a length from 1, not {self._segment()}")
        if self.is_packed and self.count is None:
            raise AudioError(f"{self.path}: a zip needs a byte offset and length, as in x.zip:OFFSET:LENGTH")
        if self.path.suffix == ".npy" and self.count is not None:
            raise AudioError(f"{self.path}: segments of feature files are not supported, only of sound files")

    @classmethod
    def parse(cls, text: str, *folders: AnyPath) -> AudioRef:
        """Read a reference. No file is opened.

        Args:
            text: one of the forms above. A file whose own name looks like a path with a segment is that file.
            folders: where a relative path may start, the working directory by default. The first folder that has the
                file counts, or the first one if none has it.

        Raises:
            AudioError: the text is no reference.
        """
        name, segment = split_segment(text)
        may_be_file = segment is not None and not name.endswith(".zip")
        found: AudioRef | None = None
        for folder in folders or ("",):
            if may_be_file and os.path.isfile(_join(folder, text)):
                return cls(Path(_join(folder, text)), relative=not os.path.isabs(text))
            path = _join(folder, name)
            if found is None or os.path.isfile(path):
                start, count = segment or (0, None)
                found = cls(Path(path), start, count, not os.path.isabs(name))
                if len(folders) < 2 or os.path.isabs(name) or os.path.isfile(path):
                    break
        assert found is not None
        return found

    def __str__(self) -> str:
        return f"{self.path}{self._segment()}"

    def _segment(self) -> str:
        return "" if self.count is None and not self.start else f":{self.start}:{self.count}"

    @property
    def name(self) -> str:
        """Name of the file without its ending, and the start of a segment."""
        return self.path.stem if self.count is None else f"{self.path.stem}-{self.start}"

    @property
    def is_packed(self) -> bool:
        """True for bytes in a zip."""
        return self.path.suffix == ".zip"

    def stamp(self) -> str:
        """Text that changes when the file is written again; also where there is no file."""
        return f"{self}\t{file_stamp(self.path)}"

    def problem(self) -> str | None:
        """Why the file cannot be used, or None; it is not opened."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return f"{self.path}: no such audio file"
        except (OSError, ValueError) as error:
            return f"{self.path}: {getattr(error, 'strerror', None) or error}"
        # The type bits of the mode: reading a named pipe or a device may never end.
        return None if status.st_mode & 0o170000 == 0o100000 else f"{self.path}: not a file"

    def recording(self) -> tuple[NDArray[np.float32], int]:
        """Decode the recording: (n,) float32 in -1..1, mono, and its sample rate.

        Raises:
            AudioError: missing, unreadable, not finite, or stored features; a segment that the file does not have.
        """
        if self.is_packed:
            data = self._bytes()
            if data.startswith(_NPY_MAGIC):
                raise AudioError(f"{self}: holds features, not samples")
            return read_samples(io.BytesIO(data), name=str(self))
        if self.path.suffix == ".npy":
            raise AudioError(f"{self}: holds features, not samples")
        if self.count is None:
            return read_samples(self.path)
        self._check_segment()
        return read_samples(self.path, name=str(self), start=self.start, frames=self.count)

    def pieces(self) -> Iterator[tuple[NDArray[np.float32], int]]:
        """Decode the recording piece by piece: the samples of :meth:`recording` in order, and the sample rate.

        Of a whole file only 10 s are in memory; segments, parts of a zip and MP3 files are decoded at once.

        Raises:
            AudioError: as :meth:`recording`.
        """
        if self.is_packed or self.count is not None or self.path.suffix == ".npy":
            yield self.recording()
            return
        for samples, rate in audio_pieces(self.path, _PIECE_MS):
            try:
                mono = as_mono(samples)
            except AudioError as error:
                raise AudioError(f"{self}: {error}") from error
            yield mono, rate

    def samples(self) -> NDArray[np.float32]:
        """Decode the recording at 16 kHz: (n,) float32 in -1..1, mono; errors as in :meth:`recording`."""
        samples, rate = self.recording()
        return StreamResampler(rate, SAMPLE_RATE).push(samples, final=True)

    def features(self) -> NDArray[np.float32]:
        """Read or compute the features: (F, 80) float32, without CMVN.

        Raises:
            AudioError: as for :meth:`samples`; features of another shape or not finite.
        """
        if not self.has_features():
            from nast_s2x.frontend.fbank import fbank  # here: it imports torch, which reading tables does not need

            return fbank(self.samples()).numpy()
        features = _read_npy(io.BytesIO(self._bytes()), str(self))
        if not np.isfinite(features).all():
            raise AudioError(f"{self}: features hold NaN or infinite values")
        return features

    def num_frames(self) -> int:
        """Number of feature frames (10 ms), from the header of the file. One more or less where a rate is converted.

        Raises:
            AudioError: missing or unreadable.
        """
        if self.has_features():
            return _npy_header(io.BytesIO(self._bytes(_HEADER_BYTES)), str(self))[0]
        samples, rate = self.header()
        from nast_s2x.frontend.fbank import num_frames  # here: it imports torch

        return num_frames(samples * SAMPLE_RATE // rate)

    def header(self) -> tuple[int, int]:
        """Number of samples and sample rate of the recording, from the header of the file.

        Raises:
            AudioError: missing, unreadable or stored features; a segment that the file does not have.
        """
        if self.is_packed:
            return read_header(io.BytesIO(self._bytes()), name=str(self))
        return read_header(self.path) if self.count is None else self._check_segment()

    def _check_segment(self) -> tuple[int, int]:
        """Samples that the file has of the segment, and its rate."""
        samples, rate = read_header(self.path)
        assert self.count is not None
        end = self.start + self.count
        if self.start >= samples or end > samples + _SEGMENT_TOLERANCE * rate:
            raise AudioError(f"{self}: the segment ends at sample {end}, the file has {samples}")
        return min(end, samples) - self.start, rate

    def has_features(self) -> bool:
        """True for stored features; reads the first bytes of a part of a zip."""
        if self.is_packed:
            return self._bytes(len(_NPY_MAGIC)) == _NPY_MAGIC
        return self.path.suffix == ".npy"

    def _bytes(self, limit: int | None = None) -> bytes:
        """The bytes of a reference into a zip, or of a whole file; the first ``limit`` of them."""
        if not self.path.is_file():
            raise AudioError(f"{self.path}: no such feature {'archive' if self.is_packed else 'file'}")
        with open(self.path, "rb") as file:
            if not self.is_packed:
                return file.read(-1 if limit is None else limit)
            assert self.count is not None
            if self.start + self.count > os.fstat(file.fileno()).st_size:
                raise AudioError(f"{self}: the archive ends before byte {self.start + self.count}")
            file.seek(self.start)
            return file.read(self.count if limit is None else min(limit, self.count))


def split_segment(text: str) -> tuple[str, tuple[int, int] | None]:
    """``path:first:second`` as the path and its two numbers; None if the text has no such ending."""
    path, *numbers = text.rsplit(":", 2)
    if len(numbers) == 2 and all(word.isascii() and word.isdecimal() and len(word) < 19 for word in numbers):
        return path, (int(numbers[0]), int(numbers[1]))
    return text, None


def _join(folder: AnyPath, name: str) -> str:
    """Path of a file below a folder; ``..`` at its beginning leads to the parent of the folder, links followed."""
    folder = os.fspath(folder)
    while name.startswith("../"):
        if os.path.basename(folder) in ("", ".", "..") or os.path.islink(folder):
            folder = os.path.realpath(folder)
        folder = os.path.dirname(folder)
        name = name[3:].lstrip("/")
    return os.path.join(folder, name)


def _npy_header(file: io.BytesIO, name: str) -> tuple[int, int]:
    """Shape (F, 80) of an array of features."""
    try:
        shape = npy_header(file)[0]
    except NastError as error:
        raise AudioError(f"{name}: {error}") from None
    if len(shape) != 2 or shape[1] != NUM_BINS or not 0 <= shape[0] <= _MOST_FRAMES:
        raise AudioError(f"{name}: features must have shape (frames, {NUM_BINS}), not {shape}")
    return shape[0], shape[1]


def _read_npy(file: io.BytesIO, name: str) -> NDArray[np.float32]:
    """Features (F, 80) float32."""
    _npy_header(file, name)
    file.seek(0)
    try:
        return np.array(read_npy(file), np.float32, order="C")
    except NastError as error:
        raise AudioError(f"{name}: {error}") from None
