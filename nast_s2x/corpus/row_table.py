"""Usable rows of a manifest for a preparation of any size: a few numbers a row in memory, texts read when needed."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.manifest import Manifest, Problem, TableReader, ends_in_newline
from nast_s2x.corpus.utterance import Utterance
from nast_s2x.errors import ManifestError
from nast_s2x.files import Digest, file_stamp

COLUMNS = ("id", "audio", "src_text", "tgt_text", "split")
LONGEST_WORD = 1000
"""Characters of a word, at most: SentencePiece needs minutes for one of 100,000."""
DEV_NAMES = ("valid", "validation", "val")
"""Names of validation splits elsewhere; the training recipes validate on ``dev``."""


class RowTable:
    """The usable rows of a manifest.

    Every row is checked once, in the constructor, without opening any audio; 15 bytes a row are kept. :meth:`rows`
    reads the manifest again.

    Args:
        manifest: table with :data:`COLUMNS`.
        num_units: number of unit codes K; each code must be below.

    Attributes:
        problems: the other rows, by line.
        notes: remarks on the manifest.
        audio_digest: digest of the names, sizes and times of all recordings.
        lines: (rows,) line of each row.
        largest_unit: (rows,) largest unit of each row, -1 without units.
        unit_runs: (rows,) True where units hold runs of equal ones.

    Raises:
        FileNotFoundError, ManifestError: see :func:`~nast_s2x.corpus.manifest.read_manifest`.
    """

    def __init__(self, manifest: Path, num_units: int | None) -> None:
        self.manifest = manifest
        self._stamp = file_stamp(manifest)
        self._reader = TableReader(manifest, required=COLUMNS, num_units=num_units, check_files=True)
        self.problems: list[Problem] = []
        self._hashes: dict[str | None, int] = {}  # hash of centroids -> its first line
        self._read()
        self.problems.sort()
        if not ends_in_newline(manifest):
            self.notes.append(
                f"the last line of {manifest} does not end in a newline: make sure that the file is complete"
            )

    def _read(self) -> None:
        lines, splits, largest, runs = array("q"), array("q"), array("q"), bytearray()
        names: dict[str, int] = {}
        stamps, has_dev = Digest(), False
        for line, row in self._reader:
            if isinstance(row, Problem):
                self.problems.append(row)
                continue
            has_dev = has_dev or row.split == "dev"
            reason = _problem(row)
            if reason is not None:
                self.problems.append(Problem(line, reason, str(self.manifest)))
                continue
            codes = row.units.codes if row.units is not None else ()
            if row.units is not None:
                self._hashes.setdefault(row.units.hash, line)
            lines.append(line)
            splits.append(names.setdefault(row.split, len(names)))
            largest.append(max(codes, default=-1))
            runs.append(any(a == b for a, b in zip(codes, codes[1:])))
            stamps.add(present(row.audio).stamp())
        renamed = [] if has_dev else sorted(set(names) & set(DEV_NAMES))
        self.notes = [f"split {name} is written as dev, on which the training recipes validate" for name in renamed]
        self.audio_digest = stamps.hexdigest()
        self._names = list(dict.fromkeys("dev" if name in renamed else name for name in names))
        final = [self._names.index("dev" if name in renamed else name) for name in names]
        self._splits = np.array(final, np.int16)[np.frombuffer(splits, np.int64)] if lines else np.zeros(0, np.int16)
        self.lines = np.array(lines, np.int64)
        self.largest_unit = np.array(largest, np.int32)
        self.unit_runs = np.array(runs, bool)

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def splits(self) -> list[str]:
        """Names of the splits, in the order of their first rows."""
        codes, first = np.unique(self._splits, return_index=True)
        return [self._names[codes[place]] for place in np.argsort(first)]

    @property
    def is_train(self) -> NDArray[np.bool_]:
        """(rows,) True for rows of splits named ``train...``."""
        return np.array([name.startswith("train") for name in self._names] or [False])[self._splits]

    def in_split(self, name: str) -> NDArray[np.bool_]:
        """(rows,) True for rows of a split."""
        return np.asarray(self._splits == self._names.index(name), bool)

    def rows(self, chosen: NDArray[np.bool_] | None = None, texts_only: bool = False) -> Iterator[Utterance]:
        """Read rows again, in order.

        Args:
            chosen: (rows,) True for those to read; by default all.
            texts_only: leave out recordings and units.
        Raises:
            ManifestError: the manifest was changed since it was checked.
        """
        if file_stamp(self.manifest) != self._stamp:
            raise ManifestError(f"{self.manifest}: the manifest was changed during the preparation: start again")
        places = np.arange(len(self)) if chosen is None else np.flatnonzero(chosen)
        found = self._reader.read_lines((int(self.lines[place]) for place in places), texts_only)
        for place, row in zip(places, found):
            yield replace(row, split=self._names[self._splits[place]])

    def drop(self, reasons: dict[int, str]) -> None:
        """Move rows to the problems.

        Args:
            reasons: place of a row -> what is wrong with it.
        """
        bad = [Problem(int(self.lines[place]), reason, str(self.manifest)) for place, reason in reasons.items()]
        self.problems = sorted([*self.problems, *bad])
        kept = np.ones(len(self), bool)
        kept[list(reasons)] = False
        self.lines, self._splits = self.lines[kept], self._splits[kept]
        self.largest_unit, self.unit_runs = self.largest_unit[kept], self.unit_runs[kept]

    def unit_hash(self) -> str | None:
        """Hash of the centroids that all units come from; None where no row has one.

        Raises:
            ManifestError: units of several sets of centroids, or only some rows with a hash.
        """
        return Manifest.one_hash(self.manifest, self._hashes) if (self.largest_unit >= 0).any() else None


def _problem(row: Utterance) -> str | None:
    """What is wrong with a row of the manifest that could be read, or None."""
    if not re.fullmatch(r"[\w.-]+", row.split) or row.split.startswith("."):
        return f"split {row.split[:40]!r} cannot be a file name"
    for column, text in (("src_text", row.source_text), ("tgt_text", row.target_text)):
        longest = max(map(len, text.split()))
        if longest > LONGEST_WORD:
            return f"{column} holds a word of {longest} characters, at most {LONGEST_WORD} are supported"
    return None


def present(audio: AudioRef | None) -> AudioRef:
    """``audio``, which a required column gives."""
    assert audio is not None, "the column is required"
    return audio
