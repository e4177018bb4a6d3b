"""Reading fairseq checkpoints (ours and the released ones) as data only, and averaging them.

fairseq's files are pickles. They are opened with torch's weights-only reader and a short list of inert classes, so
nothing in a file is ever executed. Paths inside a checkpoint belong to whoever trained it and are never followed.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def _numpy_scalar_classes() -> list[Any]:
    """What a pickled numpy number consists of; fairseq's meters may hold such numbers."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    return [scalar, np.dtype, *{type(np.dtype(kind)) for kind in kinds}]


#: Everything a checkpoint may contain besides tensors and plain containers: namespaces and numbers.
SAFE_CLASSES: tuple[Any, ...] = (argparse.Namespace, *_numpy_scalar_classes())


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a fairseq checkpoint to the CPU without executing anything in it.

    Returns:
        the checkpoint's dictionary; ``["model"]`` maps parameter names to tensors.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something other than inert data, or is no fairseq checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint file not found: {path}")
    try:
        with _safe_classes_allowed():
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} was not loaded: {_what_is_unsafe(path, error)}") from None
    except (RuntimeError, EOFError, KeyError, AttributeError, IndexError, TypeError) as error:
        raise ValueError(f"{path} is not a readable checkpoint ({type(error).__name__}: {error})") from None
    if not isinstance(state, Mapping) or not isinstance(state.get("model"), Mapping) or not state["model"]:
        raise ValueError(f"{path} is not a fairseq checkpoint: it has no 'model' entry with parameters")
    if not all(isinstance(value, Tensor) for value in state["model"].values()):
        raise ValueError(f"{path} is not a fairseq checkpoint: its 'model' entry holds something other than tensors")
    return dict(state)


def _safe_classes_allowed() -> AbstractContextManager[None]:
    """Allow what is not allowed yet: torch's context would take back, on leaving, what others have allowed for good."""
    allowed = torch.serialization.get_safe_globals()
    return torch.serialization.safe_globals([cls for cls in SAFE_CLASSES if cls not in allowed])


def _what_is_unsafe(path: Path, error: Exception) -> str:
    try:
        with _safe_classes_allowed():
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # only zip files can be listed; the refusal itself stands either way
        names = []
    if names:
        return (
            f"it contains {', '.join(sorted(names))}, which is not on the short list of inert classes "
            "that may appear in a checkpoint; nothing in the file was executed"
        )
    reason = (str(error).strip().splitlines() or ["unreadable"])[0]
    return f"it is not a plain checkpoint of tensors and settings ({reason}); nothing in the file was executed"


def settings(state: Mapping[str, Any], section: str) -> dict[str, Any]:
    """``cfg[section]`` (``"model"``, ``"task"``, ...) of a checkpoint as a dictionary, whatever form it has there."""
    cfg = state.get("cfg")
    part = cfg.get(section) if isinstance(cfg, Mapping) else None
    if part is None:  # the older form: one flat namespace
        part = state.get("args")
    if part is None:
        return {}
    return dict(part) if isinstance(part, Mapping) else dict(vars(part))


def num_updates(state: Mapping[str, Any]) -> int:
    """Training updates behind a checkpoint; 0 when it does not say."""
    history = state.get("optimizer_history") or []
    return int(history[-1].get("num_updates", 0)) if history else 0


def read_model_states(paths: Sequence[str | Path]) -> Iterator[tuple[Path, dict[str, Tensor]]]:
    """The parameters of each checkpoint, one at a time, so that only one is in memory."""
    for path in paths:
        yield Path(path), load_checkpoint(path)["model"]


def average_weights(states: Iterator[tuple[Path, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """Mean of the parameters of several checkpoints, summed in float64.

    Tensors of integers must be the same everywhere. The result has the first checkpoint's dtypes.
    Raises:
        ValueError: names or shapes differ, or a weight is not finite; says which file and which parameter.
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
        raise ValueError("averaging needs at least one checkpoint")
    return {
        name: (total[name] / count).to(value.dtype) if name in total else value.clone() for name, value in first.items()
    }


def _check_alike(origin: Path, first: Mapping[str, Tensor], path: Path, state: Mapping[str, Tensor]) -> None:
    if first.keys() != state.keys():
        name = sorted(first.keys() ^ state.keys())[0]
        where = origin if name in first else path
        raise ValueError(f"{origin} and {path} cannot be averaged: parameter {name} exists only in {where}")
    for name, value in first.items():
        other = state[name]
        if value.shape != other.shape:
            raise ValueError(
                f"{origin} and {path} cannot be averaged: parameter {name} has shapes "
                f"{tuple(value.shape)} and {tuple(other.shape)}"
            )
        if not value.is_floating_point() and not torch.equal(value, other):
            raise ValueError(f"{origin} and {path} cannot be averaged: the integers of {name} differ")


def _check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{path} holds NaN or infinite values in parameter {name}")


def average_checkpoints(paths: Sequence[str | Path], output: str | Path) -> dict[str, Any]:
    """Write the average of ``paths`` as a checkpoint that fairseq and :func:`load_checkpoint` read; return it.

    Settings come from the first checkpoint; optimizer state is left out, since it belongs to none of the averages.
    """
    if not paths:
        raise ValueError("averaging needs at least one checkpoint")
    result = load_checkpoint(paths[0])
    result["model"] = average_weights(read_model_states(paths))
    result.pop("last_optimizer_state", None)
    extra = dict(result.get("extra_state") or {})
    extra["averaged_checkpoints"] = [Path(path).name for path in paths]
    result["extra_state"] = extra
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + ".partial")
    torch.save(result, partial)
    partial.replace(output)
    return result
