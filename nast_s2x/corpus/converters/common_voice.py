"""Common Voice: recordings with transcripts of many speakers; also the source side of CoVoST 2 and CVSS.

Layout: ``LANG/SPLIT.tsv`` with a header and ``LANG/clips/NAME.mp3``. Columns are found by name, since they differ
between releases; ``path`` is a file of ``clips``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.converters.base import ConvertOptions, Found, LeftOut, Note, clean, find_folder, table_rows
from nast_s2x.corpus.utterance import Utterance
from nast_s2x.errors import ManifestError

SPLITS = ("train", "dev", "test")


def read(folders: list[Path], options: ConvertOptions) -> Iterator[Found]:
    """Rows of train, dev and test. There is no translation: the transcript is the target text too, as a recogniser
    needs it."""
    root = clips_folder(folders).parent
    yield Note("there are no translations: tgt_text is the transcript, for recognisers")
    for split in SPLITS:
        if not (root / f"{split}.tsv").is_file():
            continue
        for place, cells in table_rows(root / f"{split}.tsv"):
            if isinstance(cells, LeftOut):
                yield cells
                continue
            require(cells, root / f"{split}.tsv", "path", "sentence")
            text = clean(cells["sentence"])
            if not text:
                yield LeftOut("empty text", place)
                continue
            yield Utterance(
                id=Path(cells["path"]).stem,
                split=split,
                audio=clip(root, cells["path"]),
                source_text=text,
                target_text=text,
                extra={"speaker": cells.get("client_id", "")},
                place=place,
            )


def clips_folder(folders: list[Path]) -> Path:
    """The folder ``clips``."""
    return find_folder(folders, "clips", "the language folder of Common Voice holds its recordings") / "clips"


def clip(root: Path, name: str) -> AudioRef:
    """A recording. Some tables write names without an ending."""
    return AudioRef(root / "clips" / (name if Path(name).suffix else f"{name}.mp3"))


def require(cells: dict[str, str], path: Path, *names: str) -> None:
    """Check the header of a table.

    Raises:
        ManifestError: a column is missing.
    """
    missing = [name for name in names if name not in cells]
    if missing:
        raise ManifestError(f"{path}:1: no column {', '.join(missing)} (columns: {', '.join(cells)})")


def translated(
    place: str,
    name: str,
    split: str,
    text: str,
    spoken: dict[str, tuple[str, str]],
    root: Path,
    speech: Path | None = None,
) -> Found:
    """A row of a corpus of translations of Common Voice.

    Args:
        name, split, text: file name in Common Voice, split and translation.
        spoken: see :func:`transcripts`.
        root: language folder of Common Voice.
        speech: recording of the translation.
    """
    source, speaker = spoken.get(name, ("", ""))
    if not source:
        return LeftOut("no transcript in validated.tsv", place, name)
    if not text:
        return LeftOut("empty text", place)
    return Utterance(
        id=Path(name).stem,
        split=split,
        audio=clip(root, name),
        source_text=source,
        target_text=text,
        target_audio=None if speech is None else AudioRef(speech),
        extra={"speaker": speaker},
        place=place,
    )


def transcripts(folders: list[Path]) -> dict[str, tuple[str, str]]:
    """File name of each validated recording -> transcript and speaker.

    Raises:
        FileNotFoundError: no ``validated.tsv`` beside ``clips``.
    """
    path = clips_folder(folders).parent / "validated.tsv"
    found = {}
    for _, cells in table_rows(path):
        if not isinstance(cells, LeftOut):
            require(cells, path, "path", "sentence")
            name = cells["path"] if Path(cells["path"]).suffix else f"{cells['path']}.mp3"
            found[name] = (clean(cells["sentence"]), cells.get("client_id", ""))
    return found
