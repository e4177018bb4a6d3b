"""``nast-s2x prepare``: a data folder from a table of recordings and texts."""

from __future__ import annotations

import argparse
from pathlib import Path

from nast_s2x.cli.system import log_problems
from nast_s2x.errors import ConfigError, ManifestError

DESCRIPTION = """\
Make a data folder for training and generation from MANIFEST, a tab-separated table with a header and the columns
  id  audio  src_text  tgt_text  split  [tgt_audio]  [unit_hash]
audio       a sound file (wav, flac, ogg, mp3, ...), a segment x.flac:START:SAMPLES, features x.npy, or bytes of an
            archive x.zip:OFFSET:LENGTH; relative paths start in the folder of MANIFEST, else in the working directory
split       train... gives the vocabulary and the normalisation; the training recipes validate on dev (valid,
            validation and val become dev)
tgt_audio   units such as "71 12 993"; `nast-s2x units extract` writes them, and unit_hash, which names the centroids
The folder holds features, gcmvn.npz, spm.model, spm.txt, SPLIT.tsv and config.yaml. An interrupted run is resumed by
the same command. Bad rows are listed on stderr as FILE:LINE: reason and left out."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        "prepare",
        help="turn a manifest of recordings and texts into a data folder for training",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="TSV of recordings and texts")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="the data folder to make")
    parser.add_argument("--source-lang", metavar="LANG", default="", help="language of the recordings, such as fr")
    parser.add_argument("--target-lang", metavar="LANG", default="", help="language of the translations, such as en")
    parser.add_argument(
        "--vocab-size", metavar="N", type=int, default=10000,
        help="pieces of the joint unigram vocabulary (default 10000; fewer where the text yields fewer)",
    )  # fmt: skip
    parser.add_argument(
        "--character-coverage", metavar="P", type=float, default=1.0,
        help="share of the characters that pieces must cover (default 1.0; 0.9995 for Chinese or Japanese)",
    )  # fmt: skip
    parser.add_argument(
        "--features", choices=("zip", "npy", "audio"), default="zip",
        help="one archive (default), a file per recording, or none: computed from the audio whenever it is read",
    )  # fmt: skip
    parser.add_argument(
        "--float16", action="store_true", help="store features in half precision: half the size, errors up to 0.008"
    )
    parser.add_argument(
        "--num-units",
        metavar="K",
        type=int,
        help="number of unit codes (default: from MANIFEST's .units.json, else the largest code in tgt_audio + 1)",
    )
    parser.add_argument(
        "--vocabulary-from", metavar="DIR", type=Path,
        help="use the vocabulary and normalisation of this data folder instead of new ones",
    )  # fmt: skip
    parser.add_argument(
        "--noise-floor", metavar="DB", default="-80",
        help="level of the white noise that normalisation adds, in dB below full scale, or off (default -80)",
    )  # fmt: skip
    parser.add_argument(
        "--narrowband", metavar="SHARE", type=float, default=0.0,
        help="share of the training utterances limited to 4 kHz in training, for a model that also serves telephone "
        "speech (default 0)",
    )  # fmt: skip
    parser.add_argument("--jobs", metavar="N", type=int, help="processes (default: one per CPU)")
    parser.add_argument("--strict", action="store_true", help="stop at bad rows, before anything is written")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder made with other settings or data")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Prepare, list bad rows on stderr and print a summary."""
    from nast_s2x.corpus.prepare import PrepareOptions, prepare

    options = PrepareOptions(
        vocab_size=args.vocab_size,
        character_coverage=args.character_coverage,
        features=args.features,
        float16=args.float16,
        source_lang=args.source_lang,
        target_lang=args.target_lang,
        num_units=args.num_units,
        vocabulary_from=args.vocabulary_from,
        noise_floor=_level(args.noise_floor),
        narrowband=args.narrowband,
    )
    try:
        report = prepare(
            args.manifest, args.output, options,
            jobs=args.jobs, strict=args.strict, overwrite=args.overwrite, progress=not args.quiet,
        )  # fmt: skip
    except ManifestError as error:
        log_problems(error.problems)
        raise
    log_problems(report.problems)
    for note in report.notes:
        print(f"note: {note}")
    for split, rows in report.rows.items():
        print(f"{split}: {rows} rows, {report.hours[split]:.2f} hours")
    if report.sample_rates:
        rates = ", ".join(f"{rate} Hz ({rows} rows)" for rate, rows in report.sample_rates.items())
        print(f"sample rates: {rates}")
    if report.whole_words is not None:
        print(f"vocabulary: {report.whole_words:.1%} of the words of the training text are one label")
    left_out = f", {len(report.problems)} rows left out" if report.problems else ""
    units = f", {report.num_units} units" if report.num_units else ""
    state = "already complete" if report.already_complete else "done"
    print(f"{args.output}: {report.labels} labels{units}{left_out}, {state}")
    return 0


def _level(text: str) -> float | None:
    try:
        return None if text == "off" else float(text)
    except ValueError:
        raise ConfigError(f"--noise-floor must be a level in dB or off, not {text!r}") from None
