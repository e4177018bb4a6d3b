"""How a vocoder in training sounds on recordings that it never saw: copy-synthesis from their true units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nast_s2x.frontend.audio import write_wav
from nast_s2x.vocoder.network import UnitVocoder
from nast_s2x.vocoder.training.data import UnitRecording, load_recording
from nast_s2x.vocoder.training.mel import MelSpectrogram


@torch.inference_mode()
def copy_synthesis(model: UnitVocoder, recording: UnitRecording) -> NDArray[np.float32]:
    """The recording's units spoken with their true durations: (320 * frames,) samples."""
    frames = torch.from_numpy(np.repeat(recording.units, recording.durations))
    device = next(model.parameters()).device
    return model(frames[None].to(device))[0].float().cpu().numpy()


def evaluate(
    model: UnitVocoder, recordings: Sequence[UnitRecording], floor: float, samples: Path | None = None, tag: str = ""
) -> dict[str, float]:
    """Measure copy-synthesis, and write it.

    Args:
        model: in evaluation mode.
        recordings: at least one.
        floor: see :class:`~nast_s2x.vocoder.training.mel.MelSpectrogram`.
        samples: folder for ``ID_TAG.wav`` and, once, ``ID_original.wav``; ``None`` writes nothing.
        tag: of the file names.

    Returns:
        ``mel_error``: mean absolute difference of 80 log-mel energies; ``duration_error``: mean absolute error of
        predicted durations, in frames (where the vocoder predicts them).
    """
    mel = MelSpectrogram(floor=floor)
    mel_errors, duration_errors = [], []
    for recording in recordings:
        original, copy = load_recording(recording), copy_synthesis(model, recording)
        pair = mel(torch.from_numpy(np.stack([original, copy])))
        mel_errors.append(float((pair[0] - pair[1]).abs().mean()))
        if model.dur_predictor is not None:
            duration_errors.append(_duration_error(model, recording))
        if samples is not None:
            _write(samples / f"{recording.id}_original.wav", original, once=True)
            _write(samples / f"{recording.id}_{tag}.wav", copy)
    result = {"mel_error": float(np.mean(mel_errors))}
    return result | ({"duration_error": float(np.mean(duration_errors))} if duration_errors else {})


@torch.inference_mode()
def _duration_error(model: UnitVocoder, recording: UnitRecording) -> float:
    units = torch.from_numpy(recording.units)[None].to(next(model.parameters()).device)
    predicted = model.durations(units)[0].cpu().numpy()
    return float(np.abs(predicted - recording.durations).mean())


def _write(path: Path, samples: NDArray[np.float32], once: bool = False) -> None:
    if once and path.exists():
        return
    write_wav(path, samples)
