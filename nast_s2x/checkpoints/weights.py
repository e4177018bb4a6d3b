"""Weights as safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from nast_s2x.errors import CheckpointError, shown
from nast_s2x.files import open_atomic, write_atomic
from nast_s2x.temporary import naming_file

_LFS_POINTER = b"version https://git-lfs.github.com"


def write_weights(path: str | Path, weights: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Write tensors to a safetensors file, whole or not at all.

    Args:
        dtype: convert floating point tensors to it.
    Raises:
        CheckpointError: a weight is NaN, infinite or out of the range of ``dtype``; names it.
        OSError: the file cannot be written.
    """
    stored = {}
    for name, value in weights.items():
        kept = value.detach().cpu()
        stored[name] = kept.to(dtype if dtype is not None and kept.is_floating_point() else kept.dtype).contiguous()
        if not is_finite(stored[name]):
            raise CheckpointError(
                f"weights must be finite numbers in {stored[name].dtype}, but {name} is NaN, infinite or out of range"
            )
    write_atomic(path, safetensors.torch.save(stored, metadata={"format": "pt"}))


def write_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a dictionary of tensors and plain values as ``torch.save`` does, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    with open_atomic(path, "wb") as file:
        _dump(file, state)


def dump_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """:func:`write_checkpoint` into a new file, which is not whole after an error."""
    with naming_file(path), open(path, "wb") as file:
        _dump(file, state)


def _dump(file: IO[bytes], state: Mapping[str, Any]) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:
        # torch replaces the error of a full disk by its own, which does not name the reason.
        raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file; floating point ones in float32.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: a damaged file, a Git LFS pointer, or weights that are not finite.
    """
    path = Path(path)
    check_not_pointer(path)
    try:
        weights = safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from None
    bad = next((name for name, value in weights.items() if not is_finite(value)), None)
    if bad is not None:
        raise CheckpointError(f"{path}: weights must be finite, but {bad} holds NaN or infinite values")
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def check_not_pointer(path: str | Path) -> None:
    """Refuse a Git LFS pointer in place of the file.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: a Git LFS pointer.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with open(path, "rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise CheckpointError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull`")


def check_tensors(path: str | Path, tensors: Mapping[str, Any], what: str) -> None:
    """Refuse parameters of a pickled checkpoint that are not plain tensors.

    A pickle can describe tensors without memory behind them, whose copies would take all there is.

    Args:
        what: the file or entry that must hold parameters, for messages.
    Raises:
        CheckpointError: something other than dense tensors of real numbers, each with a number of its own in the file;
            names the parameter.
    """
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path} is not {what}: {shown(name)} is not a tensor")
        dense = value.layout == torch.strided and value.device.type != "meta" and not value.is_quantized
        if not dense or value.is_complex():
            raise CheckpointError(f"{path}: {name} must be a plain tensor of real numbers")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CheckpointError(f"{path}: {name} has shape {tuple(value.shape)}, but the file holds fewer numbers")


def is_finite(value: Tensor) -> bool:
    """True for tensors of integers, and where no value is NaN or infinite."""
    return not value.is_floating_point() or bool(torch.isfinite(value).all())
