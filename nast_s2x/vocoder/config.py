"""Sizes of a unit vocoder, in the form of the released CodeHiFiGAN ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import Any

SAMPLE_RATE = 16000
UNIT_SAMPLES = 320
"""Samples of a unit frame: 20 ms at 16 kHz."""

# What this vocoder does not do, and why each is a value that changes the network.
_UNSUPPORTED = {
    "multispkr": "several speakers",
    "embedder_params": "a speaker embedding",
    "f0": "pitch input",
    "f0_quant_num_bin": "quantised pitch input",
}


@dataclass(frozen=True)
class DurationConfig:
    """Sizes of the duration predictor (FastSpeech 2's variance predictor)."""

    encoder_embed_dim: int
    var_pred_hidden_dim: int
    var_pred_kernel_size: int = 3
    var_pred_dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.var_pred_kernel_size != 3:
            raise ValueError(f"var_pred_kernel_size must be 3, not {self.var_pred_kernel_size}")


@dataclass(frozen=True)
class VocoderConfig:
    """Sizes of the generator; names are those of the released configuration files.

    Attributes:
        num_embeddings: units K.
        embedding_dim: width of a unit's embedding, the generator's input.
        upsample_rates, upsample_kernel_sizes: of the transposed convolutions; the rates multiply to 320 samples.
        upsample_initial_channel: channels before the first of them; each halves it.
        resblock_kernel_sizes, resblock_dilation_sizes: residual blocks behind each.
        dur_predictor_params: sizes of the duration predictor; ``None`` without one: durations must then be given.
        unit_hash: hash of the centroids that the units come from (:attr:`nast_s2x.units.centroids.Centroids.hash`);
            ``None`` where the vocoder does not say (released ones).
    """

    num_embeddings: int = 1000
    embedding_dim: int = 128
    upsample_rates: tuple[int, ...] = (5, 4, 4, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (11, 8, 8, 4, 4)
    upsample_initial_channel: int = 512
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    dur_predictor_params: DurationConfig | None = DurationConfig(128, 128)
    unit_hash: str | None = None

    def __post_init__(self) -> None:
        if prod(self.upsample_rates) != UNIT_SAMPLES:
            raise ValueError(
                f"upsample_rates must multiply to {UNIT_SAMPLES} samples (20 ms at 16 kHz), {self.upsample_rates} give "
                f"{prod(self.upsample_rates)}"
            )
        if len(self.upsample_kernel_sizes) != len(self.upsample_rates):
            raise ValueError(f"upsample_kernel_sizes needs {len(self.upsample_rates)} sizes, one for each rate")
        for rate, kernel in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True):
            if kernel < rate or (kernel - rate) % 2:
                raise ValueError(
                    f"an upsample kernel of {kernel} does not fit rate {rate}: their difference must be even"
                )
        if self.upsample_initial_channel % 2 ** len(self.upsample_rates):
            raise ValueError(f"upsample_initial_channel {self.upsample_initial_channel} cannot be halved at every rate")
        if len(self.resblock_dilation_sizes) != len(self.resblock_kernel_sizes):
            raise ValueError("resblock_dilation_sizes needs one list for each of resblock_kernel_sizes")
        if any(kernel % 2 == 0 for kernel in self.resblock_kernel_sizes):
            raise ValueError(f"resblock_kernel_sizes must be odd, got {self.resblock_kernel_sizes}")
        predictor = self.dur_predictor_params
        if predictor is not None and predictor.encoder_embed_dim != self.embedding_dim:
            raise ValueError(
                f"dur_predictor_params.encoder_embed_dim is {predictor.encoder_embed_dim}, not embedding_dim "
                f"{self.embedding_dim}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VocoderConfig:
        """Read a released or own ``config.json``; settings of the training in it are passed over.

        Raises:
            ValueError: a size is missing, or the vocoder has inputs that this project does not feed; names the key.
        """
        for key, meaning in _UNSUPPORTED.items():
            if values.get(key):
                raise ValueError(f"vocoder configuration: {key} ({meaning}) is not supported, units are the only input")
        if str(values.get("resblock", "1")) != "1":
            raise ValueError(f"vocoder configuration: resblock must be '1', not {values['resblock']!r}")
        rate = values.get("sampling_rate", SAMPLE_RATE)
        if rate != SAMPLE_RATE:
            raise ValueError(f"vocoder configuration: sampling_rate must be {SAMPLE_RATE}, not {rate}")
        names = {field.name for field in fields(cls)} - {"dur_predictor_params", "unit_hash"}
        missing = sorted(names - values.keys())
        if missing:
            raise ValueError(f"vocoder configuration lacks {', '.join(missing)}")
        if values.get("model_in_dim", values["embedding_dim"]) != values["embedding_dim"]:
            raise ValueError(
                "vocoder configuration: model_in_dim differs from embedding_dim: it has other inputs than units"
            )
        chosen = {name: _tuples(values[name]) for name in names}
        return cls(**chosen, dur_predictor_params=_duration(values), unit_hash=values.get("unit_hash"))

    def to_dict(self) -> dict[str, Any]:
        """The content of a ``config.json`` that :meth:`from_dict` (and fairseq's CodeHiFiGAN) reads."""
        values = asdict(self) | {"model_in_dim": self.embedding_dim, "resblock": "1"}
        values |= {"sampling_rate": SAMPLE_RATE, "code_hop_size": UNIT_SAMPLES}
        return values


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _duration(values: Mapping[str, Any]) -> DurationConfig | None:
    params = values.get("dur_predictor_params")
    if not params:
        return None
    known = {field.name for field in fields(DurationConfig)}
    missing = sorted({"encoder_embed_dim", "var_pred_hidden_dim"} - params.keys())
    if missing:
        raise ValueError(f"vocoder configuration: dur_predictor_params lacks {', '.join(missing)}")
    return DurationConfig(**{name: params[name] for name in known & params.keys()})
