"""Offline translation of a corpus: batches of similar length, results in the order of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.corpus.utterance import Utterance
from nast_s2x.errors import ConfigError, NastError
from nast_s2x.inference.offline import Translation, translate_batch
from nast_s2x.inference.system import System
from nast_s2x.vocoder.streaming import SynthesisWindow

# translate_batch with all arguments set except the features.
_Translate = Callable[[Sequence[NDArray[np.float32]]], list[Translation]]

SORTING_WINDOW = 512
"""Rows are sorted by length within groups of this size, so that results can be yielded in order during the run."""


@dataclass(frozen=True)
class SourceRow:
    """An utterance to translate.

    Attributes:
        index: place in the whole list, before sharding.
        utterance: the row.
    """

    index: int
    utterance: Utterance

    def num_frames(self) -> int | None:
        """Feature frames of the recording; ``None`` if its header cannot be read (loading reports the reason)."""
        try:
            return self.utterance.length()
        except (NastError, OSError):
            return None


@dataclass(frozen=True)
class GeneratedRow:
    """A row with its translation, or with the reason why there is none."""

    row: SourceRow
    translation: Translation | None
    error: str | None = None


def shard_rows(utterances: Sequence[Utterance], num_shards: int = 1, shard_id: int = 0) -> list[SourceRow]:
    """Return every ``num_shards``-th row from ``shard_id`` on; all shards together have each row once.

    Raises:
        ConfigError: ``shard_id`` is not in 0..num_shards - 1.
    """
    if num_shards < 1 or not 0 <= shard_id < num_shards:
        raise ConfigError(f"shard_id must lie in 0..num_shards - 1, got shard {shard_id} of {num_shards}")
    return [SourceRow(index, utterances[index]) for index in range(shard_id, len(utterances), num_shards)]


def check_batch_limits(batch_size: int, max_tokens: int | None) -> None:
    """Check the limits of :func:`make_batches`.

    Raises:
        ConfigError: a limit below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    if max_tokens is not None and max_tokens < 1:
        raise ConfigError(f"max_tokens must be at least 1 frame, got {max_tokens}")


def make_batches(rows: Sequence[SourceRow], batch_size: int, max_tokens: int | None) -> Iterator[list[SourceRow]]:
    """Group rows of similar length into batches, long ones first.

    Args:
        batch_size: at most so many rows.
        max_tokens: at most so many frames, padding counted; a single longer row, and a row of unknown length, alone.
    """
    check_batch_limits(batch_size, max_tokens)
    lengths = {row.index: row.num_frames() for row in rows}
    unknown = [row for row in rows if lengths[row.index] is None]
    known = [(row, length) for row in rows if (length := lengths[row.index]) is not None]
    batch: list[SourceRow] = []
    longest = 0
    for row, length in sorted(known, key=lambda item: -item[1]):
        full = len(batch) == batch_size or (max_tokens is not None and longest * (len(batch) + 1) > max_tokens)
        if batch and full:
            yield batch
            batch = []
        longest = longest if batch else length
        batch.append(row)
    if batch:
        yield batch
    yield from ([row] for row in unknown)


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
    progress: Callable[[int], object] | None = None,
) -> Iterator[GeneratedRow]:
    """Translate ``rows`` in batches of similar length, yielding them in their own order as soon as they are ready.

    A row that cannot be loaded or is too long for the model is yielded with its error; the others are translated.

    Args:
        with_units, with_speech, synthesis: see :func:`~nast_s2x.inference.offline.translate_batch`.
        progress: called with the number of rows just done.
    """
    waiting: dict[int, GeneratedRow] = {}
    order = {row.index: place for place, row in enumerate(rows)}
    next_place = 0
    translate = partial(
        translate_batch, system, policy=policy, with_units=with_units, with_speech=with_speech, synthesis=synthesis
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
            if row.utterance.audio is None:
                raise NastError(f"{row.utterance.place or row.utterance.id}: no recording")
            loaded.append((row, row.utterance.audio.features()))
        except (NastError, OSError) as error:
            results.append(GeneratedRow(row, None, str(error)))
    return results + _translate_rows(loaded, translate)


def _translate_rows(loaded: list[tuple[SourceRow, NDArray[np.float32]]], translate: _Translate) -> list[GeneratedRow]:
    if not loaded:
        return []
    try:
        translations = translate([features for _, features in loaded])
    except NastError as error:
        if len(loaded) == 1:
            return [GeneratedRow(loaded[0][0], None, str(error))]
        # One row, usually too long for the model, fails the batch: translate one by one to find it.
        return [done for item in loaded for done in _translate_rows([item], translate)]
    return [GeneratedRow(row, translation) for (row, _), translation in zip(loaded, translations)]
