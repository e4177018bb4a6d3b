"""From a manifest of recordings to a manifest of units, in parallel and resumable.

Work is cut into parts of a fixed number of recordings. A finished part is a small JSON file in a folder beside the
output, which an interrupted extraction resumes from. A part knows what it was made from (recordings, centroids,
features): one that was made from something else is made again, and never mixed with others.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nast_s2x.corpus.manifest import RECORD_SUFFIX
from nast_s2x.errors import ManifestError
from nast_s2x.units.backends import BackEnd, check_fits
from nast_s2x.units.centroids import Centroids
from nast_s2x.units.features import UnitFeatures
from nast_s2x.units.recordings import Listed, Windows, read_recordings, runs, stamp
from nast_s2x.units.workers import ordered_map

PART_SIZE = 32
#: Columns that an extraction adds, in this order.
COLUMNS = ("tgt_audio", "tgt_n_frames", "tgt_durations", "unit_hash")
# Columns with paths besides the one that is read.
_PATHS = ("audio", "tgt_speech")


@dataclass
class ExtractReport:
    """What an extraction made: rows, unit frames, reduced units, and the bad rows as ``FILE:LINE: reason``."""

    rows: int = 0
    frames: int = 0
    units: int = 0
    problems: list[str] = field(default_factory=list)
    already_complete: bool = False


@dataclass(frozen=True)
class _Part:
    """A piece of work: ``path`` of its file, the recordings, and all else that the units depend on."""

    path: str
    audio: tuple[str, ...]
    made_from: str

    def digest(self) -> str:
        return hashlib.sha256("\n".join([self.made_from, *map(stamp, self.audio)]).encode()).hexdigest()


@dataclass
class _Worker:
    features: UnitFeatures
    centroids: Centroids
    windows: Windows
    change_cost: float


_worker: _Worker | None = None


def _start(back_end: BackEnd, centroids: Centroids, windows: Windows, change_cost: float) -> None:
    global _worker
    _worker = _Worker(back_end.build(), centroids, windows, change_cost)


def _finished(part: _Part) -> list[list[str]] | None:
    """[unit string, durations, problem] of each recording of a part that an earlier run has made."""
    path = Path(part.path)
    if not path.is_file():
        return None
    values = json.loads(path.read_text("utf-8"))
    return values["recordings"] if values["digest"] == part.digest() else None


def _make(part: _Part) -> list[list[str]]:
    digest = part.digest()  # before the audio is read: what changes meanwhile is made again
    found = [_units(audio) for audio in part.audio]
    _write(Path(part.path), json.dumps({"digest": digest, "recordings": found}, ensure_ascii=False))
    return found


def _units(audio: str) -> list[str]:
    assert _worker is not None
    try:
        vectors = _worker.windows.features(_worker.features, audio)
    except (ValueError, OSError) as error:
        return ["", "", str(error)]
    units, durations = runs(_worker.centroids.smoothed(vectors, _worker.change_cost))
    return [" ".join(map(str, units)), " ".join(map(str, durations)), ""]


def extract(
    manifest: str | os.PathLike[str],
    centroids_file: str | os.PathLike[str],
    output: str | os.PathLike[str],
    back_end: BackEnd,
    audio_column: str = "tgt_speech",
    *,
    change_cost: float = 0.0,
    windows: Windows | None = None,
    jobs: int = 1,
    strict: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> ExtractReport:
    """Write a units manifest: the input's columns, then :data:`COLUMNS`; running it again resumes, or finds it done.

    ``tgt_audio`` are the reduced units, ``tgt_durations`` the unit frames (20 ms) of each, ``tgt_n_frames`` their
    number, ``unit_hash`` names the centroids. Beside ``NAME.tsv`` comes ``NAME.units.json``, which says what the units
    are. The result does not depend on the number of processes.

    Args:
        manifest: tab-separated table; paths are relative to its folder.
        centroids_file: see :meth:`Centroids.load`.
        output: the table to write; paths in it are relative to its own folder, absolute ones stay.
        back_end: of the features that the centroids are clusters of.
        audio_column: names the recordings, sound files of any rate, channels and format.
        change_cost: of :meth:`Centroids.smoothed`; 0 gives each frame its nearest centroid.
        windows: of long recordings.
        jobs: processes.
        strict: bad rows raise instead of being left out, and no table is written then.
        overwrite: replace a table that was made from other things.

    Raises:
        ManifestError: bad rows under ``strict``, no usable row, or a table made from other things in the way.
        FileNotFoundError, ValueError: an unusable manifest, model or set of centroids.
    """
    manifest, output, windows = Path(manifest), Path(output), windows or Windows()
    _check_names(manifest, output, audio_column)
    if not 0 <= change_cost < float("inf"):
        raise ValueError(f"the cost of a change must be a number from 0, not {change_cost}")
    centroids = Centroids.load(centroids_file)
    listed, problems = read_recordings(manifest, audio_column)
    if strict and problems:
        raise ManifestError(f"{len(problems)} bad rows, nothing was written", problems)
    features = back_end.build()
    check_fits(centroids, features)
    windows.check(features)
    record = _record(features, centroids, Path(centroids_file).name, audio_column, windows)
    record["change_cost"] = float(change_cost)
    del features  # the processes have their own
    work = output.with_name(output.name + ".parts")
    made_from = [record.get(name) for name in ("features", "hash", "windows", "change_cost")]
    parts = _parts(listed, work, json.dumps(made_from))
    record["made_from"] = _digest([manifest.read_bytes(), *(part.digest().encode() for part in parts)])
    earlier = _earlier(output, work, record, overwrite)
    if earlier is not None and not (strict and earlier.problems):
        return earlier
    work.mkdir(parents=True, exist_ok=True)
    found = _run(parts, (back_end, centroids, windows, change_cost), jobs, progress)
    bad = [f"{manifest}:{item.line}: {cells[2]}" for item, cells in zip(listed, found) if cells[2]]
    line = len(f"{manifest}:")
    report = ExtractReport(problems=sorted([*problems, *bad], key=lambda text: int(text[line:].split(":", 1)[0])))
    if strict and report.problems:
        raise ManifestError(f"{len(report.problems)} bad rows, no table was written", report.problems)
    good = [(item, cells) for item, cells in zip(listed, found) if not cells[2]]
    if not good:
        raise ManifestError(f"{manifest}: no recording is usable", report.problems)
    _finish(manifest, output, audio_column, good, record, report)
    shutil.rmtree(work)
    return report


def sidecar(output: str | os.PathLike[str]) -> Path:
    """``NAME.units.json`` beside ``NAME.tsv``."""
    return Path(output).with_suffix(RECORD_SUFFIX)


def _check_names(manifest: Path, output: Path, audio_column: str) -> None:
    if audio_column in COLUMNS:
        raise ValueError(f"units are written to column {audio_column}: the recordings need a column of another name")
    if output.exists() and manifest.exists() and output.samefile(manifest):
        raise ValueError(f"{manifest}: would be overwritten; the output must be another file")
    if output.is_dir():
        raise ValueError(f"{output}: is a folder; the output is a file such as units.tsv")


def _record(
    features: UnitFeatures, centroids: Centroids, name: str, audio_column: str, windows: Windows
) -> dict[str, Any]:
    """What the units are, for ``NAME.units.json``."""
    record = {
        "features": features.describe(),
        "num_units": centroids.num_units,
        "hash": centroids.hash,
        "centroids": name,
        "audio_column": audio_column,
    }
    # Elsewhere windows change nothing.
    return record | ({"windows": asdict(windows)} if features.context_samples is None else {})


def _parts(listed: Sequence[Listed], work: Path, made_from: str) -> list[_Part]:
    audio = [item.audio for item in listed]
    return [
        _Part(str(work / f"{start // PART_SIZE:06d}.json"), tuple(audio[start : start + PART_SIZE]), made_from)
        for start in range(0, len(audio), PART_SIZE)
    ]


def _earlier(output: Path, work: Path, record: dict[str, Any], overwrite: bool) -> ExtractReport | None:
    """The report of an earlier run that has made exactly this; raises if something else is in the way."""
    if not output.exists():
        return None
    path = sidecar(output)
    there = _read_record(path)
    same = all(there.get(name) == value for name, value in record.items() if name != "centroids")
    if same and there.get("sha256") == _digest([output.read_bytes()]):
        return ExtractReport(**there["report"], already_complete=True)
    # With parts beside it, it is what an interrupted overwriting was about to replace.
    if overwrite or (same and work.is_dir()):
        return None
    settings = ("hash", "features", "audio_column", "windows", "change_cost")
    changed = [name for name in settings if there.get(name) != record.get(name)]
    why = f"made with another {', '.join(changed)}" if there and changed else "made from other input, or changed since"
    why = why if there else "not made here"
    raise ManifestError(f"{output}: was {why}; take another output, or ask for overwriting (--overwrite)")


def _read_record(path: Path) -> dict[str, Any]:
    """The content of ``NAME.units.json``; empty where there is none that was written here."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) and "report" in values else {}


