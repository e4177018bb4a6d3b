"""Settings of vocoder training: the ``training`` part of a configuration file (``configs/vocoder_*.json``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nast_s2x.errors import ConfigError, NastError
from nast_s2x.files import read_json
from nast_s2x.vocoder.config import UNIT_SAMPLES, VocoderConfig, check_whole, check_whole_list, tuples


@dataclass(frozen=True)
class DiscriminatorSettings:
    """Sizes of the discriminators, see :class:`nast_s2x.vocoder.training.discriminators.Discriminators`."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (32, 128, 512, 1024)
    scales: int = 3
    scale_width: int = 128

    def __post_init__(self) -> None:
        for name in ("periods", "period_channels"):
            check_whole_list(f"discriminators.{name}", getattr(self, name), "training: ")
        if self.periods and not self.period_channels:
            raise ConfigError("training: discriminators.period_channels must have at least one entry")
        check_whole("training: discriminators.scales", self.scales, 0)
        check_whole("training: discriminators.scale_width", self.scale_width)


# Rules for numbers: in words, and as a test of the value.
_NOT_NEGATIVE = "at least 0", lambda value: value >= 0
_POSITIVE = "positive", lambda value: value > 0
_BELOW_ONE = "at least 0 and below 1", lambda value: 0 <= value < 1
_FRACTION = "at least 0 and at most 1", lambda value: 0 <= value <= 1
_NUMBERS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "learning_rate": _POSITIVE,
    "weight_decay": _NOT_NEGATIVE,
    "decay": _POSITIVE,
    "final_fraction": _FRACTION,
    "clip_norm": _POSITIVE,
    "init_std": _NOT_NEGATIVE,
    "mel_weight": _NOT_NEGATIVE,
    "stft_weight": _NOT_NEGATIVE,
    "floor": _POSITIVE,
    "duration_weight": _NOT_NEGATIVE,
    "adversarial_weight": _NOT_NEGATIVE,
    "feature_weight": _NOT_NEGATIVE,
    "ema_decay": _BELOW_ONE,
}
_WHOLE_NUMBERS = {
    **dict.fromkeys(("max_updates", "batch_size", "crop_frames", "decay_every"), 1),
    **dict.fromkeys(("context_frames", "warmup_updates", "adversarial_from"), 0),
}
_OPTIONAL = {"final_fraction", "clip_norm", "init_std", "adversarial_from"}


def _check_number(name: str, value: Any, rule: tuple[str, Callable[[float], bool]]) -> None:
    words, test = rule
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not test(value):
        raise ConfigError(f"training: {name} must be {words}, not {value!r}")


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
        given = {name: value for name, value in vars(self).items() if value is not None or name not in _OPTIONAL}
        for name in _WHOLE_NUMBERS.keys() & given.keys():
            check_whole(f"training: {name}", given[name], _WHOLE_NUMBERS[name])
        for name in _NUMBERS.keys() & given.keys():
            _check_number(name, given[name], _NUMBERS[name])
        if not isinstance(self.betas, tuple) or len(self.betas) != 2:
            raise ConfigError(f"training: betas must be a list of two numbers, not {self.betas!r}")
        for beta in self.betas:
            _check_number("every entry of betas", beta, _BELOW_ONE)
        self._check_losses()

    def _check_losses(self) -> None:
        for kind, form in (("mel", ("n_fft", "hop", "mel bins")), ("stft", ("n_fft", "hop"))):
            resolutions = getattr(self, f"{kind}_resolutions")
            if getattr(self, f"{kind}_weight") and not resolutions:
                raise ConfigError(f"training: {kind}_weight needs {kind}_resolutions")
            for sizes in resolutions:
                check_whole_list(f"{kind}_resolutions", sizes, "training: ")
                if len(sizes) != len(form) or sizes[1] > sizes[0]:
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
