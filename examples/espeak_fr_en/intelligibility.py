#!/usr/bin/env python3
"""Measures how well an English recogniser understands original speech, a vocoder's copies of it and a model's speech.

python examples/espeak_fr_en/intelligibility.py UNITS.tsv --split test --vocoder VOCODER --bundle BUNDLE --json OUT.json

UNITS.tsv is the corpus manifest with units (`nast-s2x units extract`), or the corpus folder or its manifest.tsv. Of
each split it transcribes, as far as the arguments and columns allow,
  * the original English recordings (column tgt_speech),
  * copies of them: their units (tgt_audio) through the vocoder, durations predicted, and true ones (tgt_durations),
  * the translation that the bundle speaks, offline and streaming (column audio), by inference,
  * recordings of another program: --wavs NAME=FOLDER with ID.wav, or SimulEval's 0_pred.wav, 1_pred.wav ...
and prints word error rate and BLEU of the transcripts against the English text, with the model's text and unit BLEU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nast_s2x.metrics import quality
from nast_s2x.metrics.text import normalise
from nast_s2x.recognisers import Recogniser, open_recogniser

if TYPE_CHECKING:
    from nast_s2x.inference.system import System
    from nast_s2x.vocoder.network import UnitVocoder

RECOGNISER = Path(__file__).resolve().parent / "recogniser"
CHUNKS = "offline,320,640,1280"
SAMPLE_RATE, BATCH = 16000, 16
Waveforms = list[np.ndarray]  # float32 (n,) at 16 kHz each


@dataclass(frozen=True)
class Sentence:
    """A row of the manifest: texts, files of both languages (None: not in the manifest), true units and frames."""

    id: str
    text: str
    audio: Path | None
    speech: Path | None
    units: tuple[int, ...] | None
    durations: tuple[int, ...] | None


@dataclass(frozen=True)
class Speech:
    """Waveforms of all sentences; of a model also its texts and units."""

    name: str
    waveforms: Waveforms
    texts: list[str] | None = None
    units: list[list[int]] | None = None


@dataclass(frozen=True)
class Result:
    """One line of the table; scores in percent, None where they do not apply.

    Attributes:
        wer, asr_bleu: of the recogniser's transcripts against the references.
        own_wer: of the transcripts against the model's own text: what speaking alone loses.
        text_bleu, unit_bleu: of the model's text and units.
        kept: asr_bleu / text_bleu.
        seconds: of speech heard, all sentences together.
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


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="manifest with units, corpus folder or corpus manifest")
    parser.add_argument("--split", default="test", help="rows to take (default test)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows")
    parser.add_argument(
        "--recogniser",
        metavar="SPEC",
        default=str(RECOGNISER),
        help="bundle folder, faster-whisper:MODEL or wav2vec2:FOLDER (default: the committed bundle)",
    )
    parser.add_argument("--vocoder", type=Path, help="vocoder folder (default: the one in --bundle)")
    parser.add_argument("--bundle", type=Path, help="speech-to-speech bundle")
    parser.add_argument("--chunk-ms", default=CHUNKS, help=f"chunk sizes of the bundle's speech (default {CHUNKS})")
    parser.add_argument(
        "--wavs", action="append", default=[], metavar="NAME=FOLDER", help="recordings to transcribe too"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--transcripts", type=Path, metavar="FILE", help="write all transcripts here, a TSV")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bars")
    return parser.parse_args(arguments)


def read_sentences(manifest: Path, split: str, limit: int | None = None) -> tuple[list[Sentence], str | None]:
    """Rows of a split, and the hash of their units where the manifest says one.

    Raises:
        FileNotFoundError, ValueError: no such manifest, split or column, or a broken line; names it.
    """
    from nast_s2x.corpus import read_manifest

    if limit is not None and limit < 1:
        raise ValueError(f"--limit must be at least 1, got {limit}")
    path = manifest / "manifest.tsv" if manifest.is_dir() else manifest
    table = read_manifest(path, required=("id", "tgt_text", "split"), split=split, with_durations=True)
    rows = table.rows[:limit]
    sentences = [
        Sentence(
            row.id,
            row.target_text,
            row.audio and row.audio.path,
            row.target_audio and row.target_audio.path,
            row.units and row.units.codes,
            row.units and row.units.durations,
        )
        for row in rows
    ]
    hashes = {row.units.hash for row in rows if row.units is not None} or {None}
    if len(hashes) > 1:
        found = sorted(map(str, hashes))
        raise ValueError(f"{path}: the rows of split {split!r} have units of different centroids: {found}")
    return sentences, hashes.pop()


