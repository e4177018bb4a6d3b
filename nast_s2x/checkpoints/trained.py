"""Checkpoints as trained models: weights, architecture, chunk policies; of the released form and of this project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
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
from nast_s2x.checkpoints.published import config_from_published
from nast_s2x.chunking import DEFAULT_TRAINING_CHUNKS, ChunkPolicy, SlotRates
from nast_s2x.errors import CheckpointError
from nast_s2x.network import NastConfig

PUBLISHED, OURS = "published", "nast_s2x"


@dataclass(frozen=True)
class TrainedModel:
    """Network and training of a checkpoint.

    Attributes:
        weights: parameters in the released names.
        config: architecture.
        policies: chunk policies of the training.
        origin: checkpoint type (``published`` or ``nast_s2x``), updates, number of checkpoints averaged, and of ours
            ``asr_weight``, the weight of the recognition loss in the last training.
    """

    weights: Mapping[str, Tensor]
    config: NastConfig
    policies: tuple[ChunkPolicy, ...]
    origin: dict[str, Any]


def read_trained_model(paths: Sequence[str | Path]) -> TrainedModel:
    """Read one checkpoint, or the average of several of one training.

    Settings come from the first checkpoint. Paths inside it are not used.

    Raises:
        FileNotFoundError, CheckpointError: see :func:`~nast_s2x.checkpoints.fairseq.load_checkpoint`.
    """
    if not paths:
        raise CheckpointError("at least one checkpoint is needed")
    state = load_checkpoint(paths[0])
    weights: Mapping[str, Tensor] = state["model"]
    if len(paths) > 1:
        weights = average_weights(chain([(Path(paths[0]), weights)], read_model_states(paths[1:])))
    flags = settings(state, "model")
    kind = checkpoint_kind(flags, Path(paths[0]))
    try:
        if kind == PUBLISHED:
            config, policy = config_from_published(flags, weights)
            policies: tuple[ChunkPolicy, ...] = (policy,)
        else:
            config = _config_of_ours(flags, weights)
            policies = _policies_of_ours(flags)
    except KeyError as error:
        raise CheckpointError(
            f"{paths[0]} is no checkpoint of a NAST-S2X model: {error.args[0]} is missing in it"
        ) from None
    averaged = max(len(paths), len((state.get("extra_state") or {}).get("averaged_checkpoints") or []))
    origin: dict[str, Any] = {"checkpoint": kind, "updates": num_updates(state), "averaged": averaged}
    asr_weight = settings(state, "criterion").get("asr_weight")
    if kind == OURS and isinstance(asr_weight, int | float):
        origin["asr_weight"] = float(asr_weight)
    return TrainedModel(weights, config, policies, origin)


def checkpoint_kind(flags: Mapping[str, Any], path: Path) -> str:
    """``published`` or ``nast_s2x``, by the names of the training's flags.

    Raises:
        CheckpointError: neither; names the file.
    """
    if "main_context" in flags:
        return PUBLISHED
    if "chunk_ms" in flags and "encoder_heads" in flags:
        return OURS
    raise CheckpointError(
        f"{path} is no checkpoint of a NAST-S2X model: its settings have neither chunk_ms (this project's) nor "
        "main_context (the released ones). Encoders of other fairseq models have other layers and cannot be used. A "
        "training can start from a NAST-S2X checkpoint or bundle: fairseq-train ... --start-from PATH"
    )


def _config_of_ours(flags: Mapping[str, Any], weights: Mapping[str, Tensor]) -> NastConfig:
    # Everything follows from the shapes of the weights, except the number of heads and, not in released checkpoints,
    # the kinds of positions.
    released_names = {
        "encoder_attention_heads": flags["encoder_heads"],
        "decoder_attention_heads": flags["decoder_heads"],
        "main_context": 1 << 20,
        **{name: flags[name] for name in ("dropout", "attention_dropout", "activation_dropout") if name in flags},
    }
    config = config_from_published(released_names, weights)[0]
    names = ("pooling", "text_upsample", "unit_upsample")
    return replace(
        config,
        unit_sinusoids=float(flags.get("unit_sinusoids") or 0.0),
        unit_rotary=bool(flags.get("unit_rotary")),
        relative_positions=bool(flags.get("relative_positions")),
        rates=SlotRates(**{name: int(flags[name]) for name in names if name in flags}),
    )


def _policies_of_ours(flags: Mapping[str, Any]) -> tuple[ChunkPolicy, ...]:
    """Policies of the training flags that a checkpoint of this project keeps (``--chunk-ms 160,320,offline`` ...)."""
    return ChunkPolicy.parse(
        flags["chunk_ms"] or DEFAULT_TRAINING_CHUNKS,
        flags.get("lookahead_ms"),
        flags.get("wait_chunks") or 0,
        flags.get("left_ms"),
    )
