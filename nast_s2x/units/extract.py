"""Extraction of units: from a manifest of recordings to a manifest of units, in parallel and resumable.

The units of each recording are kept in a file beside the output until all are there. A result is stored under a digest
of everything that it depends on (recording, centroids, features), so that results of different runs are never mixed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nast_s2x.corpus.audio_ref import AnyPath, AudioRef
from nast_s2x.corpus.columns import audio_cell, audio_folders
from nast_s2x.corpus.manifest import RECORD_SUFFIX, TARGET_AUDIO, Manifest, Problem, read_manifest, write_manifest
from nast_s2x.corpus.utterance import Units, Utterance, unit_string
from nast_s2x.errors import AudioError, ConfigError, ManifestError, NastError
from nast_s2x.files import digest, file_digest, locked, read_json, write_json
from nast_s2x.processes import ResultFile, resumable_map
from nast_s2x.progress import progress_bar
from nast_s2x.temporary import remove_leftovers
from nast_s2x.units.centroids import Centroids, check_change_cost, check_fits
from nast_s2x.units.features import BackEnd, UnitFeatures, Windows, one_thread

COLUMNS = ("tgt_audio", "tgt_n_frames", "tgt_durations", "unit_hash")
"""Columns that an extraction adds, in this order."""


@dataclass
class ExtractReport:
    """Result of an extraction: rows, unit frames, reduced units, and the bad rows as ``FILE:LINE: reason``."""

    rows: int = 0
    frames: int = 0
    units: int = 0
    problems: list[str] = field(default_factory=list)
    already_complete: bool = False


def extract(
    manifest: AnyPath,
    centroids_file: AnyPath,
    output: AnyPath,
    back_end: BackEnd,
    audio_column: str = TARGET_AUDIO,
    *,
    change_cost: float = 0.0,
    windows: Windows | None = None,
    jobs: int = 1,
    strict: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> ExtractReport:
    """Write a units manifest: the input's columns, then :data:`COLUMNS`. An interrupted run is resumed.

    ``tgt_audio`` are the reduced units, ``tgt_durations`` the unit frames (20 ms) of each, ``tgt_n_frames`` their
    number, ``unit_hash`` names the centroids. ``NAME.units.json`` beside ``NAME.tsv`` describes the units. The result
    does not depend on the number of processes.

    Args:
        manifest: table of recordings; see :mod:`nast_s2x.corpus.manifest`.
        centroids_file: see :meth:`~nast_s2x.units.centroids.Centroids.load`.
        output: the table to write; relative paths in it start in its own folder, absolute ones stay.
        back_end: of the features that the centroids are clusters of.
        audio_column: column that names the recordings.
        change_cost: of :meth:`~nast_s2x.units.centroids.Centroids.smoothed`; 0 gives each frame its nearest centroid.
        windows: of long recordings.
        jobs: processes.
        strict: bad rows raise instead of being left out, and no table is written then.
        overwrite: replace a table that was made from other input or with other settings.

    Raises:
        ManifestError: bad rows under ``strict``, no usable row.
        ConfigError: an unusable setting; an output that was made from something else, or that another process writes.
        FileNotFoundError, NastError: an unusable manifest, model or set of centroids.
    """
    manifest, output, windows = Path(manifest), Path(output), windows or Windows()
    _check_names(manifest, output, audio_column)
    check_change_cost(change_cost)
    centroids = Centroids.load(centroids_file)
    with locked(output):
        remove_leftovers(output.parent, {sidecar(output).name, _new(output).name})
        table = _read_table(manifest, audio_column)
        if strict and table.problems:
            raise ManifestError(f"{len(table.problems)} bad rows, nothing was written", map(str, table.problems))
        features = back_end.build()
        check_fits(centroids, features)
        windows.frames(features)
        record = _record(features, centroids, Path(centroids_file).name, audio_column, windows, change_cost)
        del features  # the processes build their own
        made_from = json.dumps([record.get(name) for name in ("features", "hash", "windows", "change_cost")])
        keys = [digest(made_from, _recording(row).stamp()) for row in table]
        record["made_from"] = digest(file_digest(manifest), *keys)
        work = output.with_name(output.name + ".partial")
        earlier = _earlier(output, work, record, overwrite)
        if earlier is not None and not (strict and earlier.problems):
            work.unlink(missing_ok=True)  # of a run that was stopped at its very end
            return earlier
        found = _compute(table, keys, work, (back_end, centroids, windows, change_cost), jobs, progress)
        report = _write(table, found, output, audio_column, record, strict)
        work.unlink(missing_ok=True)
    return report


def sidecar(output: AnyPath) -> Path:
    """``NAME.units.json`` beside ``NAME.tsv``."""
    return Path(output).with_suffix(RECORD_SUFFIX)


def runs(labels: Sequence[int] | NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Collapse runs: labels (n,) -> units (m,), of which none equals its neighbour, and frames of each (m,).

    Example:
        >>> runs([7, 7, 3, 7])
        (array([7, 3, 7]), array([2, 1, 1]))
    """
    labels = np.asarray(labels, dtype=np.int64)
    if not len(labels):
        return labels, labels
    borders = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    return labels[borders], np.diff(np.r_[borders, len(labels)])


