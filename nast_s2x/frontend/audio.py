"""Audio files of any format, rate and number of channels.

A file and a live stream go through the same :class:`~nast_s2x.frontend.resampling.StreamResampler`, so they give the
same samples.
"""

from __future__ import annotations

import io
import math
import os
import stat
import wave
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
import soundfile
from numpy.typing import ArrayLike, NDArray

from nast_s2x.errors import AudioError
from nast_s2x.files import open_atomic
from nast_s2x.frontend.resampling import StreamResampler
from nast_s2x.frontend.samples import SAMPLE_RATE, as_mono, check_sample_rate

AnySource = str | os.PathLike[str] | IO[bytes]
LONGEST_HOURS = 24
"""Longest recording that is decoded at once; headers are compared with it before anything is allocated."""


def read_samples(
    source: AnySource, name: str | None = None, start: int = 0, frames: int = -1
) -> tuple[NDArray[np.float32], int]:
    """Read a sound file of any format that libsndfile reads (wav, flac, ogg, mp3, ...), without resampling.

    Args:
        source: path, or a binary file object.
        name: its name in error messages; the path by default.
        start: first sample to read, at the file's own rate.
        frames: number of samples to read, -1 for all.

    Returns:
        samples (n,) mono float32, and the file's sample rate. A valid file without samples gives an empty array.

    Raises:
        AudioError: missing, not a regular file, empty (no bytes), unreadable, longer than :data:`LONGEST_HOURS`, of
            a rate out of range, or with samples that are not finite.
    """
    name = name or str(source)
    try:
        with _open(source, name) as file:
            _check_header(file, name)
            if start:
                if not 0 <= start <= file.frames:
                    raise OSError(f"the segment starts at sample {start}, the file has {file.frames}")
                file.seek(start)
            samples, rate = file.read(frames=frames, dtype="float32", always_2d=True), file.samplerate
    except (soundfile.SoundFileError, RuntimeError, OSError, TypeError, MemoryError) as error:
        raise AudioError(f"{name}: cannot be read as audio ({_reason(error)})") from error
    try:
        return as_mono(samples), rate
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from error


