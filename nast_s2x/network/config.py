"""Sizes of a network and presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from nast_s2x.chunking import FRAMES_PER_SECOND, SlotRates
from nast_s2x.errors import ConfigError, check_whole_number
from nast_s2x.network.subsampling import STRIDE


def _size(default: int, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class NastConfig:
    """Architecture of a :class:`~nast_s2x.network.nast.NastModel`; the defaults are the paper's (``base``).

    The ``help`` entry of each field's metadata describes it; fairseq's flags are made from these fields.

    Raises:
        ConfigError: values of a wrong type, or that do not fit together.
    """

    text_vocab: int = field(metadata={"help": "text labels, 4 specials and blank included"})
    unit_vocab: int = _size(0, "unit labels, 4 specials and blank included; 0: no unit decoder (speech to text)")
    input_dim: int = _size(80, "bins of a feature frame")
    conv_channels: int = _size(64, "channels of the two subsampling convolutions")
    encoder_dim: int = _size(512, "width of the encoder")
    encoder_layers: int = _size(6, "layers of the encoder")
    encoder_heads: int = _size(8, "attention heads of the encoder")
    encoder_ffn_dim: int = _size(2048, "inner width of the encoder's feed-forward blocks")
    decoder_dim: int = _size(512, "width of both decoders, equal to the encoder's")
    decoder_layers: int = _size(6, "layers of the text decoder")
    decoder_heads: int = _size(8, "attention heads of both decoders")
    decoder_ffn_dim: int = _size(2048, "inner width of the decoders' feed-forward blocks")
    unit_layers: int = _size(6, "layers of the unit decoder (nast_s2s architectures)")
    max_relative_position: int = _size(32, "clip of the encoder's relative positions, in encoder frames of 40 ms")
    dropout: float = field(
        default=0.1, metadata={"help": "dropout after attention and feed-forward, and on the decoders' input"}
    )
    attention_dropout: float = field(default=0.1, metadata={"help": "dropout on attention weights"})
    activation_dropout: float = field(default=0.1, metadata={"help": "dropout inside the feed-forward blocks"})
    max_text_positions: int = _size(1024, "text slots for which the text decoder has learned positions")
    max_unit_positions: int = _size(1200, "unit slots for which the unit decoder has learned positions")
    max_position_shift: int = _size(
        300, "in training, encoder positions of a sentence start at a random number below this one"
    )
    unit_sinusoids: float = field(
        default=0.0,
        metadata={"help": "add sinusoids of this amplitude to the unit decoder's learned positions (published: 0)"},
    )
    unit_rotary: bool = field(
        default=False,
        metadata={"help": "rotary positions (Su et al., 2021) in the unit decoder's attention (published: none)"},
    )
    relative_positions: bool = field(
        default=False,
        metadata={
            "help": "relative positions only: no sinusoids in the encoder, rotary positions (Su et al., 2021) in both "
            "decoders; such a model sets no limit of length (published: absolute)"
        },
    )
    rates: SlotRates = field(default=SlotRates(), metadata={"help": "positions of each stage, see SlotRates"})

    def __post_init__(self) -> None:
        for entry in fields(self):
            self._check_type(entry.name, entry.type)
        if self.text_vocab < 5:
            raise ConfigError(
                f"`text_vocab` counts 4 specials, pieces and blank, so at least 5, but is {self.text_vocab}"
            )
        if self.unit_vocab and self.unit_vocab < 6:
            raise ConfigError(
                f"`unit_vocab` counts 4 specials, units and blank, so at least 6, but is {self.unit_vocab}"
            )
        if self.encoder_dim != self.decoder_dim:
            raise ConfigError(
                "`decoder_dim` must equal `encoder_dim` (the text decoder starts from pooled encoder states and the "
                f"recognition loss shares its embedding), but they are {self.decoder_dim} and {self.encoder_dim}"
            )
        for part in ("encoder", "decoder"):
            dim, heads = getattr(self, f"{part}_dim"), getattr(self, f"{part}_heads")
            if dim % heads:
                raise ConfigError(f"`{part}_dim` must be a multiple of `{part}_heads`, but they are {dim} and {heads}")
        rotary = "relative_positions" if self.relative_positions else "unit_rotary" if self.unit_rotary else None
        if rotary and self.decoder_dim // self.decoder_heads % 2:
            raise ConfigError(
                f"rotary positions rotate pairs of features: `{rotary}` needs an even head size, but decoder_dim "
                f"{self.decoder_dim} / decoder_heads {self.decoder_heads} is odd"
            )
        if self.rates.subsampling != STRIDE:
            raise ConfigError(f"`subsampling` must be {STRIDE}, but is {self.rates.subsampling}")

    def _check_type(self, name: str, kind: Any) -> None:
        value = getattr(self, name)
        if kind in ("int", int):
            check_whole_number(name, value, 0 if name in _MAY_BE_ZERO else 1)
        elif kind in ("float", float):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            below = 1 if "dropout" in name else float("inf")
            if not number or not 0 <= value < below:
                limit = " and less than 1" if below == 1 else ""
                raise ConfigError(f"`{name}` must be a finite number of at least 0{limit}, but is {value!r}")
        elif kind in ("bool", bool) and not isinstance(value, bool):
            raise ConfigError(f"`{name}` must be true or false, but is {value!r}")
        elif kind in ("SlotRates", SlotRates) and not isinstance(value, SlotRates):
            raise ConfigError(f"`{name}` must be slot rates, but is {value!r}")

    def to_dict(self) -> dict[str, Any]:
        """All fields as a plain dictionary, for configuration files."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NastConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: an unknown name, or a value that cannot be used.
        """
        unknown = sorted(set(values) - {entry.name for entry in fields(cls)})
        if unknown:
            raise ConfigError(f"a network configuration has no field {', '.join(unknown)}")
        if "text_vocab" not in values:
            raise ConfigError("a network configuration needs the field text_vocab")
        given = dict(values)
        if "rates" in given:
            if not isinstance(given["rates"], Mapping):
                raise ConfigError(f"`rates` must be a table of slot rates, but is {given['rates']!r}")
            given["rates"] = SlotRates.from_dict(given["rates"])
        return cls(**given)


_MAY_BE_ZERO = {"unit_vocab", "unit_layers", "max_position_shift", "max_relative_position"}


_TINY = {
    "conv_channels": 16,
    "encoder_dim": 128,
    "encoder_layers": 4,
    "encoder_heads": 4,
    "encoder_ffn_dim": 512,
    "decoder_dim": 128,
    "decoder_layers": 3,
    "decoder_heads": 4,
    "decoder_ffn_dim": 512,
    "unit_layers": 3,
}
PRESETS: dict[str, dict[str, Any]] = {"base": {}, "tiny": _TINY}
"""What each preset changes of the paper's sizes."""


def preset(name: str, **overrides: Any) -> NastConfig:
    """The configuration called ``name`` (``base``: the paper's, ``tiny``: the example's) with fields overridden.

    Raises:
        ConfigError: no preset of that name, or values that cannot be used.

    Example:
        >>> preset("tiny", text_vocab=1000).encoder_layers
        4
    """
    if name not in PRESETS:
        raise ConfigError(f"a preset is one of {', '.join(PRESETS)}, got {name!r}")
    return NastConfig(**{**PRESETS[name], **overrides})


def positions_for_seconds(seconds: float, rates: SlotRates) -> tuple[int, int]:
    """Learned positions that the text and the unit decoder need for ``seconds`` of source audio."""
    frames = int(-(-seconds * FRAMES_PER_SECOND // 1))
    return rates.length("text", frames), rates.length("unit", frames)