class Progress:
    """Progress bars on stderr; `steps(items, what)` passes items on and counts them."""

    def __init__(self, shown: bool = True) -> None:
        self.shown = shown

    def steps(self, items: Sequence[Any], what: str) -> Iterator[Any]:
        from tqdm import tqdm

        return iter(tqdm(items, desc=what, unit="utt", file=sys.stderr, disable=None if self.shown else True))


def transcribe(recogniser: Recogniser, waveforms: Sequence[np.ndarray], progress: Progress) -> list[str]:
    """Text of each waveform; "" for one without sound."""
    return [transcript.text for transcript in recogniser.transcribe(waveforms, progress.shown)]


def read_folder(folder: Path, sentences: Sequence[Sentence]) -> Waveforms:
    """Recordings of a folder: ID.wav or ID.flac of each sentence, or SimulEval's N_pred.wav (N: place in the list).

    Raises:
        FileNotFoundError: one is missing; it is named.
    """
    from nast_s2x.frontend.audio import load_audio

    waveforms = []
    for number, sentence in enumerate(sentences):
        names = [f"{sentence.id}.wav", f"{sentence.id}.flac", f"{number}_pred.wav", f"wavs/{number}_pred.wav"]
        found = [folder / name for name in names if (folder / name).is_file()]
        if not found:
            raise FileNotFoundError(f"{folder} has no recording of sentence {sentence.id}: none of {', '.join(names)}")
        waveforms.append(load_audio(found[0]))
    return waveforms


def copy_synthesis(
    vocoder: UnitVocoder, sentences: Sequence[Sentence], progress: Progress, true_durations: bool
) -> Waveforms:
    """The vocoder's waveform of the sentences' units, with durations that it predicts or with the true ones."""
    from nast_s2x.vocoder.offline import synthesize

    waveforms: Waveforms = []
    for start in progress.steps(range(0, len(sentences), BATCH), "copying"):
        batch = sentences[start : start + BATCH]
        durations = [sentence.durations for sentence in batch] if true_durations else None
        waveforms += synthesize(vocoder, [sentence.units for sentence in batch], durations)
    return waveforms


def speak(bundle: System, sentences: Sequence[Sentence], chunk: str, progress: Progress) -> Speech:
    """What the bundle says to each recording at a chunk size (milliseconds or "offline")."""
    from nast_s2x.frontend.audio import load_audio

    name = "model, offline" if chunk == "offline" else f"model, {chunk} ms"
    speech = Speech(name, [], [], [])
    policy = bundle.policy(chunk)
    for sentence in progress.steps(sentences, name):
        # One push: the emissions do not depend on how the recording is cut.
        emissions = bundle.stream(policy, with_speech=True).push(load_audio(sentence.audio), final=True)
        pieces = [emission.waveform for emission in emissions if emission.waveform is not None]
        speech.waveforms.append(np.concatenate([np.zeros(0, np.float32), *pieces]))
        speech.texts.append(" ".join(emission.text for emission in emissions if emission.text))
        speech.units.append([unit for emission in emissions for unit in emission.units])
    return speech


def score(speech: Speech, heard: list[str], sentences: Sequence[Sentence]) -> Result:
    """The scores of one kind of speech from its transcripts."""
    references = [sentence.text for sentence in sentences]
    result = Result(
        speech=speech.name,
        wer=quality.word_error_rate(heard, references),
        asr_bleu=quality.asr_bleu(heard, references).value,
        seconds=sum(map(len, speech.waveforms)) / SAMPLE_RATE,
        silent=sum(len(waveform) == 0 for waveform in speech.waveforms),
    )
    if speech.texts is None:
        return result
    text_bleu = quality.asr_bleu(speech.texts, references).value
    own_wer = quality.word_error_rate(heard, speech.texts) if any(map(normalise, speech.texts)) else None
    true_units = [sentence.units for sentence in sentences]
    return replace(
        result,
        text_bleu=text_bleu,
        own_wer=own_wer,
        kept=result.asr_bleu / text_bleu if text_bleu else None,
        unit_bleu=None if None in true_units else quality.unit_bleu(speech.units, true_units).value,
    )


def check_hashes(**hashes: str | None) -> None:
    """ValueError where two parts are known to work with units of different centroids."""
    known = {name: value for name, value in hashes.items() if value}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name}: {value}" for name, value in known.items())
        raise ValueError(f"units of different centroids do not belong together ({listed})")


