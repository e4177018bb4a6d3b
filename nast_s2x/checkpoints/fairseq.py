"""Reading fairseq checkpoints (ours and the released ones) as data only, and averaging them.

fairseq's files are pickles, opened by :func:`~nast_s2x.checkpoints.safe_load.safe_load`, which executes nothing in
them. Paths inside a checkpoint are those of the machine it was trained on and are never followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nast_s2x.checkpoints.safe_load import SAFE_CLASSES, safe_load
from nast_s2x.checkpoints.weights import check_tensors, is_finite, write_checkpoint
from nast_s2x.errors import CheckpointError

__all__ = ["SAFE_CLASSES", "average_checkpoints", "average_weights", "load_checkpoint", "num_updates", "settings"]


def load_checkpoint(path: str | Path, also: Sequence[Any] = ()) -> dict[str, Any]:
    """Read a fairseq checkpoint to the CPU without executing anything in it.

    Args:
        also: see :func:`~nast_s2x.checkpoints.safe_load.safe_load`.
    Returns:
        the checkpoint's dictionary; ``["model"]`` maps parameter names to tensors.
    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file holds something other than inert data, or is no fairseq checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint file not found: {path}")
    state = safe_load(path, also)
    if not isinstance(state, Mapping) or not isinstance(state.get("model"), Mapping) or not state["model"]:
        raise CheckpointError(f"{path} is not a fairseq checkpoint: it has no 'model' entry with parameters")
    check_tensors(path, state["model"], "a fairseq checkpoint")
    return dict(state)


def settings(state: Mapping[str, Any], section: str) -> dict[str, Any]:
    """``cfg[section]`` (``"model"``, ``"task"``, ...) of a checkpoint as a dictionary; empty if it has none."""
    cfg = state.get("cfg")
    part = cfg.get(section) if isinstance(cfg, Mapping) else None
    if part is None:  # the older form: one flat namespace
        part = state.get("args")
    if part is None:
        return {}
    return dict(part) if isinstance(part, Mapping) else dict(vars(part))


def num_updates(state: Mapping[str, Any]) -> int:
    """Training updates of a checkpoint; 0 if they are not recorded."""
    history = state.get("optimizer_history") or []
    return int(history[-1].get("num_updates", 0)) if history else 0


def read_model_states(paths: Sequence[str | Path]) -> Iterator[tuple[Path, dict[str, Tensor]]]:
    """The parameters of each checkpoint, one at a time, so that only one is in memory."""
    for path in paths:
        yield Path(path), load_checkpoint(path)["model"]


def average_weights(states: Iterable[tuple[Path, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """Mean of the parameters of several checkpoints, summed in float64.

    Tensors of integers must be the same in all. The result has the first checkpoint's dtypes.

    Raises:
        CheckpointError: names or shapes differ, or a weight is not finite; names the file and the parameter.
    """
    first: dict[str, Tensor] = {}
    total: dict[str, Tensor] = {}
    origin, count = None, 0
    for path, state in states:
        if origin is None:
            origin, first = path, dict(state)
            total = {
                name: value.to(torch.float64, copy=True) for name, value in first.items() if value.is_floating_point()
            }
        else:
            _check_alike(origin, first, path, state)
            for name, value in total.items():
                value += state[name].double()
        _check_finite(path, state)
        count += 1
    if not count:
        raise CheckpointError("averaging needs at least one checkpoint")
    return {
        name: (total[name] / count).to(value.dtype) if name in total else value.clone() for name, value in first.items()
    }


def _check_alike(origin: Path, first: Mapping[str, Tensor], path: Path, state: Mapping[str, Tensor]) -> None:
    if first.keys() != state.keys():
        name = sorted(first.keys() ^ state.keys())[0]
        where = origin if name in first else path
        raise CheckpointError(f"{origin} and {path} cannot be averaged: parameter {name} exists only in {where}")
    for name, value in first.items():
        other = state[name]
        if value.shape != other.shape:
            raise CheckpointError(
                f"{origin} and {path} cannot be averaged: parameter {name} has shapes "
                f"{tuple(value.shape)} and {tuple(other.shape)}"
            )
        if not value.is_floating_point() and not torch.equal(value, other):
            raise CheckpointError(f"{origin} and {path} cannot be averaged: the integers of {name} differ")


def _check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        if not is_finite(value):
            raise CheckpointError(f"{path} holds NaN or infinite values in parameter {name}")


def average_checkpoints(paths: Sequence[str | Path], output: str | Path) -> dict[str, Any]:
    """Write the average of ``paths`` as a checkpoint that fairseq and :func:`load_checkpoint` read; return it.

    Settings come from the first checkpoint; the optimizer state is left out: it has no meaningful average.

    Raises:
        FileNotFoundError, CheckpointError: see :func:`load_checkpoint` and :func:`average_weights`.
    """
    if not paths:
        raise CheckpointError("averaging needs at least one checkpoint")
    result = load_checkpoint(paths[0])
    first = (Path(paths[0]), result["model"])
    result["model"] = average_weights(chain([first], read_model_states(paths[1:])))
    result.pop("last_optimizer_state", None)
    extra = dict(result.get("extra_state") or {})
    extra["averaged_checkpoints"] = [Path(path).name for path in paths]
    result["extra_state"] = extra
    write_checkpoint(output, result)
    return result
