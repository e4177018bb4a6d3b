"""The folder of sound files that ``generate --speech`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from nast_s2x.cli.speech import file_names, protect_sources
from nast_s2x.frontend.audio import SAMPLE_RATE, write_wav
from nast_s2x.inference.generation import GeneratedRow, SourceRow

_COLUMNS = ("id", "audio", "n_samples", "text", "tgt_text")


class SoundFolder:
    """Writes ``ID.wav`` for each translation, and a list of them, as a context.

    The list, ``speech.tsv`` (``speech.I-of-N.tsv`` of shard I), is itself a manifest: columns ``id, audio, n_samples,
    text`` (what is said) and ``tgt_text`` (the reference, where known), so that a recogniser can be run over it with
    ``nast-s2x generate --manifest``.

    Args:
        folder: made if needed.
        rows: all rows of the corpus, those of other shards too: names of files must not depend on the shard.
        part: (shard, number of shards), or ``None``.
    Raises:
        ValueError: a file would be written over a recording that is read.
    """

    def __init__(self, folder: Path, rows: Sequence[SourceRow], part: tuple[int, int] | None = None) -> None:
        self.folder = folder
        self._names = {row.index: f"{name}.wav" for row, name in zip(rows, file_names([row.id for row in rows]))}
        outputs = {folder / name: "--output-wav" for name in self._names.values()}
        protect_sources(outputs, [row.folder / row.audio for row in rows])
        self.list = folder / ("speech.tsv" if part is None else f"speech.{part[0]}-of-{part[1]}.tsv")
        self.num_files = self.num_samples = 0

    def __enter__(self) -> SoundFolder:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = self.list.open("w", encoding="utf-8")
        self._file.write("\t".join(_COLUMNS) + "\n")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, result: GeneratedRow) -> dict[str, Any]:
        """Write the sound of a translation; returns what ``--json`` says about it."""
        row, translation = result.row, result.translation
        assert translation is not None and translation.waveform is not None
        name, samples = self._names[row.index], translation.waveform
        write_wav(self.folder / name, samples)
        cells = (row.id, name, str(len(samples)), translation.text, row.reference or "")
        self._file.write("\t".join(cells) + "\n")
        self._file.flush()
        self.num_files += 1
        self.num_samples += len(samples)
        return {"wav": str(self.folder / name), "spoken_seconds": round(len(samples) / SAMPLE_RATE, 3)}

    def report(self) -> str:
        """What was written, in words."""
        return f"wrote {self.num_files} sound files, {self.num_samples / SAMPLE_RATE:.1f} s of speech: {self.list}"
