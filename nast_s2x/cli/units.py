"""``nast-s2x units``: fit centroids, extract units of recordings, convert k-means models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nast_s2x.cli.system import log_problems

if TYPE_CHECKING:
    from nast_s2x.units.features import Windows

_BACK_ENDS = ("mfcc", "logmel", "mhubert", "fairseq")
_FIT = """\
Cluster the features of recordings: K centroids, which define K units. MANIFEST is a tab-separated table. Recordings
(any format, rate and channels, or segments x.flac:START:SAMPLES) are read in an order that depends on --seed until
there are --max-frames. The same recordings, settings and kind of machine give the same centroids for any --jobs. Needs
scikit-learn.
Features: mfcc and logmel need no model. mhubert is a layer of a Hugging Face HubertModel folder (needs transformers),
fairseq a layer of a fairseq HuBERT checkpoint (needs fairseq); --model gives the path, nothing is downloaded."""
_EXTRACT = """\
Write the units of recordings. The output has the columns of MANIFEST, and
  tgt_audio      units (runs of equal ones collapsed), such as "71 12 993"
  tgt_n_frames   number of units
  tgt_durations  frames of 20 ms of each unit
  unit_hash      hash of the centroids
Relative paths are rewritten for the folder of the output. NAME.units.json beside it describes the units. An interrupted
run is resumed by the same command. Bad rows are listed on stderr as FILE:LINE: reason and left out."""
_CONVERT = """\
Write the centres of a k-means model that scikit-learn or joblib pickled, such as those released with mHuBERT, as
.safetensors. Loading a pickle can execute code. This command executes none: it accepts only the names that pickled
arrays need, replaces scikit-learn's classes by empty ones and refuses any other name. Pass --trust-pickle if you know
where the file comes from."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        "units",
        help="make units of recordings: fit centroids, extract units, convert released k-means models",
        description="Units: discrete codes of 20 ms each, the output of speech-to-speech translation.",
    )
    parts = parser.add_subparsers(
        dest="part", metavar="PART", required=True, help="fit, extract or convert-kmeans; each has its own --help"
    )
    _add_fit(parts)
    _add_extract(parts)
    _add_convert(parts)


def _add_fit(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = parts.add_parser(
        "fit", help="fit centroids", description=_FIT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="TSV of recordings")
    parser.add_argument("--features", choices=_BACK_ENDS, required=True, help="features to cluster")
    parser.add_argument("--num-units", metavar="K", type=int, required=True, help="number of centroids")
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="centroids, a .safetensors file")
    parser.add_argument("--split", default="train", help="use rows of this split only (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the order and of the clusters (default: %(default)s)"
    )
    parser.add_argument(
        "--max-frames", metavar="N", type=int, default=360_000,
        help="unit frames of 20 ms to fit on (default: %(default)s, two hours)",
    )  # fmt: skip
    _add_shared(parser, "unusable recordings among those needed")
    parser.set_defaults(func=run_fit)


def _add_extract(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = parts.add_parser(
        "extract", help="extract units", description=_EXTRACT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="TSV of recordings")
    parser.add_argument(
        "--centroids", metavar="FILE", type=Path, required=True,
        help="centroids of `units fit` or `units convert-kmeans`, or a table as .npy or .npz",
    )  # fmt: skip
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="table to write, such as units.tsv")
    parser.add_argument(
        "--features", choices=_BACK_ENDS, help="features of the centroids, if their file does not record them"
    )
    parser.add_argument(
        "--change-cost", metavar="COST", type=float, default=0.0,
        help="smoothing: cost of a change of unit, added to the squared distances to the centroids (default: 0)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a table made from other input or settings")
    _add_shared(parser, "bad rows")
    parser.set_defaults(func=run_extract)


def _add_shared(parser: argparse.ArgumentParser, strict: str) -> None:
    parser.add_argument(
        "--audio-column", metavar="NAME", default="tgt_speech", help="column of the recordings (default: %(default)s)"
    )
    parser.add_argument("--model", metavar="PATH", help="folder (mhubert) or checkpoint (fairseq) of the network")
    parser.add_argument("--layer", metavar="N", type=int, help="layer of the network, from 1 on (default: 11)")
    parser.add_argument(
        "--device", default="cpu", help="device of the network: cpu, cuda or cuda:N (default: %(default)s)"
    )
    parser.add_argument(
        "--window", metavar="SECONDS", type=float, default=30.0,
        help="length of the windows in which longer recordings are computed (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--overlap", metavar="SECONDS", type=float, default=2.0,
        help="overlap of windows on each side, for networks (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--jobs", metavar="N", type=int, help="processes (default: one per CPU; on cuda one)")
    parser.add_argument("--strict", action="store_true", help=f"fail at {strict}")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")


