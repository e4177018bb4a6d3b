"""Word errors of speech as a recogniser transcribes it: original recordings, a vocoder's copies, a model's speech."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nast_s2x.corpus import AudioRef, Utterance, read_manifest
from nast_s2x.errors import ConfigError, ManifestError
from nast_s2x.frontend.audio import load_audio
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.inference.system import System
from nast_s2x.metrics import quality
from nast_s2x.metrics.text import normalise
from nast_s2x.progress import progress_bar
from nast_s2x.vocoder.network import UnitVocoder
from nast_s2x.vocoder.offline import synthesize

BATCH = 16
Waveforms = list[NDArray[np.float32]]
"""(n,) at 16 kHz each."""


@dataclass(frozen=True)
class Speech:
    """Waveforms of all sentences; of a model also its texts and units."""

    name: str
    waveforms: Waveforms
    texts: list[str] | None = None
    units: list[list[int]] | None = None


@dataclass(frozen=True)
class Intelligibility:
    """One line of the table; scores in percent, None where they do not apply.

    Attributes:
        speech: name of the kind of speech.
        wer, asr_bleu: of the recogniser's transcripts against the references.
        own_wer: of the transcripts against the model's own text: the errors of the speech alone.
        text_bleu, unit_bleu: of the model's text and units.
        kept: asr_bleu / text_bleu.
        seconds: of speech, all sentences together.
        silent: sentences without any speech.
    """

    speech: str
    wer: float
    asr_bleu: float
    seconds: float
    silent: int
    own_wer: float | None = None
    text_bleu: float | None = None
    unit_bleu: float | None = None
    kept: float | None = None


def read_sentences(manifest: Path, split: str, limit: int | None = None) -> tuple[list[Utterance], str | None]:
    """Rows of a split of a manifest, or of the ``manifest.tsv`` of a folder, and the hash of their units.

    Raises:
        FileNotFoundError, ManifestError: no such manifest, split or column, or a broken line; names it.
        ConfigError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {limit}")
    path = manifest / "manifest.tsv" if manifest.is_dir() else manifest
    table = read_manifest(path, required=("id", "tgt_text", "split"), split=split, with_durations=True)
    return table.rows[:limit], table.unit_hash()


def read_folder(folder: Path, rows: Sequence[Utterance]) -> Waveforms:
    """Recordings of a folder: ID.wav or ID.flac of each row, or SimulEval's N_pred.wav (N: place in the list).

    Raises:
        FileNotFoundError: one is missing; it is named.
    """
    waveforms = []
    for number, row in enumerate(rows):
        names = [f"{row.id}.wav", f"{row.id}.flac", f"{number}_pred.wav", f"wavs/{number}_pred.wav"]
        found = [folder / name for name in names if (folder / name).is_file()]
        if not found:
            raise FileNotFoundError(f"{folder} has no recording of sentence {row.id}: none of {', '.join(names)}")
        waveforms.append(load_audio(found[0]))
    return waveforms


def copy_synthesis(
    vocoder: UnitVocoder, rows: Sequence[Utterance], true_durations: bool, progress: bool = False
) -> Waveforms:
    """The vocoder's waveform of the rows' units, with predicted durations or the true ones."""
    waveforms: Waveforms = []
    with progress_bar(len(rows), "copying", show=progress) as bar:
        for start in range(0, len(rows), BATCH):
            units = [row.units for row in rows[start : start + BATCH] if row.units is not None]
            durations = [item.durations or () for item in units] if true_durations else None
            waveforms += synthesize(vocoder, [item.codes for item in units], durations)
            bar.update(len(units))
    return waveforms


def translate_all(system: System, rows: Sequence[Utterance], chunk: str, progress: bool = False) -> Speech:
    """The system's translation of each recording at a chunk size (milliseconds or "offline")."""
    name = "model, offline" if chunk == "offline" else f"model, {chunk} ms"
    policy = system.policy(chunk)
    waveforms: Waveforms = []
    texts: list[str] = []
    units: list[list[int]] = []
    with progress_bar(len(rows), name, show=progress) as bar:
        for row in rows:
            # One push: the emissions do not depend on how the recording is cut.
            emissions = system.stream(policy, with_speech=True).push(_present(row.audio).samples(), final=True)
            pieces = [emission.waveform for emission in emissions if emission.waveform is not None]
            waveforms.append(np.concatenate([np.zeros(0, np.float32), *pieces]))
            texts.append(" ".join(emission.text for emission in emissions if emission.text))
            units.append([unit for emission in emissions for unit in emission.units])
            bar.update()
    return Speech(name, waveforms, texts, units)


