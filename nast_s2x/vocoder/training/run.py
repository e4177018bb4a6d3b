"""A training run: batches, log lines, evaluation, checkpoints, and the vocoder folder of the last checkpoint.

Several processes (``torchrun``) share the work: each reads its part of every batch, checks its part of the recordings
and evaluates its part of the dev recordings; rank 0 writes. They wait for one another in a group of their own with a
long time limit, so that a slow process is not taken for a dead one.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from torch.utils.data import DataLoader

from nast_s2x.checkpoints.safe_load import safe_load
from nast_s2x.checkpoints.weights import write_checkpoint
from nast_s2x.corpus.manifest import Manifest
from nast_s2x.corpus.packing import file_stem
from nast_s2x.corpus.utterance import Utterance
from nast_s2x.errors import AudioError, CheckpointError, ConfigError, ManifestError, NastError
from nast_s2x.files import append, check_output_folder, locked, write_atomic
from nast_s2x.frontend.audio import write_wav
from nast_s2x.progress import progress_bar
from nast_s2x.vocoder.checkpoint import SUBFOLDER, save_vocoder
from nast_s2x.vocoder.config import SAMPLE_RATE, UNIT_SAMPLES, VocoderConfig, check_unit_hash
from nast_s2x.vocoder.network import UnitVocoder
from nast_s2x.vocoder.training.data import (
    CropBatch,
    CropDataset,
    StepBatches,
    check_recordings,
    collate,
    load_recording,
    num_unit_frames,
    units_of,
)
from nast_s2x.vocoder.training.losses import MelSpectrogram
from nast_s2x.vocoder.training.settings import TrainingSettings
from nast_s2x.vocoder.training.trainer import VocoderTrainer, mean_losses, world

CHECKPOINT = "checkpoint_last.pt"
LOG = "train.log"
_SHORTEST_DEV_FRAMES = 4  # the transform of the mel error needs them
_LONGEST_WAIT = timedelta(days=2)
Value = TypeVar("Value")


@dataclass(frozen=True)
class RunOptions:
    """Options of a run; sizes and settings of the training come from its configuration file.

    Attributes:
        output: folder of the checkpoint, the log, samples and the vocoder.
        seed: of everything random, 0 to 2**32 - 1.
        device: "cpu", "cuda" (the process's own GPU under torchrun), ...
        amp: number type of mixed precision, see :class:`~nast_s2x.vocoder.training.trainer.VocoderTrainer`.
        workers: processes that read recordings beside the training; 0 reads them in the training process.
        train_split, dev_split: names in the manifest's column ``split``.
        log_every, save_every: updates between log lines, and between checkpoints with evaluation.
        max_seconds: stop, with a checkpoint, after this wall time of one call; ``None`` = no limit.
        dev_recordings: number of dev recordings that are evaluated and written as samples.
        tensorboard: folder of TensorBoard event files; ``None`` = none.
    """

    output: Path
    seed: int = 1
    device: str = "cpu"
    amp: torch.dtype | None = None
    workers: int = 0
    train_split: str = "train"
    dev_split: str = "dev"
    log_every: int = 50
    save_every: int = 500
    max_seconds: float | None = None
    dev_recordings: int = 8
    tensorboard: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 32:
            raise ConfigError(f"seed must be in 0..{(1 << 32) - 1}, not {self.seed}")
        for name, least in (("workers", 0), ("dev_recordings", 0), ("log_every", 1), ("save_every", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.max_seconds is not None and not self.max_seconds >= 0:
            raise ConfigError(f"the time limit must be at least 0, got {self.max_seconds} seconds")


@dataclass
class _Journal:
    """Log lines on disk (rank 0), TensorBoard if asked for; ``last`` holds the latest values of each kind."""

    file: FileIO | None
    board: Any = None
    last: dict[str, Mapping[str, float]] = field(default_factory=dict)

    def write(self, update: int, kind: str, values: Mapping[str, float]) -> None:
        self.last[kind] = values
        if self.file is None:
            return
        line = {"update": update, "kind": kind} | {name: round(value, 6) for name, value in values.items()}
        append(self.file, (json.dumps(line) + "\n").encode())
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(f"{kind}/{name}", value, update)

    def close(self) -> None:
        for stream in (self.file, self.board):
            if stream is not None:
                stream.close()


@dataclass
class _Run:
    """Parts of a running training."""

    trainer: VocoderTrainer
    data: CropDataset
    dev: Sequence[Utterance]
    options: RunOptions
    journal: _Journal
    waiting: distributed.ProcessGroup | None


@contextlib.contextmanager
def joined_processes(device: torch.device, timeout: timedelta | None = None) -> Iterator[None]:
    """Join the processes that ``torchrun`` started, if it did; leave them at the end of the block.

    Args:
        timeout: limit for an exchange of gradients; ``None`` = torch's default.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
    try:
        yield
    finally:
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()


def train(config: VocoderConfig, settings: TrainingSettings, manifest: Manifest, options: RunOptions) -> Path:
    """Train a vocoder, or continue the training in ``options.output``; returns the vocoder folder.

    Raises:
        NastError: no recordings, recordings that do not fit their units, a checkpoint of another vocoder, an output
            folder that holds something else or that another process works in, a loss that is not finite.
        OSError: a file cannot be written.
    """
    config = _with_hash(config, manifest)
    recordings, dev = _recordings(manifest, options)
    rank, size = world()
    if settings.batch_size % size:
        raise ConfigError(f"batch_size {settings.batch_size} cannot be divided among {size} processes")
    waiting = distributed.new_group(backend="gloo", timeout=_LONGEST_WAIT) if size > 1 else None
    with locked(options.output) if rank == 0 else contextlib.nullcontext():
        if rank == 0:
            check_output_folder(options.output, "vocoder training", LOG, overwrite=True)
        _check_all([*recordings, *dev], waiting)
        trainer = VocoderTrainer(config, settings, options.seed, options.device, options.amp)
        resume(trainer, options.output / CHECKPOINT)
        journal = _open_journal(options, trainer.update)
        try:
            data = CropDataset(recordings, settings.crop_frames, settings.context_frames)
            _update_until_done(_Run(trainer, data, dev, options, journal, waiting))
        finally:
            journal.close()
    return options.output / SUBFOLDER


def _with_hash(config: VocoderConfig, manifest: Manifest) -> VocoderConfig:
    found = manifest.unit_hash()
    check_unit_hash(config.unit_hash, found, "the configuration's units", "the manifest's")
    return replace(config, unit_hash=found or config.unit_hash)


def _recordings(manifest: Manifest, options: RunOptions) -> tuple[list[Utterance], list[Utterance]]:
    """Rows to train on, all rows in a table without splits, and rows to evaluate on."""
    train = [row for row in manifest if row.split == options.train_split or "split" not in manifest.columns]
    if not train:
        splits = ", ".join(sorted({row.split for row in manifest}))
        raise ManifestError(f"{manifest.path}: no recordings of split {options.train_split!r}; there are: {splits}")
    dev = [row for row in manifest if row.split == options.dev_split and num_unit_frames(row) >= _SHORTEST_DEV_FRAMES]
    return train, dev[: options.dev_recordings]


def _check_all(recordings: Sequence[Utterance], waiting: distributed.ProcessGroup | None) -> None:
    """Check the recordings, each process its part; an error is raised in all of them."""
    rank, size = world()
    problem: Exception | None = None
    try:
        check_recordings(recordings[rank::size], show=rank == 0)
    except (NastError, OSError) as error:
        problem = error
    for found in _gathered(problem, waiting):
        if found is not None:
            raise found


def _gathered(value: Value, waiting: distributed.ProcessGroup | None) -> list[Value]:
    """The values of all processes, by rank; waits for them."""
    if waiting is None:
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value, waiting)
    return values