def _add_convert(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = parts.add_parser(
        "convert-kmeans",
        help="convert the centres of a pickled k-means model",
        description=_CONVERT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pickle", metavar="PICKLE", type=Path, help="pickle or joblib file")
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="centroids, a .safetensors file")
    parser.add_argument("--trust-pickle", action="store_true", help="confirm that the source of the file is known")
    parser.set_defaults(func=run_convert)


def run_fit(args: argparse.Namespace) -> int:
    """Fit centroids, list bad rows on stderr and print a summary."""
    from nast_s2x.errors import ManifestError
    from nast_s2x.units.features import BackEnd
    from nast_s2x.units.fit import fit

    back_end = BackEnd(args.features, args.model, args.layer, args.device)
    try:
        report = fit(
            args.manifest, args.output, back_end, args.num_units, args.audio_column, args.split,
            max_frames=args.max_frames, seed=args.seed, windows=_windows(args), jobs=_jobs(args), strict=args.strict,
            progress=not args.quiet,
        )  # fmt: skip
    except ManifestError as error:
        log_problems(error.problems)
        raise
    log_problems(report.problems)
    left_out = f", {len(report.problems)} rows left out" if report.problems else ""
    centroids = report.centroids
    print(f"{args.output}: {centroids.num_units} units of {report.frames} frames{left_out}, hash {centroids.hash}")
    return 0


def run_extract(args: argparse.Namespace) -> int:
    """Extract units, list bad rows on stderr and print a summary."""
    from nast_s2x.errors import ConfigError, ManifestError
    from nast_s2x.units.centroids import Centroids, back_end_of
    from nast_s2x.units.extract import extract

    centroids = Centroids.load(args.centroids)
    try:
        back_end = back_end_of(centroids, args.features, args.model, args.layer, args.device)
    except ConfigError as error:
        raise ConfigError(f"{args.centroids}: {error}") from error
    try:
        report = extract(
            args.manifest, args.centroids, args.output, back_end, args.audio_column, change_cost=args.change_cost,
            windows=_windows(args), jobs=_jobs(args), strict=args.strict, overwrite=args.overwrite,
            progress=not args.quiet,
        )  # fmt: skip
    except ManifestError as error:
        log_problems(error.problems)
        raise
    log_problems(report.problems)
    hours = report.frames / 180_000
    left_out = f", {len(report.problems)} rows left out" if report.problems else ""
    state = "already complete" if report.already_complete else "done"
    print(
        f"{args.output}: {report.rows} rows, {hours:.2f} hours, {report.units} reduced units of {centroids.num_units}"
        f"{left_out}, hash {centroids.hash}, {state}"
    )
    return 0


def run_convert(args: argparse.Namespace) -> int:
    """Convert a pickled k-means model; refuses without ``--trust-pickle``."""
    from nast_s2x.errors import ConfigError

    if args.output.suffix != ".safetensors":
        raise ConfigError(f"{args.output}: centroids are written as .safetensors")
    if not args.trust_pickle:
        raise ConfigError(
            f"{args.pickle}: loading a pickle can execute code; this command executes none, but pass --trust-pickle to "
            "confirm that you know the source of the file"
        )
    from nast_s2x.checkpoints.kmeans import read_kmeans_centers
    from nast_s2x.files import locked
    from nast_s2x.units.centroids import Centroids

    with locked(args.output):
        centroids = Centroids(read_kmeans_centers(args.pickle))
        centroids.save(args.output)
    units, width = centroids.centers.shape
    print(f"{args.output}: {units} units of width {width}, hash {centroids.hash}")
    return 0


def _windows(args: argparse.Namespace) -> Windows:
    from nast_s2x.units.features import Windows

    return Windows(args.window, args.overlap)


def _jobs(args: argparse.Namespace) -> int:
    from nast_s2x.processes import process_count

    # Several processes on one GPU only compete for it.
    return process_count(1 if args.jobs is None and args.device != "cpu" else args.jobs)
