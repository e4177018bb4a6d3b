"""Settings of vocoder training: the ``training`` part of a configuration file (``configs/vocoder_*.json``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nast_s2x.errors import ConfigError, NastError, shown
from nast_s2x.files import read_json
from nast_s2x.typed import check_fields, limited, read_fields
from nast_s2x.vocoder.config import UNIT_SAMPLES, VocoderConfig


@dataclass(frozen=True)
class DiscriminatorSettings:
    """Sizes of the discriminators, see :class:`nast_s2x.vocoder.training.discriminators.Discriminators`."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (32, 128, 512, 1024)
    scales: int = limited(3, least=0, most=64)
    scale_width: int = 128

    def __post_init__(self) -> None:
        check_fields(self, "training.discriminators.")
        if self.periods and not self.period_channels:
            raise ConfigError("training: discriminators.period_channels must have at least one entry")


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

    Raises:
        ConfigError: an impossible value; names the setting, the rule and the value.
    """

    max_updates: int = limited(400000, most=10**9)
    batch_size: int = limited(16, most=4096)
    crop_frames: int = limited(28, most=10_000)
    context_frames: int = limited(0, least=0, most=10_000)
    learning_rate: float = limited(2e-4, above=0)
    betas: tuple[float, float] = limited((0.8, 0.99), least=0, below=1)
    weight_decay: float = 0.01
    warmup_updates: int = limited(0, least=0)
    decay: float = limited(0.999, above=0)
    decay_every: int = 1000
    final_fraction: float | None = limited(None, least=0, most=1)
    clip_norm: float | None = limited(None, above=0)
    init_std: float | None = 0.01
    mel_weight: float = 45.0
    mel_resolutions: tuple[tuple[int, int, int], ...] = ((1024, 256, 80),)
    stft_weight: float = 0.0
    stft_resolutions: tuple[tuple[int, int], ...] = ()
    floor: float = limited(1e-5, above=0)
    duration_weight: float = 1.0
    adversarial_from: int | None = limited(0, least=0, most=10**9)
    adversarial_weight: float = 1.0
    feature_weight: float = 2.0
    ema_decay: float = limited(0.0, least=0, below=1)
    discriminators: DiscriminatorSettings = DiscriminatorSettings()

    def __post_init__(self) -> None:
        check_fields(self, "training.")
        self._check_losses()

    def _check_losses(self) -> None:
        for kind, form in (("mel", ("n_fft", "hop", "mel bins")), ("stft", ("n_fft", "hop"))):
            resolutions = getattr(self, f"{kind}_resolutions")
            if getattr(self, f"{kind}_weight") and not resolutions:
                raise ConfigError(f"training: {kind}_weight needs {kind}_resolutions")
            for sizes in resolutions:
                if sizes[1] > sizes[0]:
                    raise ConfigError(
                        f"training: every entry of {kind}_resolutions must be ({', '.join(form)}) with hop at most "
                        f"n_fft, not {sizes}"
                    )
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
        return read_fields(cls, values, "training", "training.")

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
    sizes = {name: given.pop(name) for name in ("num_embeddings", "unit_hash") if name in given}
    try:
        training = values.pop("training", {})
        if not isinstance(training, dict):
            raise ConfigError(f"`training` must be a table of named values, but is {shown(training)}")
        return VocoderConfig.from_dict(values | sizes), TrainingSettings.from_dict(training | given)
    except NastError as error:
        raise ConfigError(f"{path}: {error}") from error
