"""Settings of an evaluation, and their record in its folder: a folder holds results of one set of settings only."""

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
from nast_s2x.evaluation.stored import FORMAT, read_settings_file
from nast_s2x.files import file_digest, is_empty, write_json

if TYPE_CHECKING:
    from nast_s2x.evaluation.items import CheckedAudio, TestSet
    from nast_s2x.inference.system import System

SETTINGS = "settings.json"
_FREE = {"path", "chunks", "simuleval"}
"""Entries of the record that may differ: paths of files, chunk sizes, and the version of SimulEval in old records."""


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run; see the flags of ``nast-s2x evaluate``.

    Attributes:
        model: bundle folder or checkpoint file.
        data: data folder of a checkpoint; ``None``: the folder that holds the checkpoint.
        target_type: ``text`` or ``speech``.
        lookahead_ms, wait_chunks, left_ms: see :class:`~nast_s2x.chunking.ChunkPolicy`; ``None``: as in training.
        pause_ms: see :class:`~nast_s2x.inference.system.System`.
        segment_ms, first_segment_ms: see :class:`~nast_s2x.inference.segments.Segments`.
        device, dtype: device and number type of the network, see :data:`~nast_s2x.device.DTYPES`.
        threads: CPU threads of each process.
        vocoder: folder or checkpoint of a unit vocoder that replaces the bundle's; ``None``: the bundle's.
        synthesis_lookahead: right context of the vocoder in unit frames of 20 ms; ``None``: the default of
            :class:`~nast_s2x.vocoder.streaming.SynthesisWindow`; unused for text.
        target_lang: language of the output, which decides between words and characters; ``None``: the system's.
        long_form: long recordings: elapsed times are those of a source in real time, see
            :class:`~nast_s2x.evaluation.session.Session`.
    """

    model: str
    data: str | None = None
    target_type: str = "text"
    lookahead_ms: int | None = None
    wait_chunks: int | None = None
    left_ms: int | str | None = None
    pause_ms: int | None = None
    segment_ms: int = 40
    first_segment_ms: int | None = None
    device: str = "cpu"
    dtype: str = "fp32"
    threads: int = 1
    vocoder: str | None = None
    synthesis_lookahead: int | None = None
    target_lang: str | None = None
    long_form: bool = False


def record(
    run: RunSettings, system: System, test_set: TestSet, audio: Sequence[CheckedAudio], chunks: Sequence[str]
) -> dict[str, Any]:
    """Return the record of an evaluation, the content of ``settings.json``.

    Args:
        run: the settings.
        system: the system that ``run`` names.
        test_set: the test set.
        audio: result of :func:`~nast_s2x.evaluation.items.check_audio` for its recordings.
        chunks: chunk sizes: milliseconds, or ``offline``.
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
        "pause_ms": run.pause_ms,
        "segment_ms": run.segment_ms,
        "first_segment_ms": run.first_segment_ms,
        "device": run.device,
        "dtype": run.dtype,
        "threads": run.threads,
        "vocoder": _vocoder(run.vocoder) if speech else None,
        "synthesis_lookahead": _lookahead(run, system) if speech else None,
        "target_lang": run.target_lang,
        "versions": {"nast_s2x": __version__, "torch": metadata.version("torch")},
    }


def _lookahead(run: RunSettings, system: System) -> int:
    from nast_s2x.inference.streaming import SynthesisWindow  # here: scoring needs no torch

    return SynthesisWindow.of(system.require_vocoder(), run.synthesis_lookahead).lookahead_frames


def take_folder(folder: str | os.PathLike[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``settings`` into the folder of an evaluation; chunk sizes are added to those of an earlier run.

    Returns:
        the record that is now in the folder.
    Raises:
        ValueError: the folder holds something else, or an evaluation with other settings; names what differs.
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
    elif folder.exists() and (not folder.is_dir() or not is_empty(folder)):
        raise NastError(f"{folder} holds other files and no evaluation ({SETTINGS} is missing): name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, settings, indent=2)
    return settings


def read_settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the record in the folder of an evaluation.

    Raises:
        FileNotFoundError: the folder has no record.
        ValueError: the record is damaged, or of another format.
    """
    path = Path(folder) / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not the folder of an evaluation: {SETTINGS} is missing")
    return read_settings_file(path)


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Return (name, stored value, wanted value) of every entry that differs, except those that may differ.

    Args:
        prefix: put before the names; used for nested entries.
    """
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
    """Return the chunk sizes from small to large, ``offline`` last, each once."""
    return sorted(set(chunks), key=lambda chunk: (chunk == "offline", 0 if chunk == "offline" else int(chunk)))


def system_files(model: str | os.PathLike[str], data: str | os.PathLike[str] | None = None) -> list[tuple[str, Path]]:
    """Return (name, path) of the files that determine a system's output.

    Of a bundle: all files except its card and the YAML files with SimulEval's flags. Of a checkpoint: the checkpoint
    and the files of its data folder that the model uses.
    """
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
    """Return the SHA-256 of names and contents, hexadecimal."""
    total = hashlib.sha256()
    for name, path in files:
        total.update(f"{name}\n{file_digest(path)}\n".encode())
    return total.hexdigest()


def _source(path: Path, lines: Iterable[str]) -> dict[str, str]:
    return {"path": str(path.resolve()), "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


def _vocoder(path: str | None) -> dict[str, str] | None:
    """Return the record of the vocoder that replaces the bundle's; ``None`` without one."""
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
