"""From a table of recordings and texts to a data folder: features, CMVN, vocabulary, tables, configuration."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from nast_s2x.corpus.audio_ref import AnyPath
from nast_s2x.corpus.data_folder import CONFIG_NAME, RECORD_NAME, DataFolder, specaugment_settings
from nast_s2x.corpus.manifest import Problem, unit_record, write_manifest
from nast_s2x.corpus.packing import ARCHIVE, FOLDER, Parts, Places, Recording, compute_parts, pack_npy, pack_zip
from nast_s2x.corpus.prepare_options import PrepareOptions, PrepareReport
from nast_s2x.corpus.row_table import COLUMNS, RowTable, present
from nast_s2x.corpus.vocabulary import Vocabulary, train_vocabulary
from nast_s2x.errors import ConfigError, ManifestError
from nast_s2x.files import digest, file_digest, locked, read_json, write_atomic, write_json
from nast_s2x.frontend.cmvn import CmvnAccumulator, GlobalCmvn
from nast_s2x.frontend.noise_floor import noise_floor
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.frontend.specaugment import SpecAugment
from nast_s2x.labels import TextLabels
from nast_s2x.processes import process_count
from nast_s2x.progress import progress_bar
from nast_s2x.writing import CHINESE, JAPANESE, primary_language

NARROWBAND_HZ = 4000.0
"""Highest frequency of telephone speech, for the option ``narrowband``."""
_FORMAT = 3  # of the record
_WORK_NAME, _NEW_NAME = ".prepare", "new"
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
    on_phase: Callable[[str], object] | None = None,
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
        on_phase: called with the name of each phase when it begins: table, features, vocabulary, storing, tables.

    Raises:
        ManifestError: bad rows under ``strict``, no usable training row, units of several sets of centroids.
        ConfigError: an option that cannot be used, a folder made with other settings, another process using it.
        FileNotFoundError: no such manifest or data folder.
    """
    manifest, output, options = Path(manifest), Path(output), options or PrepareOptions()
    jobs = process_count(jobs)
    on_phase = on_phase or (lambda _: None)
    with locked(output):
        on_phase("table")
        return _Preparation(manifest, output, options, progress, on_phase).run(jobs, strict, overwrite)


@dataclass(frozen=True)
class _Measured:
    """What is known of the features of the usable rows: (rows,) frames and sample rates, and the sums for CMVN."""

    frames: NDArray[np.int32]
    rates: NDArray[np.int32]
    cmvn: CmvnAccumulator


