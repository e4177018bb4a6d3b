"""From a table of recordings and texts to a data folder: features, CMVN, vocabulary, manifests, configuration."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nast_s2x.corpus.audio_ref import split_segment
from nast_s2x.corpus.data_folder import CONFIG_NAME, DataFolder
from nast_s2x.corpus.manifest import Example, parse_units, read_table, unit_record, write_split
from nast_s2x.corpus.packing import Part, PartJob, Recording, compute_parts, pack_npy, pack_zip, write_json
from nast_s2x.corpus.vocabulary import Vocabulary, train_vocabulary
from nast_s2x.errors import ManifestError
from nast_s2x.frontend.cmvn import CmvnAccumulator, GlobalCmvn
from nast_s2x.labels import TextLabels

COLUMNS = ("id", "audio", "src_text", "tgt_text", "split")
FEATURES = ("zip", "npy", "audio")
#: Record of how a data folder was made; also the place where its bad rows stand.
RECORD_NAME = "prepare.json"
_WORK_NAME = ".prepare"
_WAYS_OUT = "take another output folder, or ask for overwriting (--overwrite)"
_SPM_NAME, _VOCAB_NAME, _CMVN_NAME = "spm.model", "spm.txt", "gcmvn.npz"
# SpecAugment of the published recipe.
_SPECAUGMENT = {
    "time_warp_W": 0, "freq_mask_N": 1, "freq_mask_F": 27, "time_mask_N": 1, "time_mask_T": 100, "time_mask_p": 1.0
}  # fmt: skip


@dataclass
class PrepareReport:
    """What a preparation made: usable rows and hours per split, labels, bad rows and remarks."""

    rows: dict[str, int] = field(default_factory=dict)
    hours: dict[str, float] = field(default_factory=dict)
    labels: int = 0
    num_units: int | None = None
    unit_hash: str | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    already_complete: bool = False


@dataclass(frozen=True)
class PrepareOptions:
    """Settings of a preparation; a folder made with other settings is never added to.

    Attributes:
        vocab_size: SentencePiece pieces, the four specials included.
        character_coverage: share of the characters that the pieces must cover.
        features: "zip" (packed, random access), "npy" (a file each) or "audio" (computed again at every reading).
        float16: store features in half precision: half the size, errors of up to 0.008.
        source_lang, target_lang: written to the configuration.
        num_units: number of unit codes K of ``tgt_audio``; None takes what ``NAME.units.json`` beside the manifest says
            (``nast-s2x units extract`` writes it), and without it the largest one + 1.
        vocabulary_from: data folder whose vocabulary and CMVN are used instead of new ones, for more test data.
    """

    vocab_size: int = 10000
    character_coverage: float = 1.0
    features: str = "zip"
    float16: bool = False
    source_lang: str = ""
    target_lang: str = ""
    num_units: int | None = None
    vocabulary_from: Path | None = None

    def __post_init__(self) -> None:
        if self.features not in FEATURES:
            raise ValueError(f"features must be one of {', '.join(FEATURES)}, not {self.features!r}")
        if self.vocab_size < 5:
            raise ValueError(f"vocab_size must be at least 5 (four specials and a piece), not {self.vocab_size}")

    @property
    def dtype(self) -> str | None:
        """Type that features are stored in; None where they are not stored."""
        return None if self.features == "audio" else "float16" if self.float16 else "float32"


@dataclass(frozen=True)
class _Row:
    line: int
    id: str
    audio: str  # as written in the manifest
    src_text: str
    tgt_text: str
    split: str
    units: tuple[int, ...] | None
    unit_hash: str

    @property
    def is_train(self) -> bool:
        return self.split.startswith("train")


def prepare(
    manifest: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: PrepareOptions | None = None,
    *,
    jobs: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> PrepareReport:
    """Make a data folder from a manifest; running it again resumes, or finds everything done.

    Args:
        manifest: TSV with columns ``id, audio, src_text, tgt_text, split`` and optionally ``tgt_audio`` (unit string)
            and ``unit_hash`` (names the centroids of the units, one for all rows; goes into the configuration).
            Audio paths are relative to its folder, and may be anything that
            :func:`~nast_s2x.corpus.audio_ref.load_features` reads. Rows of splits named ``train...`` give the
            vocabulary
            and the CMVN statistics.
        output: the data folder.
        options: settings; the defaults are those of the published recipe.
        jobs: processes, by default as many as there are processors.
        strict: bad rows raise instead of being left out, and nothing is written then.
        overwrite: replace a data folder that was made with other settings or from other data.
        progress: show a progress bar on stderr.

    Raises:
        ManifestError: bad rows under ``strict``, no usable training row, units of several sets of centroids, or a
        folder
            made otherwise.
        FileNotFoundError, ValueError: an unusable manifest or option.
    """
    manifest, output, options = Path(manifest), Path(output), options or PrepareOptions()
    rows, problems = _check_rows(manifest, options.num_units)
    if strict and problems:
        raise ManifestError(f"{len(problems)} bad rows, nothing was written", problems)
    if not any(row.is_train for row in rows) and options.vocabulary_from is None:
        raise ManifestError(f"{manifest}: no usable row in a split named train", problems)
    _unit_hash(manifest, options, rows)
    settings = _settings(manifest, options, rows)
    splits = sorted({row.split for row in rows})
    record = _open_folder(output, manifest, settings, splits, overwrite)
    if record.get("complete") and record["settings"] == settings and not (strict and record["report"]["problems"]):
        return PrepareReport(**{**record["report"], "already_complete": True})
    is_new = not output.exists()
    work = output / _WORK_NAME
    work.mkdir(parents=True, exist_ok=True)
    recordings = [Recording(row.id, _absolute(row.audio, manifest), row.is_train) for row in rows]
    parts = compute_parts(recordings, work, options.dtype, jobs or len(os.sched_getaffinity(0)), progress)
    problems = sorted([*problems, *_part_problems(manifest, rows, parts)], key=_line_of)
    if strict and problems:
        shutil.rmtree(output if is_new else work)
        raise ManifestError(f"{len(problems)} bad rows, nothing was written", problems)
    write_json(output / RECORD_NAME, {"settings": settings, "splits": splits, "complete": False})
    for split in set(record.get("splits", ())):
        (output / f"{split}.tsv").unlink(missing_ok=True)
    report = _write_folder(output, manifest, options, rows, parts)
    report.problems = problems
    done = {"settings": settings, "splits": splits, "complete": True, "report": asdict(report)}
    write_json(output / RECORD_NAME, done)
    shutil.rmtree(work)
    return report


def _check_rows(manifest: Path, num_units: int | None) -> tuple[list[_Row], list[str]]:
    """Split the manifest into usable rows and problems, without opening any audio."""
    rows: list[_Row] = []
    problems: list[str] = []
    first_line: dict[str, int] = {}
    for item in read_table(manifest, required=COLUMNS):
        try:
            if item.problem:
                raise ValueError(item.problem)
            row = _check_row(item.line, item.cells, manifest, num_units)
            if row.id in first_line:
                raise ValueError(f"id {row.id!r} is that of line {first_line[row.id]} too")
        except (ValueError, OSError) as error:  # OSError: a text where a path should be may be too long for a file name
            problems.append(f"{manifest}:{item.line}: {error}")
            continue
        first_line[row.id] = row.line
        rows.append(row)
    return rows, problems


def _check_row(line: int, cells: dict[str, str], manifest: Path, num_units: int | None) -> _Row:
    values = {name: cells[name].strip() for name in COLUMNS}
    empty = [name for name in COLUMNS if not values[name]]
    if empty:
        raise ValueError(f"empty {', '.join(empty)}")
    if "\r" in "".join(values.values()):
        raise ValueError("a carriage return inside the line")
    if not re.fullmatch(r"[\w.-]+", values["split"]) or values["split"].startswith("."):
        raise ValueError(f"split {values['split']!r} cannot be a file name")
    file = Path(split_segment(_absolute(values["audio"], manifest))[0])
    if not file.is_file():
        raise ValueError(f"{file}: no such audio file")
    units = cells.get("tgt_audio", "").strip()
    codes = parse_units(units, num_units) if units else None
    return _Row(line, **values, units=codes, unit_hash=cells.get("unit_hash", "").strip() if units else "")


def _absolute(audio: str, manifest: Path) -> str:
    return os.path.normpath(manifest.resolve().parent / audio)


def _line_of(problem: str) -> int:
    return int(re.search(r":(\d+): ", problem)[1])


def _settings(manifest: Path, options: PrepareOptions, rows: list[_Row]) -> dict[str, Any]:
    """Everything that decides the content of the folder, for comparison with an earlier run."""
    settings: dict[str, Any] = {"format": 1, **asdict(options)}
    if options.vocabulary_from is not None:
        shared = DataFolder.load(options.vocabulary_from)
        files = (shared.spm_path, shared.vocab_path, shared.cmvn_path)
        settings["vocabulary_from"] = _digest(path.read_bytes() for path in files if path is not None)
    settings["manifest"] = _digest([manifest.read_bytes()])
    settings["audio"] = _digest(_audio_stamp(row, manifest).encode() for row in rows)
    return settings


def _audio_stamp(row: _Row, manifest: Path) -> str:
    status = os.stat(split_segment(_absolute(row.audio, manifest))[0])
    return f"{row.audio}\t{status.st_size}\t{status.st_mtime_ns}"


def _digest(blocks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(hashlib.sha256(block).digest())
    return digest.hexdigest()


def _open_folder(
    output: Path, manifest: Path, settings: dict[str, Any], splits: list[str], overwrite: bool
) -> dict[str, Any]:
    """The record of an earlier run in the output folder, or an empty one; raises if the folder must not be touched."""
    files = [CONFIG_NAME, _SPM_NAME, _VOCAB_NAME, _CMVN_NAME, *(f"{split}.tsv" for split in splits)]
    if any((output / name).exists() and (output / name).samefile(manifest) for name in files):
        raise ManifestError(f"{manifest}: would be overwritten; the output must be another folder than its own")
    path = output / RECORD_NAME
    if not path.is_file():
        there = [name for name in files if (output / name).exists()]
        if there and not overwrite:
            raise ManifestError(f"{output}: holds a {there[0]} that was not made here; {_WAYS_OUT}")
        return {}
    record = json.loads(path.read_text("utf-8"))
    changed = [name for name, value in settings.items() if record["settings"].get(name) != value]
    # What an interrupted run has left is checked piece by piece: only a finished folder has something to lose.
    if changed and record["complete"] and not overwrite:
        raise ManifestError(f"{output}: was prepared with other settings ({', '.join(changed)}); {_WAYS_OUT}")
    return record


def _part_problems(manifest: Path, rows: list[_Row], parts: list[tuple[PartJob, Part]]) -> list[str]:
    packed = (item for _, part in parts for item in part.packed)
    return [f"{manifest}:{row.line}: {item.problem}" for row, item in zip(rows, packed) if item.problem]


def _write_folder(
    output: Path, manifest: Path, options: PrepareOptions, rows: list[_Row], parts: list[tuple[PartJob, Part]]
) -> PrepareReport:
    frames = {item.id: item.frames for _, part in parts for item in part.packed if not item.problem}
    rows = [row for row in rows if row.id in frames]
    report = PrepareReport()
    cmvn, vocabulary = _statistics(options, rows, parts)
    if options.features == "audio":
        places = {row.id: _relative(row.audio, manifest, output) for row in rows}
    else:
        places = (pack_zip if options.features == "zip" else pack_npy)(parts, output)
    if cmvn is not None:
        cmvn.save(output / _CMVN_NAME)
    (output / _SPM_NAME).write_bytes(vocabulary.model)
    vocabulary.dictionary.save(output / _VOCAB_NAME)
    report.notes += [vocabulary.note] if vocabulary.note else []
    report.labels = vocabulary.dictionary.size
    report.unit_hash = _unit_hash(manifest, options, rows)
    report.num_units = _count_units(manifest, options, rows, report)
    config = _config(options, report, with_cmvn=cmvn is not None)
    (output / CONFIG_NAME).write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    for split in dict.fromkeys(row.split for row in rows):
        examples = [_example(row, places[row.id], frames[row.id]) for row in rows if row.split == split]
        write_split(output / f"{split}.tsv", examples)
        report.rows[split] = len(examples)
        report.hours[split] = sum(example.n_frames for example in examples) / 360_000
    return report


def _statistics(
    options: PrepareOptions, rows: list[_Row], parts: list[tuple[PartJob, Part]]
) -> tuple[GlobalCmvn | None, Vocabulary]:
    """CMVN and vocabulary: of the training rows, or those of another data folder."""
    if options.vocabulary_from is not None:
        shared = DataFolder.load(options.vocabulary_from)
        cmvn = GlobalCmvn.load(shared.cmvn_path) if shared.cmvn_path else None
        return cmvn, Vocabulary(shared.spm_path.read_bytes(), TextLabels.load(shared.vocab_path))
    accumulator = CmvnAccumulator()
    for _, part in parts:
        accumulator.add_sums(part.cmvn_frames, part.cmvn_sums)
    train = [row for row in rows if row.is_train]
    if not train:
        raise ManifestError("no training row is left: the audio of each one is unusable")
    texts = [row.src_text for row in train] + [row.tgt_text for row in train]
    return accumulator.result(), train_vocabulary(texts, options.vocab_size, options.character_coverage)


def _unit_hash(manifest: Path, options: PrepareOptions, rows: list[_Row]) -> str | None:
    """The one hash of the centroids that all units come from, or None where nothing says so."""
    first_line: dict[str, int] = {}
    for row in rows:
        if row.units is not None:
            first_line.setdefault(row.unit_hash, row.line)
    if len(first_line) > 1:
        found = ", ".join(f"{value or 'none'} (line {line})" for value, line in first_line.items())
        raise ManifestError(f"{manifest}: units of different centroids in one manifest, unit_hash {found}")
    unit_hash = next(iter(first_line), "") or None
    shared = DataFolder.load(options.vocabulary_from).unit_hash if options.vocabulary_from is not None else None
    if unit_hash is not None and shared is not None and unit_hash != shared:
        raise ManifestError(f"{manifest}: units of centroids {unit_hash}, but {options.vocabulary_from} has {shared}")
    return unit_hash


def _count_units(manifest: Path, options: PrepareOptions, rows: list[_Row], report: PrepareReport) -> int | None:
    notes = report.notes
    sequences = [row.units for row in rows if row.units is not None]
    runs = sum(any(a == b for a, b in zip(units, units[1:])) for units in sequences)
    if runs:
        notes.append(f"{runs} unit strings hold runs of equal units; the unit decoder is trained on collapsed ones")
    if options.num_units is not None:
        return options.num_units
    if not sequences:
        return None
    largest = max(max(units) for units in sequences)
    recorded = _recorded_units(manifest, report.unit_hash)
    if recorded > largest:
        return recorded
    notes.append(f"num_units is {largest + 1}, from the largest unit; say so if the units have more codes")
    return largest + 1


def _recorded_units(manifest: Path, unit_hash: str | None) -> int:
    """K in the ``NAME.units.json`` that an extraction of these units has left beside the manifest, or 0."""
    try:
        record = unit_record(manifest)
        return int(record["num_units"]) if record["hash"] == unit_hash else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _config(options: PrepareOptions, report: PrepareReport, with_cmvn: bool) -> dict[str, Any]:
    cmvn = ["global_cmvn"] if with_cmvn else []
    config: dict[str, Any] = {
        "vocab_filename": _VOCAB_NAME,
        "bpe_tokenizer": {"bpe": "sentencepiece", "sentencepiece_model": _SPM_NAME},
        "input_channels": 1,
        "input_feat_per_channel": 80,
        "sample_rate": 16000,
        "specaugment": dict(_SPECAUGMENT),
        "transforms": {"*": [*cmvn], "_train": [*cmvn, "specaugment"]},
    }
    if with_cmvn:
        config["global_cmvn"] = {"stats_npz_path": _CMVN_NAME}
    for name in ("source_lang", "target_lang"):
        if getattr(options, name):
            config[name] = getattr(options, name)
    if report.num_units is not None:
        config["num_units"] = report.num_units
    if report.unit_hash is not None:
        config["unit_hash"] = report.unit_hash
    return config


def _relative(audio: str, manifest: Path, output: Path) -> str:
    """The path to write for audio that stays where it is; absolute ones stay absolute."""
    return audio if os.path.isabs(audio) else os.path.relpath(_absolute(audio, manifest), output.resolve())


def _example(row: _Row, audio: str, frames: int) -> Example:
    units = row.units
    return Example(row.id, audio, frames, row.src_text, row.tgt_text, units, len(units) if units else 0)
