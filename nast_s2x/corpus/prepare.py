"""From a table of recordings and texts to a data folder: features, CMVN, vocabulary, tables, configuration."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import yaml

from nast_s2x.corpus.audio_ref import AnyPath, AudioRef
from nast_s2x.corpus.data_folder import CONFIG_NAME, RECORD_NAME, DataFolder, specaugment_settings
from nast_s2x.corpus.manifest import Manifest, Problem, read_manifest, unit_record, write_manifest
from nast_s2x.corpus.packing import ARCHIVE, FOLDER, Part, Recording, compute_parts, pack_npy, pack_zip
from nast_s2x.corpus.prepare_options import PrepareOptions, PrepareReport
from nast_s2x.corpus.utterance import Utterance
from nast_s2x.corpus.vocabulary import Vocabulary, train_vocabulary
from nast_s2x.errors import ConfigError, ManifestError
from nast_s2x.files import digest, file_digest, locked, read_json, write_atomic, write_json
from nast_s2x.frontend.cmvn import CmvnAccumulator, GlobalCmvn
from nast_s2x.frontend.noise_floor import noise_floor
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.frontend.specaugment import SpecAugment
from nast_s2x.labels import TextLabels
from nast_s2x.processes import process_count

COLUMNS = ("id", "audio", "src_text", "tgt_text", "split")
LONGEST_WORD = 1000
"""Characters of a word, at most: SentencePiece needs minutes for one of 100,000."""
DEV_NAMES = ("valid", "validation", "val")
"""Names of validation splits elsewhere; the training recipes validate on ``dev``."""
NARROWBAND_HZ = 4000.0
"""Highest frequency of telephone speech, for the option ``narrowband``."""
_FORMAT = 3  # of the record
_WORK_NAME = ".prepare"
_WAYS_OUT = "choose another output folder, or pass --overwrite"
_SPM_NAME, _VOCAB_NAME, _CMVN_NAME = "spm.model", "spm.txt", "gcmvn.npz"
_PUBLISHED_MASKS = SpecAugment(freq_masks=1, freq_width=27, time_masks=1, time_width=100, time_p=1.0)


def prepare(
    manifest: AnyPath,
    output: AnyPath,
    options: PrepareOptions | None = None,
    *,
    jobs: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> PrepareReport:
    """Make a data folder from a manifest. An interrupted run is resumed; a finished one is not repeated.

    Args:
        manifest: table with columns ``id, audio, src_text, tgt_text, split`` and optionally ``tgt_audio`` (unit string)
            and ``unit_hash`` (names the centroids of the units, the same in all rows; written to the configuration).
            Paths start as in :mod:`nast_s2x.corpus.manifest`, and have any form of
            :class:`~nast_s2x.corpus.audio_ref.AudioRef`. The rows of splits named ``train...`` give the vocabulary and
            the CMVN statistics. A split named ``valid``, ``validation`` or ``val`` becomes ``dev``.
        output: the data folder.
        options: settings; the defaults are those of the published recipe.
        jobs: processes, by default one per CPU.
        strict: raise on bad rows instead of leaving them out; nothing is written then.
        overwrite: replace a data folder that was made with other settings or from other data.
        progress: show a progress bar on stderr.

    Raises:
        ManifestError: bad rows under ``strict``, no usable training row, units of several sets of centroids.
        ConfigError: an option that cannot be used, a folder made with other settings, another process using it.
        FileNotFoundError: no such manifest or data folder.
    """
    manifest, output, options = Path(manifest), Path(output), options or PrepareOptions()
    jobs = process_count(jobs)
    with locked(output):
        return _Preparation(manifest, output, options).run(jobs, strict, overwrite, progress)


class _Preparation:
    """One run; the arguments are those of :func:`prepare`."""

    def __init__(self, manifest: Path, output: Path, options: PrepareOptions) -> None:
        self.manifest, self.output, self.options = manifest, output, options
        self.shared = None if options.vocabulary_from is None else DataFolder.load(options.vocabulary_from)
        self.table, self.notes = _read_table(manifest, options.num_units)

    def run(self, jobs: int, strict: bool, overwrite: bool, progress: bool) -> PrepareReport:
        table = self.table
        if strict:
            _refuse(table.problems, "nothing was written")
        if self.shared is None and not any(_is_train(row) for row in table):
            raise ManifestError(f"{self.manifest}: no usable row in a split named train", map(str, table.problems))
        self._unit_hash()
        settings, splits = self._settings(), sorted({row.split for row in table})
        record = self._open_folder(settings, splits, overwrite)
        if record.get("complete") and record["settings"] == settings:
            done = PrepareReport(**{**record["report"], "already_complete": True})
            if not (strict and done.problems):
                return done
        is_new = not self.output.exists()
        work = self.output / _WORK_NAME
        work.mkdir(parents=True, exist_ok=True)
        recordings = [Recording(row.id, _present(row.audio), _is_train(row)) for row in table]
        parts = compute_parts(recordings, work, self.options.dtype, jobs, progress, self.options.noise_floor)
        frames = self._drop_unusable(parts)
        if strict and self.table.problems:
            shutil.rmtree(self.output if is_new else work)
            _refuse(self.table.problems, "nothing was written")
        begun = {"settings": settings, "splits": splits, "complete": False}
        write_json(self.output / RECORD_NAME, begun)
        for split in record.get("splits", ()):
            (self.output / f"{split}.tsv").unlink(missing_ok=True)
        report = self._write(parts, frames)
        if record:
            self._remove_other_features()
        write_json(self.output / RECORD_NAME, {**begun, "complete": True, "report": asdict(report)})
        shutil.rmtree(work)
        return report

    def _settings(self) -> dict[str, Any]:
        """Everything that decides the content of the folder, for comparison with an earlier run."""
        settings: dict[str, Any] = {"format": _FORMAT, **asdict(self.options)}
        if self.shared is not None:
            files = (self.shared.spm_path, self.shared.vocab_path, self.shared.cmvn_path)
            settings["vocabulary_from"] = digest(*(file_digest(path) for path in files if path is not None))
        settings["manifest"] = file_digest(self.manifest)
        settings["audio"] = digest(*(_present(row.audio).stamp() for row in self.table))
        return settings

    def _open_folder(self, settings: dict[str, Any], splits: list[str], overwrite: bool) -> dict[str, Any]:
        """The record of an earlier run, or an empty one; raises if the folder must not be touched."""
        output = self.output
        files = [CONFIG_NAME, _SPM_NAME, _VOCAB_NAME, _CMVN_NAME, *(f"{split}.tsv" for split in splits)]
        if any((output / name).exists() and (output / name).samefile(self.manifest) for name in files):
            raise ManifestError(
                f"{self.manifest}: would be overwritten; the output must be another folder than its own"
            )
        if not (output / RECORD_NAME).is_file():
            there = [name for name in files if (output / name).exists()]
            if there and not overwrite:
                raise ConfigError(
                    f"{output} already contains {there[0]}, which `nast-s2x prepare` did not create: {_WAYS_OUT}"
                )
            return {}
        record = _read_record(output / RECORD_NAME, overwrite)
        changed = [name for name, value in settings.items() if record["settings"].get(name) != value]
        # The parts of an interrupted run are checked one by one; only a finished folder is protected.
        if changed and record["complete"] and not overwrite:
            raise ConfigError(f"{output} was prepared with other settings ({', '.join(changed)}): {_WAYS_OUT}")
        return record

    def _drop_unusable(self, parts: list[Part]) -> dict[str, int]:
        """Move rows whose features cannot be computed to the problems; returns the frames of the others by id."""
        packed = [item for part in parts for item in part.packed]
        lines = dict(zip((row.id for row in self.table), self.table.lines))
        bad = [Problem(lines[item.id], item.problem, str(self.manifest)) for item in packed if item.problem]
        frames = {item.id: item.frames for item in packed if not item.problem}
        self.table = replace(
            self.table,
            rows=[row for row in self.table if row.id in frames],
            lines=[line for row, line in zip(self.table, self.table.lines) if row.id in frames],
            problems=sorted([*self.table.problems, *bad]),
        )
        return frames

    def _write(self, parts: list[Part], frames: dict[str, int]) -> PrepareReport:
        """Write everything but the record; each file atomically."""
        output, options = self.output, self.options
        report = PrepareReport(problems=[str(problem) for problem in self.table.problems])
        cmvn, vocabulary = self._statistics(parts)
        rates = Counter(item.rate for part in parts for item in part.packed if item.rate)
        report.sample_rates = {str(rate): rates[rate] for rate in sorted(rates)}
        places = {row.id: _present(row.audio) for row in self.table}
        if options.features != "audio":
            places = (pack_zip if options.features == "zip" else pack_npy)(parts, output)
        if cmvn is not None:
            cmvn.save(output / _CMVN_NAME)
        write_atomic(output / _SPM_NAME, vocabulary.model)
        vocabulary.dictionary.save(output / _VOCAB_NAME)
        report.labels = vocabulary.dictionary.size
        report.unit_hash = self._unit_hash()
        report.num_units, notes = self._count_units(report.unit_hash)
        notes += [*self._band_notes(cmvn, rates), *self._dev_notes()]
        report.notes = [*self.notes, *filter(None, [vocabulary.note]), *notes]
        config = yaml.safe_dump(self._config(report, cmvn is not None), sort_keys=False, allow_unicode=True)
        write_atomic(output / CONFIG_NAME, config)
        for split in dict.fromkeys(row.split for row in self.table):
            rows = [
                replace(row, audio=places[row.id], num_frames=frames[row.id])
                for row in self.table
                if row.split == split
            ]
            with_units = any(row.units is not None for row in rows)
            columns = (*COLUMNS[:2], "n_frames", *COLUMNS[2:4], *(("tgt_audio", "tgt_n_frames") if with_units else ()))
            write_manifest(output / f"{split}.tsv", rows, columns)
            report.rows[split] = len(rows)
            report.hours[split] = sum(frames[row.id] for row in rows) / 360_000
        return report

    def _remove_other_features(self) -> None:
        """Remove features that an earlier run stored in another form; no table refers to them any more."""
        if self.options.features != "zip":
            (self.output / ARCHIVE).unlink(missing_ok=True)
        if self.options.features != "npy":
            shutil.rmtree(self.output / FOLDER, ignore_errors=True)

    def _statistics(self, parts: list[Part]) -> tuple[GlobalCmvn | None, Vocabulary]:
        """CMVN and vocabulary: of the training rows, or those of another data folder."""
        if self.shared is not None:
            cmvn = GlobalCmvn.load(self.shared.cmvn_path) if self.shared.cmvn_path else None
            return cmvn, Vocabulary(self.shared.spm_path.read_bytes(), TextLabels.load(self.shared.vocab_path))
        level = self.options.noise_floor
        accumulator = CmvnAccumulator(floor=None if level is None else noise_floor(level))
        for part in parts:
            accumulator.add_sums(part.cmvn_frames, part.cmvn_sums)
        train = [row for row in self.table if _is_train(row)]
        if not train:
            raise ManifestError("no training row is left: the audio of each one is unusable")
        texts = [row.source_text for row in train] + [row.target_text for row in train]
        vocabulary = train_vocabulary(texts, self.options.vocab_size, self.options.character_coverage)
        return accumulator.result(self._band(parts)), vocabulary

    def _band(self, parts: list[Part]) -> float | None:
        """Highest frequency of the training recordings where all of them are below 16 kHz, Hz."""
        train = {row.id for row in self.table if _is_train(row)}
        rates = {item.rate for part in parts for item in part.packed if item.id in train and not item.problem}
        limited = self.options.noise_floor is not None and 0 not in rates and max(rates) < SAMPLE_RATE
        return max(rates) / 2 if limited else None

    def _unit_hash(self) -> str | None:
        """The hash of the centroids that all units come from, None if not known."""
        found = self.table.unit_hash()
        wanted = self.shared.unit_hash if self.shared is not None else None
        if found is not None and wanted is not None and found != wanted:
            other = self.options.vocabulary_from
            raise ManifestError(f"{self.manifest}: units of centroids {found}, but {other} has {wanted}")
        return found

    def _count_units(self, unit_hash: str | None) -> tuple[int | None, list[str]]:
        """K, and remarks on it."""
        notes = []
        sequences = [row.units.codes for row in self.table if row.units is not None]
        runs = sum(any(a == b for a, b in zip(codes, codes[1:])) for codes in sequences)
        if runs:
            notes.append(f"{runs} unit strings hold runs of equal units; the unit decoder is trained on collapsed ones")
        if self.options.num_units is not None or not sequences:
            return self.options.num_units, notes
        largest = max(max(codes) for codes in sequences)
        recorded = _recorded_units(self.manifest, unit_hash)
        if recorded > largest:
            return recorded, notes
        return largest + 1, [
            *notes,
            f"num_units is {largest + 1}, from the largest unit; pass --num-units if K is larger",
        ]

    def _band_notes(self, cmvn: GlobalCmvn | None, rates: Counter[int]) -> list[str]:
        if cmvn is not None and cmvn.band_hz is not None:
            return [f"the training recordings end at {cmvn.band_hz:g} Hz: the model does not use frequencies above"]
        below = sum(count for rate, count in rates.items() if rate < SAMPLE_RATE)
        if not below or self.options.narrowband or self.shared is not None:
            return []
        return [
            f"{below} recordings have less than {SAMPLE_RATE} Hz, the others not: with --narrowband 0.3 the model is "
            "trained on both bands of every recording"
        ]

    def _dev_notes(self) -> list[str]:
        splits = {row.split for row in self.table}
        if self.shared is not None or "dev" in splits:
            return []
        return [
            "there is no split named dev, on which the training recipes validate: set the column split of some rows "
            "to dev, best of other speakers or talks than those of train, and prepare again"
        ]

    def _config(self, report: PrepareReport, with_cmvn: bool) -> dict[str, Any]:
        cmvn = ["global_cmvn"] if with_cmvn else []
        config: dict[str, Any] = {
            "vocab_filename": _VOCAB_NAME,
            "bpe_tokenizer": {"bpe": "sentencepiece", "sentencepiece_model": _SPM_NAME},
            "input_channels": 1,
            "input_feat_per_channel": 80,
            "sample_rate": 16000,
            "specaugment": specaugment_settings(_PUBLISHED_MASKS),
            "transforms": {"*": [*cmvn], "_train": [*cmvn, "specaugment"]},
        }
        if self.options.narrowband:
            config["narrowband"] = {"hz": NARROWBAND_HZ, "share": self.options.narrowband}
            config["transforms"]["_train"].insert(0, "narrowband")
        if with_cmvn:
            config["global_cmvn"] = {"stats_npz_path": _CMVN_NAME}
        optional = {
            "source_lang": self.options.source_lang or None,
            "target_lang": self.options.target_lang or None,
            "num_units": report.num_units,
            "unit_hash": report.unit_hash,
        }
        return config | {name: value for name, value in optional.items() if value is not None}


def _read_table(manifest: Path, num_units: int | None) -> tuple[Manifest, list[str]]:
    """Usable rows and problems of the manifest, without opening any audio, and remarks."""
    table = read_manifest(manifest, required=COLUMNS, num_units=num_units, check_files=True, strict=False)
    rows, lines, problems = [], [], list(table.problems)
    has_dev = any(row.split == "dev" for row in table)
    renamed: set[str] = set()
    for row, line in zip(table, table.lines):
        reason = _problem(row)
        if reason is not None:
            problems.append(Problem(line, reason, str(manifest)))
            continue
        if row.split in DEV_NAMES and not has_dev:
            renamed.add(row.split)
            row = replace(row, split="dev")
        rows.append(row)
        lines.append(line)
    notes = [f"split {name} is written as dev, on which the training recipes validate" for name in sorted(renamed)]
    if not manifest.read_bytes().endswith(b"\n"):
        notes.append(f"the last line of {manifest} does not end in a newline: make sure that the file is complete")
    return replace(table, rows=rows, lines=lines, problems=sorted(problems)), notes


def _problem(row: Utterance) -> str | None:
    """What is wrong with a row of the manifest that could be read, or None."""
    if not re.fullmatch(r"[\w.-]+", row.split) or row.split.startswith("."):
        return f"split {row.split[:40]!r} cannot be a file name"
    for column, text in (("src_text", row.source_text), ("tgt_text", row.target_text)):
        longest = max(map(len, text.split()))
        if longest > LONGEST_WORD:
            return f"{column} holds a word of {longest} characters, at most {LONGEST_WORD} are supported"
    return None


def _read_record(path: Path, overwrite: bool) -> dict[str, Any]:
    """The record of an earlier run; a damaged one may only be overwritten."""
    record = read_json(path)
    expected = {"settings": dict, "complete": bool, "splits": list, "report": dict}
    if not record.get("complete"):
        record.setdefault("report", {})
    wrong = [name for name, kind in expected.items() if not isinstance(record.get(name), kind)]
    if "report" not in wrong and not record["report"].keys() <= {entry.name for entry in fields(PrepareReport)}:
        wrong.append("report")
    if wrong and not overwrite:
        raise ConfigError(f"{path} is damaged ({', '.join(wrong)} missing or of another form): {_WAYS_OUT}")
    return {"settings": {}, "complete": False, "splits": []} if wrong else record


def _refuse(problems: list[Problem], outcome: str) -> None:
    if problems:
        raise ManifestError(f"{len(problems)} bad rows, {outcome}", map(str, problems))


def _is_train(row: Utterance) -> bool:
    return row.split.startswith("train")


def _present(audio: AudioRef | None) -> AudioRef:
    assert audio is not None, "the column is required"
    return audio


def _recorded_units(manifest: Path, unit_hash: str | None) -> int:
    """K in the ``NAME.units.json`` beside the manifest, if it is of the same centroids; else 0."""
    try:
        record = unit_record(manifest)
        return int(record["num_units"]) if record["hash"] == unit_hash else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0
