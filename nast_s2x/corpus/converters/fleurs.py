"""FLEURS: the same sentences, read by several people in each of 102 languages.

Layout: ``LANG/SPLIT.tsv`` without a header and with seven columns (sentence number, file name, text as written,
normalised text, characters, samples, gender), and ``LANG/audio/SPLIT/NAME.wav`` or ``LANG/SPLIT/NAME.wav``. Languages
are written as the folders are (``fr_fr``) or by their beginning (``fr``).

A sentence has several readings in both languages, and some sentences are missing in some languages. Each reading of
the source is a row. Its translation is the text of the same number in the same split of the target language, and its
target recording is reading ``k mod n`` of that sentence for reading ``k`` of the source, n readings in all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.converters.base import ConvertOptions, Found, LeftOut, clean, table_rows
from nast_s2x.corpus.utterance import Utterance
from nast_s2x.errors import ConfigError

SPLITS = ("train", "dev", "test")
_COLUMNS = ("number", "file", "text", "normalised", "characters", "samples", "gender")


def read(folders: list[Path], options: ConvertOptions) -> Iterator[Found]:
    """Rows of train, dev and test."""
    source, target = (_language(folders, code) for code in options.direction("fleurs"))
    for split in SPLITS:
        translations: dict[str, list[tuple[str, Path]]] = defaultdict(list)
        for _, cells in table_rows(target / f"{split}.tsv", _COLUMNS):
            if not isinstance(cells, LeftOut) and clean(cells["text"]):
                sound = _sound(target, split, cells["file"])
                translations[cells["number"]].append((clean(cells["text"]), sound))
        readings: Counter[str] = Counter()
        for place, cells in table_rows(source / f"{split}.tsv", _COLUMNS):
            if isinstance(cells, LeftOut):
                yield cells
                continue
            number = cells["number"]
            choices, reading = translations.get(number, []), readings[number]
            readings[number] += 1
            if not choices:
                yield LeftOut(f"no translation in {target.name}", place, f"sentence {number} of {split}")
            elif not clean(cells["text"]):
                yield LeftOut("empty text", place)
            else:
                text, sound = choices[reading % len(choices)]
                yield Utterance(
                    id=f"{split}_{number}_{reading}",
                    split=split,
                    audio=AudioRef(_sound(source, split, cells["file"])),
                    source_text=clean(cells["text"]),
                    target_text=text,
                    target_audio=AudioRef(sound),
                    place=place,
                )


def _sound(language: Path, split: str, name: str) -> Path:
    folder = language / "audio" / split
    return (folder if folder.is_dir() else language / split) / name


def _language(folders: list[Path], code: str) -> Path:
    """Folder of a language."""
    found = [path for folder in folders for path in _language_folders(folder) if path.name in (code, code.lower())]
    if not found:
        found = [path for folder in folders for path in _language_folders(folder) if path.name.startswith(f"{code}_")]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ConfigError(f"fleurs: one folder of the language {code!r} is required, found {names}")
    return found[0]


def _language_folders(folder: Path) -> list[Path]:
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    return [path for path in candidates if (path / "train.tsv").is_file() or (path / "test.tsv").is_file()]
