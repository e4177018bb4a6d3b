"""Europarl-ST: segments of speeches of the European Parliament.

Layout: ``SRC/audios/NAME.m4a``, ``SRC/TGT/SPLIT/segments.lst`` with lines ``NAME start end`` (seconds),
``segments.SRC`` and ``segments.TGT``. libsndfile does not read m4a: recordings are converted once with ffmpeg and
lie beside the originals as ``NAME.flac`` or ``NAME.wav``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nast_s2x.corpus.converters.base import (
    ConvertOptions,
    Found,
    LeftOut,
    clean,
    find_sound,
    parallel_lines,
    segment,
)  # fmt: skip
from nast_s2x.corpus.utterance import Utterance

SPLITS = ("train", "train-noisy", "dev", "test")


def read(folders: list[Path], options: ConvertOptions) -> Iterator[Found]:
    """Rows of the splits of a direction."""
    source, target = options.direction("europarl-st")
    for folder in folders:
        root = folder if folder.name == source and (folder / "audios").is_dir() else folder / source
        speakers = _speakers(root / target)
        for split in SPLITS:
            if split == "train" or (root / target / split).is_dir():
                yield from _read_split(root, root / target / split, source, target, speakers)


def _read_split(root: Path, folder: Path, source: str, target: str, speakers: dict[str, str]) -> Iterator[Found]:
    paths = (folder / "segments.lst", folder / f"segments.{source}", folder / f"segments.{target}")
    for number, (words, source_text, translation) in enumerate(parallel_lines(*paths), start=1):
        place = f"{paths[0]}:{number}"
        try:
            name, first, last = words.split()
            start, end = float(first), float(last)
        except ValueError:
            yield LeftOut("bad segment", place, f"expected NAME START END, not {words[:80]!r}")
            continue
        if not (clean(source_text) and clean(translation)):
            yield LeftOut("empty text", place)
            continue
        audio = segment(find_sound(root / "audios", f"{name}.m4a"), start, end - start, place)
        if isinstance(audio, LeftOut):
            yield audio
            continue
        yield Utterance(
            id=f"{name}_{number}",
            split=folder.name,
            audio=audio,
            source_text=clean(source_text),
            target_text=clean(translation),
            extra={"speaker": speakers.get(name, "")},
            place=place,
        )


def _speakers(folder: Path) -> dict[str, str]:
    """Speech -> speaker, where the splits hold both lists."""
    found: dict[str, str] = {}
    for split in SPLITS:
        names, speakers = folder / split / "speeches.lst", folder / split / "speakers.lst"
        if names.is_file() and speakers.is_file():
            found.update((name.strip(), clean(who)) for name, who in parallel_lines(names, speakers))
    return found