def _check_names(manifest: Path, output: Path, audio_column: str) -> None:
    if audio_column in COLUMNS:
        raise ConfigError(f"units are written to column {audio_column}: the recordings need a column of another name")
    if output.is_dir():
        raise ConfigError(f"{output}: is a folder; the output is a file such as units.tsv")
    if output.exists() and manifest.exists() and output.samefile(manifest):
        raise ConfigError(f"{manifest}: would be overwritten; the output must be another file")


def _read_table(manifest: Path, audio_column: str) -> Manifest:
    return read_manifest(
        manifest,
        required=(audio_column,),
        target_audio=audio_column,
        keep_extra=True,
        unique_ids=False,
        strict=False,
    )


def _recording(row: Utterance) -> AudioRef:
    assert row.target_audio is not None, "the column is required"
    return row.target_audio


def _record(
    features: UnitFeatures, centroids: Centroids, name: str, audio_column: str, windows: Windows, change_cost: float
) -> dict[str, Any]:
    """Description of the units, for ``NAME.units.json``."""
    record = {
        "features": features.describe(),
        "num_units": centroids.num_units,
        "hash": centroids.hash,
        "centroids": name,
        "audio_column": audio_column,
        "change_cost": float(change_cost),
    }
    # Features with limited context are the same for any windows.
    return record | ({"windows": asdict(windows)} if features.context_samples is None else {})


def _earlier(output: Path, work: Path, record: dict[str, Any], overwrite: bool) -> ExtractReport | None:
    """The report of an earlier run that made the same table, ``None`` without one.

    Raises:
        ConfigError: ``output`` is something else, and is not to be overwritten.
    """
    if not output.exists():
        return None
    found = _read_record(sidecar(output))
    same = all(found.get(name) == value for name, value in record.items() if name != "centroids")
    if same and found.get("sha256") == file_digest(output):
        return ExtractReport(**found["report"], already_complete=True)
    # The record of this run and unfinished results: a run that overwrites was stopped before it replaced the table.
    if overwrite or (same and work.exists()):
        return None
    settings = ("hash", "features", "audio_column", "windows", "change_cost")
    changed = [name for name in settings if found.get(name) != record.get(name)]
    reason = f"made with another {', '.join(changed)}" if changed else "made from other input, or changed since"
    reason = reason if found else "not made by `nast-s2x units extract`"
    raise ConfigError(f"{output}: was {reason}; choose another output, or pass --overwrite")