def load_speakers(arguments: argparse.Namespace, unit_hash: str | None) -> tuple[UnitVocoder | None, System | None]:
    """Vocoder and bundle, as far as asked for; the bundle speaks with --vocoder if that is given."""
    from nast_s2x.inference.loading import load_system
    from nast_s2x.vocoder.checkpoint import load_vocoder

    if arguments.bundle is None:
        bundle, vocoder = None, None if arguments.vocoder is None else load_vocoder(arguments.vocoder)
    else:
        bundle = load_system(arguments.bundle)
        bundle = bundle.with_vocoder(arguments.vocoder) if arguments.vocoder else bundle
        vocoder = bundle.require_vocoder()
    if vocoder is not None:
        of_bundle = None if bundle is None else bundle.units.hash
        check_hashes(manifest=unit_hash, vocoder=vocoder.config.unit_hash, bundle=of_bundle)
    return vocoder, bundle


def given(sentences: Sequence[Sentence], attribute: str, column: str) -> bool:
    """True where all rows have a value, False where none has; ValueError where some have."""
    without = [sentence.id for sentence in sentences if getattr(sentence, attribute) is None]
    if without and len(without) < len(sentences):
        raise ValueError(f"{without[0]} has no {column}, other rows do")
    return not without


def spoken(arguments: argparse.Namespace, sentences: list[Sentence], unit_hash: str | None) -> Iterator[Speech]:
    """Every kind of speech that the arguments and the manifest's columns allow, one after the other."""
    from nast_s2x.frontend.audio import load_audio

    folders = [(name, Path(folder)) for name, _, folder in (item.partition("=") for item in arguments.wavs)]
    if any(not name or folder == Path() for name, folder in folders):
        raise ValueError(f"--wavs must be NAME=FOLDER, got {' '.join(arguments.wavs)}")
    vocoder, bundle = load_speakers(arguments, unit_hash)
    progress = Progress(not arguments.no_progress)
    if given(sentences, "speech", "tgt_speech"):
        yield Speech("original", [load_audio(s.speech) for s in progress.steps(sentences, "reading")])
    if vocoder is not None and given(sentences, "units", "tgt_audio"):
        if vocoder.dur_predictor is not None:
            yield Speech("copy", copy_synthesis(vocoder, sentences, progress, true_durations=False))
        if given(sentences, "durations", "tgt_durations"):
            yield Speech("copy, true durations", copy_synthesis(vocoder, sentences, progress, true_durations=True))
    if bundle is not None:
        if not given(sentences, "audio", "audio"):
            raise ValueError(f"{arguments.manifest} has no column audio, the recordings that --bundle translates")
        for chunk in arguments.chunk_ms.split(","):
            yield speak(bundle, sentences, chunk.strip(), progress)
    for name, folder in folders:
        yield Speech(name, read_folder(folder, sentences))


def measure(arguments: argparse.Namespace) -> tuple[list[Result], dict[str, list[str]]]:
    """The table's lines, and the transcripts of each kind of speech in the order of the sentences."""
    recogniser = open_recogniser(arguments.recogniser, language="en")
    sentences, unit_hash = read_sentences(arguments.manifest, arguments.split, arguments.limit)
    progress = Progress(not arguments.no_progress)
    results = []
    columns = {"id": [sentence.id for sentence in sentences], "reference": [sentence.text for sentence in sentences]}
    for speech in spoken(arguments, sentences, unit_hash):
        heard = transcribe(recogniser, speech.waveforms, progress)
        results.append(score(speech, heard, sentences))
        if speech.texts is not None:
            columns[f"{speech.name}: text"] = speech.texts
        columns[speech.name] = heard
    if not results:
        raise ValueError(f"nothing to hear: {arguments.manifest} has no tgt_speech, and no other speech was asked for")
    return results, columns


def table(results: Sequence[Result]) -> str:
    """The results in Markdown."""
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


def write(path: Path, text: str) -> None:
    """Writes a file, its folder made if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main() -> int:
    """Command line; 1 and a line on stderr where something is wrong."""
    arguments = parse_arguments()
    try:
        results, columns = measure(arguments)
        if arguments.json:
            sentences = len(columns["id"])
            figures = {"split": arguments.split, "sentences": sentences, "results": [asdict(r) for r in results]}
            write(arguments.json, json.dumps(figures, indent=1) + "\n")
        if arguments.transcripts:
            rows = [columns, *zip(*columns.values(), strict=True)]
            write(arguments.transcripts, "".join("\t".join(row) + "\n" for row in rows))
    except (ValueError, OSError) as error:
        print(f"intelligibility.py: {error}", file=sys.stderr)
        return 1
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
