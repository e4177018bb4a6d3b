"""Settings of vocoder training: the ``training`` part of a configuration file (``configs/vocoder_*.json``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nast_s2x.errors import ConfigError, NastError
from nast_s2x.files import read_json
from nast_s2x.vocoder.config import UNIT_SAMPLES, VocoderConfig, tuples


@dataclass(frozen=True)
class DiscriminatorSettings:
    """Sizes of the discriminators, see :class:`nast_s2x.vocoder.training.discriminators.Discriminators`."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (32, 128, 512, 1024)
    scales: int = 3
    scale_width: int = 128


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of vocoder training; the defaults are those of HiFi-GAN (Kong et al., 2020, section 3).

    Attributes:
        max_updates: length of the training.
        batch_size: crops per update, over all processes.
        crop_frames: unit frames of a crop.
        context_frames: unit frames on each side of a crop that the generator also receives.
        learning_rate, betas, weight_decay: of AdamW, for generator and discriminators.
        warmup_updates: updates in which the learning rate rises linearly.
        decay, decay_every: the learning rate is multiplied by ``decay`` per ``decay_every`` updates, smoothly.
        final_fraction: a cosine from the full learning rate to this fraction of it at ``max_updates``, in place of
            ``decay``; ``None`` uses ``decay``.
        clip_norm: limit for the norm of the generator's gradient; ``None`` = no limit.
        init_std: standard deviation of the convolutions' initial weights; ``None`` = PyTorch's initialisation.
        mel_weight, mel_resolutions, stft_weight, stft_resolutions, floor: spectral losses, see
            :class:`~nast_s2x.vocoder.training.losses.MelLoss` and :class:`~nast_s2x.vocoder.training.losses.StftLoss`.
        duration_weight: of the duration loss.
        adversarial_from: update from which the discriminators are trained and used; ``None`` = never.
        adversarial_weight, feature_weight: of the generator's adversarial and feature matching loss.
        ema_decay: decay of the exponential moving average of the weights that is exported; 0 exports the weights.
        discriminators: sizes of the discriminators.
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
                raise ConfigError(f"training: {name} must be 1 or more, not {getattr(self, name)}")
        for name in ("context_frames", "warmup_updates", "mel_weight", "stft_weight", "duration_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"training: {name} cannot be negative, but is {getattr(self, name)}")
        for kind in ("mel", "stft"):
            if getattr(self, f"{kind}_weight") and not getattr(self, f"{kind}_resolutions"):
                raise ConfigError(f"training: {kind}_weight needs {kind}_resolutions")
        if not self.learning_rate > 0:
            raise ConfigError(f"training: learning_rate must be positive, not {self.learning_rate}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"training: ema_decay must be at least 0 and below 1, not {self.ema_decay}")
        if not self.mel_weight and not self.stft_weight and self.adversarial_from != 0:
            raise ConfigError(
                "training: the waveform needs a loss: set mel_weight, stft_weight, or adversarial_from to 0"
            )
        longest = max([n_fft for n_fft, *_ in (*self.mel_resolutions, *self.stft_resolutions)], default=0)
        if self.crop_frames * UNIT_SAMPLES < longest:
            raise ConfigError(
                f"training: crop_frames {self.crop_frames} are {self.crop_frames * UNIT_SAMPLES} samples, fewer than "
                f"the longest transform, {longest}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingSettings:
        """Read settings; those that are not given have their default.

        Raises:
            ConfigError: an unknown name or an impossible value.
        """
        values = dict(values)
        _refuse_unknown("training", cls, values)
        sizes = values.pop("discriminators", {})
        _refuse_unknown("training: discriminators", DiscriminatorSettings, sizes)
        return cls(
            **{name: tuples(value) for name, value in values.items()},
            discriminators=DiscriminatorSettings(**{name: tuples(value) for name, value in sizes.items()}),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` reads."""
        return asdict(self)


def read_configuration(path: str | Path, **overrides: Any) -> tuple[VocoderConfig, TrainingSettings]:
    """Read a configuration file: a vocoder's ``config.json`` with a further entry ``training``.

    Args:
        path: JSON file.
        overrides: ``num_embeddings`` and ``unit_hash`` of the vocoder, and any setting of the training; ``None`` keeps
            the value of the file.

    Raises:
        FileNotFoundError: no such file.
        NastError: not JSON, or an impossible value; names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration")
    values = read_json(path)
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        training = values.pop("training", {})
        sizes = {name: given.pop(name) for name in ("num_embeddings", "unit_hash") if name in given}
        return VocoderConfig.from_dict(values | sizes), TrainingSettings.from_dict(training | given)
    except NastError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path}: an entry has the wrong type ({error})") from error


def _refuse_unknown(what: str, kind: type, values: Mapping[str, Any]) -> None:
    unknown = sorted(values.keys() - {field.name for field in fields(kind)})
    if unknown:
        raise ConfigError(f"{what}: no setting is called {', '.join(unknown)}")
