"""Sizes of a network and presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nast_s2x.chunking import FRAMES_PER_SECOND, SlotRates
from nast_s2x.errors import ConfigError
from nast_s2x.network.subsampling import STRIDE
from nast_s2x.typed import check_fields, limited, read_fields

_MOST_LAYERS = 256


@dataclass(frozen=True)
class NastConfig:
    """Architecture of a :class:`~nast_s2x.network.nast.NastModel`; the defaults are the paper's (``base``).

    The ``help`` entry of each field's metadata describes it; fairseq's flags are made from these fields.

    Raises:
        ConfigError: values of a wrong type, or that do not fit together.
    """

    text_vocab: int = limited(help="text labels, 4 specials and blank included")
    unit_vocab: int = limited(
        0, "unit labels, 4 specials and blank included; 0: no unit decoder (speech to text)", least=0
    )
    input_dim: int = limited(80, "bins of a feature frame")
    conv_channels: int = limited(64, "channels of the two subsampling convolutions")
    encoder_dim: int = limited(512, "width of the encoder")
    encoder_layers: int = limited(6, "layers of the encoder", most=_MOST_LAYERS)
    encoder_heads: int = limited(8, "attention heads of the encoder")
    encoder_ffn_dim: int = limited(2048, "inner width of the encoder's feed-forward blocks")
    decoder_dim: int = limited(512, "width of both decoders, equal to the encoder's")
    decoder_layers: int = limited(6, "layers of the text decoder", most=_MOST_LAYERS)
    decoder_heads: int = limited(8, "attention heads of both decoders")
    decoder_ffn_dim: int = limited(2048, "inner width of the decoders' feed-forward blocks")
    unit_layers: int = limited(6, "layers of the unit decoder (nast_s2s architectures)", least=0, most=_MOST_LAYERS)
    max_relative_position: int = limited(
        32, "clip of the encoder's relative positions, in encoder frames of 40 ms", least=0
    )
    dropout: float = limited(
        0.1, "dropout after attention and feed-forward, and on the decoders' input", least=0, below=1
    )
    attention_dropout: float = limited(0.1, "dropout on attention weights", least=0, below=1)
    activation_dropout: float = limited(0.1, "dropout inside the feed-forward blocks", least=0, below=1)
    max_text_positions: int = limited(1024, "text slots for which the text decoder has learned positions")
    max_unit_positions: int = limited(1200, "unit slots for which the unit decoder has learned positions")
    max_position_shift: int = limited(
        300, "in training, encoder positions of a sentence start at a random number below this one", least=0
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
        check_fields(self)
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

    def to_dict(self) -> dict[str, Any]:
        """All fields as a plain dictionary, for configuration files."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NastConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: an unknown name, or a value that cannot be used.
        """
        return read_fields(cls, values, "a network configuration")


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
