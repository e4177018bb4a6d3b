"""Checkpoints of fairseq that appear whole, whatever happens while they are written.

fairseq writes one file under another name and copies it to ``checkpoint_best.pt`` and ``checkpoint_last.pt`` in place:
a process that is killed meanwhile leaves a part of a checkpoint, from which no training can be continued. After an
error it writes once more behind what is there.
"""

import contextlib
import os
from collections.abc import Callable
from typing import Any

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

from nast_s2x.checkpoints.weights import dump_checkpoint

_ENDING = ".tmp"  # as fairseq names them
_save_with_fairseq = checkpoint_utils.torch_persistent_save


class WholeCopies(PathManager):  # type: ignore[misc]  # fairseq is not typed
    """fairseq's file operations; a copy takes the place of a file at its end."""

    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        """Copy a file; returns True."""
        if not PathManager.supports_rename(dst_path):
            return bool(PathManager.copy(src_path, dst_path, overwrite=overwrite))
        _whole(dst_path, lambda temporary: PathManager.copy(src_path, temporary, overwrite=True))
        return True


def save(obj: Any, filename: str, async_write: bool = False) -> None:
    """Write a checkpoint, in place of fairseq's function of the same arguments.

    Raises:
        OSError: the file cannot be written; what was there is unchanged.
    """
    if async_write or not PathManager.supports_rename(filename):
        _save_with_fairseq(obj, filename, async_write)
    else:
        _whole(filename, lambda temporary: dump_checkpoint(temporary, obj))


def _whole(path: str, write: Callable[[str], object]) -> None:
    temporary = path + _ENDING
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def install() -> None:
    """Let fairseq write its checkpoints this way; calling it again does nothing."""
    checkpoint_utils.PathManager = WholeCopies
    checkpoint_utils.torch_persistent_save = save