def audio_pieces(path: str | os.PathLike[str], piece_ms: float) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Read a sound file piece by piece.

    Args:
        piece_ms: length of a piece in milliseconds; the last one may be shorter.
    Yields:
        (samples (n, channels), sample rate).
    Raises:
        AudioError: as :func:`read_samples`; a length that is not positive and finite.
    """
    if not math.isfinite(piece_ms) or piece_ms <= 0:
        raise AudioError(f"a piece must have a positive length in milliseconds, but has {piece_ms:g}")
    try:
        with _open(path, str(path)) as file:
            _check_header(file, str(path))
            yield from ((piece, file.samplerate) for piece in _blocks(file, round(piece_ms * file.samplerate / 1000)))
    except (soundfile.SoundFileError, RuntimeError, OSError, TypeError, MemoryError) as error:
        raise AudioError(f"{path}: cannot be read as audio ({_reason(error)})") from error


def _blocks(file: soundfile.SoundFile, size: int) -> Iterator[NDArray[np.float32]]:
    """Blocks (size, channels) of an open sound file."""
    size = max(1, size)
    if file.format != "MP3":
        yield from file.blocks(size, dtype="float32", always_2d=True)
        return
    # soundfile seeks after each block, and an MP3 decoder loses the state that the next frames need when it seeks.
    samples = file.read(dtype="float32", always_2d=True)
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def _open(source: AnySource, name: str) -> soundfile.SoundFile:
    """Open a sound file for reading, a regular file that is not empty."""
    if isinstance(source, str | os.PathLike):
        try:
            status = os.stat(source)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            raise AudioError(f"{name}: {'no such audio file' if missing else error.strerror}") from None
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(f"{name}: is a folder, not a file")
        if not stat.S_ISREG(status.st_mode):  # a named pipe would be waited for without end
            raise AudioError(f"{name}: not a regular file")
        if status.st_size == 0:
            raise AudioError(f"{name}: the file is empty")
        if os.name == "posix":
            return soundfile.SoundFile(os.fsencode(source))  # it cannot encode names that are not UTF-8
    return soundfile.SoundFile(source)


def _check_header(file: soundfile.SoundFile, name: str) -> None:
    """Refuse what a header declares before anything is allocated for it."""
    try:
        rate = check_sample_rate(file.samplerate)
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from None
    if file.frames > LONGEST_HOURS * 3600 * rate:
        hours = file.frames / rate / 3600
        raise AudioError(f"{name}: the header declares {hours:.0f} hours; at most {LONGEST_HOURS} hours are read")


def read_header(source: AnySource, name: str | None = None) -> tuple[int, int]:
    """Number of samples of each channel and sample rate that a sound file's header declares; no sound is decoded.

    Args:
        source: path, or a binary file object.
        name: its name in error messages; the path by default.

    Raises:
        AudioError: missing or unreadable; names the file.
    """
    name = name or str(source)
    try:
        with _open(source, name) as file:
            _check_header(file, name)
            return int(file.frames), int(file.samplerate)
    except (soundfile.SoundFileError, RuntimeError, OSError, TypeError) as error:
        raise AudioError(f"{name}: cannot be read as audio ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    reason = str(getattr(error, "error_string", None) or error).strip().rstrip(".")
    if reason == "Format not recognised":
        reason += "; WAV, FLAC, Ogg and MP3 are: convert others first, for example with ffmpeg"
    return reason


def load_audio(
    path: AnySource,
    sample_rate: int = SAMPLE_RATE,
    *,
    name: str | None = None,
    start: int = 0,
    frames: int = -1,
) -> NDArray[np.float32]:
    """Load a sound file as mono float32 at ``sample_rate``; arguments and errors as in :func:`read_samples`.

    Returns:
        (n,) float32 in -1..1, n = round(seconds * sample_rate); empty for a valid file without samples.
    """
    samples, rate = read_samples(path, name=name, start=start, frames=frames)
    return StreamResampler(rate, sample_rate).push(samples, final=True)


def write_wav(path: str | os.PathLike[str], samples: ArrayLike, sample_rate: int = SAMPLE_RATE) -> None:
    """Write samples (n,) or (n, channels) in -1..1 as a WAV file of 16-bit PCM; the folder is made if needed.

    Raises:
        OSError: the file cannot be written; what was at ``path`` is unchanged.
    """
    write_wav_pieces(path, [np.asarray(samples)], sample_rate)


def write_wav_pieces(path: str | os.PathLike[str], pieces: Iterable[NDArray[Any]], sample_rate: int) -> None:
    """:func:`write_wav` of pieces, one or more, one after the other; only one of them is in memory.

    Raises:
        OSError: as :func:`write_wav`.
    """
    # Python's module, not soundfile: libsndfile does not pass on the errors of a Python file.
    with open_atomic(path, "wb") as raw, wave.open(raw, "wb") as file:
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        for number, piece in enumerate(pieces):
            if not number:
                file.setnchannels(piece.shape[1] if piece.ndim == 2 else 1)
            file.writeframesraw(_pcm(piece, sample_rate))


def _pcm(samples: NDArray[Any], sample_rate: int) -> bytes:
    """Samples in -1..1 as 16-bit PCM, little-endian."""
    content = io.BytesIO()
    soundfile.write(content, np.clip(samples, -1.0, 1.0), sample_rate, "PCM_16", "LITTLE", "RAW")
    return content.getvalue()


def compressed(samples: ArrayLike, sample_rate: int = SAMPLE_RATE) -> tuple[bytes, str]:
    """Samples as a small sound file for a web page: MP3, or FLAC where libsndfile has no MP3.

    Args:
        samples: (n,) or (n, channels) in -1..1.
        sample_rate: Hz, one of the rates of MP3 (8000 to 48000).
    Returns:
        the file's bytes and its media type.
    """
    kind, media_type = ("MP3", "audio/mpeg") if "MP3" in soundfile.available_formats() else ("FLAC", "audio/flac")
    stream = io.BytesIO()
    soundfile.write(stream, np.clip(samples, -1.0, 1.0), sample_rate, format=kind)
    return stream.getvalue(), media_type
