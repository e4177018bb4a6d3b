"""CoVoST 2: translations of Common Voice (version 4).

Layout: ``covost_v2.SRC_TGT.tsv`` with the columns path, translation and split, in any of the given folders, and a
Common Voice folder with ``validated.tsv`` and ``clips``. A backslash escapes the next character; the texts "null" and
"NA" are texts. The additional training split ``train_covost`` becomes ``train``, as in fairseq's preparation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nast_s2x.corpus.converters.base import ConvertOptions, Found, LeftOut, Note, clean, find_folder, table_rows
from nast_s2x.corpus.converters.common_voice import clips_folder, require, transcripts, translated
from nast_s2x.errors import ConfigError

_SPLITS = {"train": "train", "train_covost": "train", "dev": "dev", "test": "test"}


def read(folders: list[Path], options: ConvertOptions) -> Iterator[Found]:
    """Rows of all splits, in the order of the table."""
    path = _table(folders, options)
    root = clips_folder(folders).parent
    spoken = transcripts(folders)
    for place, cells in table_rows(path):
        if isinstance(cells, LeftOut):
            yield cells
            continue
        require(cells, path, "path", "translation", "split")
        if cells["split"] == "train_covost":
            yield Note("split train_covost is written as train")
        if cells["split"] not in _SPLITS:
            yield LeftOut("unknown split", place, cells["split"])
            continue
        text = clean(re.sub(r"\\(.)", r"\1", cells["translation"]))
        yield translated(place, cells["path"], _SPLITS[cells["split"]], text, spoken, root)


def _table(folders: list[Path], options: ConvertOptions) -> Path:
    if options.source_lang and options.target_lang:
        name = f"covost_v2.{options.source_lang}_{options.target_lang}.tsv"
        return find_folder(folders, name, "the table of CoVoST 2") / name
    found = sorted(path for folder in folders for path in folder.glob("covost_v2.*.tsv") if path.name.count(".") == 2)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ConfigError(f"several tables of CoVoST 2 ({names}): choose by --source-lang and --target-lang")
    return found[0] if found else find_folder(folders, "covost_v2.SRC_TGT.tsv", "the table of CoVoST 2")
