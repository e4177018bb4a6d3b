"""Translating a corpus: rows from manifests or files, batches by length, results in the order of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.corpus.audio_ref import load_features
from nast_s2x.corpus.data_folder import CONFIG_NAME
from nast_s2x.corpus.manifest import read_table
from nast_s2x.frontend.audio import AudioError, declared_samples
from nast_s2x.frontend.fbank import num_frames
from nast_s2x.inference.offline import Translation, translate_batch
from nast_s2x.inference.system import System
from nast_s2x.vocoder.streaming import SynthesisWindow

# translate_batch with everything given but the features.
_Translate = Callable[[Sequence[NDArray[np.float32]]], list[Translation]]

SORTING_WINDOW = 512
"""Rows are sorted by length within groups of so many, so that results come out in order all along."""


@dataclass(frozen=True)
class SourceRow:
    """One utterance to translate.

    Attributes:
        index: its place in the whole list, before sharding.
        id: its name.
        audio: as :func:`nast_s2x.corpus.audio_ref.load_features` takes it.
        folder: where a relative ``audio`` starts.
        reference: its translation, if known.
        num_frames: feature frames, an estimate good enough to sort by; ``None`` if it could not be told.
    """

    index: int
    id: str
    audio: str
    folder: Path
    reference: str | None = None
    num_frames: int | None = None


@dataclass(frozen=True)
class GeneratedRow:
    """A row with its translation, or with what was wrong with it."""

    row: SourceRow
    translation: Translation | None
    error: str | None = None


def rows_of_files(paths: Sequence[str | Path]) -> list[SourceRow]:
    """Rows of audio (or feature) files given by name."""
    return [
        SourceRow(index, Path(path).stem, str(path), Path(), None, _frames_of_file(Path(path)))
        for index, path in enumerate(paths)
    ]


def rows_of_manifest(
    manifest: str | Path, split: str | None = None, folder: str | Path | None = None
) -> list[SourceRow]:
    """Rows of a table with columns ``id, audio`` and optionally ``tgt_text, n_frames, split``.

    This covers the manifests that ``nast-s2x prepare`` reads and the ``SPLIT.tsv`` files that it writes.

    Args:
        split: keep the rows of this split only.
        folder: where relative audio paths start; by default the manifest's folder.
    Raises:
        FileNotFoundError, ValueError: no such manifest or split, a broken line; names it.
    """
    manifest = Path(manifest)
    base = _audio_folder(manifest) if folder is None else Path(folder)
    rows: list[SourceRow] = []
    splits: set[str] = set()
    for row in read_table(manifest, required=("id", "audio")):
        if row.problem:
            raise ValueError(f"{manifest}:{row.line}: {row.problem}")
        splits.add(row.cells.get("split", ""))
        if split is not None and row.cells.get("split") != split:
            continue
        rows.append(_row_of_cells(len(rows), row.cells, base))
    if not rows:
        known = ", ".join(sorted(splits - {""})) or "no split column"
        raise ValueError(f"{manifest} has no rows" + (f" of split {split!r} (it has {known})" if split else ""))
    return rows


def _audio_folder(manifest: Path) -> Path:
    """A data folder may say in its config.yaml where audio paths start; elsewhere they start beside the manifest."""
    config = manifest.parent / CONFIG_NAME
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else None
    except (yaml.YAMLError, UnicodeDecodeError):
        values = None
    # Only this key is read: the name is a common one, and another program's file must not stand in the way.
    root = values.get("audio_root") if isinstance(values, dict) else None
    return manifest.parent / root if isinstance(root, str) else manifest.parent


def _row_of_cells(index: int, cells: dict[str, str], base: Path) -> SourceRow:
    frames = cells.get("n_frames", "")
    known = int(frames) if frames.isascii() and frames.isdecimal() else _frames_of_file(base / cells["audio"])
    return SourceRow(index, cells["id"], cells["audio"], base, cells.get("tgt_text") or None, known)


def _frames_of_file(path: Path) -> int | None:
    try:
        return num_frames(declared_samples(path))
    except AudioError:
        return None  # features, or unreadable: told when the row is loaded


def shard_rows(rows: Sequence[SourceRow], num_shards: int, shard_id: int) -> list[SourceRow]:
    """Every ``num_shards``-th row from ``shard_id`` on; all shards together are all rows, each once."""
    if num_shards < 1 or not 0 <= shard_id < num_shards:
        raise ValueError(f"shard_id must lie in 0..num_shards - 1, got shard {shard_id} of {num_shards}")
    return list(rows[shard_id::num_shards])


def make_batches(rows: Sequence[SourceRow], batch_size: int, max_tokens: int | None) -> Iterator[list[SourceRow]]:
    """Rows of similar length together, long ones first.

    Args:
        batch_size: at most so many rows.
        max_tokens: at most so many frames, padding counted; a single longer row goes alone.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1 frame, got {max_tokens}")
    batch: list[SourceRow] = []
    for row in sorted(rows, key=lambda row: -(row.num_frames or 0)):
        longest = (batch[0] if batch else row).num_frames or 0
        full = len(batch) == batch_size or (max_tokens is not None and longest * (len(batch) + 1) > max_tokens)
        if batch and full:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def generate(
    system: System,
    rows: Sequence[SourceRow],
    policy: ChunkPolicy | None = None,
    *,
    batch_size: int = 16,
    max_tokens: int | None = 20000,
    with_units: bool = True,
    with_speech: bool = False,
    synthesis: SynthesisWindow | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[GeneratedRow]:
    """Translate ``rows`` in batches of similar length, yielding them in their own order as soon as they are ready.

    A row that cannot be loaded or is too long for the model is yielded with its error; the rest goes on.

    Args:
        with_units, with_speech, synthesis: as :func:`~nast_s2x.inference.offline.translate_batch` takes them.
        progress: called with the number of rows just done.
    """
    waiting: dict[int, GeneratedRow] = {}
    order = {row.index: place for place, row in enumerate(rows)}
    next_place = 0
    translate = partial(
        translate_batch,
        system,
        policy=policy,
        with_units=with_units,
        with_speech=with_speech,
        synthesis=synthesis,
    )
    for start in range(0, len(rows), SORTING_WINDOW):
        for batch in make_batches(rows[start : start + SORTING_WINDOW], batch_size, max_tokens):
            for done in _run_batch(batch, translate):
                waiting[order[done.row.index]] = done
            if progress is not None:
                progress(len(batch))
            while next_place in waiting:
                yield waiting.pop(next_place)
                next_place += 1


def _run_batch(batch: list[SourceRow], translate: _Translate) -> list[GeneratedRow]:
    loaded: list[tuple[SourceRow, NDArray[np.float32]]] = []
    results: list[GeneratedRow] = []
    for row in batch:
        try:
            features = load_features(row.audio, row.folder)
            if not np.isfinite(features).all():
                raise ValueError(f"{row.audio}: features hold NaN or infinite values")
            loaded.append((row, features))
        except (ValueError, OSError) as error:
            results.append(GeneratedRow(row, None, str(error)))
    return results + _translate_rows(loaded, translate)


def _translate_rows(loaded: list[tuple[SourceRow, NDArray[np.float32]]], translate: _Translate) -> list[GeneratedRow]:
    if not loaded:
        return []
    try:
        translations = translate([features for _, features in loaded])
    except ValueError as error:
        if len(loaded) == 1:
            return [GeneratedRow(loaded[0][0], None, str(error))]
        # One row spoils the batch (too long, as a rule): find out which, alone.
        return [done for item in loaded for done in _translate_rows([item], translate)]
    return [GeneratedRow(row, translation) for (row, _), translation in zip(loaded, translations)]
