"""Data folders of fairseq's speech_to_text and speech_to_speech: ``SPLIT.tsv`` with recordings or features.

Columns: id, audio (or src_audio), n_frames, tgt_text, and where they are there src_text, speaker, tgt_audio (units). A
backslash escapes the next character. References to archives (``fbank80.zip:OFFSET:LENGTH``) start in the folder of the
table, in that of its real file or in the folder given as second one. A table without src_text has the translation in
its place, with a note in the report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.columns import audio_folders
from nast_s2x.corpus.converters.base import ConvertOptions, Found, LeftOut, Note, clean, table_rows
from nast_s2x.corpus.converters.common_voice import require
from nast_s2x.corpus.utterance import Units, Utterance
from nast_s2x.errors import AudioError, ManifestError

_SPLITS = {"valid": "dev", "validation": "dev"}


def read(folders: list[Path], options: ConvertOptions) -> Iterator[Found]:
    """Rows of every table of the first folder; recordings are also looked for in the other folders."""
    paths = sorted(folders[0].glob("*.tsv"))
    if not paths:
        raise FileNotFoundError(f"{folders[0]}: no SPLIT.tsv")
    for path in paths:
        roots = (*audio_folders(path), *(str(folder.resolve()) for folder in folders[1:]))
        name = path.stem.removesuffix("_st")  # MuST-C and CoVoST 2 in fairseq: train_st, dev_st, ...
        split = _SPLITS.get(name, name)
        for place, cells in table_rows(path):
            if isinstance(cells, LeftOut):
                yield cells
                continue
            cells = {name: re.sub(r"\\(.)", r"\1", cell) for name, cell in cells.items()}
            cells["audio"] = cells.get("audio") or cells.get("src_audio", "")
            require(cells, path, "id", "tgt_text" if "src_audio" not in cells else "tgt_audio")
            if "src_text" not in cells:
                yield Note(
                    f"{path.name} has no transcripts: src_text is the translation; do not train a recogniser on it"
                )
            yield _row(cells, split, place, roots)


def _row(cells: dict[str, str], split: str, place: str, roots: tuple[str, ...]) -> Found:
    target = clean(cells.get("tgt_text", ""))
    try:
        audio = AudioRef.parse(cells["audio"], *roots)
        units = Units.parse(cells["tgt_audio"]) if cells.get("tgt_audio") else None
    except (AudioError, ManifestError) as error:
        return LeftOut("bad row", place, str(error))
    source = clean(cells.get("src_text", "")) or target
    if not (source and target):
        return LeftOut("empty text", place)
    return Utterance(
        id=cells["id"],
        split=split,
        audio=audio,
        source_text=source,
        target_text=target,
        units=units,
        extra={"speaker": cells.get("speaker", "")},
        place=place,
    )
