"""Word error rate and BLEU of transcribed speech: original recordings, copy synthesis, translations of a model."""

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
"""Number of sentences that the vocoder synthesizes at once."""
Waveforms = list[NDArray[np.float32]]
"""One array (n,) at 16 kHz per sentence."""


@dataclass(frozen=True)
class Speech:
    """Speech of one kind for all sentences.

    Attributes:
        name: name of the kind.
        waveforms: one for each sentence.
        texts, units: text and unit output of a model for each sentence; ``None`` for other speech.
    """

    name: str
    waveforms: Waveforms
    texts: list[str] | None = None
    units: list[list[int]] | None = None


@dataclass(frozen=True)
class Intelligibility:
    """Scores of one kind of speech, in percent; ``None`` where they do not apply.

    Attributes:
        speech: name of the kind of speech.
        wer, asr_bleu: word error rate and BLEU of the transcripts against the references.
        seconds: length of the speech of all sentences.
        silent: number of sentences without speech.
        own_wer: word error rate of the transcripts against the text output of the model: errors of synthesis and
            recogniser, without those of the translation.
        text_bleu, unit_bleu: BLEU of the text and unit output of the model.
        kept: asr_bleu / text_bleu.
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
    """Read the rows of a split and the hash of their units.

    Args:
        manifest: a manifest, or a folder with a ``manifest.tsv``.
        limit: number of rows to take, from the first one on; ``None`` takes all.
    Raises:
        FileNotFoundError, ManifestError: no such manifest, split or column, or a damaged line; names it.
        ConfigError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {limit}")
    path = manifest / "manifest.tsv" if manifest.is_dir() else manifest
    table = read_manifest(path, required=("id", "tgt_text", "split"), split=split, with_durations=True)
    return table.rows[:limit], table.unit_hash()


def find_recordings(folder: Path, rows: Sequence[Utterance]) -> list[Path]:
    """Find the recording of each row: ID.wav, ID.flac, or SimulEval's N_pred.wav (N: position in the list, from 0).

    Raises:
        FileNotFoundError: a recording is missing; names the row.
    """
    recordings = []
    for number, row in enumerate(rows):
        names = [f"{row.id}.wav", f"{row.id}.flac", f"{number}_pred.wav", f"wavs/{number}_pred.wav"]
        found = [folder / name for name in names if (folder / name).is_file()]
        if not found:
            raise FileNotFoundError(f"{folder} has no recording of sentence {row.id}: none of {', '.join(names)}")
        recordings.append(found[0])
    return recordings


def copy_synthesis(
    vocoder: UnitVocoder, rows: Sequence[Utterance], true_durations: bool, progress: bool = False
) -> Waveforms:
    """Synthesize the units of the rows, with predicted durations or those of the manifest."""
    waveforms: Waveforms = []
    with progress_bar(len(rows), "copying", show=progress) as bar:
        for start in range(0, len(rows), BATCH):
            units = [row.units for row in rows[start : start + BATCH] if row.units is not None]
            durations = [item.durations or () for item in units] if true_durations else None
            waveforms += synthesize(vocoder, [item.codes for item in units], durations)
            bar.update(len(units))
    return waveforms


def translate_all(system: System, rows: Sequence[Utterance], chunk: str, progress: bool = False) -> Speech:
    """Translate the recording of each row at a chunk size (milliseconds or "offline")."""
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
            texts.append("".join(emission.delta for emission in emissions))
            units.append([unit for emission in emissions for unit in emission.units])
            bar.update()
    return Speech(name, waveforms, texts, units)


def score_speech(speech: Speech, transcripts: Sequence[str], rows: Sequence[Utterance]) -> Intelligibility:
    """Score one kind of speech by its transcripts, one for each row."""
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
    """Raise ConfigError if two of the named unit hashes differ; unknown ones (``None`` or empty) are ignored."""
    known = {name: value for name, value in hashes.items() if value}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name}: {value}" for name, value in known.items())
        raise ConfigError(f"the units must be made with the same centroids, but are not ({listed})")


def all_kinds(
    rows: Sequence[Utterance],
    vocoder: UnitVocoder | None,
    system: System | None,
    chunks: Sequence[str],
    folders: Sequence[tuple[str, Path]],
    progress: bool = False,
) -> Iterator[Speech]:
    """Yield every kind of speech: originals, copy synthesis, translations, recordings of other programs.

    Args:
        rows: rows of the manifest; a column is used if all rows fill it.
        vocoder: synthesizes the units of the rows; ``None``: no copy synthesis.
        system: translates the recordings of the rows at each chunk size; ``None``: no translations.
        chunks: chunk sizes: milliseconds, or ``offline``.
        folders: (name, folder) of recordings of other programs.
    Raises:
        ConfigError, FileNotFoundError, ManifestError: a chunk size that does not fit the model, a missing recording, a
            column that only some rows fill, no recordings to translate. They are raised before anything is yielded.
    """
    has_originals = _given(rows, lambda row: row.target_audio, "tgt_speech")
    has_units = vocoder is not None and _given(rows, lambda row: row.units, "tgt_audio")
    has_durations = has_units and _given(rows, lambda row: row.units and row.units.durations, "tgt_durations")
    if system is not None:
        if not _given(rows, lambda row: row.audio, "audio"):
            raise ManifestError("the manifest has no column audio, the recordings to translate")
        for chunk in chunks:
            system.policy(chunk)  # raises if the model cannot have it
    recordings = [(name, find_recordings(folder, rows)) for name, folder in folders]
    if has_originals:
        yield Speech("original", [_present(row.target_audio).samples() for row in rows])
    if vocoder is not None and has_units and vocoder.dur_predictor is not None:
        yield Speech("copy", copy_synthesis(vocoder, rows, False, progress))
    if vocoder is not None and has_durations:
        yield Speech("copy, true durations", copy_synthesis(vocoder, rows, True, progress))
    if system is not None:
        for chunk in chunks:
            yield translate_all(system, rows, chunk, progress)
    for name, paths in recordings:
        yield Speech(name, [load_audio(path) for path in paths])


def _given(rows: Sequence[Utterance], value: Callable[[Utterance], Any], column: str) -> bool:
    """Return True if all rows have a value, False if none has.

    Raises:
        ManifestError: only some rows have one.
    """
    without = [row.id for row in rows if value(row) is None]
    if without and len(without) < len(rows):
        raise ManifestError(f"{without[0]} has no {column}, other rows do")
    return not without


def _present(audio: AudioRef | None) -> AudioRef:
    assert audio is not None, "checked for all rows"
    return audio


def format_intelligibility(results: Sequence[Intelligibility]) -> str:
    """Format the results as a Markdown table; columns without values are left out."""
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
