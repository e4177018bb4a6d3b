"""Recordings and manifests for the tests of units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from nast_s2x.cli.main import main


def signal(seconds: float, seed: int = 0, rate: int = 16000) -> NDArray[np.float32]:
    """Tones and noise that change every 40 to 160 ms; float32 (n,)."""
    rng = np.random.default_rng(seed)
    pieces, left = [], round(seconds * rate)
    while left > 0:
        n = min(left, int(rng.uniform(0.04, 0.16) * rate))
        tone = np.sin(2 * np.pi * rng.uniform(100, 3000) * np.arange(n) / rate)
        pieces.append(rng.uniform(0.05, 0.4) * tone + 0.02 * rng.standard_normal(n))
        left -= n
    return np.concatenate([*pieces, np.zeros(0)]).astype(np.float32)


def write_corpus(folder: Path, seconds: Sequence[float], column: str = "tgt_speech") -> Path:
    """A manifest of recordings in ``folder/sound``; the last row is of split dev, the others of train."""
    (folder / "sound").mkdir(parents=True, exist_ok=True)
    lines = [f"id\taudio\tsrc_text\ttgt_text\tsplit\t{column}"]
    for i, length in enumerate(seconds):
        soundfile.write(folder / f"sound/{i}.wav", signal(length, seed=i), 16000, subtype="FLOAT")
        split = "dev" if i == len(seconds) - 1 else "train"
        lines.append(f'u{i}\tsound/{i}.wav\tun "deux\tone two\t{split}\tsound/{i}.wav')
    (folder / "m.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "m.tsv"


def add_row(manifest: Path, audio: str, name: str = "x") -> None:
    """Append a row of split train."""
    with open(manifest, "a", encoding="utf-8") as file:
        file.write(f"{name}\tsound/0.wav\ta\tb\ttrain\t{audio}\n")


def units(*arguments: object) -> int:
    """Run ``nast-s2x units`` quietly."""
    words = list(map(str, arguments))
    return main(["units", *words, *(["--quiet"] if words[0] != "convert-kmeans" else [])])


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a table."""
    header, *lines = path.read_text("utf-8").rstrip("\n").split("\n")
    return [dict(zip(header.split("\t"), line.split("\t"))) for line in lines]
