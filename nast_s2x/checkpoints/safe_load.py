"""Pickled checkpoints read as data only: tensors, plain containers, and a short list of inert classes.

torch's weights-only reader opens them, so nothing in a file is ever executed.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nast_s2x.checkpoints.weights import check_not_pointer
from nast_s2x.errors import CheckpointError


class UnsafeCheckpointError(CheckpointError):
    """A file holds more than data; ``names`` are the classes and functions in it, where they can be listed."""

    def __init__(self, path: Path, names: Sequence[str], reason: str) -> None:
        self.names = tuple(names)
        holds = (
            f"it contains {', '.join(names)}, which is not on the short list of inert classes that may appear in a "
            "checkpoint"
        )
        if not names:
            holds = f"it is not a plain checkpoint of tensors and settings ({reason})"
        super().__init__(f"{path} was not loaded: {holds}; nothing in the file was executed")


def _numpy_classes() -> list[Any]:
    """Classes and functions in pickled numpy numbers and arrays, under the names of numpy 2 and of numpy 1.

    fairseq's meters hold such numbers, and the released checkpoints an array pickled by numpy 1.
    """
    scalar = np.float64(0).__reduce__()[0]
    reconstruct = np.zeros(0).__reduce__()[0]
    kinds = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    old_names = [(scalar, "numpy.core.multiarray.scalar"), (reconstruct, "numpy.core.multiarray._reconstruct")]
    return [scalar, reconstruct, *old_names, np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in kinds}]


#: Everything a checkpoint may contain besides tensors and plain containers: namespaces, numbers and arrays of numbers.
#: A class, or (object, name under which a file refers to it).
SAFE_CLASSES: tuple[Any, ...] = (argparse.Namespace, *_numpy_classes())


def safe_load(path: str | Path, also: Sequence[Any] = (), device: str | torch.device = "cpu") -> Any:
    """Return the content of a file of ``torch.save``, without executing anything in it.

    Args:
        path: an existing file.
        also: allowed besides :data:`SAFE_CLASSES`: classes, or (stand-in, "module.Name").
        device: where tensors go.

    Raises:
        UnsafeCheckpointError: the file holds something other than inert data.
        CheckpointError: it is damaged, or a Git LFS pointer.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    check_not_pointer(path)
    try:
        with _allowed(also):
            return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = (str(error).strip().splitlines() or ["unreadable"])[0]
        raise UnsafeCheckpointError(path, _unsafe_names(path, also), reason) from None
    except OSError:
        raise
    except Exception as error:  # a damaged file can raise anything, a MemoryError too
        raise CheckpointError(f"{path} is not a readable checkpoint ({type(error).__name__}: {error})") from None


def _allowed(also: Sequence[Any]) -> AbstractContextManager[None]:
    """Allow the classes that are not allowed yet: torch's context removes all it was given when it ends."""
    there = torch.serialization.get_safe_globals()
    return torch.serialization.safe_globals([cls for cls in (*SAFE_CLASSES, *also) if cls not in there])


def _unsafe_names(path: Path, also: Sequence[Any]) -> list[str]:
    try:
        with _allowed(also):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # only zip files can be listed; the refusal itself stands either way
        return []
