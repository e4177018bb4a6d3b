"""The record of an evaluation: what was run on what. A folder takes results of one set of settings only."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nast_s2x import __version__
from nast_s2x.errors import NastError
from nast_s2x.files import file_digest, read_json, write_json

if TYPE_CHECKING:
    from nast_s2x.evaluation.items import CheckedAudio, TestSet
    from nast_s2x.inference.system import System

SETTINGS = "settings.json"
FORMAT = 1
#: Parts of the record that may differ: where files lie, the chunk sizes, which can be added to, and the version of
#: SimulEval, which ran evaluations before this program had a loop of its own.
_FREE = {"path", "chunks", "simuleval"}


@dataclass(frozen=True)
class RunSettings:
    """How a system is run; see the flags of ``nast-s2x evaluate``.

    Attributes:
        model: bundle folder or checkpoint file.
        data: data folder of a checkpoint; ``None``: its own.
        target_type: ``text`` or ``speech``.
        lookahead_ms, wait_chunks, left_ms: ``None``: as trained.
        segment_ms, first_segment_ms: see :class:`~nast_s2x.inference.segments.Segments`.
        device, dtype: where and in which number type (``fp32``, ``fp16``, ``bf16``) the network computes.
        threads: CPU threads of each process.
        vocoder: unit vocoder instead of the bundle's.
        synthesis_lookahead: right context of the vocoder in unit frames of 20 ms; unused for text.
    """

    model: str
    data: str | None = None
    target_type: str = "text"
    lookahead_ms: int | None = None
    wait_chunks: int | None = None
    left_ms: int | None = None
    segment_ms: int = 40
    first_segment_ms: int | None = None
    device: str = "cpu"
    dtype: str = "fp32"
    threads: int = 1
    vocoder: str | None = None
    synthesis_lookahead: int | None = None


def record(
    run: RunSettings, system: System, test_set: TestSet, audio: Sequence[CheckedAudio], chunks: Sequence[str]
) -> dict[str, Any]:
    """The record of an evaluation, as ``settings.json`` holds it.

    Args:
        system: the system that ``run`` names.
        audio: of each recording, see :func:`~nast_s2x.evaluation.items.check_audio`.
        chunks: chunk sizes, as the folders are called.
    """
    rows = test_set.utterances
    sources = [f"{checked.digest} {row.id}" for checked, row in zip(audio, rows, strict=True)]
    units = ["" if row.units is None else str(row.units) for row in rows]
    speech = run.target_type == "speech"
    return {
        "format": FORMAT,
        "model": {
            "path": str(Path(run.model).resolve()),
            "sha256": hash_files(system_files(run.model, run.data)),
            "source_lang": system.info.source_lang,
            "target_lang": system.info.target_lang,
            "example": system.info.example,
        },
        "source": _source(test_set.source, sources),
        "target": _source(test_set.target, (row.target_text for row in rows)),
        "units": None if test_set.units is None else _source(test_set.units, units),
        "num_utterances": len(rows),
        "target_type": run.target_type,
        "chunks": sort_chunks(chunks),
        "lookahead_ms": run.lookahead_ms,
        "wait_chunks": run.wait_chunks,
        "left_ms": run.left_ms,
        "segment_ms": run.segment_ms,
        "first_segment_ms": run.first_segment_ms,
        "device": run.device,
        "dtype": run.dtype,
        "threads": run.threads,
        "vocoder": _vocoder(run.vocoder) if speech else None,
        "synthesis_lookahead": run.synthesis_lookahead if speech else None,
        "versions": {"nast_s2x": __version__, "torch": metadata.version("torch")},
    }


def take_folder(folder: str | os.PathLike[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Make ``folder`` the home of an evaluation with ``settings``, or go on with the one that is there.

    Chunk sizes are added to those that it has.

    Returns:
        the record that is now in the folder.
    Raises:
        ValueError: it holds something else, or an evaluation with other settings; names what differs.
    """
    folder = Path(folder)
    path = folder / SETTINGS
    settings = dict(settings)
    if path.is_file():
        stored = read_settings(folder)
        differing = differences(stored, settings)
        if differing:
            text = "; ".join(
                f"{name}: {_format_value(old)} then, {_format_value(new)} now" for name, old, new in differing
            )
            raise NastError(f"{folder} holds an evaluation with other settings ({text}): name another folder")
        settings["chunks"] = sort_chunks([*stored["chunks"], *settings["chunks"]])
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise NastError(f"{folder} holds other files and no evaluation ({SETTINGS} is missing): name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, settings, indent=2)
    return settings


def read_settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The record in the folder of an evaluation.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another format.
    """
    path = Path(folder) / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not the folder of an evaluation: {SETTINGS} is missing")
    values = read_json(path)
    if not isinstance(values.get("chunks"), list):
        raise NastError(f"{path} does not describe an evaluation: it must be an object with a list 'chunks'")
    if values.get("format") != FORMAT:
        raise NastError(f"{path} has format {values.get('format')!r}, this program reads format {FORMAT}")
    return values


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(name, stored value, wanted value) of everything that differs, save paths and chunk sizes."""
    found: list[tuple[str, Any, Any]] = []
    for name in [*wanted, *(name for name in stored if name not in wanted)]:
        old, new = stored.get(name), wanted.get(name)
        if name in _FREE or old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", old, new))
    return found


def sort_chunks(chunks: Iterable[str]) -> list[str]:
    """Chunk sizes from small to large, ``offline`` last, each once."""
    return sorted(set(chunks), key=lambda chunk: (chunk == "offline", 0 if chunk == "offline" else int(chunk)))


def system_files(model: str | os.PathLike[str], data: str | os.PathLike[str] | None = None) -> list[tuple[str, Path]]:
    """(name, path) of the files that decide what a system does: all of a bundle but its card and SimulEval's flags."""
    from nast_s2x.inference.bundle import CARD  # here: scoring needs no torch

    model = Path(model)
    if model.is_dir():
        files = sorted(path for path in model.rglob("*") if path.is_file())
        beside = [path for path in files if path.name == CARD or path.suffix == ".yaml"]
        return [(path.relative_to(model).as_posix(), path) for path in files if path not in beside]
    from nast_s2x.corpus.data_folder import DataFolder

    folder = Path(data) if data is not None else model.parent
    config = folder / "config.yaml" if folder.is_dir() else folder
    described = DataFolder.load(config)
    files = {"model": model, "config": config, "vocabulary": described.vocab_path, "spm": described.spm_path}
    if described.cmvn_path is not None:
        files["cmvn"] = described.cmvn_path
    return [(name, Path(path)) for name, path in files.items()]


def hash_files(files: Iterable[tuple[str, Path]]) -> str:
    """SHA-256 over names and contents, hexadecimal."""
    total = hashlib.sha256()
    for name, path in files:
        total.update(f"{name}\n{file_digest(path)}\n".encode())
    return total.hexdigest()


def _source(path: Path, lines: Iterable[str]) -> dict[str, str]:
    return {"path": str(path.resolve()), "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


def _vocoder(path: str | None) -> dict[str, str] | None:
    """The vocoder that replaces the bundle's own; ``None`` without one."""
    if path is None:
        return None
    chosen = Path(path)
    files = system_files(chosen) if chosen.is_dir() else [("model", chosen), *_beside(chosen)]
    return {"path": str(chosen.resolve()), "sha256": hash_files(files)}


def _beside(checkpoint: Path) -> list[tuple[str, Path]]:
    config = checkpoint.with_name("config.json")
    return [("config", config)] if config.is_file() else []


def _format_value(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    return "none" if value is None else str(value) if not isinstance(value, Mapping) else "given"