def _loader(run: _Run) -> DataLoader[CropBatch]:
    trainer, options, settings = run.trainer, run.options, run.trainer.settings
    return DataLoader(
        run.data,
        batch_sampler=StepBatches(
            len(run.data), settings.batch_size, options.seed, trainer.update, settings.max_updates, *world()
        ),
        collate_fn=collate,
        num_workers=options.workers,
        pin_memory=trainer.device.type == "cuda",
    )


def _update_until_done(run: _Run) -> None:
    trainer, options, begun = run.trainer, run.options, time.monotonic()
    stop = trainer.settings.max_updates
    logs: list[Mapping[str, Tensor]] = []
    with progress_bar(stop, "training", "update", show=world()[0] == 0, initial=trainer.update) as bar:
        for batch in _with_short_errors(_loader(run)):
            logs.append(trainer.step(batch))
            bar.update()
            is_over = _is_time_over(run, begun)
            # Losses are logged with every checkpoint: a run that continues from it begins with none.
            saves = is_over or trainer.update == stop or trainer.update % options.save_every == 0
            if saves or trainer.update % options.log_every == 0:
                trainer.check()
                losses = mean_losses(logs)
                logs.clear()
                run.journal.write(trainer.update, "train", losses | {"seconds": time.monotonic() - begun})
                shown = [name for name in ("mel_loss", "stft_loss") if name in losses]
                bar.set_postfix({name: f"{losses[name]:.3f}" for name in shown}, refresh=False)
            if saves:
                _save(run)
            if is_over:
                return
    if not _gathered((options.output / SUBFOLDER).exists(), run.waiting)[0]:
        _save(run)


