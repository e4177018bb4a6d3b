"""Sizes of a unit vocoder, in the format of the released CodeHiFiGAN ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import Any

from nast_s2x.corpus.utterance import UNIT_SAMPLES
from nast_s2x.errors import ConfigError, NastError
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.typed import check_fields, limited, read_fields

FIRST_KERNEL = 7
"""Unit frames that the first convolution sees."""

_WIDEST = 1024
"""Widest kernel and dilation. Weights do not show a dilation, and each widens what is computed for a sample."""
_MOST_BLOCKS = 64
_OPTIONAL = {"dur_predictor_params", "unit_hash", "lookahead_frames"}
# Entries of released configurations that add inputs or layers which this network does not have.
_UNSUPPORTED = {
    "multispkr": "several speakers",
    "embedder_params": "a speaker embedding",
    "f0": "pitch input",
    "f0_quant_num_bin": "quantised pitch input",
}


@dataclass(frozen=True)
class DurationConfig:
    """Sizes of the duration predictor (the variance predictor of FastSpeech 2, Ren et al., 2021).

    Attributes:
        encoder_embed_dim: width of its input, equal to the vocoder's ``embedding_dim``.
        var_pred_hidden_dim: width of its convolutions.
        var_pred_kernel_size: kernel of its convolutions; only 3 is supported.
        var_pred_dropout: dropout in training.
    """

    encoder_embed_dim: int
    var_pred_hidden_dim: int
    var_pred_kernel_size: int = 3
    var_pred_dropout: float = limited(0.5, least=0, below=1)

    def __post_init__(self) -> None:
        check_fields(self, "dur_predictor_params.")
        if self.var_pred_kernel_size != 3:
            raise ConfigError(f"`dur_predictor_params.var_pred_kernel_size` must be 3, not {self.var_pred_kernel_size}")


@dataclass(frozen=True)
class VocoderConfig:
    """Sizes of a unit vocoder; names are those of the released configuration files.

    Attributes:
        num_embeddings: number of units K.
        embedding_dim: width of a unit embedding, the generator's input.
        upsample_rates, upsample_kernel_sizes: of the transposed convolutions; the product of the rates is 320 samples.
        upsample_initial_channel: channels before the first transposed convolution; each one halves them.
        resblock_kernel_sizes, resblock_dilation_sizes: residual blocks after each transposed convolution.
        dur_predictor_params: sizes of the duration predictor; ``None`` without one: durations must then be given.
        unit_hash: hash of the centroids that define the units (:attr:`nast_s2x.units.centroids.Centroids.hash`);
            ``None`` where it is not recorded, as in released vocoders.
        lookahead_frames: following unit frames that the first convolution sees; no later one sees any. Such a vocoder
            streams with each sample computed once. ``None``: kernels around their output, as in released vocoders.
    """

    num_embeddings: int = 1000
    embedding_dim: int = 128
    upsample_rates: tuple[int, ...] = (5, 4, 4, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = limited((11, 8, 8, 4, 4), most=_WIDEST)
    upsample_initial_channel: int = 512
    resblock_kernel_sizes: tuple[int, ...] = limited((3, 7, 11), most=_WIDEST)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = limited(((1, 3, 5),) * 3, most=_WIDEST)
    dur_predictor_params: DurationConfig | None = DurationConfig(128, 128)
    unit_hash: str | None = None
    lookahead_frames: int | None = limited(None, least=0)

    def __post_init__(self) -> None:
        check_fields(self)
        self._check_upsampling()
        if self.lookahead_frames is not None and self.lookahead_frames >= FIRST_KERNEL:
            raise ConfigError(
                f"lookahead_frames must be below {FIRST_KERNEL}, the kernel of the first convolution, not "
                f"{self.lookahead_frames}"
            )
        if len(self.resblock_kernel_sizes) > _MOST_BLOCKS or sum(map(len, self.resblock_dilation_sizes)) > _MOST_BLOCKS:
            raise ConfigError(
                f"resblock_kernel_sizes and the lists of dilations may have {_MOST_BLOCKS} entries in all"
            )
        if len(self.resblock_dilation_sizes) != len(self.resblock_kernel_sizes):
            raise ConfigError("resblock_dilation_sizes needs one list for each of resblock_kernel_sizes")
        if any(kernel % 2 == 0 for kernel in self.resblock_kernel_sizes):
            raise ConfigError(f"resblock_kernel_sizes must be odd, got {self.resblock_kernel_sizes}")
        predictor = self.dur_predictor_params
        if predictor is not None and predictor.encoder_embed_dim != self.embedding_dim:
            raise ConfigError(
                f"dur_predictor_params.encoder_embed_dim is {predictor.encoder_embed_dim}, not embedding_dim "
                f"{self.embedding_dim}"
            )

    def _check_upsampling(self) -> None:
        if prod(self.upsample_rates) != UNIT_SAMPLES:
            raise ConfigError(
                f"upsample_rates must multiply to {UNIT_SAMPLES} samples (20 ms at 16 kHz), {self.upsample_rates} give "
                f"{prod(self.upsample_rates)}"
            )
        if len(self.upsample_kernel_sizes) != len(self.upsample_rates):
            raise ConfigError(f"upsample_kernel_sizes needs {len(self.upsample_rates)} sizes, one for each rate")
        for rate, kernel in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True):
            if kernel < rate or (kernel - rate) % 2:
                raise ConfigError(
                    f"an upsample kernel of {kernel} does not fit rate {rate}: their difference must be even"
                )
        if self.upsample_initial_channel % 2 ** len(self.upsample_rates):
            raise ConfigError(
                f"upsample_initial_channel {self.upsample_initial_channel} cannot be halved at every rate"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VocoderConfig:
        """Read a released or own ``config.json``; entries that do not change the network are ignored.

        Raises:
            ConfigError: a size is missing or impossible, or the vocoder has inputs other than units; names the entry.
        """
        for key, meaning in _UNSUPPORTED.items():
            if values.get(key):
                raise ConfigError(
                    f"vocoder configuration: {key} ({meaning}) is not supported, units are the only input"
                )
        if str(values.get("resblock", "1")) != "1":
            raise ConfigError(f"vocoder configuration: resblock must be '1', not {values['resblock']!r}")
        rate = values.get("sampling_rate", SAMPLE_RATE)
        if rate != SAMPLE_RATE:
            raise ConfigError(f"vocoder configuration: sampling_rate must be {SAMPLE_RATE}, not {rate}")
        required = {field.name for field in fields(cls)} - _OPTIONAL
        missing = sorted(required - values.keys())
        if missing:
            raise ConfigError(f"vocoder configuration lacks {', '.join(missing)}")
        if values.get("model_in_dim", values["embedding_dim"]) != values["embedding_dim"]:
            raise ConfigError(
                "vocoder configuration: model_in_dim differs from embedding_dim: it has other inputs than units"
            )
        # Released configurations have an empty table in place of no predictor.
        given = {**values, "dur_predictor_params": values.get("dur_predictor_params") or None}
        return read_fields(cls, given, "vocoder configuration", ignore_unknown=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a ``config.json`` that :meth:`from_dict` reads.

        fairseq's CodeHiFiGAN reads it too, unless the look-ahead is limited: its convolutions look ahead without limit.
        """
        values = asdict(self) | {"model_in_dim": self.embedding_dim, "resblock": "1"}
        if self.lookahead_frames is None:
            del values["lookahead_frames"]
        values |= {"sampling_rate": SAMPLE_RATE, "code_hop_size": UNIT_SAMPLES}
        return values

    def check_units(self, units: Sequence[int]) -> list[int]:
        """Return unit codes as plain integers.

        Raises:
            NastError: a code outside 0..K-1; names it and K.
        """
        codes = [int(unit) for unit in units]
        wrong = next((code for code in codes if not 0 <= code < self.num_embeddings), None)
        if wrong is not None:
            last = self.num_embeddings - 1
            raise NastError(f"unit {wrong} is outside 0..{last}: this vocoder has {self.num_embeddings} units")
        return codes


def check_unit_hash(found: str | None, expected: str | None, what: str, other: str = "the vocoder's") -> None:
    """Refuse units of different centroids; hashes that are not recorded (``None`` or empty) pass.

    Args:
        found, expected: hashes of centroids.
        what, other: whose they are, for the message, such as ``"FILE:LINE: the units"``.

    Raises:
        NastError: the hashes differ; names both.
    """
    if found and expected and found != expected:
        raise NastError(
            f"{what} are of centroids {found}, {other} of {expected}; unit codes of different centroids are not "
            "interchangeable"
        )
