#!/usr/bin/env python3
"""Joins recordings to long ones, with their segmentation, for `nast-s2x evaluate --long-form`.

python examples/espeak_fr_en/long_recordings.py MANIFEST OUTPUT [--split test] [--count 10] [--gap 0.3]

MANIFEST is a table such as recordings/manifest.tsv. Each --count recordings follow one another in one file, with --gap
seconds of quiet noise after each. OUTPUT receives the sound files, source.txt, segments.yaml, references.txt, and
transcripts.txt with the sentences of the source.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from nast_s2x.corpus import Utterance, read_manifest
from nast_s2x.evaluation.segmentation import ReferenceSegment, SegmentedRecording, write_segmentation
from nast_s2x.files import write_atomic
from nast_s2x.frontend.audio import write_wav_pieces

RATE = 16000
NOISE = 1e-4
"""Level of the noise between recordings."""


def join(rows: list[Utterance], path: Path, gap: float) -> SegmentedRecording:
    """Write one long recording; returns its segmentation."""
    pieces, parts, samples = [], [], 0
    for number, row in enumerate(rows):
        assert row.audio is not None
        sound = row.audio.samples()
        quiet = NOISE * np.random.default_rng(number).standard_normal(round(gap * RATE)).astype(np.float32)
        parts.append(ReferenceSegment(samples / RATE, len(sound) / RATE, row.target_text))
        pieces += [sound, quiet]
        samples += len(sound) + len(quiet)
    write_wav_pieces(path, pieces, RATE)
    return SegmentedRecording(path.name, tuple(parts))


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--count", type=int, default=10, help="recordings in a long one (default: %(default)s)")
    parser.add_argument("--gap", type=float, default=0.3, help="seconds between two (default: %(default)s)")
    args = parser.parse_args(arguments)
    rows = [row for row in read_manifest(args.manifest).rows if row.split == args.split]
    talks = [
        join(rows[start : start + args.count], args.output / f"talk_{number}.wav", args.gap)
        for number, start in enumerate(range(0, len(rows), args.count))
    ]
    write_atomic(args.output / "source.txt", "".join(f"{talk.name}\n" for talk in talks))
    write_atomic(args.output / "transcripts.txt", "".join(f"{row.source_text}\n" for row in rows))
    write_segmentation(args.output, talks)
    print(f"{len(rows)} recordings in {len(talks)} long ones: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
