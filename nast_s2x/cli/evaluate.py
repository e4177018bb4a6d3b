"""``nast-s2x evaluate``: a system over a test set at several chunk sizes, by SimulEval's evaluator; scores; report."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nast_s2x.cli.system import add_system_flags, log_stderr
from nast_s2x.errors import ConfigError

if TYPE_CHECKING:
    from nast_s2x.evaluation.items import TestSet
    from nast_s2x.evaluation.settings import RunSettings
    from nast_s2x.inference.system import System
    from nast_s2x.recognisers import Recogniser


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand to the console command's parser."""
    parser = subparsers.add_parser(
        "evaluate",
        help="run a system over a test set at several chunk sizes and score it",
        description="Run SimulEval's evaluator at each chunk size, score the logs and write a report. Interrupted, the "
        "same command goes on where it stopped; a folder never mixes results of different models, lists or settings.",
    )
    group = parser.add_argument_group("test set")
    group.add_argument("--source", metavar="LIST", help="audio paths, one a line, relative to the list's folder")
    group.add_argument("--target", metavar="REFS", help="references, one a line")
    group.add_argument("--units", metavar="FILE", help="reference units, one line of codes for each recording")
    group.add_argument("--manifest", metavar="TSV", help="instead: a table with columns audio, tgt_text [, tgt_audio]")
    group.add_argument("--split", metavar="NAME", help="rows of the manifest to take (default: all)")
    add_system_flags(parser, default_chunk="those of the training; several with commas between them")
    group = parser.add_argument_group("run")
    group.add_argument("--target-type", choices=("text", "speech"), default="text", help="output (default: text)")
    group.add_argument("--vocoder", metavar="DIR", help="unit vocoder for speech (default: the bundle's)")
    group.add_argument(
        "--synthesis-lookahead", type=int, metavar="R", help="unit frames that the voice holds back (default: 5)"
    )
    group.add_argument("--segment-ms", type=int, default=40, metavar="MS", help="length of a segment (default: 40)")
    group.add_argument(
        "--first-segment-ms", type=int, metavar="MS", help="length of the first one; published: 15 (default: the same)"
    )
    group.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    group = parser.add_argument_group("results")
    group.add_argument("--output", "-o", required=True, metavar="DIR", help="folder of the results")
    group.add_argument(
        "--recogniser", metavar="SPEC", help="for ASR-BLEU: bundle:DIR, faster-whisper:MODEL or wav2vec2:DIR"
    )
    group.add_argument("--no-report", action="store_true", help="scores only: no pictures, no report.html")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Check everything, run, score, report; returns the exit status."""
    _check_flags(args)
    from nast_s2x.evaluation.items import check_audio
    from nast_s2x.evaluation.run import evaluate, open_bundle
    from nast_s2x.evaluation.settings import record, take_folder

    for needed in ("sacrebleu", *([] if args.no_report else ["matplotlib"])):
        importlib.import_module(needed)  # found missing now, not after hours
    progress = sys.stderr.isatty()
    test_set = _test_set(args)
    audio = check_audio(test_set.items, progress)
    setup = _setup(args)
    bundle = open_bundle(setup)
    chunks = _chunks(args, bundle)
    recogniser = _recogniser(args, bundle.info.target_lang)
    folder = Path(args.output)
    take_folder(folder, record(setup, bundle, test_set, audio, chunks))
    try:
        evaluate(folder, test_set.items, setup, chunks, args.workers, progress, bundle)
    except KeyboardInterrupt:
        log_stderr("what is finished is kept: the same command goes on from there")
        raise
    return _finish(folder, recogniser, args, progress)


def _check_flags(args: argparse.Namespace) -> None:
    if args.manifest is None:
        missing = [flag for flag in ("source", "target") if getattr(args, flag) is None]
        if missing:
            raise ConfigError(f"--{missing[0]} is missing: give --source and --target, or --manifest")
        if args.split is not None:
            raise ConfigError("--split needs --manifest")
    elif args.source or args.target or args.units:
        raise ConfigError("--manifest replaces --source, --target and --units: give one or the other")
    if args.target_type == "text":
        for flag in ("--vocoder", "--synthesis-lookahead", "--recogniser"):
            if getattr(args, flag[2:].replace("-", "_")) is not None:
                raise ConfigError(f"{flag} needs --target-type speech")
    for flag in ("threads", "workers"):
        value = getattr(args, flag)
        if value is not None and value < 1:
            raise ConfigError(f"--{flag} must be at least 1, got {value}")


def _test_set(args: argparse.Namespace) -> TestSet:
    from nast_s2x.evaluation.items import read_lists, read_manifest

    if args.manifest is not None:
        return read_manifest(args.manifest, args.split)
    return read_lists(args.source, args.target, args.units)


def _setup(args: argparse.Namespace) -> RunSettings:
    import torch

    from nast_s2x.evaluation.settings import RunSettings
    from nast_s2x.vocoder.streaming import SynthesisWindow

    threads = args.threads
    if threads is None:  # processes must not compete for the same cores
        threads = torch.get_num_threads() if args.workers == 1 else max(1, (os.cpu_count() or 1) // args.workers)
    lookahead = args.synthesis_lookahead
    return RunSettings(
        model=args.model,
        data=args.data,
        target_type=args.target_type,
        lookahead_ms=args.lookahead_ms,
        wait_chunks=args.wait_chunks,
        segment_ms=args.segment_ms,
        first_segment_ms=args.first_segment_ms,
        device=args.device,
        dtype=args.dtype,
        threads=threads,
        vocoder=args.vocoder,
        synthesis_lookahead=SynthesisWindow.lookahead_frames if lookahead is None else lookahead,
    )


def _chunks(args: argparse.Namespace, bundle: System) -> list[str]:
    """Names of the chunk sizes, each checked against the model."""
    from nast_s2x.evaluation.settings import sort_chunks

    words = [word.strip() for word in (args.chunk_ms or "").split(",")]
    if args.chunk_ms is None:
        words = [policy.name for policy in bundle.trained]
    if "" in words:
        raise ConfigError(f"--chunk-ms takes sizes such as 320,640,offline, got {args.chunk_ms!r}")
    if bundle.info.example:
        log_stderr(f"note: example model, trained on a small synthetic corpus: {bundle.info.example}")
    policies = [bundle.policy(word, args.lookahead_ms, args.wait_chunks) for word in words]
    for policy in policies:
        note = bundle.training_note(policy)
        if note:
            log_stderr(f"note: {note}")
    return sort_chunks(policy.name for policy in policies)


def _recogniser(args: argparse.Namespace, language: str | None) -> Recogniser | None:
    """Opened before anything runs, so that one that is missing is not found out at the end."""
    if args.recogniser is None:
        if args.target_type == "speech":
            log_stderr("note: without --recogniser there is no ASR-BLEU; `nast-s2x score` can add it later")
        return None
    from nast_s2x.recognisers import open_recogniser

    return open_recogniser(args.recogniser, args.device, language)


def _finish(folder: Path, recogniser: Recogniser | None, args: argparse.Namespace, progress: bool) -> int:
    from nast_s2x.evaluation.scoring import score, table

    print(table(score(folder, recogniser, progress)))
    if not args.no_report:
        from nast_s2x.evaluation import report

        log_stderr(f"report: {report.write(folder)[-1]}")
    return 0
