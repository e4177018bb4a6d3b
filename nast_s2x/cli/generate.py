"""``nast-s2x generate``: offline translation of a corpus or of single files, in batches."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nast_s2x.cli.speech import DEFAULT_FOLDER, add_speech_flags, check_speech_flags, with_speech
from nast_s2x.cli.system import add_system_flags, log_stderr, open_system
from nast_s2x.errors import ConfigError
from nast_s2x.files import json_text, locked, open_atomic
from nast_s2x.progress import progress_bar
from nast_s2x.texts import printable

if TYPE_CHECKING:
    from nast_s2x.chunking import ChunkPolicy
    from nast_s2x.corpus.utterance import Utterance
    from nast_s2x.inference.generation import GeneratedRow, SourceRow
    from nast_s2x.inference.speech_folder import SpeechFolder
    from nast_s2x.inference.system import System
    from nast_s2x.vocoder.streaming import SynthesisWindow


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand to the console command's parser."""
    parser = subparsers.add_parser(
        "generate",
        help="translate a manifest or audio files offline, in batches",
        description="Translate whole utterances. Lines as fairseq-generate writes them: T- reference, H- score (mean "
        "base-2 log-probability of a slot) and pieces, D- the same as text, Unit- speech units; numbers are places in "
        "the manifest. With --speech also write a sound file for each row, and speech.tsv, the list of them. Rows that "
        "cannot be read are reported and left out; the exit status is then 1.",
    )
    add_flags(parser)
    parser.set_defaults(func=run)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the subcommand."""
    parser.add_argument("audio", nargs="*", metavar="AUDIO", help="audio files (wav, flac, ogg, mp3) or .npy features")
    parser.add_argument("--manifest", metavar="TSV", help="table with columns id, audio[, tgt_text, n_frames, split]")
    parser.add_argument("--split", metavar="NAME", help="translate only the rows of this split of the manifest")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="utterances per batch (default: 16)")
    parser.add_argument(
        "--max-tokens", type=int, default=20000, metavar="N", help="frames per batch, with padding (default: 20000)"
    )
    parser.add_argument(
        "--num-shards", type=int, default=1, metavar="N", help="number of parts that the work is split into"
    )
    parser.add_argument("--shard-id", type=int, default=0, metavar="I", help="do part I of them, from 0")
    parser.add_argument("--json", metavar="FILE", help="also write one JSON object per row; - is standard output")
    parser.add_argument("--output", "-o", metavar="FILE", help="write the lines to FILE instead of standard output")
    parser.add_argument(
        "--as-manifest",
        metavar="FILE",
        help="also write the manifest with the translations of this system in place of its own, to train another one "
        "on them; rows of other splits than --split are copied",
    )
    parser.add_argument("--no-units", action="store_true", help="leave the units out")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    add_speech_flags(parser).add_argument(
        "--output-wav", metavar="DIR", help=f"folder of the sound files (default: {DEFAULT_FOLDER})"
    )
    add_system_flags(parser, default_chunk="offline if the model was trained for it, else its largest chunk")


def run(args: argparse.Namespace) -> int:
    """Generate; returns the exit status."""
    from nast_s2x.inference.generation import check_batch_limits, shard_rows

    check_speech_flags(args, ("--output-wav",))
    if args.json and args.json != "-" and args.output and os.path.realpath(args.json) == os.path.realpath(args.output):
        raise ConfigError(f"--json and --output must name different files, got {args.json} for both")
    check_batch_limits(args.batch_size, args.max_tokens)
    if args.as_manifest:
        _check_as_manifest(args)
    utterances = _utterances(args)
    rows = shard_rows(utterances, args.num_shards, args.shard_id)
    system, policy = open_system(args, prefer_offline=True)
    system, synthesis = with_speech(args, system)
    with_units = system.has_units and not args.no_units
    started = time.monotonic()
    with contextlib.ExitStack() as locks:
        for path in (args.output, args.json, args.as_manifest):
            if path not in (None, "-"):
                locks.enter_context(locked(path))
        with contextlib.ExitStack() as stack:
            folder = _open_folder(stack, args, utterances) if args.speech else None
            json_file = _open(stack, args.json) if args.json else None
            # With JSON on standard output, the lines are written only if --output names a file.
            lines = _open(stack, args.output) if args.output or args.json != "-" else None
            results = _generated(args, system, policy, rows, synthesis)
            done = list(_write(results, system, with_units, lines, json_file, folder))
        _report(args, done, time.monotonic() - started, system.info.target_lang)
        if args.as_manifest:
            _write_manifest(args, done, system, with_units)
    if folder is not None:
        seconds = folder.num_samples / system.sample_rate
        log_stderr(f"wrote {folder.num_files} sound files, {seconds:.1f} s of speech: {folder.list}")
    return 1 if any(row.error for row in done) else 0


def _check_as_manifest(args: argparse.Namespace) -> None:
    if not args.manifest:
        raise ConfigError("--as-manifest needs --manifest")
    if args.num_shards != 1:
        raise ConfigError("--as-manifest writes all rows: it does not go with --num-shards")
    if os.path.realpath(args.as_manifest) == os.path.realpath(args.manifest):
        raise ConfigError(f"--as-manifest would replace the manifest itself: {args.as_manifest}")


def _write_manifest(args: argparse.Namespace, done: list[GeneratedRow], system: System, with_units: bool) -> None:
    """Write the manifest of ``--as-manifest``."""
    from nast_s2x.corpus.manifest import read_manifest, write_manifest
    from nast_s2x.inference.distillation import distilled_rows

    table = read_manifest(args.manifest, required=("id", "audio"), unique_ids=False, keep_extra=True)
    places = [place for place, row in enumerate(table.rows) if args.split in (None, row.split)]
    results = {place: result for place, result in zip(places, done, strict=True)}
    rows = list(distilled_rows(table, results, system, with_units))
    write_manifest(args.as_manifest, rows)
    log_stderr(f"wrote {args.as_manifest}: {len(rows)} rows, {len(table) - len(rows)} without a translation left out")


def _open_folder(stack: contextlib.ExitStack, args: argparse.Namespace, utterances: list[Utterance]) -> SpeechFolder:
    from nast_s2x.inference.speech_folder import SpeechFolder

    part = (args.shard_id, args.num_shards) if args.num_shards > 1 else None
    return stack.enter_context(SpeechFolder(Path(args.output_wav or DEFAULT_FOLDER), utterances, part))


def _utterances(args: argparse.Namespace) -> list[Utterance]:
    from nast_s2x.corpus.audio_ref import AudioRef
    from nast_s2x.corpus.manifest import read_manifest
    from nast_s2x.corpus.utterance import Utterance

    if bool(args.audio) == bool(args.manifest):
        raise ConfigError("give either audio files or --manifest")
    if args.split and not args.manifest:
        raise ConfigError("--split needs --manifest")
    if args.manifest:
        return read_manifest(args.manifest, required=("id", "audio"), split=args.split, unique_ids=False).rows
    recordings = [AudioRef.parse(name) for name in args.audio]
    return [Utterance(audio.name, audio=audio) for audio in recordings]


def _open(stack: contextlib.ExitStack, name: str | None) -> IO[str]:
    if name in (None, "-"):
        return sys.stdout
    return stack.enter_context(open_atomic(name))


def _generated(
    args: argparse.Namespace,
    system: System,
    policy: ChunkPolicy,
    rows: list[SourceRow],
    synthesis: SynthesisWindow | None,
) -> Iterable[GeneratedRow]:
    from nast_s2x.inference.generation import generate

    with progress_bar(len(rows), "translating", show=not args.no_progress) as bar:
        yield from generate(
            system,
            rows,
            policy,
            batch_size=args.batch_size,
            max_tokens=args.max_tokens,
            with_units=not args.no_units,
            with_speech=args.speech,
            synthesis=synthesis,
            progress=bar.update,
        )


def _write(
    results: Iterable[GeneratedRow],
    system: System,
    with_units: bool,
    lines: IO[str] | None,
    json_file: IO[str] | None,
    folder: SpeechFolder | None,
) -> Iterable[GeneratedRow]:
    """Write each result as it comes; yields it without its waveform, which is in a file by then."""
    for result in results:
        if result.error is not None:
            log_stderr(f"left out: {result.row.utterance.id}: {result.error}")
        if lines is not None and result.translation is not None:
            pieces = system.text.pieces(result.translation.tokens)
            lines.write(fairseq_lines(result, pieces, with_units))
        sound = folder.add(result) if folder is not None and result.translation is not None else {}
        if json_file is not None:
            json_file.write(json_text(as_json(result, system, with_units) | sound) + "\n")
        yield without_waveform(result)


def without_waveform(result: GeneratedRow) -> GeneratedRow:
    """Return the result without its waveform, since the waveforms of a corpus may not fit into memory."""
    if result.translation is None:
        return result
    return replace(result, translation=replace(result.translation, waveform=None))


def fairseq_lines(result: GeneratedRow, pieces: list[str], with_units: bool) -> str:
    """The T-, H-, D- and Unit- lines of one row, with control characters as visible escapes."""
    index, reference, translation = result.row.index, result.row.utterance.target_text, result.translation
    assert translation is not None
    score = f"{translation.score / math.log(2):.4f}"
    lines = [f"T-{index}\t{reference}"] if reference else []
    lines += [f"H-{index}\t{score}\t{' '.join(pieces)}", f"D-{index}\t{score}\t{translation.text}"]
    if with_units:
        lines.append(f"Unit-{index}\t{' '.join(map(str, translation.units))}")
    return "\n".join(printable(line) for line in lines) + "\n"


def as_json(result: GeneratedRow, system: System, with_units: bool) -> dict[str, Any]:
    """One row as a JSON object; ``error`` takes the place of a translation that failed."""
    from nast_s2x.chunking import FRAME_MS

    utterance, translation = result.row.utterance, result.translation
    entry: dict[str, Any] = {"index": result.row.index, "id": utterance.id, "audio": str(utterance.audio)}
    if utterance.target_text:
        entry["reference"] = utterance.target_text
    if translation is None:
        return {**entry, "error": result.error}
    entry |= {"text": translation.text, "pieces": system.text.pieces(translation.tokens)}
    if with_units:
        entry["units"] = translation.units
    seconds = translation.num_frames * FRAME_MS / 1000
    return entry | {"score": round(translation.score, 4), "seconds": round(seconds, 2)}


def _report(args: argparse.Namespace, done: list[GeneratedRow], seconds: float, language: str | None) -> None:
    from nast_s2x.chunking import FRAME_MS
    from nast_s2x.metrics.quality import bleu
    from nast_s2x.metrics.text import rules_of
    from nast_s2x.writing import lacks_spaces

    translated = [(row.row.utterance, row.translation) for row in done if row.translation is not None]
    speech = sum(translation.num_frames for _, translation in translated) * FRAME_MS / 1000
    shard = f" (shard {args.shard_id} of {args.num_shards})" if args.num_shards > 1 else ""
    speed = f", {speech / seconds:.1f} times real time" if speech and seconds else ""
    count = f"{len(translated)} of {len(done)} utterances{shard}"
    log_stderr(f"translated {count}, {speech:.1f} s of speech in {seconds:.1f} s{speed}")
    scored = [(translation.text, row.target_text) for row, translation in translated if row.target_text]
    if not scored:
        return
    texts, references = [text for text, _ in scored], [reference for _, reference in scored]
    if language is None and lacks_spaces(" ".join(references)):
        log_stderr("BLEU is not computed: the references have no spaces between words, and the model names no language")
        return
    rules = rules_of(language)
    if rules.note:
        log_stderr(rules.note)
    try:
        score = bleu(texts, references, rules.tokenizer)
    except ModuleNotFoundError:
        log_stderr("BLEU is not computed: it needs the package sacrebleu (pip install sacrebleu)")
        return
    log_stderr(f"BLEU{shard} on {len(scored)} utterances: {score.value:.2f} ({score.signature})")
