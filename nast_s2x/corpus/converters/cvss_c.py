"""CVSS-C: English speech by one synthetic speaker for the recordings of Common Voice (version 4) and CoVoST 2.

Layout: ``SPLIT.tsv`` without a header and with two columns, the file name in Common Voice and the normalised English
text, and ``SPLIT/NAME.mp3.wav`` beside it; a Common Voice folder with ``validated.tsv`` and ``clips``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.converters.base import ConvertOptions, Found, LeftOut, clean, table_rows
from nast_s2x.corpus.converters.common_voice import SPLITS, clip, clips_folder, transcripts
from nast_s2x.corpus.utterance import Utterance


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
            name, text = cells["path"], clean(cells["text"])
            source, speaker = spoken.get(name, ("", ""))
            target = root / split / f"{name}.wav"
            if not source:
                yield LeftOut("no transcript in validated.tsv", place, name)
            elif not text:
                yield LeftOut("empty text", place)
            else:
                yield Utterance(
                    id=Path(name).stem,
                    split=split,
                    audio=clip(clips.parent, name),
                    source_text=source,
                    target_text=text,
                    target_audio=AudioRef(target),
                    extra={"speaker": speaker},
                    place=place,
                )


def _cvss_folder(folders: list[Path]) -> Path:
    for folder in folders:
        if (folder / "train.tsv").is_file() and (folder / "train").is_dir() and not (folder / "clips").is_dir():
            return folder
    raise FileNotFoundError(f"{', '.join(map(str, folders))}: no train.tsv beside a folder train (CVSS)")
