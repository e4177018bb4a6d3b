"""Released NAST-S2X checkpoints: architecture, chunk policy and weights in the published names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nast_s2x.chunking import FRAME_MS, ChunkPolicy, SlotRates
from nast_s2x.device import without_memory
from nast_s2x.errors import CheckpointError
from nast_s2x.network import NastConfig, NastModel

OFFLINE_CONTEXT_FRAMES = 6000
"""A released checkpoint with a context of at least this many feature frames is an offline model."""
IGNORED_SUFFIXES = ("output_projection.weight", ".version", "embed_positions._float_tensor")
"""Endings of entries of released checkpoints without weights of their own (tied weights, format marks)."""

_SHOWN = 10  # problems in a message


def rates_from_published(values: Mapping[str, Any]) -> SlotRates:
    """Slot rates from settings in the published names."""
    return SlotRates(
        pooling=int(values.get("unit_size", 2)),
        text_upsample=int(values.get("src_upsample_ratio", 1)),
        unit_upsample=int(values.get("hidden_upsample_ratio", 6)),
    )


def policy_from_published(values: Mapping[str, Any]) -> ChunkPolicy:
    """Chunk policy from settings in the published names: contexts in feature frames, 6000 or more is offline."""
    main = int(values["main_context"])
    if main >= OFFLINE_CONTEXT_FRAMES:
        return ChunkPolicy(None)
    return ChunkPolicy(
        main * FRAME_MS, int(values.get("right_context", 0)) * FRAME_MS, int(values.get("wait_until", 0) or 0)
    )


def config_from_published(cfg_model: Any, state: Mapping[str, Tensor]) -> tuple[NastConfig, ChunkPolicy]:
    """Architecture and chunk policy of a checkpoint in the released format.

    Args:
        cfg_model: the checkpoint's ``cfg["model"]``, a Namespace or a mapping in the published names.
        state: the checkpoint's parameters; vocabularies, layers, positions and channels follow from their shapes.

    Raises:
        CheckpointError: a setting that the published system does not have.
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
            raise CheckpointError(f"a released checkpoint has {name} = {expected!r}, this one {values[name]!r}")
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
        rates=rates_from_published(values),
    )
    return config, policy_from_published(values)


def _count_layers(state: Mapping[str, Tensor], part: str) -> int:
    prefix = f"{part}.layers."
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})


def build_network(config: NastConfig, state: Mapping[str, Tensor]) -> NastModel:
    """A network with the parameters ``state``, in float32.

    It takes no memory before names and shapes have been compared: sizes that the weights do not have cost nothing.

    Raises:
        CheckpointError: see :func:`load_published_state`.
    """
    with without_memory():
        model = NastModel(config)
    load_published_state(model, state)
    return model


def load_published_state(model: NastModel, state: Mapping[str, Tensor]) -> None:
    """Load parameters in the released checkpoints' names (which are ours) into ``model``; float32 copies of them into
    one on the meta device.

    Raises:
        CheckpointError: parameters are missing, unknown, or of another shape; names the first ones.
    """
    ours = model.state_dict()
    theirs = {name: value for name, value in state.items() if not name.endswith(IGNORED_SUFFIXES)}
    problems = [f"missing {name}" for name in ours if name not in theirs]
    problems += [f"unknown {name}" for name in theirs if name not in ours]
    problems += [
        f"{name} has shape {tuple(theirs[name].shape)}, not {tuple(ours[name].shape)}"
        for name in ours
        if name in theirs and theirs[name].shape != ours[name].shape
    ]
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError("the weights do not fit this network: " + "; ".join(problems[:_SHOWN]) + more)
    if any(parameter.is_meta for parameter in model.parameters()):
        copies = {name: value.to(torch.float32, copy=True) for name, value in theirs.items()}
        model.load_state_dict(copies, assign=True)
    else:
        model.load_state_dict(theirs)