class _Preparation:
    """One run; the arguments are those of :func:`prepare`."""

    def __init__(
        self, manifest: Path, output: Path, options: PrepareOptions, progress: bool, on_phase: Callable[[str], object]
    ) -> None:
        self.manifest, self.output, self.options = manifest, output, options
        self.progress, self.on_phase = progress, on_phase
        self.shared = None if options.vocabulary_from is None else DataFolder.load(options.vocabulary_from)
        self.table = RowTable(manifest, options.num_units)

    def run(self, jobs: int, strict: bool, overwrite: bool) -> PrepareReport:
        table = self.table
        if strict:
            _refuse(table.problems, "nothing was written")
        if self.shared is None and not table.is_train.any():
            names = ", ".join(table.splits)
            lacking = "no usable row in a split named train" + (f" (column `split`; there: {names})" if names else "")
            raise ManifestError(f"{self.manifest}: {lacking}", map(str, table.problems))
        self._unit_hash()
        settings, splits = self._settings(), sorted(table.splits)
        record = self._open_folder(settings, splits, overwrite)
        work = self.output / _WORK_NAME
        if record.get("complete") and record["settings"] == settings:
            shutil.rmtree(work, ignore_errors=True)  # of a run that was stopped at its very end
            done = PrepareReport(**{**record["report"], "already_complete": True})
            if not (strict and done.problems):
                return done
        is_new = not self.output.exists()
        work.mkdir(parents=True, exist_ok=True)
        self.on_phase("features")
        parts = compute_parts(
            self._recordings(), work, self.options.dtype, jobs, self.progress, self.options.noise_floor, len(table)
        )
        measured = self._measure(parts)
        if strict and self.table.problems:
            shutil.rmtree(self.output if is_new else work)
            _refuse(self.table.problems, "nothing was written")
        new = work / _NEW_NAME
        shutil.rmtree(new, ignore_errors=True)
        report = self._write(parts, measured, new)
        begun = {"settings": settings, "splits": splits, "complete": False}
        write_json(new / RECORD_NAME, {**begun, "complete": True, "report": asdict(report)})
        write_json(self.output / RECORD_NAME, begun)
        self._replace(new, record)
        shutil.rmtree(work)
        return report

    def _replace(self, new: Path, record: Mapping[str, Any]) -> None:
        """Move everything to its place, the record last. This needs no room on the disk."""
        names = {path.name for path in new.iterdir()} - {RECORD_NAME}
        # Features of an earlier run, which may be in another form; no table refers to them any more.
        removed = {ARCHIVE, FOLDER, *(f"{split}.tsv" for split in record["splits"])} if record else names & {FOLDER}
        for name in removed - {FOLDER}:
            (self.output / name).unlink(missing_ok=True)
        if FOLDER in removed:
            shutil.rmtree(self.output / FOLDER, ignore_errors=True)
        for name in sorted(names):
            os.replace(new / name, self.output / name)
        os.replace(new / RECORD_NAME, self.output / RECORD_NAME)

    def _settings(self) -> dict[str, Any]:
        """Everything that decides the content of the folder, for comparison with an earlier run."""
        settings: dict[str, Any] = {"format": _FORMAT, **asdict(self.options)}
        if self.shared is not None:
            files = (self.shared.spm_path, self.shared.vocab_path, self.shared.cmvn_path)
            settings["vocabulary_from"] = digest(*(file_digest(path) for path in files if path is not None))
        settings["manifest"] = file_digest(self.manifest)
        settings["audio"] = self.table.audio_digest
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

    def _recordings(self) -> Iterator[Recording]:
        for row, is_train in zip(self.table.rows(), self.table.is_train):
            yield Recording(row.id, present(row.audio), bool(is_train))

    def _measure(self, parts: Parts) -> _Measured:
        """Collect lengths, rates and sums; rows whose features cannot be computed become problems."""
        level, count = self.options.noise_floor, len(self.table)
        cmvn = CmvnAccumulator(floor=None if level is None else noise_floor(level))
        frames, rates = np.zeros(count, np.int32), np.zeros(count, np.int32)
        bad: dict[int, str] = {}
        place = 0
        for part in parts:
            cmvn.add_sums(part.cmvn_frames, part.cmvn_sums)
            for item in part.packed:
                frames[place], rates[place] = item.frames, item.rate
                if item.problem:
                    bad[place] = item.problem
                place += 1
        self.table.drop(bad)
        kept = np.ones(count, bool)
        kept[list(bad)] = False
        return _Measured(frames[kept], rates[kept], cmvn)

    def _write(self, parts: Parts, measured: _Measured, output: Path) -> PrepareReport:
        """Write everything but the record into the folder ``output``, for :meth:`_replace`."""
        report = PrepareReport(problems=[str(problem) for problem in self.table.problems])
        self.on_phase("vocabulary")
        cmvn, vocabulary = self._statistics(measured)
        rates = Counter(measured.rates[measured.rates > 0].tolist())
        report.sample_rates = {str(rate): rates[rate] for rate in sorted(rates)}
        self.on_phase("storing")
        places = self._store(parts, output)
        self.on_phase("tables")
        if cmvn is not None:
            cmvn.save(output / _CMVN_NAME)
        write_atomic(output / _SPM_NAME, vocabulary.model)
        vocabulary.dictionary.save(output / _VOCAB_NAME)
        report.labels, report.whole_words = vocabulary.dictionary.size, vocabulary.whole_words
        report.unit_hash = self._unit_hash()
        report.num_units, notes = self._count_units(report.unit_hash)
        notes += [*self._band_notes(cmvn, rates), *self._dev_notes()]
        report.notes = [*self.table.notes, *filter(None, [vocabulary.note]), *notes]
        config = yaml.safe_dump(self._config(report, cmvn is not None), sort_keys=False, allow_unicode=True)
        write_atomic(output / CONFIG_NAME, config)
        for split in self.table.splits:
            self._write_split(split, measured.frames, places, report, output)
        return report

    def _store(self, parts: Parts, output: Path) -> Places | None:
        """Store the features; None where they stay in the recordings."""
        if self.options.features == "audio":
            return None
        with progress_bar(len(self.table), "storing", show=self.progress) as bar:
            pack = pack_zip if self.options.features == "zip" else pack_npy
            return pack(parts, output, bar, home=self.output)

    def _write_split(
        self, split: str, frames: NDArray[np.int32], places: Places | None, report: PrepareReport, output: Path
    ) -> None:
        chosen = self.table.in_split(split)
        indices = np.flatnonzero(chosen)
        rows = (
            replace(row, audio=places(int(index), row.id) if places else row.audio, num_frames=int(frames[index]))
            for index, row in zip(indices, self.table.rows(chosen))
        )
        with_units = bool((self.table.largest_unit[chosen] >= 0).any())
        columns = (*COLUMNS[:2], "n_frames", *COLUMNS[2:4], *(("tgt_audio", "tgt_n_frames") if with_units else ()))
        write_manifest(output / f"{split}.tsv", rows, columns, root=self.output)
        report.rows[split] = len(indices)
        report.hours[split] = int(frames[chosen].sum(dtype=np.int64)) / 360_000

    def _statistics(self, measured: _Measured) -> tuple[GlobalCmvn | None, Vocabulary]:
        """CMVN and vocabulary: of the training rows, or those of another data folder."""
        if self.shared is not None:
            cmvn = GlobalCmvn.load(self.shared.cmvn_path) if self.shared.cmvn_path else None
            return cmvn, Vocabulary(self.shared.spm_path.read_bytes(), TextLabels.load(self.shared.vocab_path))
        train = self.table.is_train
        if not train.any():
            raise ManifestError("no training row is left: the audio of each one is unusable")
        texts = (
            getattr(row, name)
            for name in ("source_text", "target_text")
            for row in self.table.rows(train, texts_only=True)
        )
        as_written = primary_language(self.options.target_lang) in CHINESE | JAPANESE
        vocabulary = train_vocabulary(texts, self.options.vocab_size, self.options.character_coverage, as_written)
        return measured.cmvn.result(self._band(measured.rates[train])), vocabulary

    def _band(self, rates: NDArray[np.int32]) -> float | None:
        """Highest frequency of the training recordings where all of them are below 16 kHz, Hz.

        Args:
            rates: sample rate of each, 0 where it is not known.
        """
        limited = self.options.noise_floor is not None and rates.min() > 0 and rates.max() < SAMPLE_RATE
        return int(rates.max()) / 2 if limited else None

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
        runs, largest = int(self.table.unit_runs.sum()), int(self.table.largest_unit.max())
        if runs:
            notes.append(f"{runs} unit strings hold runs of equal units; the unit decoder is trained on collapsed ones")
        if self.options.num_units is not None or largest < 0:
            return self.options.num_units, notes
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
        if self.shared is not None or "dev" in self.table.splits:
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


def _recorded_units(manifest: Path, unit_hash: str | None) -> int:
    """K in the ``NAME.units.json`` beside the manifest, if it is of the same centroids; else 0."""
    try:
        record = unit_record(manifest)
        return int(record["num_units"]) if record["hash"] == unit_hash else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0
