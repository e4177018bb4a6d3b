"""Settings of a vocoder's training, read from the ``training`` part of a configuration file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nast_s2x.vocoder.config import UNIT_SAMPLES, VocoderConfig


@dataclass(frozen=True)
class DiscriminatorSettings:
    """Sizes of the discriminators, see :class:`nast_s2x.vocoder.training.discriminators.Discriminators`."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (32, 128, 512, 1024)
    scales: int = 3
    scale_width: int = 128


@dataclass(frozen=True)
class TrainingSettings:
    """How a vocoder is trained; the defaults are those of HiFi-GAN (Kong et al., 2020, section 3).

    Attributes:
        max_updates: length of the training.
        batch_size: crops of an update, all processes together.
        crop_frames: unit frames of a crop; context_frames: frames on each side that the generator reads besides.
        learning_rate, betas, weight_decay: of AdamW, for generator and discriminators.
        warmup_updates: the rate rises linearly over them.
        decay, decay_every: the rate is multiplied by ``decay`` for every ``decay_every`` updates, smoothly.
        final_fraction: instead, a cosine from the full rate down to this fraction at ``max_updates``; ``None`` = decay.
        clip_norm: largest norm of the generator's gradient, ``None`` = as it is.
        init_std: standard deviation of the convolutions' first weights, ``None`` = PyTorch's own.
        mel_weight, mel_resolutions, stft_weight, stft_resolutions, floor: spectral losses, see
            :class:`~nast_s2x.vocoder.training.losses.MelLoss` and :class:`~nast_s2x.vocoder.training.losses.StftLoss`.
        duration_weight: of the duration loss.
        adversarial_from: updates before the discriminators join; ``None`` = never.
        adversarial_weight, feature_weight: of the generator's adversarial and feature matching loss.
        ema_decay: of the moving average of the weights that is exported; 0 = the weights themselves.
        discriminators: their sizes.
    """

    max_updates: int = 400000
    batch_size: int = 16
    crop_frames: int = 28
    context_frames: int = 0
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    warmup_updates: int = 0
    decay: float = 0.999
    decay_every: int = 1000
    final_fraction: float | None = None
    clip_norm: float | None = None
    init_std: float | None = 0.01
    mel_weight: float = 45.0
    mel_resolutions: tuple[tuple[int, int, int], ...] = ((1024, 256, 80),)
    stft_weight: float = 0.0
    stft_resolutions: tuple[tuple[int, int], ...] = ()
    floor: float = 1e-5
    duration_weight: float = 1.0
    adversarial_from: int | None = 0
    adversarial_weight: float = 1.0
    feature_weight: float = 2.0
    ema_decay: float = 0.0
    discriminators: DiscriminatorSettings = DiscriminatorSettings()

    def __post_init__(self) -> None:
        for name in ("max_updates", "batch_size", "crop_frames", "decay_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"training: {name} must be 1 or more, not {getattr(self, name)}")
        for name in ("context_frames", "warmup_updates", "mel_weight", "stft_weight", "duration_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"training: {name} cannot be negative, but is {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"training: learning_rate must be positive, not {self.learning_rate}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"training: ema_decay must be in 0..1, not {self.ema_decay}")
        if not self.mel_weight and not self.stft_weight and self.adversarial_from != 0:
            raise ValueError("training: without mel_weight, stft_weight or discriminators nothing teaches the waveform")
        longest = max([n_fft for n_fft, *_ in (*self.mel_resolutions, *self.stft_resolutions)], default=0)
        if self.crop_frames * UNIT_SAMPLES < longest:
            raise ValueError(
                f"training: crop_frames {self.crop_frames} are {self.crop_frames * UNIT_SAMPLES} samples, fewer than "
                f"the longest transform, {longest}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingSettings:
        """Read settings; what is not given keeps its default.

        Raises:
            ValueError: a name that is no setting, or a value that cannot be.
        """
        values = dict(values)
        _refuse_unknown("training", cls, values)
        sizes = values.pop("discriminators", {})
        _refuse_unknown("training: discriminators", DiscriminatorSettings, sizes)
        return cls(
            **{name: _tuples(value) for name, value in values.items()},
            discriminators=DiscriminatorSettings(**{name: _tuples(value) for name, value in sizes.items()}),
        )

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` reads."""
        return asdict(self)


def read_configuration(path: str | Path, **overrides: Any) -> tuple[VocoderConfig, TrainingSettings]:
    """Read a configuration file: a vocoder's ``config.json`` with a further part ``training``.

    Args:
        path: JSON file.
        overrides: ``num_embeddings`` and ``unit_hash`` of the vocoder, and any setting of the training; ``None`` keeps
            what the file says.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or a value that cannot be; names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration")
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        values = json.loads(path.read_text("utf-8"))
        training = values.pop("training", {})
        sizes = {name: given.pop(name) for name in ("num_embeddings", "unit_hash") if name in given}
        return VocoderConfig.from_dict(values | sizes), TrainingSettings.from_dict(training | given)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _refuse_unknown(what: str, kind: type, values: Mapping[str, Any]) -> None:
    unknown = sorted(values.keys() - {field.name for field in fields(kind)})
    if unknown:
        raise ValueError(f"{what}: no setting is called {', '.join(unknown)}")


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
