"""CVSS-C: English speech by one synthetic speaker for the recordings of Common Voice (version 4) and CoVoST 2.

Layout: ``SPLIT.tsv`` without a header and with two columns, the file name in Common Voice and the normalised English
text, and ``SPLIT/NAME.mp3.wav`` beside it; a Common Voice folder with ``validated.tsv`` and ``clips``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nast_s2x.corpus.converters.base import ConvertOptions, Found, LeftOut, clean, table_rows
from nast_s2x.corpus.converters.common_voice import SPLITS, clips_folder, transcripts, translated


def read(folders: list[Path], options: ConvertOptions) -> Iterator[Found]:
    """Rows of train, dev and test with their English recordings."""
    clips = clips_folder(folders)
    root = _cvss_folder(folders)
    spoken = transcripts(folders)
    for split in SPLITS:
        for place, cells in table_rows(root / f"{split}.tsv", header=("path", "text")):
            if isinstance(cells, LeftOut):
                yield cells
                continue
            name = cells["path"]
            speech = root / split / f"{name}.wav"
            yield translated(place, name, split, clean(cells["text"]), spoken, clips.parent, speech)


def _cvss_folder(folders: list[Path]) -> Path:
    for folder in folders:
        if (folder / "train.tsv").is_file() and (folder / "train").is_dir() and not (folder / "clips").is_dir():
            return folder
    raise FileNotFoundError(f"{', '.join(map(str, folders))}: no train.tsv beside a folder train (CVSS)")
