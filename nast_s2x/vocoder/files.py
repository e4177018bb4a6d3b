"""Synthesis of files of units: reading units in several formats, and resumable synthesis of many utterances."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import soundfile
from numpy.typing import NDArray

from nast_s2x.corpus.manifest import Manifest, Problem, read_manifest, unit_record
from nast_s2x.corpus.utterance import Units, Utterance
from nast_s2x.errors import ConfigError, ManifestError, NastError
from nast_s2x.files import check_output_folder, digest, locked, parse_json, write_atomic
from nast_s2x.frontend.audio import write_wav
from nast_s2x.processes import ResultFile
from nast_s2x.vocoder.config import check_unit_hash
from nast_s2x.vocoder.network import UnitVocoder
from nast_s2x.vocoder.offline import synthesize

LIST = "synthesis.tsv"
"""List of an output folder: columns id, audio, n_samples, and made_from, a digest of the units and the vocoder."""
RESULTS = ".synthesis.jsonl"
"""What has been synthesized into an output folder, for resuming: made_from and n_samples by id."""
_GENERATED_LINE = re.compile(r"(T|H|D|Unit)-(\d+)\t")
_Lines = Iterable[tuple[int, Utterance | NastError]]
"""Line numbers, each with the utterance or what is wrong with the line."""


def read_utterances(
    path: str | Path,
    num_units: int,
    unit_hash: str | None = None,
    with_durations: bool = False,
    split: str | None = None,
) -> Manifest:
    """Read units in one of these formats, recognised by the content of the file.

    * units manifest: a table with columns ``id``, ``tgt_audio``[, ``tgt_durations``, ``unit_hash``, ``split``];
    * JSON lines of ``nast-s2x generate --json``: ``id``, ``units``;
    * lines of ``nast-s2x generate``: ``Unit-N<TAB>units``, named ``Unit-N`` (other lines of its output are skipped);
    * plain lines of units, named by line number, ``line-000001``; a blank line is an utterance without units.

    Args:
        path: UTF-8 text.
        num_units: number of units K of the vocoder.
        unit_hash: hash of the vocoder's centroids, where known.
        with_durations: read ``tgt_durations``; only units manifests have them.
        split: only rows of this split; only units manifests have splits.

    Returns:
        the utterances, with different ids that can name files, and the bad lines.

    Raises:
        FileNotFoundError: no such file.
        NastError: units of other centroids than the vocoder's; no units in the file; a format without the durations or
            splits that are asked for.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file of units: {path}")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 text (byte {error.start})") from None
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
    first = next((line for line in lines if line.strip()), "")
    if path.suffix == ".tsv" or "tgt_audio" in first.split("\t"):
        return _read_manifest(path, num_units, unit_hash, with_durations, split)
    if with_durations or split is not None:
        raise ManifestError(f"{path} is not a units manifest: it has neither durations nor splits")
    if first.lstrip().startswith("{"):
        return _collected(path, _each(lines, lambda _, line: _from_json(line, num_units), skip_blank=True))
    if _GENERATED_LINE.match(first):
        return _collected(path, _from_generated(lines, num_units))
    return _collected(path, _each(lines, lambda number, line: _utterance(f"line-{number:06d}", line, num_units)))


def _read_manifest(
    path: Path, num_units: int, unit_hash: str | None, with_durations: bool, split: str | None
) -> Manifest:
    read = read_manifest(path, split=split, num_units=num_units, with_durations=with_durations, strict=False)
    needed = {"id": True, "tgt_audio": True, "tgt_durations": with_durations, "split": split is not None}
    missing = [name for name, is_needed in needed.items() if is_needed and name not in read.columns]
    if missing:
        raise ManifestError(f"{path}:1: no column {', '.join(missing)} (columns: {', '.join(read.columns)})")
    recorded = unit_record(path).get("hash")
    found = Manifest(path, [], list(read.problems))
    for row, line in zip(read.rows, read.lines, strict=True):
        check_unit_hash((row.units and row.units.hash) or recorded, unit_hash, f"{row.place}: the units")
        try:
            _check_id(row.id)
        except NastError as error:
            found.problems.append(Problem(line, str(error), str(path)))
        else:
            found.rows.append(row)
    found.problems.sort()
    return found