def _read_record(path: Path) -> dict[str, Any]:
    """The content of ``NAME.units.json``; empty where there is none, or none that :func:`extract` wrote."""
    try:
        values = read_json(path)
    except (OSError, NastError):
        return {}
    report = values.get("report")
    known = set(ExtractReport.__dataclass_fields__) - {"already_complete"}
    return values if isinstance(report, dict) and set(report) == known else {}


def _compute(
    table: Manifest, keys: Sequence[str], work: Path, arguments: tuple[Any, ...], jobs: int, progress: bool
) -> list[dict[str, str]]:
    """``units`` and ``durations``, or ``problem``, of every recording in order."""
    recordings = [_recording(row) for row in table]
    try:
        with progress_bar(len(table), "units", show=progress) as bar, one_thread():
            return resumable_map(
                _units, recordings, keys, ResultFile(work), jobs, _start, arguments, advance=lambda _: bar.update(1)
            )
    finally:
        _stop()


@dataclass
class _Worker:
    features: UnitFeatures
    centroids: Centroids
    windows: Windows
    change_cost: float


_worker: _Worker | None = None


def _start(back_end: BackEnd, centroids: Centroids, windows: Windows, change_cost: float) -> None:
    global _worker
    torch.set_num_threads(1)
    _worker = _Worker(back_end.build(), centroids, windows, change_cost)


def _stop() -> None:
    """Release the network of a run in this process."""
    global _worker
    _worker = None


def _units(audio: AudioRef) -> dict[str, str]:
    assert _worker is not None
    try:
        vectors = _worker.windows.read(_worker.features, audio)
    except (AudioError, OSError) as error:
        return {"problem": str(error)}
    codes, durations = runs(_worker.centroids.smoothed(vectors, _worker.change_cost))
    return {"units": unit_string(codes), "durations": unit_string(durations)}


def _write(
    table: Manifest,
    found: Sequence[Mapping[str, str]],
    output: Path,
    audio_column: str,
    record: dict[str, Any],
    strict: bool,
) -> ExtractReport:
    """Write the record, then the table."""
    bad = [
        Problem(line, result["problem"], str(table.path))
        for line, result in zip(table.lines, found)
        if "problem" in result
    ]
    report = ExtractReport(problems=[str(problem) for problem in sorted([*table.problems, *bad])])
    if strict and report.problems:
        raise ManifestError(f"{len(report.problems)} bad rows, no table was written", report.problems)
    rows = []
    for row, result in zip(table, found):
        if "problem" not in result:
            units = Units.parse(result["units"], result["durations"], record["hash"])
            rows.append(replace(row, units=units))
            report.units += len(units.codes)
            report.frames += sum(units.durations or ())
    if not rows:
        raise ManifestError(f"{table.path}: no recording is usable", report.problems)
    report.rows = len(rows)
    columns = [*(name for name in table.columns if name not in COLUMNS), *COLUMNS]
    summary = {name: value for name, value in asdict(report).items() if name != "already_complete"}
    written = _new(output)
    try:
        write_manifest(written, _moved(rows, table.path, output), columns, target_audio=audio_column)
        write_json(sidecar(output), record | {"report": summary, "sha256": file_digest(written)}, indent=1)
        os.replace(written, output)
    finally:
        written.unlink(missing_ok=True)
    return report


def _new(output: Path) -> Path:
    """The table before it takes the place of an older one."""
    return output.with_name(f".{output.name}.new")


def _moved(rows: Sequence[Utterance], manifest: Path, output: Path) -> list[Utterance]:
    """Rows whose :data:`TARGET_AUDIO`, if not the column of the recordings, holds paths relative to the new table."""
    folders, folder = audio_folders(manifest), os.path.realpath(output.parent)
    moved = []
    for row in rows:
        text = (row.extra or {}).get(TARGET_AUDIO)
        if text:
            cell = audio_cell(AudioRef.parse(text, *folders), folder)
            row = replace(row, extra={**(row.extra or {}), TARGET_AUDIO: cell})
        moved.append(row)
    return moved