def _run(parts: Sequence[_Part], arguments: tuple, jobs: int, progress: bool) -> list[list[str]]:
    """Make what is not there yet; returns [unit string, durations, problem] of all recordings in order."""
    found = {part.path: _finished(part) for part in parts}
    todo = [part for part in parts if found[part.path] is None]
    total = sum(len(part.audio) for part in parts)
    with tqdm(total=total, desc="units", unit="utt", disable=not progress) as bar:
        bar.update(total - sum(len(part.audio) for part in todo))
        if todo:
            for part, made in zip(todo, ordered_map(_make, todo, min(jobs, len(todo)), _start, arguments)):
                found[part.path] = made
                bar.update(len(made))
    return [cells for part in parts for cells in found[part.path] or ()]


def _finish(
    manifest: Path,
    output: Path,
    audio_column: str,
    good: Sequence[tuple[Listed, list[str]]],
    record: dict[str, Any],
    report: ExtractReport,
) -> None:
    columns = [name for name in good[0][0].row.cells if name not in COLUMNS]
    lines = ["\t".join([*columns, *COLUMNS])]
    for item, (units, durations, _) in good:
        cells = item.row.cells
        values = [
            _relative(cells[name], manifest, output) if name in (*_PATHS, audio_column) else cells[name]
            for name in columns
        ]
        count = units.count(" ") + 1
        lines.append("\t".join([*values, units, str(count), durations, record["hash"]]))
        report.rows, report.units = report.rows + 1, report.units + count
        report.frames += sum(map(int, durations.split()))
    text = "\n".join(lines) + "\n"
    summary = {name: value for name, value in asdict(report).items() if name != "already_complete"}
    record = record | {"report": summary, "sha256": _digest([text.encode()])}
    _write(sidecar(output), json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    _write(output, text)


def _relative(audio: str, manifest: Path, output: Path) -> str:
    """A path of the input as seen from the output's folder; empty and absolute ones stay."""
    audio = audio.strip()
    if not audio or os.path.isabs(audio):
        return audio
    return os.path.relpath(manifest.resolve().parent / audio, output.resolve().parent)


def _write(path: Path, text: str) -> None:
    """Write a file so that it is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def _digest(blocks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(hashlib.sha256(block).digest())
    return digest.hexdigest()