def _collected(path: Path, lines: _Lines) -> Manifest:
    found, ids = Manifest(path, []), set()
    for number, content in lines:
        if isinstance(content, Utterance) and content.id in ids:
            content = ManifestError(f"id {content.id!r} appears twice")
        if isinstance(content, Utterance):
            ids.add(content.id)
            found.rows.append(content)
        else:
            found.problems.append(Problem(number, str(content), str(path)))
    if not found.rows and not found.problems:
        raise ManifestError(f"{path}: the file holds no units")
    return found


def _each(lines: Iterable[str], parse: Callable[[int, str], Utterance], skip_blank: bool = False) -> _Lines:
    for number, line in enumerate(lines, start=1):
        if skip_blank and not line.strip():
            continue
        try:
            yield number, parse(number, line)
        except NastError as error:
            yield number, error


def _utterance(name: str, units: str, num_units: int) -> Utterance:
    _check_id(name)
    return Utterance(name, units=Units.parse(units, num_units=num_units) if units.strip() else None)


def _check_id(name: str) -> None:
    """Refuse an id that cannot name a file below the output folder."""
    parts = PurePosixPath(name).parts
    has_bad_character = any(character in name for character in "\0\t\r\n")
    if has_bad_character or not name or name.startswith("/") or ".." in parts or "/".join(parts) != name:
        raise ManifestError(
            f"id {name!r} cannot name a sound file: it must be a relative path without '..', tabs and line breaks"
        )


def _from_json(line: str, num_units: int) -> Utterance:
    entry = parse_json(line)
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise ManifestError(f"each line must be a JSON object with an id, not {line[:40]!r}")
    if "error" in entry:
        raise ManifestError(f"{entry['id']} was not translated: {entry['error']}")
    units = entry.get("units")
    if not isinstance(units, list) or not all(type(unit) is int for unit in units):
        raise ManifestError(f"units of {entry['id']} must be a list of whole numbers, not {str(units)[:40]}")
    return _utterance(entry["id"], " ".join(map(str, units)), num_units)


def _from_generated(lines: Iterable[str], num_units: int) -> _Lines:
    for number, line in enumerate(lines, start=1):
        match = _GENERATED_LINE.match(line)
        if line.strip() and match is None:
            yield number, ManifestError(f"not a line of generate's output: {line[:40]!r}")
        elif match is not None and match[1] == "Unit":
            try:
                yield number, _utterance(f"Unit-{match[2]}", line[match.end() :], num_units)
            except NastError as error:
                yield number, error


@dataclass
class SynthesisReport:
    """Result of :func:`synthesize_files`: sound files written and kept from before, and the samples of both."""

    written: int = 0
    kept: int = 0
    samples: int = 0