def _with_short_errors(batches: Iterable[CropBatch]) -> Iterator[CropBatch]:
    """The same batches; the error for an unusable recording is shown without the traceback of a reading process."""
    try:
        yield from batches
    except AudioError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix(f"{AudioError.__module__}.AudioError: ")
        raise AudioError(reason) from error


def _is_time_over(run: _Run, begun: float) -> bool:
    """Whether to stop now; rank 0 decides, because all processes must stop after the same update."""
    if run.options.max_seconds is None:
        return False
    return _gathered(time.monotonic() - begun > run.options.max_seconds, run.waiting)[0]


def _save(run: _Run) -> None:
    """Evaluate, write the vocoder folder, then the checkpoint; each appears complete."""
    trainer, output = run.trainer, run.options.output
    trainer.check()
    model = trainer.exported()
    evaluated = _evaluate(model, run)
    if world()[0] == 0:
        if evaluated:
            names = {name: None for values, _ in evaluated for name in values}
            means = {name: float(np.mean([values[name] for values, _ in evaluated])) for name in names}
            run.journal.write(trainer.update, "dev", means)
            _write_samples(run, [samples for _, samples in evaluated])
        save_vocoder(model, output / SUBFOLDER, card=_card(run, model))
        write_checkpoint(output / CHECKPOINT, trainer.training_state())
    _gathered(None, run.waiting)


