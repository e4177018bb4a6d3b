"""Sizes of a network, presets, and sizes read from released checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import Tensor

from nast_s2x.chunking import ChunkGeometry

OFFLINE_CONTEXT_FRAMES = 6000
"""A released checkpoint with a context of so many feature frames or more is an offline model."""


@dataclass(frozen=True)
class NastConfig:
    """Architecture of a :class:`~nast_s2x.network.nast.NastModel`; the defaults are the paper's (``base``).

    Attributes:
        text_vocab: text labels, 4 specials and blank included.
        unit_vocab: unit labels, 4 specials and blank included; 0 = no unit decoder (speech-to-text).
        input_dim: feature bins of a frame.
        conv_channels: channels of the two convolutions in front of the encoder.
        encoder_dim, encoder_layers, encoder_heads, encoder_ffn_dim: the encoder.
        decoder_dim, decoder_heads, decoder_ffn_dim: both decoders; their width must equal the encoder's.
        decoder_layers, unit_layers: layers of the text and of the unit decoder.
        max_relative_position: clip of relative positions in the encoder (Shaw et al., 2018).
        dropout: after attention and feed-forward and on the decoders' input.
        attention_dropout, activation_dropout: on attention weights and on activations.
        max_text_positions, max_unit_positions: slots for which the decoders have learned positions.
        unit_sinusoids: sinusoids of this size are added to the unit decoder's learned positions; 0 (published): none.
            Learned positions soon tell the slots of one text slot apart, but not near slots from far ones.
        unit_rotary: rotary positions (Su et al., 2021) in the unit decoder's self- and cross-attention, with slots
            and encoder frames on one time axis; the learned ones then repeat every ``max_unit_positions`` slots and set
            no limit. Published: none.
        max_position_shift: in training each sentence's encoder positions start at a random number below it.
    """

    text_vocab: int
    unit_vocab: int = 0
    input_dim: int = 80
    conv_channels: int = 64
    encoder_dim: int = 512
    encoder_layers: int = 6
    encoder_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_dim: int = 512
    decoder_layers: int = 6
    decoder_heads: int = 8
    decoder_ffn_dim: int = 2048
    unit_layers: int = 6
    max_relative_position: int = 32
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    max_text_positions: int = 1024
    max_unit_positions: int = 1200
    max_position_shift: int = 300
    unit_sinusoids: float = 0.0
    unit_rotary: bool = False

    def __post_init__(self) -> None:
        if self.text_vocab < 5:
            raise ValueError(f"text_vocab counts 4 specials, pieces and blank, so at least 5, got {self.text_vocab}")
        if self.unit_vocab and self.unit_vocab < 6:
            raise ValueError(f"unit_vocab counts 4 specials, units and blank, so at least 6, got {self.unit_vocab}")
        if self.encoder_dim != self.decoder_dim:
            raise ValueError(
                "decoder_dim must equal encoder_dim (the text decoder starts from pooled encoder states and the "
                f"recognition loss shares its embedding), got {self.decoder_dim} and {self.encoder_dim}"
            )

        if self.unit_rotary and self.decoder_dim // self.decoder_heads % 2:
            raise ValueError(
                "rotary positions turn pairs of features: unit_rotary needs an even head size, got "
                f"decoder_dim {self.decoder_dim} / decoder_heads {self.decoder_heads}"
            )

    def to_dict(self) -> dict[str, Any]:
        """All fields as a plain dictionary, for configuration files."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NastConfig:
        """The inverse of :meth:`to_dict`; an unknown name is an error."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"a network configuration has no field {', '.join(unknown)}")
        return cls(**values)


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

    >>> preset("tiny", text_vocab=1000).encoder_layers
    4
    """
    if name not in PRESETS:
        raise ValueError(f"a preset is one of {', '.join(PRESETS)}, got {name!r}")
    return NastConfig(**{**PRESETS[name], **overrides})


