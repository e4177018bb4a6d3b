"""The ``config.json`` of a bundle: what it describes, and the digests that tie the files of the bundle together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nast_s2x.checkpoints.weights import check_not_pointer
from nast_s2x.chunking import ChunkPolicy, SlotRates
from nast_s2x.errors import CheckpointError, ConfigError, shown
from nast_s2x.files import digest, file_digest, read_json
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.inference.policies import policies_of_version_1
from nast_s2x.network import NastConfig
from nast_s2x.typed import limited, read_fields

FORMAT = "nast_s2x bundle"
VERSIONS = (1, 2)
CONFIG = "config.json"
_NUMERIC = ("architecture", "policies", "geometries", "front_end", "units", "num_units")
"""Entries that decide about the output; the others (languages, origin, a note) may be edited."""


@dataclass(frozen=True)
class FrontEnd:
    """Entry ``front_end``: sample rate in Hz, name of the CMVN file or ``None``, band limit of the training in Hz."""

    sample_rate: int
    cmvn: str | None
    band_hz: float | None = None


@dataclass(frozen=True)
class Languages:
    """Entry ``languages``."""

    source: str | None = None
    target: str | None = None


@dataclass(frozen=True)
class UnitEntry:
    """Entry ``units``: hash of the centroids, where known, and the longest repetition that is dropped."""

    hash: str | None = None
    drop_repeats: int = limited(0, least=0)


@dataclass(frozen=True)
class _Entries:
    """Entries of the file; those of other names are for readers only."""

    architecture: Mapping[str, Any]
    front_end: FrontEnd
    policies: tuple[Mapping[str, Any], ...] | None = None
    geometries: Mapping[str, Any] | None = None  # chunk policies and slot rates of version 1
    languages: Languages | None = None
    units: UnitEntry | None = None
    vocoder: Mapping[str, Any] | None = None
    example: str | None = None
    origin: Mapping[str, Any] | None = None
    files: Mapping[str, str] | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Description:
    """What the ``config.json`` of a bundle says.

    Attributes:
        architecture: sizes of the network.
        policies: chunk policies of the training.
        front_end, languages, units: entries of these names.
        has_vocoder: True where the bundle must have one.
        example, origin: see :class:`~nast_s2x.inference.system.SystemInfo`.
        files: name -> SHA-256 of the files that decide about the output; ``None`` in older bundles.
    """

    architecture: NastConfig
    policies: tuple[ChunkPolicy, ...]
    front_end: FrontEnd
    languages: Languages
    units: UnitEntry
    has_vocoder: bool
    example: str | None
    origin: dict[str, Any]
    files: Mapping[str, str] | None


def read_description(folder: Path) -> Description:
    """Read ``config.json`` of a bundle of version 1 or 2.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not such a file, or changed since it was written.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a bundle: file {CONFIG} is missing (`nast-s2x export` makes bundles)")
    values = read_json(path)
    if values.get("format") != FORMAT:
        raise CheckpointError(f"{path} does not describe a bundle: its 'format' must be {FORMAT!r}")
    version = values.get("version")
    if version not in VERSIONS or isinstance(version, bool):
        raise CheckpointError(
            f"{path}: the bundle's 'version' must be one of {', '.join(map(str, VERSIONS))}, but is {shown(version)}"
        )
    needed = ("architecture", "front_end", "geometries" if version == 1 else "policies")
    missing = [name for name in needed if not values.get(name)]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}")
    try:
        entries = read_fields(_Entries, values, "the description of a bundle", ignore_unknown=True)
        if entries.front_end.sample_rate != SAMPLE_RATE:
            raise ConfigError(f"`front_end.sample_rate` must be {SAMPLE_RATE}, but is {entries.front_end.sample_rate}")
        architecture, policies = _network(entries, version)
        # The last check: the others say more.
        if entries.sha256 is not None and entries.sha256 != _digest(values):
            raise ConfigError(f"its entries do not have the digest `sha256`: one was changed; {_WAYS_OUT}")
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return Description(
        architecture,
        policies,
        entries.front_end,
        entries.languages or Languages(),
        entries.units or UnitEntry(),
        bool(entries.vocoder),
        entries.example,
        dict(entries.origin or {}),
        entries.files,
    )


def check_files(folder: Path, names: Iterable[str], description: Description) -> None:
    """Compare files of a bundle with the digests of its description, where it has them.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: a file without digest, or with another one, or a Git LFS pointer; names it.
    """
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"bundle {folder} is incomplete: file {name} is missing")
        if description.files is None:
            continue
        if name not in description.files:
            raise CheckpointError(f"{folder / CONFIG}: `files` has no digest of {name}; {_WAYS_OUT}")
        check_not_pointer(folder / name)
        found = file_digest(folder / name)
        if found != description.files[name]:
            raise CheckpointError(
                f"{folder / name} is damaged or from another bundle: its SHA-256 is {found[:12]}..., but {CONFIG} "
                f"records {description.files[name][:12]}...; {_WAYS_OUT}"
            )


_WAYS_OUT = f"copy the bundle again, or remove `files` and `sha256` from {CONFIG} if the change was meant"


def sealed(values: Mapping[str, Any], folder: Path, names: Iterable[str]) -> str:
    """Text of ``config.json`` with ``values``, the digests of the files ``names`` and that of the values themselves."""
    files = {name: file_digest(folder / name) for name in names}
    return json.dumps({**values, "files": files, "sha256": _digest(values)}, indent=2, ensure_ascii=False) + "\n"


def _digest(values: Mapping[str, Any]) -> str:
    """Digest of the entries that decide about the output, whatever the order and layout of the file."""
    chosen = {name: values[name] for name in _NUMERIC if name in values}
    return digest(json.dumps(chosen, sort_keys=True))


def _network(entries: _Entries, version: int) -> tuple[NastConfig, tuple[ChunkPolicy, ...]]:
    """Architecture and chunk policies; errors name the entry."""
    entry = "architecture"
    try:
        if version == 1:
            entry = "geometries"
            rates, policies = policies_of_version_1(entries.geometries or {})
            _check_rates(rates, entries)
            entry = "architecture"
            return NastConfig.from_dict({**entries.architecture, "rates": vars(rates)}), policies
        architecture = NastConfig.from_dict(entries.architecture)
        entry = "policies"
        return architecture, tuple(ChunkPolicy.from_dict(policy) for policy in entries.policies or ())
    except ConfigError as error:
        raise ConfigError(f"{entry}: {error}") from None


def _check_rates(rates: SlotRates, entries: _Entries) -> None:
    """Refuse rates of version 1 that contradict the position tables of a model trained by this project."""
    architecture, origin = entries.architecture, entries.origin or {}
    if origin.get("checkpoint") != "nast_s2x" or not architecture.get("unit_vocab"):
        return
    units, text = architecture.get("max_unit_positions"), architecture.get("max_text_positions")
    if architecture.get("unit_rotary"):
        per_slot = units
    else:
        per_slot = units // text if isinstance(units, int) and isinstance(text, int) and text else None
    if per_slot != rates.unit_upsample:
        raise ConfigError(
            f"`unit_upsample` is {rates.unit_upsample}, but the weights have {per_slot} unit slots per text slot"
        )
