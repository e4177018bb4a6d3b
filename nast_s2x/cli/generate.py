"""``nast-s2x generate``: offline translation of a corpus or of single files, in batches."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nast_s2x.cli.speech import DEFAULT_FOLDER, add_speech_flags, check_speech_flags, with_speech
from nast_s2x.cli.system import add_system_flags, log_stderr, open_system

if TYPE_CHECKING:
    from nast_s2x.chunking import ChunkPolicy
    from nast_s2x.cli.sound_folder import SoundFolder
    from nast_s2x.inference.generation import GeneratedRow, SourceRow
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
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="utterances a batch (default: 16)")
    parser.add_argument(
        "--max-tokens", type=int, default=20000, metavar="N", help="frames a batch, with padding (default: 20000)"
    )
    parser.add_argument("--num-shards", type=int, default=1, metavar="N", help="split the work into N parts")
    parser.add_argument("--shard-id", type=int, default=0, metavar="I", help="and do part I, from 0")
    parser.add_argument("--json", metavar="FILE", help="also write one JSON object a row; - is standard output")
    parser.add_argument("--output", "-o", metavar="FILE", help="write the lines to FILE instead of standard output")
    parser.add_argument("--no-units", action="store_true", help="leave the units out")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    add_speech_flags(parser).add_argument(
        "--output-wav", metavar="DIR", help=f"folder of the sound files (default: {DEFAULT_FOLDER})"
    )
    add_system_flags(parser, default_chunk="offline if the model was trained for it, else its largest chunk")


def run(args: argparse.Namespace) -> int:
    """Generate; returns the exit status."""
    from nast_s2x.inference.generation import shard_rows

    check_speech_flags(args, ("--output-wav",))
    all_rows = _rows(args)
    rows = shard_rows(all_rows, args.num_shards, args.shard_id)
    system, policy = open_system(args, prefer_offline=True)
    system, synthesis = with_speech(args, system)
    with_units = system.has_units and not args.no_units
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        sounds = _open_sounds(stack, args, all_rows) if args.speech else None
        json_file = _open(stack, args.json) if args.json else None
        # JSON on standard output has it to itself.
        lines = _open(stack, args.output) if args.output or args.json != "-" else None
        results = _generated(args, system, policy, rows, synthesis)
        done = list(_write(results, system, with_units, lines, json_file, sounds))
    _report(args, done, time.monotonic() - started)
    if sounds is not None:
        log_stderr(sounds.report())
    return 1 if any(row.error for row in done) else 0


def _open_sounds(stack: contextlib.ExitStack, args: argparse.Namespace, all_rows: list[SourceRow]) -> SoundFolder:
    from nast_s2x.cli.sound_folder import SoundFolder

    part = (args.shard_id, args.num_shards) if args.num_shards > 1 else None
    return stack.enter_context(SoundFolder(Path(args.output_wav or DEFAULT_FOLDER), all_rows, part))


def _rows(args: argparse.Namespace) -> list[SourceRow]:
    from nast_s2x.inference.generation import rows_of_files, rows_of_manifest

    if bool(args.audio) == bool(args.manifest):
        raise ValueError("give either audio files or --manifest")
    if args.split and not args.manifest:
        raise ValueError("--split needs --manifest")
    return rows_of_manifest(args.manifest, args.split) if args.manifest else rows_of_files(args.audio)


def _open(stack: contextlib.ExitStack, name: str | None) -> IO[str]:
    if name in (None, "-"):
        return sys.stdout
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    return stack.enter_context(open(name, "w", encoding="utf-8"))


def _generated(
    args: argparse.Namespace,
    system: System,
    policy: ChunkPolicy,
    rows: list[SourceRow],
    synthesis: SynthesisWindow | None,
) -> Iterable[GeneratedRow]:
    from tqdm import tqdm

    from nast_s2x.inference.generation import generate

    with tqdm(total=len(rows), unit="utt", file=sys.stderr, disable=args.no_progress or None) as bar:
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
    sounds: SoundFolder | None,
) -> Iterable[GeneratedRow]:
    """Write each result as it comes; yields it without its sound, which is in its file by then."""
    for result in results:
        if result.error is not None:
            log_stderr(f"left out: {result.row.id}: {result.error}")
        if lines is not None and result.translation is not None:
            pieces = system.text.pieces(result.translation.tokens)
            lines.write(fairseq_lines(result, pieces, with_units))
        sound = sounds.add(result) if sounds is not None and result.translation is not None else {}
        if json_file is not None:
            json_file.write(json.dumps(as_json(result, system, with_units) | sound, ensure_ascii=False) + "\n")
        yield without_sound(result)


def without_sound(result: GeneratedRow) -> GeneratedRow:
    """The result without its waveform: a corpus of them would not fit into memory."""
    if result.translation is None:
        return result
    return replace(result, translation=replace(result.translation, waveform=None))


def fairseq_lines(result: GeneratedRow, pieces: list[str], with_units: bool) -> str:
    """The T-, H-, D- and Unit- lines of one row."""
    row, translation = result.row, result.translation
    assert translation is not None
    score = f"{translation.score / math.log(2):.4f}"
    lines = [f"T-{row.index}\t{row.reference}"] if row.reference is not None else []
    lines += [f"H-{row.index}\t{score}\t{' '.join(pieces)}", f"D-{row.index}\t{score}\t{translation.text}"]
    if with_units:
        lines.append(f"Unit-{row.index}\t{' '.join(map(str, translation.units))}")
    return "\n".join(lines) + "\n"


def as_json(result: GeneratedRow, system: System, with_units: bool) -> dict[str, Any]:
    """One row as a JSON object; with ``error`` instead of a translation where there is none."""
    row, translation = result.row, result.translation
    entry: dict[str, Any] = {"index": row.index, "id": row.id, "audio": row.audio}
    if row.reference is not None:
        entry["reference"] = row.reference
    if translation is None:
        return {**entry, "error": result.error}
    entry |= {"text": translation.text, "pieces": system.text.pieces(translation.tokens)}
    if with_units:
        entry["units"] = translation.units
    return entry | {"score": round(translation.score, 4), "seconds": round(translation.num_frames / 100, 2)}


def _report(args: argparse.Namespace, done: list[GeneratedRow], seconds: float) -> None:
    translated = [result for result in done if result.translation is not None]
    speech = sum(result.translation.num_frames for result in translated if result.translation) / 100
    shard = f" (shard {args.shard_id} of {args.num_shards})" if args.num_shards > 1 else ""
    speed = f", {speech / seconds:.1f} times as fast as speech" if speech and seconds else ""
    count = f"{len(translated)} of {len(done)} utterances{shard}"
    log_stderr(f"translated {count}, {speech:.1f} s of speech in {seconds:.1f} s{speed}")
    scored = [(r.translation.text, r.row.reference) for r in translated if r.translation and r.row.reference]
    if not scored:
        return
    try:
        import sacrebleu
    except ModuleNotFoundError:
        log_stderr("BLEU is not computed: it needs the package sacrebleu (pip install sacrebleu)")
        return
    bleu = sacrebleu.corpus_bleu([text for text, _ in scored], [[reference for _, reference in scored]])
    log_stderr(f"BLEU{shard} on {len(scored)} utterances: {bleu}")
