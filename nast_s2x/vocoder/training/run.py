"""A whole training: batches, log lines, evaluations, checkpoints, and the vocoder folder that can be used meanwhile."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader
from tqdm import tqdm

from nast_s2x.checkpoints.safe_load import safe_load
from nast_s2x.frontend.audio import AudioError
from nast_s2x.vocoder.checkpoint import SUBFOLDER, save_vocoder
from nast_s2x.vocoder.config import SAMPLE_RATE, UNIT_SAMPLES, VocoderConfig
from nast_s2x.vocoder.network import UnitVocoder
from nast_s2x.vocoder.training.data import (
    CropBatch,
    CropDataset,
    StepBatches,
    UnitManifest,
    UnitRecording,
    check_recordings,
    collate,
)
from nast_s2x.vocoder.training.evaluation import evaluate
from nast_s2x.vocoder.training.parallel import ALONE, Ranks
from nast_s2x.vocoder.training.settings import TrainingSettings
from nast_s2x.vocoder.training.trainer import VocoderTrainer, mean_losses

CHECKPOINT = "checkpoint_last.pt"
LOG = "train.log"
_SHORTEST_DEV_FRAMES = 4  # the mel error's transform needs them


@dataclass(frozen=True)
class RunOptions:
    """How a training runs, apart from what it computes.

    Attributes:
        output: folder of the checkpoint, the log, samples and the vocoder.
        seed: of everything random.
        device: "cpu", "cuda" (the process's own GPU under torchrun), ...
        amp: mixed precision, on CUDA.
        workers: processes that read recordings beside the training; 0 = it reads them itself.
        train_split, dev_split: names in the manifest's column ``split``.
        log_every, save_every: updates between log lines, and between checkpoints with evaluation.
        max_seconds: stop, with a checkpoint, after this wall time of one call; ``None`` = no limit.
        dev_recordings: recordings of the dev split that are evaluated and written as samples.
        tensorboard: folder of its event files; ``None`` = none.
    """

    output: Path
    seed: int = 1
    device: str = "cpu"
    amp: bool = False
    workers: int = 0
    train_split: str = "train"
    dev_split: str = "dev"
    log_every: int = 50
    save_every: int = 500
    max_seconds: float | None = None
    dev_recordings: int = 8
    tensorboard: Path | None = None


@dataclass
class _Journal:
    """Log lines on disk (rank 0), TensorBoard where asked for; ``last`` holds the latest values of each kind."""

    file: TextIO | None
    board: Any = None
    last: dict[str, Mapping[str, float]] = field(default_factory=dict)

    def write(self, update: int, kind: str, values: Mapping[str, float]) -> None:
        self.last[kind] = values
        if self.file is None:
            return
        line = {"update": update, "kind": kind} | {name: round(value, 6) for name, value in values.items()}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(f"{kind}/{name}", value, update)

    def close(self) -> None:
        for stream in (self.file, self.board):
            if stream is not None:
                stream.close()


@dataclass
class _Run:
    """What a running training consists of."""

    trainer: VocoderTrainer
    data: CropDataset
    dev: Sequence[UnitRecording]
    options: RunOptions
    journal: _Journal


def train(
    config: VocoderConfig,
    settings: TrainingSettings,
    manifest: UnitManifest,
    options: RunOptions,
    ranks: Ranks = ALONE,
) -> Path:
    """Train, or go on with what ``options.output`` holds; returns the vocoder folder.

    Raises:
        ValueError: no recordings, recordings that do not fit their units, or a checkpoint of another vocoder.
    """
    config = _with_hash(config, manifest)
    recordings = manifest.splits.get(options.train_split, [])
    if not recordings:
        raise ValueError(f"no recordings of split {options.train_split!r}; there are: {', '.join(manifest.splits)}")
    if settings.batch_size % ranks.world_size:
        raise ValueError(f"batch_size {settings.batch_size} cannot be shared out among {ranks.world_size} processes")
    dev = [r for r in manifest.splits.get(options.dev_split, []) if r.num_frames >= _SHORTEST_DEV_FRAMES]
    dev = dev[: options.dev_recordings]
    if ranks.main:
        check_recordings([*recordings, *dev], progress=True)
    trainer = VocoderTrainer(config, settings, options.seed, options.device, ranks, options.amp)
    resume(trainer, options.output / CHECKPOINT)
    journal = _open_journal(options, ranks)
    try:
        data = CropDataset(recordings, settings.crop_frames, settings.context_frames)
        _update_until_done(_Run(trainer, data, dev, options, journal))
    finally:
        journal.close()
    return options.output / SUBFOLDER


def _with_hash(config: VocoderConfig, manifest: UnitManifest) -> VocoderConfig:
    if config.unit_hash is not None and manifest.unit_hash not in (None, config.unit_hash):
        raise ValueError(
            f"the configuration is for units of centroids {config.unit_hash}, the manifest's are of "
            f"{manifest.unit_hash}"
        )
    return replace(config, unit_hash=manifest.unit_hash or config.unit_hash)


def _loader(run: _Run) -> DataLoader[CropBatch]:
    trainer, options, ranks = run.trainer, run.options, run.trainer.ranks
    size, stop = trainer.settings.batch_size, trainer.settings.max_updates
    return DataLoader(
        run.data,
        batch_sampler=StepBatches(
            len(run.data), size, options.seed, trainer.update, stop, ranks.rank, ranks.world_size
        ),
        collate_fn=collate,
        num_workers=options.workers,
        pin_memory=trainer.device.type == "cuda",
    )


def _update_until_done(run: _Run) -> None:
    trainer, options, begun = run.trainer, run.options, time.monotonic()
    stop, main = trainer.settings.max_updates, trainer.ranks.main
    bar = tqdm(_loader(run), "training", stop, initial=trainer.update, disable=not main)
    logs: list[Mapping[str, Tensor]] = []
    for batch in _told_in_one_line(bar):
        logs.append(trainer.step(batch))
        if trainer.update % options.log_every == 0 or trainer.update == stop:
            losses = mean_losses(logs)
            logs.clear()
            run.journal.write(trainer.update, "train", losses | {"seconds": time.monotonic() - begun})
            bar.set_postfix({name: f"{losses[name]:.3f}" for name in ("mel_loss", "stft_loss") if name in losses})
        over = _time_over(options, begun, trainer)
        if main and (over or trainer.update % options.save_every == 0 or trainer.update == stop):
            _save(run)
        if over:
            break
    if main and not (options.output / SUBFOLDER).exists():
        _save(run)


def _told_in_one_line(batches: Iterable[CropBatch]) -> Iterator[CropBatch]:
    """The same batches; a recording that cannot be used is an error without the traceback of a reading process."""
    try:
        yield from batches
    except AudioError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix(f"{AudioError.__module__}.AudioError: ")
        raise AudioError(reason) from error


def _time_over(options: RunOptions, begun: float, trainer: VocoderTrainer) -> bool:
    """Whether to stop now; all processes must agree, or one would wait for the others' gradients for ever."""
    if options.max_seconds is None:
        return False
    over = torch.tensor(float(time.monotonic() - begun > options.max_seconds), device=trainer.device)
    if trainer.ranks.world_size > 1:
        distributed.broadcast(over, 0)
    return bool(over)


def _save(run: _Run) -> None:
    """Evaluate, write the vocoder folder, then the checkpoint: each file appears whole or not at all."""
    trainer, output = run.trainer, run.options.output
    model = trainer.exported()
    if run.dev:
        results = evaluate(model, run.dev, trainer.settings.floor, output / "samples", f"{trainer.update:07d}")
        run.journal.write(trainer.update, "dev", results)
    save_vocoder(model, output / SUBFOLDER, card=_card(run, model))
    partial = output / f"{CHECKPOINT}.partial"
    torch.save(trainer.training_state(), partial)
    os.replace(partial, output / CHECKPOINT)


def resume(trainer: VocoderTrainer, path: Path) -> bool:
    """Go on from a checkpoint if there is one; says whether there was.

    Raises:
        ValueError: a damaged file, or one of another vocoder.
    """
    if not path.is_file():
        return False
    state = safe_load(path, device=trainer.device)
    try:
        trainer.resume(state)
    except (ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return True


def _open_journal(options: RunOptions, ranks: Ranks) -> _Journal:
    if not ranks.main:
        return _Journal(None)
    options.output.mkdir(parents=True, exist_ok=True)
    board = None
    if options.tensorboard is not None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError("--tensorboard needs the Python package 'tensorboard', which is not installed") from error
        board = SummaryWriter(str(options.tensorboard))
    return _Journal((options.output / LOG).open("a", encoding="utf-8"), board)


def _card(run: _Run, model: UnitVocoder) -> str:
    config, settings, update = run.trainer.config, run.trainer.settings, run.trainer.update
    recordings, start = run.data.recordings, settings.adversarial_from
    hours = sum(recording.num_frames for recording in recordings) * UNIT_SAMPLES / SAMPLE_RATE / 3600
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
            f"{results['mel_error']:.3f} (80 bands, magnitudes below {settings.floor} count as that)"
        )
    if "duration_error" in results:
        lines.append(f"* predicted durations: mean absolute error {results['duration_error']:.2f} unit frames")
    return "\n".join(lines) + "\n"
