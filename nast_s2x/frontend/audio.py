"""Audio files and streams of samples: mono, float32, -1..1, at the rate the model wants.

A file and a live stream go through the same :class:`StreamResampler`, so they give the same samples.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike, NDArray

from nast_s2x.errors import AudioError

SAMPLE_RATE = 16000
#: soxr's recipe; "HQ" keeps 20 bits of precision and holds back 14 ms of a stream.
RESAMPLING_QUALITY = "HQ"

# Full scale of the integer formats that sound cards and wav readers deliver.
_PCM_SCALE = {np.dtype(np.int8): 2.0**7, np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}


def as_mono(samples: ArrayLike) -> NDArray[np.float32]:
    """Convert samples to mono float32.

    Args:
        samples: (n,) or (n, channels), numpy, torch on CPU or list. int8, int16 and int32 count as PCM and are scaled
            to -1..1; other types are taken as they are. Channels are averaged.

    Returns:
        (n,) float32, contiguous.

    Raises:
        AudioError: more than two axes, no channels, or values that are not finite.
    """
    array = np.asarray(samples)
    scale = _PCM_SCALE.get(array.dtype)
    array = array.astype(np.float32)
    if scale is not None:
        array /= np.float32(scale)
    if array.ndim == 2 and array.shape[1] > 0:
        array = array[:, 0] if array.shape[1] == 1 else array.mean(axis=1, dtype=np.float32)
    if array.ndim != 1:
        raise AudioError(f"samples must have shape (n,) or (n, channels), not {tuple(np.shape(samples))}")
    if not np.isfinite(array).all():
        raise AudioError("samples must be finite numbers, but some are NaN or infinite")
    return np.ascontiguousarray(array)


class StreamResampler:
    """Resample a stream, piece by piece; any cut of the input gives exactly the samples of the whole.

    The object is the state of one stream. With equal rates samples pass through without delay.

    Example:
        >>> resampler = StreamResampler(48000)
        >>> len(resampler.push(np.zeros(24000), final=True))
        8000
    """

    def __init__(self, source_rate: int, target_rate: int = SAMPLE_RATE) -> None:
        if int(source_rate) != source_rate or source_rate <= 0 or target_rate <= 0:
            raise AudioError(f"sample rates must be positive whole numbers, not {source_rate} and {target_rate}")
        self.source_rate, self.target_rate = int(source_rate), int(target_rate)
        self.finished = False
        self._stream: soxr.ResampleStream | None = None
        if self.source_rate != self.target_rate:
            self._stream = soxr.ResampleStream(
                self.source_rate, self.target_rate, 1, dtype="float32", quality=RESAMPLING_QUALITY
            )

    def push(self, samples: ArrayLike, final: bool = False) -> NDArray[np.float32]:
        """Take the next samples (n,) or (n, channels) and return what is ready, (m,) float32 at the target rate.

        ``final=True`` ends the stream and flushes what was held back; a push after that is a ``ValueError``.
        """
        if self.finished:
            raise ValueError("this stream has ended: a push after final=True needs a new StreamResampler")
        self.finished = final
        mono = as_mono(samples)
        if self._stream is None:
            return mono
        return self._stream.resample_chunk(mono, last=final)


def read_samples(
    source: str | os.PathLike[str] | IO[bytes], name: str | None = None, start: int = 0, frames: int = -1
) -> tuple[NDArray[np.float32], int]:
    """Read a sound file of any format libsndfile knows (wav, flac, ogg, mp3, ...) as it is.

    Args:
        source: path, or a binary file object.
        name: what error messages call it; the path by default.
        start: first sample to read, at the file's own rate.
        frames: number of samples to read, -1 for all.

    Returns:
        samples (n,) mono float32, and the file's sample rate. A valid file without samples gives an empty array.

    Raises:
        AudioError: missing, empty (no bytes), unreadable, or with samples that are not finite.
    """
    name = name or str(source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.is_file():
            raise AudioError(f"{name}: no such audio file" if not path.exists() else f"{name}: not a file")
        if path.stat().st_size == 0:
            raise AudioError(f"{name}: the file is empty")
    try:
        samples, rate = _read_whole(source, start, frames)
    except (soundfile.SoundFileError, RuntimeError, OSError, TypeError) as error:
        raise AudioError(f"{name}: cannot be read as audio ({_reason(error)})") from error
    try:
        return as_mono(samples), rate
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from error


def read_header(source: str | os.PathLike[str] | IO[bytes], name: str | None = None) -> tuple[int, int]:
    """Number of samples of each channel and sample rate that a sound file's header declares; no sound is decoded.

    Args:
        source: path, or a binary file object.
        name: what error messages call it; the path by default.

    Raises:
        AudioError: missing or unreadable; names the file.
    """
    if isinstance(source, (str, os.PathLike)):
        source = os.fspath(source)
    try:
        info = soundfile.info(source)
    except (soundfile.SoundFileError, RuntimeError, OSError, TypeError) as error:
        raise AudioError(f"{name or source}: cannot be read as audio ({_reason(error)})") from error
    return int(info.frames), int(info.samplerate)


def declared_samples(path: str | os.PathLike[str], sample_rate: int = SAMPLE_RATE) -> int:
    """Number of samples at ``sample_rate`` that a sound file's header declares; errors as in :func:`read_header`."""
    samples, rate = read_header(path)
    return samples * sample_rate // rate


def _read_whole(source: Any, start: int, frames: int) -> tuple[NDArray[np.float32], int]:
    with soundfile.SoundFile(source) as file:
        if start:
            if not 0 <= start <= file.frames:
                raise OSError(f"segment starts at sample {start}, the file has {file.frames}")
            file.seek(start)
        return file.read(frames=frames, dtype="float32", always_2d=True), file.samplerate


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", None) or error).strip().rstrip(".")


def load_audio(
    path: str | os.PathLike[str] | IO[bytes],
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
        OSError: the file cannot be written; nothing is left of it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        soundfile.write(os.fspath(path), np.clip(samples, -1.0, 1.0), sample_rate, subtype="PCM_16", format="WAV")
    except (soundfile.SoundFileError, RuntimeError) as error:
        path.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written: {error}") from None


def compressed(samples: ArrayLike, sample_rate: int = SAMPLE_RATE) -> tuple[bytes, str]:
    """Samples as a small sound file for a web page: MP3, which every browser plays; FLAC where libsndfile lacks it.

    Args:
        samples: (n,) or (n, channels) in -1..1.
        sample_rate: Hz.
    Returns:
        the file's bytes and its media type.
    """
    kind, media_type = ("MP3", "audio/mpeg") if "MP3" in soundfile.available_formats() else ("FLAC", "audio/flac")
    stream = io.BytesIO()
    soundfile.write(stream, np.clip(samples, -1.0, 1.0), sample_rate, format=kind)
    return stream.getvalue(), media_type