def positions_for_seconds(seconds: float, geometry: ChunkGeometry) -> tuple[int, int]:
    """Learned positions that the text and the unit decoder need for ``seconds`` of source speech."""
    frames = int(-(-seconds * 100 // 1))
    return geometry.text_slots(frames), geometry.unit_slots(frames)


def geometry_from_published(values: Mapping[str, Any]) -> ChunkGeometry:
    """Geometry in the published names: contexts in feature frames, 6000 or more meaning offline (SPEC section 3)."""
    main = int(values["main_context"])
    base = ChunkGeometry(
        chunk_frames=None,
        pooling=int(values.get("unit_size", 2)),
        text_upsample=int(values.get("src_upsample_ratio", 1)),
        unit_upsample=int(values.get("hidden_upsample_ratio", 6)),
    )
    if main >= OFFLINE_CONTEXT_FRAMES:
        return base
    return base.replace(
        chunk_frames=main,
        lookahead_frames=int(values.get("right_context", 0)),
        wait_chunks=int(values.get("wait_until", 0) or 0),
    )


def config_from_published(cfg_model: Any, state: Mapping[str, Tensor]) -> tuple[NastConfig, ChunkGeometry]:
    """Architecture and geometry of a checkpoint in the released format.

    Args:
        cfg_model: the checkpoint's ``cfg["model"]``, a Namespace or a mapping in the published names.
        state: the checkpoint's parameters; vocabularies, layers, positions and channels are read off their shapes.

    Raises:
        ValueError: the checkpoint asks for something that the published system does not have.
    """
    values = dict(cfg_model) if isinstance(cfg_model, Mapping) else vars(cfg_model)
    required = {
        "encoder_normalize_before": False,
        "decoder_normalize_before": False,
        "activation_fn": "relu",
        "conv_type": "shallow2d_base",
        "share_decoder_input_output_embed": True,
        "no_scale_embedding": False,
    }
    for name, expected in required.items():
        if name in values and values[name] != expected:
            raise ValueError(f"a released checkpoint has {name} = {expected!r}, this one {values[name]!r}")
    units = "unit_decoder.embed_tokens.weight" in state
    conv = state["encoder.conv_layers.conv.0.weight"]
    width = state["decoder.embed_tokens.weight"].size(1)
    config = NastConfig(
        text_vocab=state["decoder.embed_tokens.weight"].size(0),
        unit_vocab=state["unit_decoder.embed_tokens.weight"].size(0) if units else 0,
        input_dim=state["encoder.conv_layers.out_proj.weight"].size(1) // conv.size(0),
        conv_channels=conv.size(0),
        encoder_dim=width,
        encoder_layers=_count_layers(state, "encoder"),
        encoder_heads=int(values["encoder_attention_heads"]),
        encoder_ffn_dim=state["encoder.layers.0.fc1.weight"].size(0),
        decoder_dim=width,
        decoder_layers=_count_layers(state, "decoder"),
        decoder_heads=int(values["decoder_attention_heads"]),
        decoder_ffn_dim=state["decoder.layers.0.fc1.weight"].size(0),
        unit_layers=_count_layers(state, "unit_decoder"),
        max_relative_position=state["encoder.layers.0.self_attn.relative_keys_embedding.weight"].size(0) // 2,
        dropout=float(values.get("dropout", 0.1)),
        attention_dropout=float(values.get("attention_dropout", 0.1)),
        activation_dropout=float(values.get("activation_dropout", 0.1)),
        max_text_positions=state["decoder.embed_positions.weight"].size(0) - 2,
        max_unit_positions=state["unit_decoder.embed_positions.weight"].size(0) - 2 if units else 1200,
        max_position_shift=int(values.get("rand_pos_encoder", 300) or 0),
    )
    return config, geometry_from_published(values)


def _count_layers(state: Mapping[str, Tensor], part: str) -> int:
    prefix = f"{part}.layers."
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})
