"""Bundles: a trained system in one folder, with configuration, vocabulary, CMVN, vocoder and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nast_s2x.checkpoints.published import load_published_state
from nast_s2x.checkpoints.start import BUNDLE_WEIGHTS
from nast_s2x.checkpoints.weights import read_weights, write_weights
from nast_s2x.chunking import ChunkPolicy, SlotRates
from nast_s2x.errors import CheckpointError, ConfigError
from nast_s2x.files import read_json, replace_folder, write_atomic
from nast_s2x.frontend.cmvn import GlobalCmvn
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.inference.card import model_card, simuleval_configs
from nast_s2x.inference.policies import policies_of_version_1
from nast_s2x.inference.system import System, SystemInfo
from nast_s2x.labels import TextLabels, UnitLabels
from nast_s2x.network import NastConfig, NastModel
from nast_s2x.vocoder.checkpoint import CONFIG as VOCODER_CONFIG
from nast_s2x.vocoder.checkpoint import SUBFOLDER, load_vocoder, read_card, save_vocoder
from nast_s2x.vocoder.checkpoint import WEIGHTS as VOCODER_WEIGHTS
from nast_s2x.vocoder.network import UnitVocoder

FORMAT = "nast_s2x bundle"
VERSIONS = (1, 2)
CONFIG, WEIGHTS, CARD = "config.json", BUNDLE_WEIGHTS, "README.md"
VOCABULARY, SENTENCEPIECE, CMVN = "dict.txt", "spm.model", "gcmvn.npz"


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
        write_atomic(new / CONFIG, json.dumps(_config(system, half), indent=2, ensure_ascii=False) + "\n")
    return folder


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
    config = _read_config(folder)
    has_cmvn = bool(config["front_end"]["cmvn"])
    for name in (WEIGHTS, VOCABULARY, SENTENCEPIECE, *([CMVN] if has_cmvn else [])):
        _required(folder, name)
    architecture, policies = _described(folder, config)
    model = NastModel(architecture)
    load_published_state(model, read_weights(folder / WEIGHTS))
    vocoder, vocoder_card = _read_vocoder(folder, required=bool(config.get("vocoder")))
    card, languages = folder / CARD, config.get("languages") or {}
    return System(
        model=model,
        text=TextLabels.load(folder / VOCABULARY, folder / SENTENCEPIECE),
        units=_unit_labels(folder, architecture, config),
        cmvn=GlobalCmvn.load(folder / CMVN) if has_cmvn else None,
        trained=policies,
        vocoder=vocoder,
        info=SystemInfo(
            source_lang=languages.get("source"),
            target_lang=languages.get("target"),
            example=config.get("example"),
            origin=config.get("origin") or {},
            card=card.read_text(encoding="utf-8", errors="replace") if card.is_file() else "",
            vocoder_card=vocoder_card,
        ),
    )


def _read_vocoder(folder: Path, required: bool) -> tuple[UnitVocoder | None, str]:
    """The vocoder in a bundle and its card; ``None`` when there is none and none is ``required``."""
    names = [f"{SUBFOLDER}/{name}" for name in (VOCODER_CONFIG, VOCODER_WEIGHTS)]
    if not required and not any((folder / name).exists() for name in names):
        return None, ""
    for name in names:
        _required(folder, name)
    return load_vocoder(folder / SUBFOLDER), read_card(folder / SUBFOLDER)


def _required(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise FileNotFoundError(f"bundle {folder} is incomplete: file {name} is missing")
    return folder / name


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a bundle: file {CONFIG} is missing (`nast-s2x export` makes bundles)")
    config = read_json(path)
    if config.get("format") != FORMAT:
        raise CheckpointError(f"{path} does not describe a bundle: its 'format' must be {FORMAT!r}")
    if config.get("version") not in VERSIONS:
        raise CheckpointError(
            f"{path}: the bundle's 'version' must be one of {', '.join(map(str, VERSIONS))}, but is "
            f"{config.get('version')!r}"
        )
    tables = ["architecture", "front_end", *(["geometries"] if config["version"] == 1 else [])]
    optional = ("languages", "origin", "units", "vocoder")
    wrong = [name for name in (*tables, *optional) if not isinstance(config.get(name) or {}, dict)]
    if wrong:
        raise CheckpointError(f"{path}: {', '.join(wrong)} must be an object with named values")
    needed = tables if config["version"] == 1 else [*tables, "policies"]
    missing = [name for name in needed if not config.get(name)]
    if not missing:
        missing = [f"front_end.{name}" for name in ("sample_rate", "cmvn") if name not in config["front_end"]]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}")
    if config["front_end"]["sample_rate"] != SAMPLE_RATE:
        raise CheckpointError(
            f"{path}: front_end.sample_rate must be {SAMPLE_RATE}, but is {config['front_end']['sample_rate']!r}"
        )
    return config


def _described(folder: Path, config: dict[str, Any]) -> tuple[NastConfig, tuple[ChunkPolicy, ...]]:
    """Architecture and policies of a bundle's configuration; errors name the file and the entry."""
    entry = "architecture"
    try:
        if config["version"] == 1:
            entry = "geometries"
            rates, policies = policies_of_version_1(config["geometries"])
            _check_rates(rates, config)
            entry = "architecture"
            architecture = NastConfig.from_dict({**config["architecture"], "rates": vars(rates)})
        else:
            architecture = NastConfig.from_dict(config["architecture"])
            entry = "policies"
            policies = _policies(config["policies"])
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: {entry}: {error}") from None
    return architecture, policies


def _policies(values: Any) -> tuple[ChunkPolicy, ...]:
    if not isinstance(values, list) or not all(isinstance(value, Mapping) for value in values):
        raise ConfigError(f"must be a list of chunk policies, but is {values!r}")
    return tuple(ChunkPolicy.from_dict(value) for value in values)


def _check_rates(rates: SlotRates, config: dict[str, Any]) -> None:
    """Refuse rates of version 1 that contradict the position tables of a model trained by this project."""
    architecture, origin = config["architecture"], config.get("origin") or {}
    if origin.get("checkpoint") != "nast_s2x" or not architecture.get("unit_vocab"):
        return
    units, text = architecture.get("max_unit_positions"), architecture.get("max_text_positions")
    per_slot = units if architecture.get("unit_rotary") else units // text if isinstance(units, int) and text else None
    if per_slot != rates.unit_upsample:
        raise ConfigError(
            f"`unit_upsample` is {rates.unit_upsample}, but the weights have {per_slot} unit slots per text slot"
        )


def _unit_labels(folder: Path, architecture: NastConfig, config: dict[str, Any]) -> UnitLabels | None:
    if not architecture.unit_vocab:
        return None
    units = config.get("units") or {}
    try:
        return UnitLabels.of_size(architecture.unit_vocab, units.get("hash"), int(units.get("drop_repeats", 0)))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: units: {error}") from None
