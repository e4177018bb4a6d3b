"""Data of vocoder training: recordings with their units and durations, random crops of them, batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.manifest import TARGET_AUDIO, Manifest, read_manifest
from nast_s2x.corpus.utterance import UNIT_SAMPLES, Units, Utterance
from nast_s2x.errors import AudioError, ManifestError
from nast_s2x.frontend.audio import load_audio
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.progress import progress_bar

# Unit frames that a recording may lack, or have in excess: features need whole windows, so the last frame or two may
# have no unit; the length in an mp3 header includes padding.
_MISSING_FRAMES, _SURPLUS_FRAMES = 2, 6


def read_units_manifest(
    path: str | Path, num_units: int, audio_column: str = TARGET_AUDIO, splits: Collection[str] | None = None
) -> Manifest:
    """Read the recordings of a units manifest, which ``nast-s2x units extract`` writes.

    Args:
        path: table with the audio column, ``tgt_audio`` and ``tgt_durations``, and optionally ``id``, ``split`` and
            ``unit_hash``.
        num_units: number of units K.
        audio_column: column of the recordings that the units were extracted from.
        splits: only these, ``None`` = all.

    Raises:
        FileNotFoundError, ManifestError: as for :func:`~nast_s2x.corpus.manifest.read_manifest`.
    """
    return read_manifest(
        path,
        required=(audio_column, "tgt_audio", "tgt_durations"),
        split=splits,
        target_audio=audio_column,
        num_units=num_units,
        with_durations=True,
    )


def audio_of(row: Utterance) -> AudioRef:
    """The recording that the units of a row were extracted from."""
    assert row.target_audio is not None, "rows are read with their recording"
    return row.target_audio


def units_of(row: Utterance) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Unit codes (N,) and their durations (N,)."""
    units = row.units or Units(())
    return np.array(units.codes, np.int64), np.array(units.durations, np.int64)


def num_unit_frames(row: Utterance) -> int:
    """Sum of a row's durations."""
    return sum(row.units.durations or ()) if row.units else 0


def check_recordings(rows: Sequence[Utterance], show: bool = False) -> None:
    """Compare the length of every recording, from the header of its file, with its units.

    Args:
        rows: of a units manifest with durations.
        show: show a progress bar.

    Raises:
        AudioError: missing, unreadable or without samples; names the file.
        ManifestError: longer or shorter than its durations by more than a few unit frames; names id, file and lengths.
    """
    with progress_bar(len(rows), "checking recordings", "recording", show) as bar:
        for row in rows:
            _check_length(row)
            bar.update()


def _check_length(row: Utterance) -> None:
    audio, frames = audio_of(row), num_unit_frames(row)
    samples, rate = audio.header()
    samples = samples * SAMPLE_RATE // rate
    if samples == 0:
        raise AudioError(f"{audio}: the recording has no samples")
    if not -_MISSING_FRAMES * UNIT_SAMPLES <= samples - frames * UNIT_SAMPLES <= _SURPLUS_FRAMES * UNIT_SAMPLES:
        raise ManifestError(
            f"{row.id}: {audio} has {samples} samples ({samples / UNIT_SAMPLES:.1f} unit frames), its durations sum to "
            f"{frames} frames: units of another recording, or durations that are not frames of 20 ms"
        )


def load_recording(row: Utterance, start: int = 0, frames: int | None = None) -> NDArray[np.float32]:
    """Samples of the unit frames ``start`` to ``start + frames`` (to the end by default), 320 of each.

    Samples that the recording lacks at its end are zeros.

    Raises:
        AudioError: unreadable, or with samples that are not finite; names the file.
    """
    frames = num_unit_frames(row) - start if frames is None else frames
    count = frames * UNIT_SAMPLES
    samples = _decode(audio_of(row), start * UNIT_SAMPLES, count)
    return np.pad(samples, (0, count - len(samples)))


def _decode(audio: AudioRef, first: int, count: int) -> NDArray[np.float32]:
    """Samples ``first`` to ``first + count`` at 16 kHz, as far as there are any; no others are read where possible."""
    available, rate = audio.header()
    if audio.is_packed or rate != SAMPLE_RATE:
        return audio.samples()[first : first + count]
    count = min(count, available - first)
    if count <= 0:
        return np.zeros(0, np.float32)
    return load_audio(audio.path, name=str(audio), start=audio.start + first, frames=count)


@dataclass(frozen=True)
class Crop:
    """A random part of a recording.

    Attributes:
        frames: (T,) unit of each frame of the window: the crop with context on both sides; 0 past the end.
        length: frames of the window that the recording has.
        offset: frame of the window at which the crop begins.
        samples: (320 * crop,) waveform of the crop; zeros past the end.
        units, durations: (N,) of the whole recording.
    """

    frames: Tensor
    length: int
    offset: int
    samples: Tensor
    units: Tensor
    durations: Tensor


