"""The part ``vocoder-training`` of ``nast-s2x benchmark``: one update of a vocoder with random data."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

from nast_s2x.benchmarks.timing import Setting, peak_bytes, timed
from nast_s2x.corpus.utterance import UNIT_SAMPLES
from nast_s2x.errors import ConfigError
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.resources import config_path
from nast_s2x.vocoder.training.data import CropBatch
from nast_s2x.vocoder.training.settings import TrainingSettings, read_configuration
from nast_s2x.vocoder.training.trainer import VocoderTrainer

CONFIGURATIONS = {"base": "vocoder_published", "tiny": "vocoder_small"}
UNITS = 100
"""Units of a recording, for the duration predictor."""
RUNS = 5


def random_batch(settings: TrainingSettings, num_units: int, size: int, generator: torch.Generator) -> CropBatch:
    """``size`` random crops with the sizes of the settings."""
    frames = settings.crop_frames + 2 * settings.context_frames

    def integers(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=generator)

    return CropBatch(
        frames=integers(num_units, size, frames),
        lengths=None,
        offsets=torch.full((size,), settings.context_frames),
        samples=0.1 * torch.randn(size, UNIT_SAMPLES * settings.crop_frames, generator=generator),
        units=integers(num_units, size, UNITS),
        durations=1 + integers(5, size, UNITS),
        unit_lengths=torch.full((size,), UNITS),
    )


def run_vocoder_training(args: argparse.Namespace) -> dict[str, Any]:
    """One update of the networks: generator, discriminators where the configuration has them, all losses, AdamW.

    ``--preset base`` is the published configuration, ``tiny`` the small one; ``--batch`` the crops of an update (by
    default those of the configuration). ``--dtype`` is fp32, or bf16 or fp16 for the convolutions.

    Returns:
        step_ms (median), speech_seconds_per_second (seconds of crops in a second), peak_bytes, batch, crop_seconds,
        parameters (of the generator), preset, threads, device, dtype.
    Raises:
        ConfigError: a preset or number type other than these; fp16 on a CPU.
    """
    setting = Setting.of(args, "vocoder-training")
    if args.preset not in CONFIGURATIONS:
        raise ConfigError(f"--preset must be one of {', '.join(CONFIGURATIONS)}, but is {args.preset}")
    config, settings = read_configuration(config_path(CONFIGURATIONS[args.preset], ".json"))
    size = args.batch or settings.batch_size
    amp = None if setting.name == "fp32" else setting.dtype
    trainer = VocoderTrainer(config, settings, device=setting.device, amp=amp)
    batch = random_batch(settings, config.num_embeddings, size, torch.Generator().manual_seed(0))
    for _ in range(2):
        trainer.step(batch)
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(setting.device)
    median = statistics.median(timed(setting.device, lambda: trainer.step(batch)) for _ in range(RUNS))
    trainer.check()
    crop = settings.crop_frames * UNIT_SAMPLES / SAMPLE_RATE
    return {
        "step_ms": 1000 * median,
        "speech_seconds_per_second": size * crop / median,
        "peak_bytes": peak_bytes(setting.device),
        "batch": size,
        "crop_seconds": crop,
        "parameters": sum(parameter.numel() for parameter in trainer.generator.parameters()),
        "preset": args.preset,
        "threads": torch.get_num_threads(),
        **setting.describe(),
    }
