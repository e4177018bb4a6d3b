"""Checkpoints as trained models: weights, architecture, geometries; released checkpoints and those of this project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from nast_s2x.checkpoints.fairseq import (
    average_weights,
    load_checkpoint,
    num_updates,
    read_model_states,
    settings,
)
from nast_s2x.inference.geometries import TrainedGeometries
from nast_s2x.network import NastConfig, config_from_published

PUBLISHED, OURS = "published", "nast_s2x"


@dataclass(frozen=True)
class TrainedModel:
    """What a checkpoint says about the network.

    Attributes:
        weights: parameters in the released names.
        config: architecture.
        geometries: chunk sizes of the training.
        origin: checkpoint type (``published`` or ``nast_s2x``), updates, number of checkpoints averaged.
    """

    weights: Mapping[str, Tensor]
    config: NastConfig
    geometries: TrainedGeometries
    origin: dict[str, Any]


def read_trained_model(paths: Sequence[str | Path]) -> TrainedModel:
    """Read one checkpoint, or the average of several of one training.

    Settings come from the first checkpoint. Paths that stand in it are not used.
    Raises:
        FileNotFoundError, ValueError: see :func:`~nast_s2x.checkpoints.fairseq.load_checkpoint`.
    """
    if not paths:
        raise ValueError("at least one checkpoint is needed")
    state = load_checkpoint(paths[0])
    weights = state["model"] if len(paths) == 1 else average_weights(read_model_states(paths))
    flags = settings(state, "model")
    kind = checkpoint_kind(flags, Path(paths[0]))
    try:
        if kind == PUBLISHED:
            config, geometry = config_from_published(flags, weights)
            geometries = TrainedGeometries.from_geometry(geometry)
        else:
            config = _config_of_ours(flags, weights)
            geometries = TrainedGeometries.from_flags(flags)
    except KeyError as error:
        raise ValueError(f"{paths[0]} is no checkpoint of a NAST-S2X model: {error.args[0]} is missing in it") from None
    averaged = max(len(paths), len((state.get("extra_state") or {}).get("averaged_checkpoints") or []))
    origin = {"checkpoint": kind, "updates": num_updates(state), "averaged": averaged}
    return TrainedModel(weights, config, geometries, origin)


def checkpoint_kind(flags: Mapping[str, Any], path: Path) -> str:
    """``published`` or ``nast_s2x``, told by the names of the training's flags."""
    if "main_context" in flags:
        return PUBLISHED
    if "chunk_ms" in flags and "encoder_heads" in flags:
        return OURS
    raise ValueError(
        f"{path} is no checkpoint of a NAST-S2X model: its settings have neither chunk_ms (ours) nor main_context "
        "(the released ones)"
    )


def _config_of_ours(flags: Mapping[str, Any], weights: Mapping[str, Tensor]) -> NastConfig:
    # Everything except the number of heads and the unit decoder's sinusoids and rotary positions, which the released
    # format does not have, stands in the shapes of the weights.
    released_names = {
        "encoder_attention_heads": flags["encoder_heads"],
        "decoder_attention_heads": flags["decoder_heads"],
        "main_context": 1 << 20,
        **{name: flags[name] for name in ("dropout", "attention_dropout", "activation_dropout") if name in flags},
    }
    config = config_from_published(released_names, weights)[0]
    sinusoids, rotary = float(flags.get("unit_sinusoids") or 0.0), bool(flags.get("unit_rotary"))
    return replace(config, unit_sinusoids=sinusoids, unit_rotary=rotary)