class CropDataset(Dataset[Crop]):
    """Random crops that start at unit frames, with the frames around them as context.

    The index of an item is (recording, seed): the same pair gives the same crop in every process.

    Args:
        recordings: at least one row of a units manifest.
        crop_frames: unit frames of a crop.
        context_frames: unit frames before and after a crop that the generator also receives.
    """

    def __init__(self, recordings: Sequence[Utterance], crop_frames: int, context_frames: int) -> None:
        self.recordings, self.crop_frames, self.context_frames = list(recordings), crop_frames, context_frames

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, item: tuple[int, int]) -> Crop:
        index, seed = item
        recording = self.recordings[index]
        units, durations = units_of(recording)
        total, window = int(durations.sum()), self.crop_frames + 2 * self.context_frames
        start = int(np.random.default_rng(seed).integers(max(0, total - self.crop_frames) + 1))
        # At the edges of a recording the window is shifted inwards: edges are trained on as they are synthesized.
        first = min(max(0, start - self.context_frames), max(0, total - window))
        frames = np.repeat(units, durations)[first : first + window]
        length = len(frames)
        return Crop(
            frames=torch.from_numpy(np.pad(frames, (0, window - length))),
            length=length,
            offset=start - first,
            samples=torch.from_numpy(load_recording(recording, start, self.crop_frames)),
            units=torch.from_numpy(units),
            durations=torch.from_numpy(durations),
        )


@dataclass
class CropBatch:
    """Several crops; fields as in :class:`Crop`.

    Attributes:
        frames: (B, T).
        lengths: (B,); ``None`` if every window is complete.
        offsets: (B,).
        samples: (B, n).
        units, durations: (B, N) with 0 past ``unit_lengths``.
        unit_lengths: (B,).
    """

    frames: Tensor
    lengths: Tensor | None
    offsets: Tensor
    samples: Tensor
    units: Tensor
    durations: Tensor
    unit_lengths: Tensor

    def pin_memory(self) -> CropBatch:
        """Return the batch in page-locked memory; data loaders call this, so that :meth:`to` copies asynchronously."""
        return self._map(Tensor.pin_memory)

    def to(self, device: torch.device) -> CropBatch:
        """Return the batch on another device; the copy is asynchronous if the batch is in page-locked memory."""
        return self._map(lambda value: value.to(device, non_blocking=True))

    def _map(self, function: Callable[[Tensor], Tensor]) -> CropBatch:
        return CropBatch(**{name: None if value is None else function(value) for name, value in vars(self).items()})


def collate(crops: Sequence[Crop]) -> CropBatch:
    """Batch crops of one dataset."""
    lengths = torch.tensor([crop.length for crop in crops])
    pad = torch.nn.utils.rnn.pad_sequence
    return CropBatch(
        frames=torch.stack([crop.frames for crop in crops]),
        lengths=lengths if bool((lengths < len(crops[0].frames)).any()) else None,
        offsets=torch.tensor([crop.offset for crop in crops]),
        samples=torch.stack([crop.samples for crop in crops]),
        units=pad([crop.units for crop in crops], batch_first=True),
        durations=pad([crop.durations for crop in crops], batch_first=True),
        unit_lengths=torch.tensor([len(crop.units) for crop in crops]),
    )


class StepBatches(Sampler[list[tuple[int, int]]]):
    """Batches of the updates ``start`` to ``stop`` for one process; each follows from (seed, update, rank) alone.

    Each pass over the recordings has its own order. Together the processes read the batches of a single process.

    Args:
        num_items: number of recordings.
        batch_size: crops per update over all processes; divisible by ``world_size``.
        seed: of the order and of the crops.
        start, stop: first update, and the one after the last.
        rank, world_size: of this process, and number of processes.
    """

    def __init__(
        self, num_items: int, batch_size: int, seed: int, start: int, stop: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.num_items, self.batch_size, self.seed = num_items, batch_size, seed
        self.start, self.stop, self.rank, self.world_size = start, stop, rank, world_size

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        current, order = -1, np.zeros(0, np.int64)
        for step in range(self.start, self.stop):
            batch = []
            for place in range(step * self.batch_size, (step + 1) * self.batch_size):
                epoch, index = divmod(place, self.num_items)
                if epoch != current:
                    current, order = epoch, np.random.default_rng((self.seed, epoch)).permutation(self.num_items)
                batch.append((int(order[index]), self.seed * 1_000_003 + place))
            yield batch[self.rank :: self.world_size]
