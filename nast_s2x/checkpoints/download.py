"""Files of released models: from the Hugging Face Hub, or from a folder in the same layout, checked by SHA-256.

The revision is pinned. The Hub's library resumes interrupted downloads and checks sizes only, so the content is checked
here, where a digest is published.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nast_s2x.checkpoints.weights import check_not_pointer
from nast_s2x.errors import CheckpointError, ConfigError

_BLOCK = 1 << 20


@dataclass(frozen=True)
class ReleasedFile:
    """A file of a repository and its SHA-256, None where none is published."""

    path: str
    sha256: str | None = None


@dataclass(frozen=True)
class Release:
    """A released model.

    Attributes:
        repository: on the Hugging Face Hub.
        revision: full commit hash.
        files: the first one holds the weights.
        licence: as its source states it.
        non_commercial: True where commercial use is not allowed.
        summary: one line.
    """

    repository: str
    revision: str
    files: tuple[ReleasedFile, ...]
    licence: str
    summary: str
    non_commercial: bool = False

    @property
    def page(self) -> str:
        """Address of the repository for people."""
        return f"https://huggingface.co/{self.repository}"


_REPOSITORY = "ICTNLP/NAST-S2X"
# The last full hash that is published with the weights, the vocoder and the data files.
_REVISION = "17e331676738766a417b9751863fdb37e3e173c6"
_DATA = tuple(ReleasedFile(f"data/{name}") for name in ("gcmvn.npz", "spm_unigram10000.model", "spm_unigram10000.txt"))
_APACHE = "apache-2.0 (tag of the repository; the code it was published with has no licence file)"


def _model(name: str, sha256: str, chunks: str) -> Release:
    weights = ReleasedFile(name, sha256)
    summary = f"NAST-S2X, French to English, speech to text and units, CVSS-C, {chunks}"
    return Release(_REPOSITORY, _REVISION, (weights, *_DATA), _APACHE, summary)


RELEASES: dict[str, Release] = {
    "nast-s2x-320": _model(
        "chunk_320ms.pt", "fc760611ff2c82b4452c8dc791fc792bd06bd3a38b392e5b188f037ab9146e44", "chunks of 320 ms"
    ),
    "nast-s2x-1280": _model(
        "chunk_1280ms.pt", "d39d5fa1664b84d3e4ce88b0b5dfcb844dd4852301a162dcd60ba1d7baa8cb91", "chunks of 1280 ms"
    ),
    "nast-s2x-2560": _model(
        "chunk_2560ms.pt", "0e40ebc39c085ec5db920ac6984fbb9a36670572ebe02c0a76b8826efcf74883", "chunks of 2560 ms"
    ),
    "nast-s2x-offline": _model(
        "Offline.pt", "dd5c56a209f36c247af66076246edb5a25de73ec3326913a4f45c4cb585dc3cd", "whole recordings"
    ),
    "vocoder-en": Release(
        _REPOSITORY,
        _REVISION,
        (ReleasedFile("vocoder/g_00500000"), ReleasedFile("vocoder/config.json")),
        "CC BY-NC 4.0: no commercial use",
        "unit vocoder, English, one speaker (LJSpeech), 1000 units of mHuBERT layer 11",
        non_commercial=True,
    ),
}
"""Name -> release, for ``nast-s2x download``."""


def fetch(
    name: str, folder: str | Path | None = None, revision: str | None = None, tell: Callable[[str], None] = print
) -> list[Path]:
    """Local paths of the files of a release, in the order of :attr:`Release.files`, their content checked.

    Args:
        name: a key of :data:`RELEASES`.
        folder: take the files from this folder, in the layout of the repository, instead of the Hub.
        revision: commit of the repository other than the pinned one; digests are those of the pinned one.
        tell: called with a line for the user, the licence first.

    Raises:
        ConfigError: an unknown name, a revision that is not a full commit hash.
        CheckpointError: a file is missing, cannot be downloaded, or is not the published one.
        ModuleNotFoundError: huggingface_hub is not installed, and no ``folder`` was given.
    """
    if name not in RELEASES:
        raise ConfigError(f"unknown model {name!r}: choose from {', '.join(RELEASES)}")
    if revision is not None and not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ConfigError(f"a revision is a full commit hash of 40 hexadecimal digits, not {revision!r}")
    release = RELEASES[name]
    tell(f"{name}: {release.summary}; {release.page}")
    tell(f"licence: {release.licence}")
    paths = []
    for file in release.files:
        if folder is not None:
            path = _find(Path(folder), file.path)
        else:
            path = _download(release, file.path, revision or release.revision)
        check_content(path, file.sha256)
        paths.append(path)
    return paths


def check_content(path: Path, sha256: str | None) -> None:
    """Check that a file is the published one.

    Raises:
        CheckpointError: an empty file, a pointer of Git LFS, or a file with another digest.
    """
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    check_not_pointer(path)
    if sha256 is None:
        return
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise CheckpointError(
            f"{path}: not the published file: its SHA-256 is {digest.hexdigest()}, the published one {sha256}; "
            "delete it and run the command again"
        )


def _find(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; the folder must have the layout of the repository")
    return path


def _download(release: Release, name: str, revision: str) -> Path:
    """Path in the Hub's cache; what is there is not downloaded again."""
    from huggingface_hub import hf_hub_download

    with _hub_errors(release, name, revision):
        return Path(hf_hub_download(release.repository, name, revision=revision))


@contextmanager
def _hub_errors(release: Release, name: str, revision: str) -> Iterator[None]:
    """Turn the errors of the Hub's library and of the connection below it into one line."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    what = f"{release.repository}/{name} at {revision[:8]}"
    way = "run the command again to resume, or give a folder with the files by --from"
    try:
        yield
    except LocalEntryNotFoundError as error:
        raise CheckpointError(f"{what}: the Hub cannot be reached ({_first_line(error)}); {way}") from error
    except (HfHubHTTPError, OSError) as error:
        raise CheckpointError(f"{what}: cannot be downloaded ({_first_line(error)}); {way}") from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
