#!/usr/bin/env python3
"""Translates the test recordings, one after the other, as one stream.

python examples/espeak_fr_en/long_stream.py MANIFEST BUNDLE [--minutes 120] [--chunk-ms 320] [--left-ms 5120,2560]
                                            [--pause-ms 300]

MANIFEST is the corpus. Without --minutes each recording comes once. For each left context prints the BLEU of the
stream, whose words are divided among the sentences (nast_s2x/metrics/longform.py), beside that of the recordings
translated one by one, the milliseconds of computing a chunk in minute 5 and at the end, and the memory at both.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nast_s2x.corpus import Utterance, read_manifest
from nast_s2x.inference import System, load_system
from nast_s2x.metrics.longform import resegment
from nast_s2x.metrics.quality import bleu

PIECE = 1600
"""Samples of a piece, 100 ms."""
RATE = 16000


def memory() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def recordings(rows: list[Utterance], minutes: float | None) -> Iterator[tuple[NDArray[np.float32], Utterance]]:
    """Samples and row of each recording: once, or again and again for so many minutes."""
    total = 0
    for row in rows if minutes is None else itertools.cycle(rows):
        samples = row.audio.samples()
        total += len(samples)
        yield samples, row
        if minutes is not None and total >= minutes * 60 * RATE:
            return


def one_by_one(system: System, rows: list[Utterance], chunk_ms: str, left_ms: int | str | None) -> float:
    """BLEU of the recordings, each as a stream of its own."""
    policy, texts = system.policy(chunk_ms, left_ms=left_ms), []
    for row in rows:
        emissions = system.stream(policy, with_units=False).push(row.audio.samples(), RATE, final=True)
        texts.append("".join(emission.delta for emission in emissions))
    return bleu(texts, [row.target_text for row in rows]).value


def measure(
    system: System, rows: list[Utterance], chunk_ms: str, left_ms: int | str | None, minutes: float | None
) -> dict[str, float | int | str]:
    """Figures of one stream, see the head of this file."""
    stream = system.stream(system.policy(chunk_ms, left_ms=left_ms), with_units=False)
    deltas: list[str] = []
    heard: list[Utterance] = []
    seconds, sizes, samples_heard = [], [], 0
    for samples, row in recordings(rows, minutes):
        heard.append(row)
        for start in range(0, len(samples), PIECE):
            begun = time.perf_counter()
            emissions = stream.push(samples[start : start + PIECE], RATE)
            samples_heard += len(samples[start : start + PIECE])
            if emissions:
                seconds.append((samples_heard / RATE, (time.perf_counter() - begun) / len(emissions)))
                sizes.append((samples_heard / RATE, memory()))
            deltas += [emission.delta for emission in emissions]
    deltas += [emission.delta for emission in stream.push([], final=True)]
    words = "".join(deltas).split()
    end = samples_heard / RATE

    def median(values: list[tuple[float, float]], start: float) -> float:
        return float(np.median([value for at, value in values if start <= at < start + 60]))

    parts = resegment([row.target_text for row in heard], words)
    texts = [" ".join(words[index] for index in part) for part in parts]
    early = 240.0 if end > 300 else 0.0
    return {
        "left_ms": str(stream.policy.left_chunks and stream.policy.left_chunks * (stream.policy.chunk_ms or 0)),
        "minutes": round(end / 60, 1),
        "segments": len(stream.cuts) + 1,
        "bleu": round(bleu(texts, [row.target_text for row in heard]).value, 1),
        "bleu_one_by_one": round(one_by_one(system, rows, chunk_ms, left_ms), 1),
        "chunk_ms_minute_5": round(1000 * median(seconds, early), 2),
        "chunk_ms_end": round(1000 * median(seconds, end - 60), 2),
        "memory_mb_minute_5": round(median(sizes, early) / 1e6, 1),
        "memory_mb_end": round(median(sizes, end - 60) / 1e6, 1),
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("bundle")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--chunk-ms", default="320")
    parser.add_argument("--left-ms", default="", help="left contexts, separated by commas (default: the system's)")
    parser.add_argument("--pause-ms", type=int, help="translate each part between pauses of this length by itself")
    parser.add_argument("--limit", type=int, help="test recordings at most")
    args = parser.parse_args(arguments)
    rows = [row for row in read_manifest(args.manifest).rows if row.split == "test"][: args.limit]
    system = replace(load_system(args.bundle), pause_ms=args.pause_ms)
    for left in args.left_ms.split(",") if args.left_ms else [None]:
        left_ms = left if left in (None, "unlimited") else int(left)
        print(json.dumps(measure(system, rows, args.chunk_ms, left_ms, args.minutes)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
