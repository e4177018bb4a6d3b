"""Bundles: a trained system in one folder, with configuration, vocabulary, CMVN, vocoder and a model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nast_s2x.checkpoints.published import build_network
from nast_s2x.checkpoints.start import BUNDLE_WEIGHTS
from nast_s2x.checkpoints.weights import read_weights, write_weights
from nast_s2x.errors import CheckpointError, ConfigError, NastError
from nast_s2x.files import read_json, replace_folder, write_atomic
from nast_s2x.frontend.cmvn import GlobalCmvn
from nast_s2x.inference.card import model_card, simuleval_configs
from nast_s2x.inference.description import (
    CONFIG,
    FORMAT,
    VERSIONS,
    Description,
    check_files,
    read_description,
    sealed,
)
from nast_s2x.inference.system import System, SystemInfo
from nast_s2x.labels import TextLabels, UnitLabels
from nast_s2x.vocoder.checkpoint import CONFIG as VOCODER_CONFIG
from nast_s2x.vocoder.checkpoint import SUBFOLDER, load_vocoder, read_card, save_vocoder
from nast_s2x.vocoder.checkpoint import WEIGHTS as VOCODER_WEIGHTS

WEIGHTS, CARD = BUNDLE_WEIGHTS, "README.md"
VOCABULARY, SENTENCEPIECE, CMVN = "dict.txt", "spm.model", "gcmvn.npz"
_VOCODER_FILES = [f"{SUBFOLDER}/{name}" for name in (VOCODER_CONFIG, VOCODER_WEIGHTS)]


def save_bundle(system: System, folder: str | Path, half: bool = False) -> Path:
    """Write a system to ``folder``, in place of what is there; float16 weights if ``half``.

    The folder is replaced as a whole: after an error or an interruption it still has its old content.

    Raises:
        CheckpointError: weights that the number type cannot hold.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    with replace_folder(folder) as new:
        write_weights(new / WEIGHTS, system.model.state_dict(), torch.float16 if half else torch.float32)
        system.text.save(new / VOCABULARY)
        write_atomic(new / SENTENCEPIECE, system.text.sentencepiece)
        if system.cmvn is not None:
            system.cmvn.save(new / CMVN)
        if system.vocoder is not None:
            save_vocoder(system.vocoder, new / SUBFOLDER, half, system.info.vocoder_card)
        write_atomic(new / CARD, system.info.card or model_card(system))
        for name, text in simuleval_configs(system).items():
            write_atomic(new / name, text)
        names = _names(system.cmvn is not None, system.vocoder is not None)
        write_atomic(new / CONFIG, sealed(_config(system, half), new, names))
    return folder


def _names(has_cmvn: bool, has_vocoder: bool) -> list[str]:
    """Files of a bundle that decide about its output, besides its ``config.json``."""
    cmvn = [CMVN] if has_cmvn else []
    return [WEIGHTS, VOCABULARY, SENTENCEPIECE, *cmvn, *(_VOCODER_FILES if has_vocoder else [])]


def _config(system: System, half: bool) -> dict[str, Any]:
    optional: dict[str, Any] = {}
    if system.units is not None and (system.units.hash is not None or system.units.drop_repeats):
        optional["units"] = {"hash": system.units.hash, "drop_repeats": system.units.drop_repeats}
    if system.vocoder is not None:
        optional["vocoder"] = {"folder": SUBFOLDER}
    return {
        "format": FORMAT,
        "version": VERSIONS[-1],
        "architecture": system.model.config.to_dict(),
        "policies": [policy.to_dict() for policy in system.trained],
        "front_end": {
            "sample_rate": system.sample_rate,
            "features": f"log-mel filterbank, {system.model.config.input_dim} bins, 25 ms window, 10 ms shift",
            "cmvn": None if system.cmvn is None else CMVN,
            "band_hz": None if system.cmvn is None else system.cmvn.band_hz,
        },
        "languages": {"source": system.info.source_lang, "target": system.info.target_lang},
        "num_units": system.num_units,
        "example": system.info.example,
        "origin": system.info.origin,
        "weights": {"file": WEIGHTS, "dtype": "float16" if half else "float32"},
        "text": {"vocabulary": VOCABULARY, "sentencepiece": SENTENCEPIECE},
        **optional,
    }


def has_unit_decoder(folder: str | Path) -> bool | None:
    """Whether a bundle's model has a unit decoder, from its configuration alone; ``None`` for anything else."""
    if not (Path(folder) / CONFIG).is_file():
        return None
    architecture = read_json(Path(folder) / CONFIG).get("architecture")
    return bool(architecture.get("unit_vocab")) if isinstance(architecture, Mapping) else None


def read_bundle(folder: str | Path) -> System:
    """Read the system in a bundle of version 1 or 2, in float32 on the CPU.

    Raises:
        FileNotFoundError: a file is missing; names it.
        NastError: a file is damaged, or files do not belong together.
    """
    folder = Path(folder)
    description = read_description(folder)
    has_cmvn = bool(description.front_end.cmvn)
    has_vocoder = description.has_vocoder or any((folder / name).exists() for name in _VOCODER_FILES)
    check_files(folder, _names(has_cmvn, has_vocoder), description)
    try:
        return _assembled(folder, description, has_cmvn, has_vocoder)
    except NastError as error:
        named = str(error) if str(folder) in str(error) else f"{folder}: {error}"
        raise CheckpointError(named) from None


def _assembled(folder: Path, description: Description, has_cmvn: bool, has_vocoder: bool) -> System:
    card, languages = folder / CARD, description.languages
    return System(
        model=build_network(description.architecture, read_weights(folder / WEIGHTS)),
        text=TextLabels.load(folder / VOCABULARY, folder / SENTENCEPIECE),
        units=_unit_labels(folder, description),
        cmvn=GlobalCmvn.load(folder / CMVN) if has_cmvn else None,
        trained=description.policies,
        vocoder=load_vocoder(folder / SUBFOLDER) if has_vocoder else None,
        info=SystemInfo(
            source_lang=languages.source,
            target_lang=languages.target,
            example=description.example,
            origin=description.origin,
            card=card.read_text(encoding="utf-8", errors="replace") if card.is_file() else "",
            vocoder_card=read_card(folder / SUBFOLDER) if has_vocoder else "",
        ),
    )


def _unit_labels(folder: Path, description: Description) -> UnitLabels | None:
    size, units = description.architecture.unit_vocab, description.units
    try:
        return UnitLabels.of_size(size, units.hash, units.drop_repeats) if size else None
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG}: units: {error}") from None