def score_speech(speech: Speech, transcripts: Sequence[str], rows: Sequence[Utterance]) -> Intelligibility:
    """The scores of one kind of speech from its transcripts."""
    references = [row.target_text for row in rows]
    result = Intelligibility(
        speech=speech.name,
        wer=quality.word_error_rate(transcripts, references),
        asr_bleu=quality.asr_bleu(transcripts, references).value,
        seconds=sum(map(len, speech.waveforms)) / SAMPLE_RATE,
        silent=sum(len(waveform) == 0 for waveform in speech.waveforms),
    )
    if speech.texts is None:
        return result
    text_bleu = quality.asr_bleu(speech.texts, references).value
    own_wer = quality.word_error_rate(transcripts, speech.texts) if any(map(normalise, speech.texts)) else None
    true_units = [row.units.codes for row in rows if row.units is not None]
    has_units = speech.units is not None and len(true_units) == len(rows)
    return replace(
        result,
        text_bleu=text_bleu,
        own_wer=own_wer,
        kept=result.asr_bleu / text_bleu if text_bleu else None,
        unit_bleu=quality.unit_bleu(speech.units or [], true_units).value if has_units else None,
    )


def check_hashes(**hashes: str | None) -> None:
    """Raise ConfigError where two parts are known to use units of different centroids."""
    known = {name: value for name, value in hashes.items() if value}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name}: {value}" for name, value in known.items())
        raise ConfigError(f"units of different centroids do not belong together ({listed})")


def all_kinds(
    rows: Sequence[Utterance],
    vocoder: UnitVocoder | None,
    system: System | None,
    chunks: Sequence[str],
    folders: Sequence[tuple[str, Path]],
    progress: bool = False,
) -> Iterator[Speech]:
    """Every kind of speech that the rows have or the parts make, one after the other.

    Args:
        rows: of the manifest; only columns that all rows fill are used.
        vocoder: copies the rows' units.
        system: translates the rows' recordings, at each of ``chunks``.
        folders: (name, folder) of recordings of other programs.
    Raises:
        ManifestError: a column that only some rows fill, or no recordings to translate.
    """
    if _given(rows, lambda row: row.target_audio, "tgt_speech"):
        yield Speech("original", [_present(row.target_audio).samples() for row in rows])
    if vocoder is not None and _given(rows, lambda row: row.units, "tgt_audio"):
        if vocoder.dur_predictor is not None:
            yield Speech("copy", copy_synthesis(vocoder, rows, False, progress))
        if _given(rows, lambda row: row.units and row.units.durations, "tgt_durations"):
            yield Speech("copy, true durations", copy_synthesis(vocoder, rows, True, progress))
    if system is not None:
        if not _given(rows, lambda row: row.audio, "audio"):
            raise ManifestError("the manifest has no column audio, the recordings to translate")
        for chunk in chunks:
            yield translate_all(system, rows, chunk, progress)
    for name, folder in folders:
        yield Speech(name, read_folder(folder, rows))


def _given(rows: Sequence[Utterance], value: Callable[[Utterance], Any], column: str) -> bool:
    """True where all rows have a value, False where none has."""
    without = [row.id for row in rows if value(row) is None]
    if without and len(without) < len(rows):
        raise ManifestError(f"{without[0]} has no {column}, other rows do")
    return not without


def _present(audio: AudioRef | None) -> AudioRef:
    assert audio is not None, "checked for all rows"
    return audio


def format_intelligibility(results: Sequence[Intelligibility]) -> str:
    """The results as a Markdown table."""
    shown = (
        ("speech", "speech", "{}"),
        ("WER", "wer", "{:.1f}"),
        ("ASR-BLEU", "asr_bleu", "{:.1f}"),
        ("text BLEU", "text_bleu", "{:.1f}"),
        ("ASR-BLEU / text BLEU", "kept", "{:.2f}"),
        ("WER against own text", "own_wer", "{:.1f}"),
        ("unit BLEU", "unit_bleu", "{:.1f}"),
        ("seconds", "seconds", "{:.0f}"),
        ("silent", "silent", "{}"),
    )
    used = [column for column in shown if any(getattr(result, column[1]) is not None for result in results)]
    lines = ["| " + " | ".join(title for title, _, _ in used) + " |", "|---" * len(used) + "|"]
    for result in results:
        values = ((getattr(result, name), form) for _, name, form in used)
        lines.append("| " + " | ".join("" if value is None else form.format(value) for value, form in values) + " |")
    return "\n".join(lines)
