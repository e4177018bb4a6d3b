#!/usr/bin/env python3
"""Builds the corpus of the English recogniser that measures how intelligible the example's speech is.

python examples/espeak_fr_en/recogniser.py --corpus CORPUS --output DIR [--jobs 2]

CORPUS is a folder made by build.py. Training speaks the English sentences of its split train again in the original
voice, with other noise, speed, pitch, melody and tone; dev and test are its plain recordings in that voice. No
vocoded speech and no sentence of dev or test is in training.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from espeak_fr_en import build, speech  # noqa: E402

COLUMNS = ("id", "audio", "src_text", "tgt_text", "split")
SPLITS = ("train", "dev", "test")
# What changes in training, around speech.TARGET_SPEED, TARGET_PITCH and a melody of 0.
SPEEDS, PITCHES, MELODIES = (150, 220), (45, 75), (10, 60)
SNR_DECIBELS, PEAKS = (8.0, 40.0), (0.3, 0.9)
NOISE_SLOPES = (0.0, -3.0, -6.0)  # dB an octave
BAND_DECIBELS, LOWPASS_HERTZ = 6.0, (3000.0, 7500.0)
Row = dict[str, str]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder made by build.py")
    parser.add_argument("--output", type=Path, required=True, help="folder to write (made if missing)")
    parser.add_argument("--seed", type=int, default=1, help="what changes depends on it and on the ids (default 1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--overwrite", action="store_true", help="remove what the folder holds of another build")
    return parser.parse_args(arguments)


def plan(identity: str, text: str, path: str, seed: int) -> speech.Utterance:
    """One training recording: the original voice, changed by what is drawn from (seed, id) alone."""
    rng = random.Random(f"recogniser {seed} {identity}")
    return speech.Utterance(
        id=identity,
        text=text,
        path=path,
        voice=speech.TARGET_VOICE,
        speed=rng.randint(*SPEEDS),
        pitch=rng.randint(*PITCHES),
        peak=rng.uniform(*PEAKS),
        snr=rng.uniform(*SNR_DECIBELS),
        noise_seed=rng.getrandbits(32),
        melody=rng.choice((0, rng.randint(*MELODIES))),
        noise_slope=rng.choice(NOISE_SLOPES),
        bands=tuple(rng.uniform(-BAND_DECIBELS, BAND_DECIBELS) for _ in speech.BANDS),
        lowpass=rng.choice((0.0, rng.uniform(*LOWPASS_HERTZ))),
    )


def read_corpus(corpus: Path) -> list[Row]:
    """Rows of a corpus that has English recordings; raises where a tested sentence would be trained on."""
    from nast_s2x.corpus import read_manifest

    path = corpus / "manifest.tsv"
    rows = []
    for row in read_manifest(path, required=("id", "tgt_text", "split", "tgt_speech")):
        if row.split not in SPLITS:
            raise ValueError(f"{row.place}: the split must be train, dev or test, not {row.split!r}")
        assert row.target_audio is not None  # a required column
        recording = os.path.relpath(row.target_audio.path, corpus)
        rows.append({"id": row.id, "tgt_text": row.target_text, "split": row.split, "tgt_speech": recording})
    trained = {row["tgt_text"] for row in rows if row["split"] == "train"}
    shared = [row["id"] for row in rows if row["split"] != "train" and row["tgt_text"] in trained]
    if not trained or shared:
        found = f"{shared[0]} is also in train" if shared else "there is none"
        raise ValueError(f"{path}: training sentences that are not in dev or test are needed: {found}")
    return rows


def plan_corpus(rows: list[Row], corpus: Path, output: Path, seed: int) -> tuple[list[Row], list[speech.Utterance]]:
    """The recogniser's manifest, and what is to be spoken for it: the training sentences."""
    planned, utterances = [], []
    for row in rows:
        audio = os.path.relpath((corpus / row["tgt_speech"]).resolve(), output.resolve())
        if row["split"] == "train":
            audio = f"audio/{row['id']}.flac"
            utterances.append(plan(row["id"], row["tgt_text"], audio, seed))
        text = row["tgt_text"]
        planned.append(dict(zip(COLUMNS, (row["id"], audio, text, text, row["split"]), strict=True)))
    return planned, utterances


def make(arguments: argparse.Namespace) -> None:
    """Everything: settings.json, audio, manifest.tsv."""
    rows, utterances = plan_corpus(read_corpus(arguments.corpus), arguments.corpus, arguments.output, arguments.seed)
    speech.check_voices({speech.TARGET_VOICE}, speech.find_espeak())
    plans = hashlib.sha256("\n".join(map(repr, utterances)).encode()).hexdigest()
    settings = {"seed": arguments.seed, "sentences": len(rows), "plans_sha256": plans}
    build.keep_settings(arguments.output, settings, arguments.overwrite, ("audio",))
    seconds = build.speak_all(utterances, arguments.output, arguments.jobs)
    lines = ["\t".join(COLUMNS)] + ["\t".join(row[column] for column in COLUMNS) for row in rows]
    build.write_text(arguments.output / "manifest.tsv", "\n".join(lines) + "\n")
    print(f"train: {len(utterances)} recordings, {sum(seconds.values()) / 3600:.2f} hours")


def main() -> int:
    """Command line; 1 and a line on stderr where something is wrong."""
    try:
        make(parse_arguments())
    except (ValueError, OSError, RuntimeError) as error:
        print(f"recogniser.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
