"""Folder of the sound files of an offline translation, and names of output files."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from nast_s2x.corpus.utterance import Utterance
from nast_s2x.errors import ConfigError
from nast_s2x.files import locked, open_atomic
from nast_s2x.frontend.audio import write_wav
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.inference.generation import GeneratedRow
from nast_s2x.temporary import remove_leftovers
from nast_s2x.texts import encodable

_COLUMNS = ("id", "audio", "n_samples", "text", "tgt_text")


class SpeechFolder:
    """Writes ``ID.wav`` for each translation, and at the end a list of them, as a context.

    The list, ``speech.tsv`` (``speech.I-of-N.tsv`` of shard I), is itself a manifest: columns ``id, audio, n_samples,
    text`` (the translation) and ``tgt_text`` (the reference, where known), so that a recogniser can be run over it with
    ``nast-s2x generate --manifest``.

    Args:
        folder: created if missing.
        utterances: all rows of the corpus, those of other shards too: file names must not depend on the shard.
        part: (shard, number of shards), or ``None``.
    Raises:
        ConfigError: a recording of the corpus would be overwritten; another process writes the same list; the name of
            the folder is not UTF-8.
    """

    def __init__(self, folder: Path, utterances: Sequence[Utterance], part: tuple[int, int] | None = None) -> None:
        if encodable(str(folder)) != str(folder):
            raise ConfigError(
                f"the folder must have a name in UTF-8, in which its list is written, but is {str(folder)!r}"
            )
        self.folder = folder
        self._names = [f"{name}.wav" for name in file_names([utterance.id for utterance in utterances])]
        sources = [utterance.audio.path for utterance in utterances if utterance.audio is not None]
        protect_sources({folder / name: "--output-wav" for name in self._names}, sources)
        self.list = folder / ("speech.tsv" if part is None else f"speech.{part[0]}-of-{part[1]}.tsv")
        shard, shards = part or (0, 1)
        self._own = set(self._names[shard::shards])
        self.num_files = self.num_samples = 0

    def __enter__(self) -> SpeechFolder:
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(self.list))
            remove_leftovers(self.folder, self._own)
            self._file: IO[str] = stack.enter_context(open_atomic(self.list))
            self._file.write("\t".join(_COLUMNS) + "\n")
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def add(self, result: GeneratedRow) -> dict[str, Any]:
        """Write the waveform of a translation; returns ``wav`` and ``spoken_seconds``."""
        utterance, translation = result.row.utterance, result.translation
        assert translation is not None and translation.waveform is not None
        name, samples = self._names[result.row.index], translation.waveform
        write_wav(self.folder / name, samples)
        cells = (utterance.id, name, str(len(samples)), translation.text, utterance.target_text)
        self._file.write("\t".join(cells) + "\n")
        self.num_files += 1
        self.num_samples += len(samples)
        return {"wav": str(self.folder / name), "spoken_seconds": round(len(samples) / SAMPLE_RATE, 3)}


def file_names(names: Sequence[str]) -> list[str]:
    """Return a file name for each of ``names``, in order: without folders, all different.

    Equal names are numbered: ``-2`` and so on. Case is ignored, because some file systems ignore it.
    """
    chosen: list[str] = []
    taken: set[str] = set()
    last_number: dict[str, int] = {}  # of each name, so that many equal names need no search from 2 each
    for name in names:
        plain = re.sub(r"[^\w.+@=,-]+", "_", name).lstrip(".") or "_"
        candidate, key = plain, plain.casefold()
        while candidate.casefold() in taken:
            last_number[key] = last_number.get(key, 1) + 1
            candidate = f"{plain}-{last_number[key]}"
        taken.add(candidate.casefold())
        chosen.append(candidate)
    return chosen


def protect_sources(outputs: Mapping[Path, str], sources: Sequence[str | Path]) -> None:
    """Check that no output file is one of the recordings that are read.

    Args:
        outputs: path of each output file -> the flag that names its folder.
    Raises:
        ConfigError: names the file.
    """
    read = {Path(source).resolve() for source in sources}
    for path, flag in outputs.items():
        if path.resolve() in read:
            raise ConfigError(f"{path} is one of the recordings: name another folder with {flag}")
