"""MuST-C and mTEDx: segments of talks.

Layout: ``SRC-TGT/data/SPLIT/wav/TALK.wav`` and ``SRC-TGT/data/SPLIT/txt/SPLIT.{yaml,SRC,TGT}``; entry i of the YAML
(``duration``, ``offset`` in seconds, ``wav``, ``speaker_id``) belongs to line i of the texts. mTEDx writes ``.wav`` in
the YAML and holds ``.flac``; its pairs of one language have no translation.

Rows keep the order of the files, and ids are numbered in it. fairseq's and the published script sort the segments of a
talk by the offset as text ("10.5" before "9.1") and number those, so their ids differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nast_s2x.corpus.converters.base import (
    ConvertOptions,
    Found,
    LeftOut,
    clean,
    find_sound,
    parallel_lines,
    segment,
)  # fmt: skip
from nast_s2x.corpus.converters.entries import yaml_items
from nast_s2x.corpus.utterance import Utterance
from nast_s2x.errors import ConfigError, ManifestError

_DEV = "valid"  # mTEDx's name


def read(folders: list[Path], options: ConvertOptions) -> Iterator[Found]:
    """Rows of all splits of a direction."""
    for folder in folders:
        pair, source, target = _pair_folder(folder, options)
        splits = sorted(path for path in (pair / "data").iterdir() if (path / "txt").is_dir())
        for split in splits:
            yield from _read_split(split, source, target)


def _read_split(folder: Path, source: str, target: str) -> Iterator[Found]:
    split = folder.name
    entries = folder / "txt" / f"{split}.yaml"
    texts = parallel_lines(folder / "txt" / f"{split}.{source}", folder / "txt" / f"{split}.{target}")
    numbers: Counter[str] = Counter()
    for number, entry in enumerate(yaml_items(entries), start=1):
        place = f"{entries}: entry {number}"
        lines = next(texts, None)
        if lines is None:
            raise ManifestError(f"{place}: {split}.{source} and {split}.{target} have {number - 1} lines only")
        yield _row(entry, lines, folder, place, numbers)
    if next(texts, None) is not None:
        raise ManifestError(f"{entries} has fewer entries than {split}.{source} and {split}.{target} have lines")


def _row(entry: dict[str, Any], lines: tuple[str, ...], folder: Path, place: str, numbers: Counter[str]) -> Found:
    try:
        name, start, seconds = str(entry["wav"]), float(entry["offset"]), float(entry["duration"])
    except (KeyError, TypeError, ValueError) as error:
        return LeftOut("bad entry", place, f"wav, offset and duration are required ({error!r})")
    talk = Path(name).stem
    numbers[talk] += 1
    source, translation = map(clean, lines)
    if not (source and translation):
        return LeftOut("empty text", place)
    audio = segment(find_sound(folder / "wav", name), start, seconds, place)
    if isinstance(audio, LeftOut):
        return audio
    return Utterance(
        id=f"{talk}_{numbers[talk] - 1}",
        split="dev" if folder.name == _DEV else folder.name,
        audio=audio,
        source_text=source,
        target_text=translation,
        extra={"speaker": str(entry.get("speaker_id", ""))},
        place=place,
    )


def _pair_folder(folder: Path, options: ConvertOptions) -> tuple[Path, str, str]:
    """Folder ``SRC-TGT`` and its languages: the folder itself, or the one of the direction inside it."""
    pair = folder.resolve() if (folder / "data").is_dir() else folder / "-".join(options.direction(str(folder)))
    if not (pair / "data").is_dir():
        raise FileNotFoundError(f"{pair}: no folder data")
    source, dash, target = pair.name.partition("-")
    wanted = (options.source_lang or source, options.target_lang or target)
    if not dash or wanted != (source, target):
        raise ConfigError(f"{pair}: the name of the folder must be its direction, {'-'.join(wanted)}")
    return folder if pair == folder.resolve() else pair, source, target
