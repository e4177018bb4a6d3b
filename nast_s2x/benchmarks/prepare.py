"""The part ``prepare`` of ``nast-s2x benchmark``: a made corpus of many rows, prepared as by ``nast-s2x prepare``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nast_s2x.benchmarks.timing import peak_bytes
from nast_s2x.corpus.prepare import PrepareOptions, prepare
from nast_s2x.errors import ConfigError
from nast_s2x.files import open_atomic
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.processes import process_count

DEFAULT_ROWS = 200_000
FILES = 16
"""Sound files of the corpus; each row is a segment of one."""
FILE_SECONDS = 20
SEGMENT_SAMPLES = (3200, 6400)
"""Shortest and longest segment: 0.2 and 0.4 s."""
WORDS = 20_000
"""Words of the made vocabulary."""
SENTENCE_WORDS = (4, 16)
DEV_EVERY = 100
"""One row of so many is of split dev."""
_CPU = torch.device("cpu")


def make_corpus(folder: Path, rows: int, seed: int = 0) -> Path:
    """Write noise as sound files and a manifest of ``rows`` segments of them with random words; the same for one seed.

    Args:
        folder: for ``manifest.tsv`` and the sound files (10 MB in all).
    Returns:
        the manifest.
    """
    import soundfile

    rng = np.random.default_rng(seed)
    size = FILE_SECONDS * SAMPLE_RATE
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(FILES):
        noise = 0.1 * rng.standard_normal(size)
        soundfile.write(folder / f"{index:02d}.wav", noise.clip(-1, 1), SAMPLE_RATE, subtype="PCM_16")
    letters = rng.integers(ord("a"), ord("z") + 1, (WORDS, 8), dtype=np.uint8)
    words = [bytes(row[: 2 + index % 7]).decode() for index, row in enumerate(letters)]
    with open_atomic(folder / "manifest.tsv") as file:
        file.write("id\taudio\tsrc_text\ttgt_text\tsplit\n")
        for index in range(rows):
            count = int(rng.integers(*SEGMENT_SAMPLES, endpoint=True))
            start = int(rng.integers(size - count))
            # Few words are frequent and many rare, as in a language.
            texts = [
                " ".join(words[int(WORDS * value**4)] for value in rng.random(rng.integers(*SENTENCE_WORDS)))
                for _ in range(2)
            ]
            split = "dev" if index % DEV_EVERY == DEV_EVERY - 1 else "train"
            file.write(f"row-{index:08d}\t{index % FILES:02d}.wav:{start}:{count}\t{texts[0]}\t{texts[1]}\t{split}\n")
    return folder / "manifest.tsv"


class _Phases:
    """Times of the phases: each call ends one phase and begins the next."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name, self._begun = "", 0.0

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        if self._name:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._begun
        self._name, self._begun = name, now


def run_prepare(args: argparse.Namespace) -> dict[str, Any]:
    """Prepare a made corpus of ``--rows`` rows in a temporary folder with ``--jobs`` processes.

    Rows are segments of 0.2 to 0.4 s: the time is mostly that of work per row, not of audio.

    Returns:
        rows, rows_per_second, jobs, peak_bytes (largest resident memory of this process and of each worker),
        start_bytes (that of this process before the preparation), seconds, phases (seconds of each phase).
    Raises:
        ConfigError: fewer than 200 rows, which do not give a vocabulary; another ``--device`` or ``--dtype`` than the
            defaults, because features are computed on the CPU in float32. An output folder is never touched.
    """
    for flag, value, only in (("device", args.device, "cpu"), ("dtype", args.dtype, "fp32")):
        if value != only:
            raise ConfigError(f"prepare computes features on the CPU in fp32: --{flag} must be {only}, but is {value}")
    rows, jobs = args.rows or DEFAULT_ROWS, process_count(args.jobs)
    if rows < 200:
        raise ConfigError(f"--rows must be at least 200, but is {rows}")
    phases = _Phases()
    with tempfile.TemporaryDirectory(prefix="nast-s2x-benchmark-") as folder:
        manifest = make_corpus(Path(folder) / "corpus", rows)
        start_bytes = peak_bytes(_CPU)
        begun = time.perf_counter()
        options = PrepareOptions(vocab_size=1000, features=args.features)
        report = prepare(manifest, Path(folder) / "data", options, jobs=jobs, on_phase=phases)
        phases("")
        seconds = time.perf_counter() - begun
    assert sum(report.rows.values()) == rows and not report.problems
    return {
        "rows": rows,
        "rows_per_second": rows / seconds,
        "jobs": jobs,
        "features": args.features,
        "peak_bytes": max(peak_bytes(_CPU), _largest_child()),
        "start_bytes": start_bytes,
        "seconds": seconds,
        "phases": phases.seconds,
    }


def _largest_child() -> int:
    """Largest resident memory of a process that this one has started and that has ended; 0 where it is not known."""
    try:
        import resource
    except ModuleNotFoundError:  # on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