def synthesize_files(
    vocoder: UnitVocoder,
    utterances: Sequence[Utterance],
    folder: str | Path,
    batch_size: int = 16,
    overwrite: bool = False,
    advance: Callable[[int], object] = lambda count: None,
) -> SynthesisReport:
    """Write ``ID.wav`` (16 kHz, mono, 16 bit) for each utterance, and :data:`LIST`.

    Each file appears complete. Files that an earlier run made from the same units with the same vocoder are kept.
    Utterances without units give files without samples.

    Args:
        vocoder: in eval mode.
        utterances: with different ids.
        folder: made if needed; the list and other files of an earlier synthesis stay.
        batch_size: most utterances computed at once.
        overwrite: replace sound files of these ids that were made from other units or by another vocoder.
        advance: called with the number of utterances done since the last call.

    Raises:
        ConfigError: ``batch_size`` below 1; another process is at work in the folder; without ``overwrite``, the folder
            holds something else, or one of the sound files was made from other units or by another vocoder. Nothing is
            written then.
        OSError: a file cannot be written.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
    folder = Path(folder)
    with locked(folder):
        results = ResultFile(folder / RESULTS)
        vocoder_digest = _vocoder_digest(vocoder)
        digests = {utterance.id: _digest(utterance, vocoder_digest) for utterance in utterances}
        done = {name for name in digests if _is_complete(folder, name, results, digests[name])}
        missing = [utterance for utterance in utterances if utterance.id not in done]
        if not overwrite:
            _refuse_other_files(folder, missing)
        report = SynthesisReport(kept=len(done))
        advance(len(done))
        for utterance, samples in _in_batches(vocoder, missing, batch_size):
            path = _path(folder, utterance.id)
            path.unlink(missing_ok=True)
            # Stored before the file is written: a run that ends between the two makes the file again.
            results.add(utterance.id, {"made_from": digests[utterance.id], "n_samples": len(samples)})
            write_wav(path, samples)
            report.written += 1
            advance(1)
        folder.mkdir(parents=True, exist_ok=True)
        earlier = [name for name in results if name not in digests and _is_complete(folder, name, results)]
        _write_list(folder / LIST, [*earlier, *digests], results)
        report.samples = sum(results[name]["n_samples"] for name in digests)
    return report


def _refuse_other_files(folder: Path, missing: Iterable[Utterance]) -> None:
    path = next((path for path in (_path(folder, utterance.id) for utterance in missing) if path.exists()), None)
    if path is not None:
        raise ConfigError(
            f"{path} exists and was made from other units or by another vocoder: choose another output folder, or pass "
            "--overwrite"
        )
    check_output_folder(folder, "synthesis", RESULTS, overwrite=True)


def _in_batches(
    vocoder: UnitVocoder, utterances: Sequence[Utterance], batch_size: int
) -> Iterator[tuple[Utterance, NDArray[np.float32]]]:
    """Utterances with their samples; the longest first, so that a batch holds similar lengths."""
    pairs = [(utterance, utterance.units or Units(())) for utterance in utterances]
    pairs.sort(key=lambda pair: -sum(pair[1].durations or (1,) * len(pair[1].codes)))
    for start in range(0, len(pairs), batch_size):
        batch = pairs[start : start + batch_size]
        for with_durations in (True, False):
            part = [pair for pair in batch if (pair[1].durations is not None) == with_durations]
            durations = [units.durations or () for _, units in part] if with_durations else None
            waveforms = synthesize(vocoder, [units.codes for _, units in part], durations, batch_size)
            yield from zip((utterance for utterance, _ in part), waveforms)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.wav"


def _is_complete(folder: Path, name: str, results: ResultFile, made_from: str | None = None) -> bool:
    if name not in results or made_from not in (None, results[name]["made_from"]):
        return False
    try:
        return soundfile.info(str(_path(folder, name))).frames == results[name]["n_samples"]
    except (soundfile.SoundFileError, OSError):
        return False


def _vocoder_digest(vocoder: UnitVocoder) -> str:
    parts: list[str | bytes] = [repr(vocoder.config)]
    for name, value in sorted(vocoder.state_dict().items()):
        parts += [name, value.detach().cpu().float().contiguous().numpy().tobytes()]
    return digest(*parts)


def _digest(utterance: Utterance, vocoder_digest: str) -> str:
    units = utterance.units or Units(())
    return digest(vocoder_digest, repr(units.codes), repr(units.durations))[:16]


def _write_list(path: Path, names: Iterable[str], results: ResultFile) -> None:
    lines = ["id\taudio\tn_samples\tmade_from\n"]
    for name in names:
        result = results[name]
        lines.append(f"{name}\t{name}.wav\t{result['n_samples']}\t{result['made_from']}\n")
    write_atomic(path, "".join(lines))
