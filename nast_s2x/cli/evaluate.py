"""``nast-s2x evaluate``: run a system over a test set at several chunk sizes, score it, write a report."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nast_s2x.cli.system import add_language_flag, add_system_flags, log_stderr
from nast_s2x.errors import ConfigError, ManifestError
from nast_s2x.evaluation import published

if TYPE_CHECKING:
    from nast_s2x.evaluation.items import CheckedAudio, TestSet
    from nast_s2x.evaluation.segmentation import SegmentedRecording
    from nast_s2x.evaluation.settings import RunSettings
    from nast_s2x.inference.system import System
    from nast_s2x.recognisers import Recogniser


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand to the console command's parser."""
    parser = subparsers.add_parser(
        "evaluate",
        help="run a system over a test set at several chunk sizes and score it",
        description="Translate the recordings as streams at each chunk size, score the logs and write a report. The "
        "same command resumes an interrupted run. A folder holds results of one model, test set and settings only.",
    )
    group = parser.add_argument_group("test set")
    group.add_argument("--source", metavar="LIST", help="audio paths, one per line; relative to the list's folder")
    group.add_argument("--target", metavar="REFS", help="references, one per line")
    group.add_argument("--units", metavar="FILE", help="reference units, one line of unit codes per recording")
    group.add_argument(
        "--manifest", metavar="TSV", help="instead of lists: a table with columns audio, tgt_text [, tgt_audio]"
    )
    group.add_argument("--split", metavar="NAME", help="split of the manifest to take (default: all rows)")
    group.add_argument(
        "--long-form",
        action="store_true",
        help="long recordings: --source lists whole recordings, --segments says where each sentence is spoken, and "
        "--target has one reference a sentence. The translation, or the transcript of its speech by --recogniser, is "
        "divided among the sentences; LongYAAL, LongLAAL, StreamLAAL",
    )
    group.add_argument("--segments", metavar="YAML", help="list of {wav, offset, duration} in seconds; for --long-form")
    add_system_flags(parser, default_chunk="those of the training; separate several by commas")
    group = parser.add_argument_group("run")
    group.add_argument("--target-type", choices=("text", "speech"), default="text", help="output (default: text)")
    add_language_flag(group, "the bundle's")
    group.add_argument("--vocoder", metavar="DIR", help="unit vocoder for speech (default: the bundle's)")
    group.add_argument(
        "--synthesis-lookahead",
        type=int,
        metavar="R",
        help="right context of the vocoder in unit frames of 20 ms (default: 5, or the vocoder's own)",
    )
    group.add_argument("--segment-ms", type=int, metavar="MS", help="length of a segment (default: 40)")
    group.add_argument(
        "--first-segment-ms",
        type=int,
        metavar="MS",
        help="length of the first segment; published: 15 (default: the same)",
    )
    group.add_argument(
        "--published",
        metavar="CHUNK",
        choices=[point.chunk for point in published.POINTS if point.target_type == "speech"],
        help="speech by the published protocol at this chunk size (320, 640, 1280, 2560 or offline): look-ahead as "
        "long as the chunk, a first segment of 15 ms, then segments of the chunk's length; published figures are "
        "printed beside the measured ones",
    )
    group.add_argument(
        "--skip-long", action="store_true", help="leave out recordings that are longer than the model allows"
    )
    group.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    group = parser.add_argument_group("results")
    group.add_argument("--output", "-o", required=True, metavar="DIR", help="folder of the results")
    group.add_argument(
        "--recogniser",
        metavar="SPEC",
        help="for ASR-BLEU and latency of words: bundle:DIR, faster-whisper:MODEL or wav2vec2:DIR",
    )
    group.add_argument("--no-report", action="store_true", help="scores only: no pictures, no report.html")
    group.add_argument("--json", action="store_true", help="print the scores as JSON instead of the table")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Check the inputs, run, score and report; returns the exit status."""
    if args.published is not None:
        _set_published(args)
    args.segment_ms = 40 if args.segment_ms is None else args.segment_ms
    _check_flags(args)
    from nast_s2x.evaluation.items import check_audio
    from nast_s2x.evaluation.run import evaluate, load_for
    from nast_s2x.evaluation.settings import record
    from nast_s2x.files import locked

    for needed in ("sacrebleu", *([] if args.no_report else ["matplotlib", "jinja2"])):
        importlib.import_module(needed)  # a missing package is reported before a run of hours
    test_set, recordings = _test_set(args)
    audio = check_audio(test_set.utterances, progress=True)
    settings = _settings(args)
    system = load_for(settings)
    chunks = _chunks(args, system)
    language = args.target_lang or system.info.target_lang
    _check_language(language, test_set)
    recogniser = _recogniser(args, language)
    test_set, audio = _without_long(args, system, settings, chunks, test_set, audio)
    folder = Path(args.output)
    with locked(folder):
        _take_folder(folder, record(settings, system, test_set, audio, chunks), recordings, args.segments)
        try:
            evaluate(folder, test_set.utterances, settings, chunks, args.workers, True, system)
        except KeyboardInterrupt:
            log_stderr("finished utterances are kept: the same command resumes the run")
            raise
        return _finish(folder, recogniser, args)


def _set_published(args: argparse.Namespace) -> None:
    """Set the flags of the published protocol.

    Raises:
        ConfigError: one of them was given too, or there is no recogniser.
    """
    for flag in ("chunk_ms", "lookahead_ms", "wait_chunks", "left_ms", "segment_ms", "first_segment_ms"):
        if getattr(args, flag) is not None:
            raise ConfigError(f"--published sets --{flag.replace('_', '-')}: give one or the other")
    if args.recogniser is None:
        raise ConfigError(
            "--published needs --recogniser; the published figures are those of wav2vec 2.0 (fairseq's asr_bleu, "
            "wav2vec2-large-960h-lv60-self on the Hub): --recogniser wav2vec2:FOLDER"
        )
    args.target_type, args.chunk_ms = "speech", args.published
    if args.published != "offline":
        args.lookahead_ms = args.segment_ms = int(args.published)
        args.first_segment_ms = 15


def _without_long(
    args: argparse.Namespace,
    system: System,
    settings: RunSettings,
    chunks: list[str],
    test_set: TestSet,
    audio: list[CheckedAudio],
) -> tuple[TestSet, list[CheckedAudio]]:
    """Return the test set; with ``--skip-long`` without recordings that are longer than the model's positions.

    They are named on stderr.

    Raises:
        ManifestError: no other recording is left.
    """
    from nast_s2x.evaluation.run import too_long

    found = too_long(system, settings, chunks, test_set.utterances, audio)
    if not found:
        return test_set, audio
    for reason in found.values():
        log_stderr(reason)
    total = f"{len(found)} of {len(test_set)} recordings are longer than the model allows (listed above)"
    if not args.skip_long:
        log_stderr(f"note: {total} and translated in segments; --skip-long leaves them out")
        return test_set, audio
    if len(found) == len(test_set):
        raise ManifestError(f"{total}: no recording is left to evaluate", found.values())
    log_stderr(f"note: {total} and left out")
    return test_set.without([*found]), [item for index, item in enumerate(audio) if index not in found]


def _check_flags(args: argparse.Namespace) -> None:
    if args.long_form:
        _check_long_form(args)
    elif args.segments is not None:
        raise ConfigError("--segments needs --long-form")
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


def _check_long_form(args: argparse.Namespace) -> None:
    if args.segments is None:
        raise ConfigError("--long-form needs --segments, a list of {wav, offset, duration}")
    for flag in ("manifest", "units", "published"):
        if getattr(args, flag) is not None:
            raise ConfigError(f"--long-form takes --source, --target and --segments: --{flag} does not apply")
    if args.skip_long:
        raise ConfigError("--skip-long does not apply to --long-form: long recordings are translated as streams")


def _take_folder(
    folder: Path, settings: dict[str, Any], recordings: list[SegmentedRecording], segments: str | None
) -> None:
    """Write the record of the evaluation into its folder, and the segmentation of long recordings."""
    from nast_s2x.evaluation.settings import take_folder

    if not recordings:
        take_folder(folder, settings)
        return
    from nast_s2x.evaluation.longform import segmentation_record, write_segmentation

    assert segments is not None
    take_folder(folder, settings | {"long_form": segmentation_record(segments, recordings)})
    write_segmentation(folder, recordings)


def _test_set(args: argparse.Namespace) -> tuple[TestSet, list[SegmentedRecording]]:
    """The test set, and the segmentation of long recordings."""
    from nast_s2x.evaluation.items import TestSet

    if args.long_form:
        from nast_s2x.evaluation.longform import read_long_form

        return read_long_form(args.source, args.target, args.segments)
    if args.manifest is not None:
        return TestSet.from_manifest(args.manifest, args.split), []
    return TestSet.from_lists(args.source, args.target, args.units), []


def _settings(args: argparse.Namespace) -> RunSettings:
    import torch

    from nast_s2x.evaluation.settings import RunSettings
    from nast_s2x.processes import cpu_count

    threads = args.threads
    if threads is None:  # several processes share the CPUs
        threads = torch.get_num_threads() if args.workers == 1 else max(1, cpu_count() // args.workers)
    return RunSettings(
        model=args.model,
        data=args.data,
        target_type=args.target_type,
        lookahead_ms=args.lookahead_ms,
        wait_chunks=args.wait_chunks,
        left_ms=args.left_ms,
        pause_ms=args.pause_ms,
        segment_ms=args.segment_ms,
        first_segment_ms=args.first_segment_ms,
        device=args.device,
        dtype=args.dtype,
        threads=threads,
        vocoder=args.vocoder,
        synthesis_lookahead=args.synthesis_lookahead,
        target_lang=args.target_lang,
        long_form=args.long_form,
    )


def _check_language(language: str | None, test_set: TestSet) -> None:
    """Tell what the language of the output means for the figures.

    Raises:
        ConfigError: references without spaces between words, and no language.
    """
    from nast_s2x.evaluation.language import rules_for

    rules = rules_for(language, (row.target_text for row in test_set.utterances))
    if rules.unit == "char":
        log_stderr(
            f"note: {language}: latency in characters, BLEU with sacreBLEU's tokenizer {rules.tokenizer}; the stream "
            "returns text at spaces only, so text without spaces at the end of a sentence or segment"
        )
    if rules.note:
        log_stderr(f"note: {rules.note}")


def _chunks(args: argparse.Namespace, system: System) -> list[str]:
    """Return the names of the chunk sizes; each is checked against the model."""
    from nast_s2x.evaluation.settings import sort_chunks

    words = [word.strip() for word in (args.chunk_ms or "").split(",")]
    if args.chunk_ms is None:
        words = [policy.name for policy in system.trained]
        if args.long_form:  # offline, a long recording would be one chunk
            words = [word for word in words if word != "offline"] or words
    if "" in words:
        raise ConfigError(f"--chunk-ms takes sizes such as 320,640,offline, got {args.chunk_ms!r}")
    for note in system.notes():
        log_stderr(f"note: {note}")
    policies = [system.policy(word, args.lookahead_ms, args.wait_chunks, args.left_ms) for word in words]
    for policy in policies:
        untrained = system.training_note(policy)
        if untrained:
            log_stderr(f"note: {untrained}")
    return sort_chunks(policy.name for policy in policies)


def _recogniser(args: argparse.Namespace, language: str | None) -> Recogniser | None:
    """Open the recogniser of the flags; called before the run, so that errors are reported early."""
    if args.recogniser is None:
        if args.target_type == "speech":
            log_stderr("note: without --recogniser there is no ASR-BLEU; `nast-s2x score` can add it later")
        return None
    from nast_s2x.recognisers import open_recogniser

    return open_recogniser(args.recogniser, args.device, language)


def _finish(folder: Path, recogniser: Recogniser | None, args: argparse.Namespace) -> int:
    from nast_s2x.evaluation.score_files import table
    from nast_s2x.evaluation.scoring import score

    scores = score(folder, recogniser, progress=True)
    print(json.dumps(scores, ensure_ascii=False) if args.json else table(scores))
    if args.published is not None and not args.json:
        print("\n".join(published.comparison(args.published, scores["rows"][0])))
    if not args.no_report:
        from nast_s2x.evaluation import report

        log_stderr(f"report: {report.write(folder)[-1]}")
    return 0
