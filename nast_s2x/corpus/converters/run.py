"""Conversion of a corpus: every row checked, one manifest, one report."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

from nast_s2x.corpus.audio_ref import AnyPath, AudioRef
from nast_s2x.corpus.converters.base import ConvertOptions, Found, LeftOut, Note, clean
from nast_s2x.corpus.manifest import write_manifest
from nast_s2x.corpus.utterance import Utterance
from nast_s2x.errors import AudioError, ConfigError, ManifestError
from nast_s2x.files import check_output_folder, locked, open_atomic, read_json, write_json
from nast_s2x.processes import process_count
from nast_s2x.progress import progress_bar

MANIFEST_NAME, RECORD_NAME, LEFT_OUT_NAME = "manifest.tsv", "convert.json", "left_out.tsv"
_COLUMNS = ("id", "audio", "src_text", "tgt_text", "split", "speaker")
_SPEECH = (*_COLUMNS[:5], "tgt_speech", "speaker")
_UNITS = (*_SPEECH[:6], "tgt_audio", "speaker")
CORPORA: dict[str, tuple[str, tuple[str, ...]]] = {
    "cvss-c": ("cvss_c", _SPEECH),
    "covost2": ("covost2", _COLUMNS),
    "common-voice": ("common_voice", _COLUMNS),
    "must-c": ("must_c", _COLUMNS),
    "mtedx": ("must_c", _COLUMNS),
    "europarl-st": ("europarl_st", _COLUMNS),
    "fleurs": ("fleurs", _SPEECH),
    "parquet": ("parquet", _UNITS),
    "lhotse": ("lhotse", _UNITS),
    "fairseq-s2t": ("fairseq_s2t", (*_COLUMNS[:5], "tgt_audio", "speaker")),
}
"""Name -> module of the reader, columns of the manifest."""
_WINDOW = 1024  # rows in memory at once
_EXAMPLES = 5  # places named in the record for each reason
_SHORTEST = 0.025  # seconds of one feature frame


@dataclass
class ConvertReport:
    """Result of a conversion.

    Attributes:
        rows, hours: of each split.
        target_hours: recordings of translations, of each split that has some.
        left_out: reason -> number of rows.
        examples: reason -> the first such rows.
        notes: remarks on what was chosen.
    """

    rows: dict[str, int] = field(default_factory=dict)
    hours: dict[str, float] = field(default_factory=dict)
    target_hours: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def convert(
    corpus: str,
    folders: list[Path],
    output: AnyPath,
    options: ConvertOptions | None = None,
    *,
    limit: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    jobs: int | None = None,
    progress: bool = False,
) -> ConvertReport:
    """Write ``manifest.tsv``, ``left_out.tsv`` (every row left out) and ``convert.json`` (the report) to a folder.

    Args:
        corpus: a name of :data:`CORPORA`.
        folders: as downloaded, in any order.
        limit: rows of each split, at most.
        strict: raise at the first row that cannot be used; no manifest is written then.
        overwrite: replace an older conversion in ``output``.
        jobs: threads that read the headers of recordings, by default one per CPU.

    Raises:
        ConfigError: an unknown corpus, an output folder that holds something else, a missing language.
        FileNotFoundError: a file of the layout is missing.
        ManifestError: no usable row, files that do not belong together; with ``strict`` the first bad row.
    """
    if corpus not in CORPORA:
        raise ConfigError(f"unknown corpus {corpus!r}: choose from {', '.join(CORPORA)}")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, not {limit}")
    folders = [Path(folder).absolute() for folder in folders]
    missing = [str(folder) for folder in folders if not folder.exists()]
    if missing:
        raise FileNotFoundError(f"{missing[0]}: no such folder")
    output = Path(output).absolute()
    options = replace(options or ConvertOptions(), output=output)
    module, columns = CORPORA[corpus]
    with locked(output):
        if not (output / RECORD_NAME).is_file() or read_json(output / RECORD_NAME).get("complete"):
            check_output_folder(output, "conversion", RECORD_NAME, overwrite)
        settings = {"corpus": corpus, "folders": list(map(str, folders)), "complete": False}
        write_json(output / RECORD_NAME, settings, indent=1)
        run = _Conversion(", ".join(map(str, folders)), ConvertReport(), limit, strict)
        reader = importlib.import_module(f"nast_s2x.corpus.converters.{module}")
        rows = reader.read(folders, replace(options, wanted=run.wants))
        with (
            progress_bar(None, f"{corpus} rows", "row", show=progress) as bar,
            ThreadPoolExecutor(process_count(jobs)) as pool,
            open_atomic(output / LEFT_OUT_NAME) as left_out,
        ):
            usable = run.usable(rows, pool, left_out, bar.update)
            write_manifest(output / MANIFEST_NAME, usable, columns, root=output)
        write_json(output / RECORD_NAME, {**settings, "complete": True, "report": asdict(run.report)}, indent=1)
    return run.report


@dataclass
class _Conversion:
    """State of one run; see :func:`convert`."""

    name: str
    report: ConvertReport
    limit: int | None
    strict: bool
    ids: set[str] = field(default_factory=set)

    def wants(self, split: str) -> bool:
        """Whether more rows of a split are needed."""
        return self.limit is None or self.report.rows.get(split, 0) < self.limit

    def usable(
        self, found: Iterator[Found], pool: ThreadPoolExecutor, left_out: IO[str], advance: Callable[[int], object]
    ) -> Iterator[Utterance]:
        """The rows that can be used. The others are written to ``left_out`` and counted in the report."""
        left_out.write("reason\tplace\tdetail\n")
        while window := list(islice(found, _WINDOW)):
            self.report.notes += dict.fromkeys(
                item.text for item in window if isinstance(item, Note) and item.text not in self.report.notes
            )
            rows = [item for item in window if not isinstance(item, Note)]
            needed = [row for row in rows if isinstance(row, LeftOut) or self.wants(row.split)]
            for unchecked, checked in zip(needed, pool.map(_check, needed)):
                if isinstance(unchecked, Utterance) and not self.wants(unchecked.split):
                    continue  # the rows before it in this window were enough
                row = self._accept(checked)
                if isinstance(row, Utterance):
                    yield row
                else:
                    self._leave_out(row, left_out)
            advance(len(rows))
        if not self.report.rows:
            reasons = ", ".join(f"{count} x {kind}" for kind, count in self.report.left_out.items())
            examples = [place for places in self.report.examples.values() for place in places]
            raise ManifestError(f"{self.name}: no usable row ({reasons or 'the corpus has no row'})", examples)

    def _accept(self, checked: _Checked | LeftOut) -> Utterance | LeftOut:
        """Count a checked row in the report."""
        if isinstance(checked, LeftOut):
            return checked
        row = checked.row
        if row.id in self.ids:
            return LeftOut("id occurs twice", row.place, row.id)
        self.ids.add(row.id)
        _add(self.report.rows, row.split, 1)
        _add(self.report.hours, row.split, checked.seconds / 3600)
        if row.target_audio is not None:
            _add(self.report.target_hours, row.split, checked.target_seconds / 3600)
        return row

    def _leave_out(self, row: LeftOut, file: IO[str]) -> None:
        if self.strict:
            raise ManifestError(f"{row}; no manifest was written")
        _add(self.report.left_out, row.kind, 1)
        examples = self.report.examples.setdefault(row.kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(str(row))
        file.write(f"{row.kind}\t{row.place}\t{clean(row.detail)}\n")


def _add(totals: dict[str, Any], key: str, value: float) -> None:
    totals[key] = totals.get(key, 0) + value


@dataclass(frozen=True)
class _Checked:
    """A usable row, seconds of its recordings."""

    row: Utterance
    seconds: float
    target_seconds: float


def _check(row: Utterance | LeftOut) -> _Checked | LeftOut:
    """Read the headers of the recordings of a row."""
    if isinstance(row, LeftOut):
        return row
    lengths = []
    for name, audio in (("", row.audio), ("target ", row.target_audio)):
        if audio is None:
            lengths.append(0.0)
            continue
        problem = audio.problem()
        if problem is not None:
            return LeftOut(f"missing {name}audio", row.place, problem)
        try:
            lengths.append(_seconds(audio))
        except AudioError as error:
            return LeftOut(f"unreadable {name}audio", row.place, str(error))
        if lengths[-1] < _SHORTEST:
            return LeftOut(f"empty {name}audio", row.place, f"{audio}: shorter than one frame of 25 ms")
    return _Checked(row, *lengths)


def _seconds(audio: AudioRef) -> float:
    if audio.has_features():
        return audio.num_frames() / 100
    samples, rate = audio.header()
    return samples / rate
