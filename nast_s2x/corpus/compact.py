"""Texts and recordings of many rows in a few arrays: no Python object a row."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

from nast_s2x.corpus.audio_ref import AudioRef


class Strings:
    """Many strings in one buffer: their UTF-8 bytes and 8 bytes each."""

    def __init__(self) -> None:
        self._bytes, self._ends = bytearray(), array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, text: str) -> None:
        """Add a string behind the others."""
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __getitem__(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return self._bytes[start : self._ends[index]].decode("utf-8", "surrogatepass")

    @property
    def nbytes(self) -> int:
        """Memory of the strings."""
        return len(self._bytes) + self._ends.itemsize * len(self._ends)


class AudioRefs:
    """References of many rows: a number for the folder, the name of the file, start and length.

    About 40 bytes a reference into an archive, whatever the length of its path.
    """

    def __init__(self) -> None:
        self._folders: dict[str, int] = {}
        self._paths: list[str] = []
        self._folder_of, self._names = array("i"), Strings()
        self._starts, self._counts = array("q"), array("q")  # a count of 0: the whole file

    def __len__(self) -> int:
        return len(self._names)

    def append(self, audio: AudioRef) -> None:
        """Add a reference behind the others."""
        folder, name = os.path.split(audio.path)
        number = self._folders.setdefault(folder, len(self._paths))
        if number == len(self._paths):
            self._paths.append(folder)
        self._folder_of.append(number)
        self._names.append(name)
        self._starts.append(audio.start)
        self._counts.append(audio.count or 0)

    def __getitem__(self, index: int) -> AudioRef:
        path = Path(self._paths[self._folder_of[index]], self._names[index])
        return AudioRef(path, self._starts[index], self._counts[index] or None)

    @property
    def nbytes(self) -> int:
        """Memory of the references, without the names of folders."""
        return self._names.nbytes + 20 * len(self)
