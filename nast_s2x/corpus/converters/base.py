"""What the readers of corpora share: their options, rows that are left out, tables and parallel lines."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.utterance import Utterance
from nast_s2x.errors import AudioError, ConfigError, ManifestError
from nast_s2x.frontend.audio import read_header

SOUND_FILES = (".flac", ".wav", ".ogg", ".mp3", ".opus")
M4A_HELP = (
    "libsndfile does not read m4a (AAC). Convert the files once, then run the command again: "
    'for f in *.m4a; do ffmpeg -i "$f" -ac 1 -ar 16000 "${f%.m4a}.flac"; done'
)


@dataclass(frozen=True)
class LeftOut:
    """A row that cannot be used.

    Attributes:
        kind: reason without details, such as ``"missing audio"``; the report counts rows by it.
        place: ``FILE:LINE`` of the row.
        detail: what is wrong with this one.
    """

    kind: str
    place: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.kind}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True)
class Note:
    """A remark for the report; equal remarks are shown once."""

    text: str


Found = Utterance | LeftOut | Note
"""What a reader yields: one of the first two for each row of the corpus."""


def _any_split(split: str) -> bool:
    return True


@dataclass(frozen=True)
class ConvertOptions:
    """Settings of a conversion.

    Attributes:
        source_lang, target_lang: as the corpus writes the languages; empty where it has one direction only.
        columns: row field -> column of the corpus, for ``parquet`` and ``lhotse``.
        output: absolute path of the manifest's folder, for readers that must write sound files.
        wanted: whether more rows of a split are needed; a reader may skip the others.
    """

    source_lang: str = ""
    target_lang: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    output: Path = Path()
    wanted: Callable[[str], bool] = _any_split

    def direction(self, corpus: str) -> tuple[str, str]:
        """Both languages.

        Raises:
            ConfigError: one of them is not set.
        """
        if not (self.source_lang and self.target_lang):
            raise ConfigError(f"{corpus} holds several languages: --source-lang and --target-lang are required")
        return self.source_lang, self.target_lang


def clean(text: str) -> str:
    """A text on one line: line breaks, tabs and runs of white space of any kind become one space."""
    return " ".join(text.split())


def text_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file, split at newlines only (texts may hold U+2028), without a byte order mark and without a
    carriage return before the newline.

    Raises:
        FileNotFoundError: no such file.
        ManifestError: not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        try:
            for line in file:
                yield line.removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise ManifestError(f"{path}: not UTF-8 text (byte {error.start} of a block)") from None


def table_rows(path: Path, header: tuple[str, ...] | None = None) -> Iterator[tuple[str, dict[str, str] | LeftOut]]:
    """Rows of a tab-separated table without quoting: (``FILE:LINE``, cells by column).

    Args:
        path: the table.
        header: names of the columns of a table without a header.
    """
    for number, line in enumerate(text_lines(path), start=1):
        cells = line.split("\t")
        place = f"{path}:{number}"
        if header is None:
            header = tuple(cells)
        elif not line.strip():
            continue
        elif len(cells) != len(header):
            yield place, LeftOut("wrong number of columns", place, f"{len(cells)}, expected {len(header)}")
        else:
            yield place, dict(zip(header, cells))


def parallel_lines(*paths: Path) -> Iterator[tuple[str, ...]]:
    """Line i of each file, together.

    Raises:
        ManifestError: the files have different numbers of lines.
    """
    for number, lines in enumerate(zip_longest(*map(text_lines, paths)), start=1):
        if None in lines:
            short = paths[lines.index(None)]
            raise ManifestError(f"{short} ends before line {number}, the files beside it do not: lines belong together")
        yield lines


@functools.lru_cache(maxsize=64)
def file_header(path: Path) -> tuple[int, int]:
    """Number of samples and sample rate of a sound file. Neighbouring segments are mostly of one file."""
    return read_header(path)


def segment(path: Path, start: float, seconds: float, place: str) -> AudioRef | LeftOut:
    """A part of a recording given in seconds, cut down to whole samples as the published scripts do."""
    if not path.is_file():
        return LeftOut("missing audio", place, str(path))
    try:
        samples, rate = file_header(path)
    except AudioError as error:
        return LeftOut("unreadable audio", place, str(error))
    first, count = int(start * rate), int(seconds * rate)
    if first < 0 or count < 1 or first >= samples:
        return LeftOut("bad segment", place, f"{seconds:g} s at {start:g} s of {path}, which has {samples / rate:g} s")
    return AudioRef(path, first, count)


def find_sound(folder: Path, name: str) -> Path:
    """The sound file ``name`` of a folder, with its own ending or another one; a path without a file if there is none.

    Raises:
        ConfigError: only an ``.m4a`` file is there; says what to do.
    """
    path = folder / name
    stem = re.sub(r"\.(wav|flac|mp3|ogg|opus|m4a)$", "", name)
    candidates = [path, *(folder / f"{stem}{ending}" for ending in SOUND_FILES)]
    found = next((file for file in candidates if file.suffix in SOUND_FILES and file.is_file()), None)
    if found is None and (folder / f"{stem}.m4a").is_file():
        raise ConfigError(f"{folder / stem}.m4a: {M4A_HELP}")
    return found or path


def find_folder(folders: Iterable[Path], name: str, what: str) -> Path:
    """The first of some folders that holds ``name``.

    Raises:
        FileNotFoundError: none does.
    """
    folders = list(folders)
    for folder in folders:
        if (folder / name).exists():
            return folder
    raise FileNotFoundError(f"{', '.join(map(str, folders))}: no {name} ({what})")