def _evaluate(model: UnitVocoder, run: _Run) -> list[tuple[dict[str, float], NDArray[np.float32]]]:
    """:func:`measure` of every dev recording, each process its part."""
    rank, size = world()
    parts = _gathered([measure(model, one, run.trainer.settings.floor) for one in run.dev[rank::size]], run.waiting)
    return [parts[index % size][index // size] for index in range(len(run.dev))]


@torch.inference_mode()
def measure(model: UnitVocoder, recording: Utterance, floor: float) -> tuple[dict[str, float], NDArray[np.float32]]:
    """Synthesize a recording from its true units and durations (copy-synthesis), and measure the errors.

    Args:
        model: in eval mode.
        recording: with at least 4 unit frames.
        floor: see :class:`~nast_s2x.vocoder.training.losses.MelSpectrogram`.

    Returns:
        ``mel_error``, the mean absolute difference of 80 log-mel energies, and ``duration_error``, the mean absolute
        error of predicted durations in frames (if the vocoder predicts durations); and the samples (320 * frames,).
    """
    units, durations = units_of(recording)
    frames = torch.from_numpy(np.repeat(units, durations))
    copy = model(frames[None].to(model.device))[0].float().cpu()
    pair = MelSpectrogram(floor=floor)(torch.stack([torch.from_numpy(load_recording(recording)), copy]))
    values = {"mel_error": float((pair[0] - pair[1]).abs().mean())}
    if model.dur_predictor is not None:
        predicted = model.durations(torch.from_numpy(units)[None].to(model.device))[0].cpu().numpy()
        values["duration_error"] = float(np.abs(predicted - durations).mean())
    return values, copy.numpy()


def _write_samples(run: _Run, copies: Sequence[NDArray[np.float32]]) -> None:
    """``ID_UPDATE.wav`` for each dev recording and, once, ``ID_original.wav``."""
    folder = run.options.output / "samples"
    for recording, copy in zip(run.dev, copies, strict=True):
        name = file_stem(recording.id)
        original = folder / f"{name}_original.wav"
        if not original.exists():
            write_wav(original, load_recording(recording))
        write_wav(folder / f"{name}_{run.trainer.update:07d}.wav", copy)


def resume(trainer: VocoderTrainer, path: Path) -> bool:
    """Continue from a checkpoint if there is one; returns whether there was.

    Raises:
        NastError: a damaged file, not a checkpoint of a vocoder training, or one of another vocoder.
    """
    if not path.is_file():
        return False
    state = safe_load(path, device=trainer.device)
    try:
        trainer.resume(state)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of a vocoder training ({error})") from error
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return True


def _open_journal(options: RunOptions, update: int) -> _Journal:
    """The journal; what an interrupted run has written after the checkpoint of ``update`` is removed."""
    if world()[0] != 0:
        return _Journal(None)
    board = None
    if options.tensorboard is not None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError("--tensorboard needs the Python package 'tensorboard', which is not installed") from error
        board = SummaryWriter(str(options.tensorboard))
    path = options.output / LOG
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    write_atomic(path, b"".join(line for line in lines if _is_up_to(line, update)))
    return _Journal(FileIO(path, "a"), board)


def _is_up_to(line: bytes, update: int) -> bool:
    """Whether a line of the log is whole and not of a later update."""
    try:
        return line.endswith(b"\n") and bool(json.loads(line)["update"] <= update)
    except (ValueError, KeyError, TypeError, RecursionError):
        return True  # a remark of somebody else


def _card(run: _Run, model: UnitVocoder) -> str:
    config, settings, update = run.trainer.config, run.trainer.settings, run.trainer.update
    recordings, start = run.data.recordings, settings.adversarial_from
    hours = sum(map(num_unit_frames, recordings)) * UNIT_SAMPLES / SAMPLE_RATE / 3600
    crop = settings.crop_frames * UNIT_SAMPLES / SAMPLE_RATE
    size = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        "# Unit vocoder",
        "",
        f"{config.num_embeddings} speech units of 20 ms to a 16 kHz waveform: a CodeHiFiGAN generator of "
        f"{size / 1e6:.2f}M parameters, trained by `nast-s2x vocoder train`.",
        "",
        f"* units: centroids {config.unit_hash or 'not recorded'}",
        f"* trained on {len(recordings)} recordings ({hours:.1f} hours), {update} updates of {settings.batch_size} "
        f"crops of {crop:.2f} s",
        f"* discriminators: {'none' if start is None or update <= start else f'from update {start} on'}",
    ]
    losses = [f"{name} {value:.3f}" for name, value in run.journal.last.get("train", {}).items() if "loss" in name]
    if losses:
        lines.append(f"* losses of the last updates: {', '.join(losses)}")
    results = run.journal.last.get("dev", {})
    if results:
        lines.append(
            f"* copy-synthesis of {len(run.dev)} dev recordings: mean absolute log-mel error "
            f"{results['mel_error']:.3f} (80 bands, floor {settings.floor})"
        )
    if "duration_error" in results:
        lines.append(f"* predicted durations: mean absolute error {results['duration_error']:.2f} unit frames")
    return "\n".join(lines) + "\n"
