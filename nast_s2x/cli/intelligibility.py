"""``nast-s2x intelligibility``: word error rate and BLEU of original, vocoded and translated speech."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from nast_s2x.errors import ConfigError, ManifestError

if TYPE_CHECKING:
    from nast_s2x.evaluation.intelligibility import Intelligibility
    from nast_s2x.inference.system import System
    from nast_s2x.vocoder.network import UnitVocoder

CHUNKS = "offline,320,640,1280"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand to the console command's parser."""
    parser = subparsers.add_parser(
        "intelligibility",
        help="word errors of a vocoder's and a model's speech",
        description="Transcribe speech with a recogniser and print word error rate and BLEU against the target texts. "
        "The speech: the original recordings (column tgt_speech), the vocoder's synthesis of their units (tgt_audio, "
        "tgt_durations), a bundle's translations of the source recordings (audio), and recordings of other programs.",
    )
    parser.add_argument("manifest", type=Path, help="manifest with units, or a folder with a manifest.tsv")
    parser.add_argument(
        "--recogniser", metavar="SPEC", required=True, help="bundle:DIR, faster-whisper:MODEL or wav2vec2:DIR"
    )
    parser.add_argument("--language", default=None, help="language of the speech, such as en (default: not checked)")
    parser.add_argument("--split", default="test", help="split of the manifest to take (default: test)")
    parser.add_argument("--limit", type=int, metavar="N", help="take only the first N rows of the split")
    parser.add_argument("--vocoder", type=Path, help="vocoder folder (default: the vocoder of --bundle)")
    parser.add_argument("--bundle", type=Path, help="speech-to-speech bundle whose translations are transcribed")
    parser.add_argument("--chunk-ms", default=CHUNKS, help=f"chunk sizes of the translations (default: {CHUNKS})")
    parser.add_argument(
        "--wavs",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="also transcribe the recordings of a folder: ID.wav, ID.flac or N_pred.wav for each row; repeatable",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this JSON file")
    parser.add_argument("--transcripts", type=Path, metavar="FILE", help="write all transcripts to this TSV file")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bars")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Score the speech, print the table, write the files; returns the exit status."""
    from nast_s2x.evaluation.intelligibility import format_intelligibility
    from nast_s2x.files import locked, write_atomic, write_json

    with contextlib.ExitStack() as locks:
        for path in filter(None, (args.json, args.transcripts)):
            locks.enter_context(locked(path))
        results, columns = measure(args)
        if args.json:
            summary = {"split": args.split, "sentences": len(columns["id"])}
            write_json(args.json, summary | {"results": [asdict(item) for item in results]}, indent=1)
        if args.transcripts:
            rows = [columns, *zip(*columns.values(), strict=True)]
            write_atomic(args.transcripts, "".join("\t".join(row) + "\n" for row in rows))
    print(format_intelligibility(results))
    return 0


def measure(args: argparse.Namespace) -> tuple[list[Intelligibility], dict[str, list[str]]]:
    """Score every kind of speech.

    Returns:
        the lines of the table, and the columns of the transcripts by name, in the order of the rows.
    """
    from nast_s2x.evaluation.intelligibility import all_kinds, read_sentences, score_speech
    from nast_s2x.recognisers import open_recogniser

    recogniser = open_recogniser(args.recogniser, language=args.language)
    rows, unit_hash = read_sentences(args.manifest, args.split, args.limit)
    columns = {"id": [row.id for row in rows], "reference": [row.target_text for row in rows]}
    folders = parse_folders(args.wavs, taken=columns)
    vocoder, system = load_parts(args, unit_hash)
    progress = not args.no_progress
    chunks = [chunk.strip() for chunk in args.chunk_ms.split(",")]
    results = []
    for speech in all_kinds(rows, vocoder, system, chunks, folders, progress):
        texts = [transcript.text for transcript in recogniser.transcribe(speech.waveforms, progress)]
        results.append(score_speech(speech, texts, rows))
        if speech.texts is not None:
            columns[f"{speech.name}: text"] = speech.texts
        columns[speech.name] = texts
    if not results:
        raise ManifestError(f"{args.manifest} has no tgt_speech, and no other speech was asked for: nothing to score")
    return results, columns


def parse_folders(wavs: Sequence[str], taken: Collection[str]) -> list[tuple[str, Path]]:
    """Return the names and folders of ``--wavs``.

    Args:
        taken: names of other columns of the transcripts.
    Raises:
        ConfigError: not NAME=FOLDER; a name that is taken, or given twice.
    """
    folders: dict[str, Path] = {}
    for item in wavs:
        name, _, folder = item.partition("=")
        if not name or not folder:
            raise ConfigError(f"--wavs must be NAME=FOLDER, got {item!r}")
        if name in taken or name in folders:
            raise ConfigError(f"--wavs: each name must be unique, but {name!r} is that of another column")
        folders[name] = Path(folder)
    return list(folders.items())


def load_parts(args: argparse.Namespace, unit_hash: str | None) -> tuple[UnitVocoder | None, System | None]:
    """Load the vocoder and the system that the flags name; ``--vocoder`` replaces the vocoder of ``--bundle``.

    Raises:
        ConfigError: units of different centroids, or a system without a vocoder.
    """
    from nast_s2x.evaluation.intelligibility import check_hashes
    from nast_s2x.inference.loading import load_system
    from nast_s2x.vocoder.checkpoint import load_vocoder

    system: System | None = None
    vocoder: UnitVocoder | None = None
    if args.bundle is None:
        vocoder = None if args.vocoder is None else load_vocoder(args.vocoder)
    else:
        system = load_system(args.bundle)
        system = system.with_vocoder(args.vocoder) if args.vocoder else system
        vocoder = system.require_vocoder()
    if vocoder is not None:
        of_system = None if system is None else system.unit_hash
        check_hashes(manifest=unit_hash, vocoder=vocoder.config.unit_hash, bundle=of_system)
    return vocoder, system
