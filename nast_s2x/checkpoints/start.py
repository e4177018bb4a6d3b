"""Weights that a training starts from: bundles, checkpoints of this project, released ones."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from nast_s2x.checkpoints.fairseq import load_checkpoint
from nast_s2x.checkpoints.published import IGNORED_SUFFIXES, load_published_state
from nast_s2x.checkpoints.weights import read_weights
from nast_s2x.errors import CheckpointError
from nast_s2x.network import NastModel

logger = logging.getLogger(__name__)
UNIT_PREFIX = "unit_decoder."
BUNDLE_WEIGHTS = "model.safetensors"
"""Name of the weights in a bundle."""


def drop_foreign_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` without the entries of released checkpoints that have no weights of their own."""
    return {name: value for name, value in state.items() if not name.endswith(IGNORED_SUFFIXES)}


def fit_position_tables(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with its learned position tables as long as those of ``own``.

    The tables' length follows from ``--max-source-seconds``, which may change between stages and differs from that of
    the released models. Rows that ``state`` lacks keep the values of ``own``, its initialisation.
    """
    fitted = dict(state)
    for name in ("decoder.embed_positions.weight", "unit_decoder.embed_positions.weight"):
        theirs, ours = state.get(name), own.get(name)
        if theirs is None or ours is None or theirs.shape == ours.shape or theirs.shape[1] != ours.shape[1]:
            continue
        rows = min(len(theirs), len(ours))
        fitted[name] = ours.clone()
        fitted[name][:rows] = theirs[:rows]
        logger.warning(f"{name}: {len(theirs)} rows in the checkpoint, {len(ours)} here; the first {rows} are used")
    return fitted


def grow_unit_decoder(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with the missing part of the unit decoder taken from ``own``, its initialisation.

    The missing part may be the whole unit decoder or its upper layers: speech to speech can start from a speech-to-text
    model, and a deeper unit decoder from a shallower one (``--finetune-from-model``). Otherwise ``state`` is unchanged.
    """
    grown = dict(state)
    missing = {name: value for name, value in own.items() if name.startswith(UNIT_PREFIX) and name not in state}
    layers, there = _unit_layers(missing), _unit_layers(state)
    whole = not any(name.startswith(UNIT_PREFIX) for name in state)
    deeper = there and all(name.startswith(f"{UNIT_PREFIX}layers.") for name in missing) and not layers & there
    if not missing or not (whole or deeper):
        return grown
    what = "unit decoder" if whole else f"unit decoder layers {sorted(layers)}"
    logger.warning(f"the checkpoint has no {what}: {len(missing)} tensors keep their initial values")
    return grown | missing


def _unit_layers(names: Iterable[str]) -> set[int]:
    """Numbers of the unit decoder's layers among parameter names."""
    prefix = f"{UNIT_PREFIX}layers."
    return {int(name.removeprefix(prefix).split(".")[0]) for name in names if name.startswith(prefix)}


def start_from(model: NastModel, path: str | Path) -> None:
    """Start ``model`` from the weights of a bundle folder or of a checkpoint.

    Raises:
        FileNotFoundError, CheckpointError: no such file, damaged, or of another model; names the parameters.
    """
    path = Path(path)
    weights = read_weights(path / BUNDLE_WEIGHTS) if path.is_dir() else load_checkpoint(path)["model"]
    state = initial_state(weights, model.state_dict())
    try:
        load_published_state(model, state)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    logger.info(f"weights started from {path} ({len(weights)} tensors)")


def initial_state(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weights`` in the names and sizes of ``own``: entries without weights dropped, position tables fitted, a unit
    decoder, or upper layers of it, that is missing taken from ``own``."""
    return grow_unit_decoder(fit_position_tables(drop_foreign_keys(weights), own), own)


def load_pretrained_encoder(model: NastModel, path: str | Path) -> None:
    """Start the encoder of ``model`` from the checkpoint at ``path`` (any model whose encoder has the same sizes).

    Raises:
        FileNotFoundError, CheckpointError: no such file, not only data, or no encoder of the same sizes in it.
    """
    state = drop_foreign_keys(load_checkpoint(path)["model"])
    weights = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
    own = model.encoder.state_dict()
    if not weights:
        raise CheckpointError(f"checkpoint {path} has no weights named encoder.*")
    if missing := sorted(own.keys() ^ weights.keys()):
        raise CheckpointError(
            f"the encoder in {path} has other layers: {missing[0]} exists on one side only. Only encoders of NAST-S2X "
            "checkpoints (this project's and the released ones) can be used, not those of other fairseq models"
        )
    for name, value in weights.items():
        if own[name].shape != value.shape:
            raise CheckpointError(
                f"encoder.{name} is {tuple(value.shape)} in {path}, {tuple(own[name].shape)} in this architecture"
            )
    model.encoder.load_state_dict(weights)
    logger.info(f"encoder started from {path} ({len(weights)} tensors)")
