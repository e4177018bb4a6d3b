"""Sound files of many utterances: batches of like length, and a list that an interrupted run resumes from."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from nast_s2x.frontend.audio import write_wav
from nast_s2x.vocoder.network import UnitVocoder
from nast_s2x.vocoder.streaming import synthesize
from nast_s2x.vocoder.utterances import Utterance

LIST = "synthesis.tsv"
"""What a folder holds: columns id, audio, n_samples, and made_from, a digest of the units and the vocoder."""
_COLUMNS = ("id", "audio", "n_samples", "made_from")


@dataclass
class SynthesisReport:
    """What was made: sound files written and kept from before, and the samples of both."""

    written: int = 0
    kept: int = 0
    samples: int = 0


def synthesize_files(
    vocoder: UnitVocoder,
    utterances: Sequence[Utterance],
    folder: str | Path,
    batch_size: int = 16,
    overwrite: bool = False,
    progress: Callable[[int], object] = lambda count: None,
) -> SynthesisReport:
    """Write ``ID.wav`` (16 kHz, mono, 16 bit) for each utterance, and the list of them, :data:`LIST`.

    A file is complete as soon as it has its name. Files that an earlier run made from the same units with the same
    vocoder are kept; utterances without units give files without samples.

    Args:
        vocoder: in eval mode.
        utterances: of different ids.
        folder: made if needed.
        batch_size: most utterances computed at once.
        overwrite: replace files of these names that were made from something else.
        progress: called with the number of utterances done since the last call.

    Raises:
        ValueError: a file in the way; the first one is named, and nothing is written.
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    vocoder_digest = _digest_of(vocoder)
    digests = {utterance.id: _digest(utterance, vocoder_digest) for utterance in utterances}
    listed = _read_list(folder / LIST)
    done = {
        name: num_samples
        for name, (num_samples, digest) in listed.items()
        if digests.get(name) == digest and _is_complete(folder, name, num_samples)
    }
    missing = [utterance for utterance in utterances if utterance.id not in done]
    in_the_way = next((u.id for u in missing if _path(folder, u.id).exists()), None)
    if in_the_way is not None and not overwrite:
        raise ValueError(
            f"{_path(folder, in_the_way)} exists and was made from other units or by another vocoder: take another "
            "folder, or --overwrite"
        )
    folder.mkdir(parents=True, exist_ok=True)
    report = SynthesisReport(kept=len(done))
    progress(len(done))
    with _growing_list(folder / LIST, listed) as append:
        for utterance, samples in _batches(vocoder, missing, batch_size):
            partial = _write_partial(_path(folder, utterance.id), samples)
            # Listed before it has its name: a run that is stopped in between makes it again.
            append(utterance.id, len(samples), digests[utterance.id])
            partial.replace(_path(folder, utterance.id))
            done[utterance.id] = len(samples)
            report.written += 1
            progress(1)
    kept = {name: row for name, row in listed.items() if name not in digests and _is_complete(folder, name, row[0])}
    _write_list(folder / LIST, kept | {u.id: (done[u.id], digests[u.id]) for u in utterances})
    report.samples = sum(done.values())
    return report


def _batches(
    vocoder: UnitVocoder, utterances: Sequence[Utterance], batch_size: int
) -> Iterator[tuple[Utterance, NDArray[np.float32]]]:
    """Utterances with their samples; the longest first, so that those of a batch are of like length."""
    ordered = sorted(utterances, key=lambda u: -(sum(u.durations) if u.durations else len(u.units)))
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        for with_durations in (True, False):
            part = [u for u in batch if (u.durations is not None) == with_durations]
            durations = [u.durations or () for u in part] if with_durations else None
            yield from zip(part, synthesize(vocoder, [u.units for u in part], durations, batch_size))


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.wav"


def _write_partial(path: Path, samples: NDArray[np.float32]) -> Path:
    """Write beside ``path``, where nothing stands in the way any more; returns what was written."""
    partial = path.with_name(path.name + ".partial")
    write_wav(partial, samples)
    path.unlink(missing_ok=True)
    return partial


def _is_complete(folder: Path, name: str, num_samples: int) -> bool:
    try:
        return soundfile.info(str(_path(folder, name))).frames == num_samples
    except (soundfile.SoundFileError, OSError):
        return False


def _digest_of(vocoder: UnitVocoder) -> str:
    digest = hashlib.sha256(repr(vocoder.config).encode())
    for name, value in sorted(vocoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest(utterance: Utterance, vocoder_digest: str) -> str:
    content = f"{vocoder_digest} {utterance.units} {utterance.durations}"
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _read_list(path: Path) -> dict[str, tuple[int, str]]:
    """id -> (samples, digest); lines that an interrupted run left unfinished are passed over."""
    found: dict[str, tuple[int, str]] = {}
    if not path.is_file():
        return found
    for line in path.read_text("utf-8").split("\n")[1:]:
        cells = line.split("\t")
        if len(cells) == len(_COLUMNS) and cells[2].isdecimal() and len(cells[3]) == 16:
            found[cells[0]] = (int(cells[2]), cells[3])
    return found


def _row(name: str, num_samples: int, digest: str) -> str:
    return f"{name}\t{name}.wav\t{num_samples}\t{digest}\n"


@contextlib.contextmanager
def _growing_list(path: Path, listed: dict[str, tuple[int, str]]) -> Iterator[Callable[[str, int, str], None]]:
    """The list while it grows: gives a function that writes a line at once."""
    _write_list(path, listed)  # without an unfinished last line
    with path.open("a", encoding="utf-8") as file:

        def append(name: str, num_samples: int, digest: str) -> None:
            file.write(_row(name, num_samples, digest))
            file.flush()

        yield append


def _write_list(path: Path, rows: dict[str, tuple[int, str]]) -> None:
    partial = path.with_name(path.name + ".partial")
    lines = ["\t".join(_COLUMNS) + "\n", *(_row(name, *row) for name, row in rows.items())]
    partial.write_text("".join(lines), encoding="utf-8")
    os.replace(partial, path)
