"""Data for tests of vocoder training: one tone per unit, flac files with a units manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

NUM_UNITS, HASH = 6, "0123456789abcdef"

#: A configuration whose updates take a few milliseconds.
TINY: dict[str, Any] = {
    "num_embeddings": NUM_UNITS,
    "embedding_dim": 8,
    "upsample_rates": [5, 4, 4, 4],
    "upsample_kernel_sizes": [9, 8, 8, 8],
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1]],
    "dur_predictor_params": {"encoder_embed_dim": 8, "var_pred_hidden_dim": 8, "var_pred_dropout": 0.5},
    "training": {
        "max_updates": 6,
        "batch_size": 4,
        "crop_frames": 8,
        "context_frames": 2,
        "learning_rate": 3e-3,
        "init_std": None,
        "mel_weight": 1.0,
        "mel_resolutions": [[512, 128, 20]],
        "stft_weight": 1.0,
        "stft_resolutions": [[512, 128]],
        "floor": 0.005,
        "adversarial_from": None,
        "ema_decay": 0.9,
        "discriminators": {"periods": [2, 3], "period_channels": [4, 8], "scales": 2, "scale_width": 16},
    },
}


def write_config(path: Path, **training: Any) -> Path:
    """Write :data:`TINY` with some settings of its training changed."""
    path.write_text(json.dumps(TINY | {"training": TINY["training"] | training}), encoding="utf-8")
    return path


def tones(units: list[int], durations: list[int], extra: int = 240) -> np.ndarray:
    """The waveform of units: unit u is a tone of 300 (u + 1) Hz; ``extra`` samples follow the last frame."""
    pitch = np.repeat([300.0 * (unit + 1) for unit in units], np.array(durations) * 320)
    pitch = np.append(pitch, np.full(extra, pitch[-1]))
    return (0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / 16000)).astype(np.float32)


def write_voice(folder: Path, count: int = 6, dev: int = 2, unit_hash: str | None = HASH) -> Path:
    """Write ``count`` + ``dev`` recordings and their units manifest; returns the manifest's path."""
    rng = np.random.default_rng(5)
    (folder / "audio").mkdir(parents=True)
    header = ["id", "split", "tgt_speech", "tgt_audio", "tgt_n_frames", "tgt_durations"]
    lines = ["\t".join(header + (["unit_hash"] if unit_hash else []))]
    for index in range(count + dev):
        units = [int(rng.integers(NUM_UNITS))]
        while len(units) < 5 + index % 3:
            units.append(int((units[-1] + rng.integers(1, NUM_UNITS)) % NUM_UNITS))
        durations = [1 + unit % 3 for unit in units]
        name = f"audio/r{index}.flac"
        soundfile.write(folder / name, tones(units, durations), 16000)
        split = "train" if index < count else "dev"
        cells = [f"r{index}", split, name, " ".join(map(str, units)), str(len(units)), " ".join(map(str, durations))]
        lines.append("\t".join(cells + ([unit_hash] if unit_hash else [])))
    path = folder / "units.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def edit_row(manifest: Path, row: int, **cells: str) -> None:
    """Change cells of a row (0 is the first recording) of a manifest."""
    lines = manifest.read_text("utf-8").split("\n")
    header, values = lines[0].split("\t"), lines[row + 1].split("\t")
    for name, value in cells.items():
        values[header.index(name)] = value
    lines[row + 1] = "\t".join(values)
    manifest.write_text("\n".join(lines), encoding="utf-8")
