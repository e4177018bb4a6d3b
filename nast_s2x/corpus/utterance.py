"""Rows of corpora (:class:`Utterance`) and the unit strings in their columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.errors import AudioError, ManifestError
from nast_s2x.frontend.samples import SAMPLE_RATE

UNIT_SAMPLES = SAMPLE_RATE // 50
"""Samples of a unit frame: 20 ms."""


@dataclass(frozen=True, slots=True)
class Units:
    """A unit sequence.

    Attributes:
        codes: unit codes.
        durations: unit frames (20 ms) of each, None where they are not known.
        hash: names the centroids that the codes are indices of, None if not known.
    """

    codes: tuple[int, ...]
    durations: tuple[int, ...] | None = None
    hash: str | None = None

    @classmethod
    def parse(
        cls, text: str, durations: str | None = None, hash: str | None = None, num_units: int | None = None
    ) -> Units:
        """Read a unit string such as ``"71 12 993"`` and, if given, durations such as ``"3 1 2"``.

        Raises:
            ManifestError: see :func:`parse_units` and :func:`parse_durations`.
        """
        codes = parse_units(text, num_units)
        return cls(codes, None if durations is None else parse_durations(durations, len(codes)), hash or None)

    def __str__(self) -> str:
        return unit_string(self.codes)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One row of a corpus; what the table does not have is empty or None.

    Attributes:
        id: name, unique in its table where a caller needs that.
        split: such as ``"train"``.
        audio: the source recording, or its features.
        num_frames: feature frames (10 ms) of ``audio`` as the table has them; see :meth:`length`.
        source_text, target_text: transcript and translation.
        target_audio: a recording of the translation.
        units: of the translation.
        extra: other columns, where they were asked for.
        place: ``FILE:LINE`` of the row, for messages.
    """

    id: str
    split: str = ""
    audio: AudioRef | None = None
    num_frames: int | None = None
    source_text: str = ""
    target_text: str = ""
    target_audio: AudioRef | None = None
    units: Units | None = None
    extra: Mapping[str, str] | None = field(default=None, hash=False)
    place: str = field(default="", compare=False)

    def length(self) -> int:
        """Feature frames of ``audio``: the number in the table, else that from the header of the file.

        Raises:
            AudioError: there is no recording, or its header cannot be read.
        """
        if self.num_frames is not None:
            return self.num_frames
        if self.audio is None:
            raise AudioError(f"{self.place or self.id}: no recording")
        return self.audio.num_frames()


def unit_string(codes: Iterable[int]) -> str:
    """Unit codes as the string that tables hold and BLEU compares."""
    return " ".join(map(str, codes))


class _Numbers(dict[str, int]):
    """Whole numbers by their text. Equal numbers are one object, so that units take 8 bytes each."""

    def __missing__(self, word: str) -> int:
        if not (word.isascii() and word.isdecimal() and len(word) < 10):
            raise KeyError(word)
        number = int(word)
        return self.setdefault(word, number) if len(self) < 1 << 16 else number


_NUMBERS = _Numbers()


def parse_units(text: str, num_units: int | None = None) -> tuple[int, ...]:
    """Parse a unit string such as "71 12 993".

    Args:
        text: unit codes separated by spaces.
        num_units: K; every code must be below it if given.

    Raises:
        ManifestError: empty, not whole numbers, or a code outside 0..K-1.
    """
    try:
        units = tuple(map(_NUMBERS.__getitem__, text.split()))
    except KeyError as error:
        raise ManifestError(f"unit string holds {error.args[0][:40]!r}, which is not a unit code") from None
    if not units:
        raise ManifestError("empty unit string")
    if num_units is not None and max(units) >= num_units:
        raise ManifestError(f"unit {max(units)} is outside 0..{num_units - 1}")
    return units


def parse_durations(text: str, count: int) -> tuple[int, ...]:
    """Parse durations such as "3 1 2".

    Raises:
        ManifestError: not whole numbers from 1, or not ``count`` of them.
    """
    words = text.split()
    try:
        durations = tuple(map(_NUMBERS.__getitem__, words))
        bad = words[durations.index(0)] if 0 in durations else None
    except KeyError as error:
        bad = error.args[0]
    if bad is not None:
        raise ManifestError(f"tgt_durations must be whole numbers of frames, 1 or more, but hold {bad[:40]!r}")
    if len(words) != count:
        raise ManifestError(f"{len(words)} durations for {count} units")
    return durations
