"""Files as they were released: checkpoints, vocoders, and the layout of their repository."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from random_vocoder import make_vocoder
from torch import Tensor

from nast_s2x.checkpoints.download import RELEASES, Release, ReleasedFile
from nast_s2x.vocoder.network import UnitVocoder

PUBLISHED = Path(__file__).parent / "fixtures" / "parity" / "published_checkpoint"


def numpy_1_checkpoint(path: Path, extra: object) -> Path:
    """The released fixture with ``extra`` in it, its pickle rewritten to the module names of numpy 1."""
    state = torch.load(PUBLISHED / "checkpoint.pt", weights_only=False)
    state["extra_state"] = {**(state.get("extra_state") or {}), "measured": extra}
    torch.save(state, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    assert b"numpy._core.multiarray" in members[name]
    members[name] = members[name].replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert b"numpy._core" not in members[name]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return path


def with_weight_norm(model: UnitVocoder) -> dict[str, Tensor]:
    """The state under weight norm, its directions of any length, as after training."""
    state = {}
    for name, value in model.state_dict().items():
        if value.dim() == 3 and not name.startswith("dur_predictor"):
            module = name.removesuffix("weight")
            state[module + "weight_g"] = value.flatten(1).norm(dim=1).view(-1, 1, 1)
            state[module + "weight_v"] = value * torch.rand(value.shape[0], 1, 1).add(0.5)
        else:
            state[name] = value.clone()
    return state


def released_vocoder(folder: Path, model: UnitVocoder, **settings: Any) -> Path:
    """A released checkpoint of ``model`` with its configuration; returns the checkpoint."""
    folder.mkdir(exist_ok=True)
    torch.save({"generator": with_weight_norm(model)}, folder / "g_00500000")
    (folder / "config.json").write_text(json.dumps(model.config.to_dict() | settings))
    return folder / "g_00500000"


def release_layout(folder: Path) -> dict[str, Release]:
    """Files of the release in the layout of its repository, made small; returns their table with their digests."""
    numpy_1_checkpoint(folder / "chunk_320ms.pt", np.arange(3.0))
    (folder / "data").mkdir()
    shutil.copy(PUBLISHED / "gcmvn.npz", folder / "data")
    shutil.copy(PUBLISHED / "spm.model", folder / "data" / "spm_unigram10000.model")
    shutil.copy(PUBLISHED / "spm.txt", folder / "data" / "spm_unigram10000.txt")
    released_vocoder(folder / "vocoder", make_vocoder())
    return table(folder)


def table(folder: Path) -> dict[str, Release]:
    """The table of releases with the digests of the files of a folder."""
    releases = {}
    for name in ("nast-s2x-320", "vocoder-en"):
        files = tuple(ReleasedFile(file.path, _sha256(folder / file.path)) for file in RELEASES[name].files)
        releases[name] = replace(RELEASES[name], files=files)
    return releases


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
