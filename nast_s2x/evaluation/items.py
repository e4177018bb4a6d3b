"""Test sets: recordings, references and reference units, checked before the run starts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nast_s2x.corpus import AudioRef, Utterance, read_lists, read_manifest
from nast_s2x.errors import AudioError, ManifestError
from nast_s2x.frontend.fbank import num_frames
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.progress import progress_bar


@dataclass(frozen=True)
class TestSet:
    """A test set and the files it was read from.

    Attributes:
        utterances: the utterances, in order, each with a recording and a reference (``target_text``).
        source, target, units: files of the recordings, the references and the units (``None`` without units); all
            are the manifest if the test set was read from one.
    """

    __test__ = False  # pytest takes classes named Test... for tests

    utterances: tuple[Utterance, ...]
    source: Path
    target: Path
    units: Path | None

    @classmethod
    def from_lists(
        cls,
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        units: str | os.PathLike[str] | None = None,
    ) -> TestSet:
        """Read lists in the form of SimulEval: audio paths, references and, if given, units, one per line.

        Raises:
            FileNotFoundError, ManifestError: see :func:`~nast_s2x.corpus.manifest.read_lists`.
        """
        rows = read_lists(source, target, units).rows
        return cls(tuple(rows), Path(source), Path(target), None if units is None else Path(units))

    @classmethod
    def from_manifest(cls, manifest: str | os.PathLike[str], split: str | None = None) -> TestSet:
        """Read a table with the columns ``audio``, ``tgt_text`` and, optionally, ``tgt_audio`` (units).

        Args:
            split: only rows of this split; ``None`` takes all.
        Raises:
            FileNotFoundError, ManifestError: see :func:`~nast_s2x.corpus.manifest.read_manifest`.
            ManifestError: only some of the rows have units.
        """
        required = ["audio", "tgt_text"] + ([] if split is None else ["split"])
        rows = read_manifest(manifest, required=required, split=split, unique_ids=False, check_files=True).rows
        without = [row for row in rows if row.units is None]
        if without and len(without) < len(rows):
            raise ManifestError(f"{without[0].place}: empty unit string (tgt_audio), where other rows have units")
        path = Path(manifest)
        return cls(tuple(rows), path, path, None if without else path)

    def __len__(self) -> int:
        return len(self.utterances)

    def without(self, indices: Sequence[int]) -> TestSet:
        """Return the test set without the utterances at ``indices`` (from 0)."""
        removed = set(indices)
        kept = tuple(row for index, row in enumerate(self.utterances) if index not in removed)
        return TestSet(kept, self.source, self.target, self.units)


@dataclass(frozen=True)
class CheckedAudio:
    """Properties of a decoded recording.

    Attributes:
        digest: SHA-256 of the sample rate and the mono float32 samples, hexadecimal.
        num_frames: feature frames (10 ms).
    """

    digest: str
    num_frames: int


def recording(row: Utterance) -> AudioRef:
    """Return the recording of an utterance."""
    assert row.audio is not None, "rows of a test set have recordings"
    return row.audio


def check_audio(rows: Sequence[Utterance], progress: bool = False) -> list[CheckedAudio]:
    """Decode every recording once and return its digest and length.

    Raises:
        AudioError: a recording that is unreadable, without samples or not finite; names file and line.
    """
    checked = []
    with progress_bar(len(rows), "checking recordings", show=progress) as bar:
        for row in rows:
            content, count, rate = hashlib.sha256(), 0, SAMPLE_RATE
            try:
                for samples, rate in recording(row).pieces():
                    content.update(b"" if count else b"%d\n" % rate)
                    content.update(np.ascontiguousarray(samples, "<f4").tobytes())
                    count += len(samples)
            except AudioError as error:
                raise AudioError(f"{row.place}: {error}") from None
            if not count:
                raise AudioError(f"{row.place}: {row.audio}: the recording has no samples")
            checked.append(CheckedAudio(content.hexdigest(), num_frames(round(count * SAMPLE_RATE / rate))))
            bar.update()
    return checked
