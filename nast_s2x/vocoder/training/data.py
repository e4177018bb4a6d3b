"""Recordings with their units and durations, cut at random for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from tqdm import tqdm

from nast_s2x.corpus.manifest import parse_durations, parse_units, read_table
from nast_s2x.errors import AudioError
from nast_s2x.frontend.audio import SAMPLE_RATE, declared_samples, load_audio
from nast_s2x.vocoder.config import UNIT_SAMPLES

# Windows that reach past their 20 ms leave a unit frame or two without units, and mp3 headers count their padding too.
_MISSING_FRAMES, _SURPLUS_FRAMES = 2, 6


@dataclass(frozen=True)
class UnitRecording:
    """One recording: its file and what it says.

    Attributes:
        id: name.
        audio: path of the recording.
        units: reduced units.
        durations: unit frames of each.
    """

    id: str
    audio: Path
    units: NDArray[np.int64]
    durations: NDArray[np.int64]

    @property
    def num_frames(self) -> int:
        """Unit frames."""
        return int(self.durations.sum())


@dataclass(frozen=True)
class UnitManifest:
    """Recordings of a units manifest by split, and the hash of the centroids that its units come from."""

    splits: dict[str, list[UnitRecording]]
    unit_hash: str | None


def read_units_manifest(
    path: str | Path, num_units: int, audio_column: str = "tgt_speech", splits: Sequence[str] | None = None
) -> UnitManifest:
    """Read the manifest that ``nast-s2x units extract`` writes.

    Args:
        path: tab-separated table with ``id``, the audio column, ``tgt_audio``, ``tgt_durations``, and optionally
            ``split`` (all rows are "train" without) and ``unit_hash``. Relative audio paths start at its folder.
        num_units: K; every unit must be below.
        audio_column: column that names the recordings the units were taken from.
        splits: only these, ``None`` = all.

    Raises:
        FileNotFoundError: no such manifest.
        ValueError: names the file, the line and what is wrong with it.
    """
    path = Path(path)
    found: dict[str, list[UnitRecording]] = {}
    hashes: set[str] = set()
    for row in read_table(path, required=("id", audio_column, "tgt_audio", "tgt_durations")):
        try:
            if row.problem:
                raise ValueError(row.problem)
            split = row.cells.get("split", "train")
            if splits is None or split in splits:
                found.setdefault(split, []).append(_recording(row.cells, path.parent, num_units, audio_column))
                hashes.add(row.cells.get("unit_hash", ""))
        except ValueError as error:
            raise ValueError(f"{path}:{row.line}: {error}") from error
    if len(hashes) > 1:
        names = ", ".join(name or "(not recorded)" for name in sorted(hashes))
        raise ValueError(f"{path}: units of different centroids in one manifest: {names}")
    return UnitManifest(found, next(iter(hashes), "") or None)


def _recording(cells: dict[str, str], folder: Path, num_units: int, audio_column: str) -> UnitRecording:
    units = parse_units(cells["tgt_audio"], num_units)
    durations = parse_durations(cells["tgt_durations"], len(units))
    audio = cells[audio_column].strip()
    if not audio:
        raise ValueError(f"no recording in column {audio_column}")
    return UnitRecording(cells["id"], folder / audio, np.array(units), np.array(durations))


def check_recordings(recordings: Sequence[UnitRecording], progress: bool = False) -> None:
    """Compare the length of every sound file (its header) with its units.

    Raises:
        AudioError: missing, unreadable or without samples; names the file.
        ValueError: longer or shorter than its durations by more than a few unit frames; names id, file and lengths.
    """
    for recording in tqdm(recordings, "checking recordings", disable=not progress, leave=False):
        _check_length(recording, declared_samples(recording.audio, SAMPLE_RATE))


def _check_length(recording: UnitRecording, samples: int) -> None:
    if samples == 0:
        raise AudioError(f"{recording.audio}: the recording has no samples")
    frames = recording.num_frames
    if not -_MISSING_FRAMES * UNIT_SAMPLES <= samples - frames * UNIT_SAMPLES <= _SURPLUS_FRAMES * UNIT_SAMPLES:
        raise ValueError(
            f"{recording.id}: {recording.audio} has {samples} samples ({samples / UNIT_SAMPLES:.1f} unit frames), its "
            f"durations sum to {frames} frames: units of another recording, or durations that are not frames of 20 ms"
        )


def load_recording(recording: UnitRecording, start: int = 0, frames: int | None = None) -> NDArray[np.float32]:
    """Samples of unit frames ``start`` to ``start + frames`` (to the end by default), 320 of each.

    What the file lacks at its end is filled with zeros.

    Raises:
        AudioError: unreadable, without samples, or with samples that are not finite; names the file.
    """
    frames = recording.num_frames - start if frames is None else frames
    first, count = start * UNIT_SAMPLES, frames * UNIT_SAMPLES
    available = max(0, min(count, declared_samples(recording.audio) - first))
    if soundfile.info(str(recording.audio)).samplerate == SAMPLE_RATE:
        samples = load_audio(recording.audio, start=first, frames=available) if available else np.zeros(0, np.float32)
    else:
        samples = load_audio(recording.audio)[first : first + count]
    return np.pad(samples, (0, count - len(samples)))


@dataclass(frozen=True)
class Crop:
    """A piece of a recording.

    Attributes:
        frames: (T,) unit of each frame of the window: the crop and its neighbours on both sides; 0 behind the end.
        length: frames of the window that the recording has.
        offset: frame of the window at which the crop begins.
        samples: (320 * crop,) waveform of the crop; zeros behind the end.
        units, durations: (N,) of the whole recording.
    """

    frames: Tensor
    length: int
    offset: int
    samples: Tensor
    units: Tensor
    durations: Tensor


class CropDataset(Dataset[Crop]):
    """Random crops that start at unit frames; inside a recording the generator sees the crop's real neighbours.

    Items are asked for by (recording, seed): the same pair gives the same crop in every process.

    Args:
        recordings: at least one.
        crop_frames: unit frames of a crop.
        context_frames: unit frames before and after it that the generator also reads.
    """

    def __init__(self, recordings: Sequence[UnitRecording], crop_frames: int, context_frames: int) -> None:
        self.recordings, self.crop_frames, self.context_frames = list(recordings), crop_frames, context_frames

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, item: tuple[int, int]) -> Crop:
        index, seed = item
        recording = self.recordings[index]
        total, window = recording.num_frames, self.crop_frames + 2 * self.context_frames
        start = int(np.random.default_rng(seed).integers(max(0, total - self.crop_frames) + 1))
        # At the edges of a recording the window has no neighbours to show, as in synthesis.
        first = min(max(0, start - self.context_frames), max(0, total - window))
        frames = np.repeat(recording.units, recording.durations)[first : first + window]
        length = len(frames)
        return Crop(
            frames=torch.from_numpy(np.pad(frames, (0, window - length))),
            length=length,
            offset=start - first,
            samples=torch.from_numpy(load_recording(recording, start, self.crop_frames)),
            units=torch.from_numpy(recording.units),
            durations=torch.from_numpy(recording.durations),
        )


@dataclass
class CropBatch:
    """Crops put together.

    Attributes:
        frames: (B, T); lengths: (B,) or ``None`` where all are whole; offsets: (B,); samples: (B, n).
        units, durations: (B, N) with 0 behind ``unit_lengths`` (B,).
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
    """Crops of one dataset -> :class:`CropBatch`."""
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
    """The batches of updates ``start`` to ``stop`` of one rank, a function of (seed, update, rank) alone.

    Each pass shuffles the recordings anew; the ranks share out each batch, so that all together see what a single
    process with the whole batch would see.

    Args:
        num_items: recordings.
        batch_size: crops of an update, all ranks together; divisible by ``world_size``.
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
