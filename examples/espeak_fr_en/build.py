#!/usr/bin/env python3
"""Builds the French-English example corpus, or speaks given sentences into the same layout.

python examples/espeak_fr_en/build.py --output DIR [--jobs 2]
python examples/espeak_fr_en/build.py --output DIR --sentences FILE.tsv --voices fr+m3,fr-be+f2
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from espeak_fr_en import corpus as texts  # noqa: E402
from espeak_fr_en import speech  # noqa: E402

COLUMNS = (
    *("id", "audio", "src_text", "tgt_text", "split", "tgt_speech"),
    *("voice", "speed", "pitch", "construction", "tags"),
)
Row = dict[str, str]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write (made if missing)")
    parser.add_argument("--seed", type=int, default=1, help="the corpus depends on nothing else (default 1)")
    parser.add_argument("--train", type=int, default=10000, help="training sentences (default 10000)")
    parser.add_argument("--dev", type=int, default=200, help="validation sentences (default 200)")
    parser.add_argument("--test", type=int, default=200, help="test sentences (default 200)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument(
        "--sentences", type=Path, help="speak this TSV (src_text, tgt_text; header and id optional) instead"
    )
    parser.add_argument("--voices", help="comma-separated espeak-ng voices for --sentences (default: the test voices)")
    parser.add_argument("--split", default="test", help="split name for --sentences (default test)")
    parser.add_argument("--text-only", action="store_true", help="write texts and statistics, no audio")
    parser.add_argument("--overwrite", action="store_true", help="remove what the folder holds of another build")
    return parser.parse_args(arguments)


def grammar_rows(arguments: argparse.Namespace) -> tuple[list[Row], dict[str, object]]:
    """The rows of the default corpus and its statistics."""
    generated = texts.generate(arguments.seed, arguments.train, arguments.dev, arguments.test)
    rows = []
    for split, sentences in generated.splits().items():
        for number, sentence in enumerate(sentences):
            row = {
                "id": f"{split}_{number:05d}",
                "src_text": sentence.french,
                "tgt_text": sentence.english,
                "split": split,
            }
            rows.append(row | {"construction": sentence.construction, "tags": ", ".join(sentence.tags)})
    return rows, texts.statistics(generated)


def read_sentences(path: Path, split: str) -> list[Row]:
    """Rows of a TSV of French and English sentences; a header may name src_text, tgt_text and id in any order."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [line for line in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    header = [name.strip().lower() for name in lines[0]] if lines else []
    names = header if {"src_text", "tgt_text"} <= set(header) else ["src_text", "tgt_text"]
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        if (number == 1 and names is header) or not any(field.strip() for field in line):
            continue
        if len(line) < len(names):
            raise ValueError(
                f"{path}, line {number}: {len(names)} tab-separated columns are needed, there are {len(line)}"
            )
        fields = {name: field.strip() for name, field in zip(names, line, strict=False)}
        identity = fields.get("id") or f"{split}_{len(rows):05d}"
        if not re.fullmatch(r"[\w.+-]+", identity):
            raise ValueError(
                f"{path}, line {number}: an id is a file name of letters, digits and _.+-, got {identity!r}"
            )
        if not fields["src_text"]:
            raise ValueError(f"{path}, line {number}: the French text is empty")
        rows.append(
            {
                "id": identity,
                "src_text": fields["src_text"],
                "tgt_text": fields["tgt_text"],
                "split": split,
                "construction": "",
                "tags": "",
            }
        )
    if len({row["id"] for row in rows}) != len(rows):
        raise ValueError(f"{path}: ids must be unique")
    if not rows:
        raise ValueError(f"{path}: there are no sentences")
    return rows


def check_settings(arguments: argparse.Namespace, rows: list[Row]) -> None:
    """Refuses to mix two builds in one folder: settings.json holds what the audio depends on."""
    content = "\n".join(f"{row['id']}\t{row['src_text']}\t{row['tgt_text']}" for row in rows)
    target = [speech.TARGET_VOICE, speech.TARGET_SPEED, speech.TARGET_PITCH, speech.TARGET_PEAK, speech.TARGET_SNR]
    settings = {
        "seed": arguments.seed,
        "voices": arguments.voices or "",
        "sentences": len(rows),
        "text_sha256": hashlib.sha256(content.encode()).hexdigest(),
        "train_variants": speech.TRAIN_VARIANTS,
        "dev_variants": speech.DEV_VARIANTS,
        "test_variants": speech.TEST_VARIANTS,
        "target": target,
    }
    keep_settings(arguments.output, settings, arguments.overwrite, ("audio", "target"))


def keep_settings(output: Path, settings: dict[str, object], overwrite: bool, folders: tuple[str, ...]) -> None:
    """Writes settings.json; where it holds other ones, raises, or with `overwrite` removes the folders of audio."""
    settings = json.loads(json.dumps(settings))
    path = output / "settings.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
        if not overwrite:
            raise ValueError(f"{output} holds a build with other settings: choose another folder or --overwrite")
        for folder in folders:
            shutil.rmtree(output / folder, ignore_errors=True)
    write_text(path, json.dumps(settings, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def plan_speech(rows: list[Row], arguments: argparse.Namespace) -> list[speech.Utterance]:
    """Chooses a voice for each row and notes it in the row; with a translation, its recording in the target voice."""
    chosen = tuple(voice.strip() for voice in (arguments.voices or "").split(",") if voice.strip())
    utterances = []
    for row in rows:
        split = row["split"]
        choices = chosen or speech.voices(split if split in ("train", "dev") else "test")
        row["audio"] = f"audio/{split}/{row['id']}.flac"
        utterance = speech.plan(row["id"], row["src_text"], row["audio"], choices, arguments.seed)
        row.update(voice=utterance.voice, speed=str(utterance.speed), pitch=str(utterance.pitch))
        utterances.append(utterance)
        row["tgt_speech"] = ""
        if row["tgt_text"]:
            row["tgt_speech"] = f"target/{split}/{row['id']}.flac"
            utterances.append(speech.plan_target(row["id"], row["tgt_text"], row["tgt_speech"], arguments.seed))
    return utterances


def speak_all(utterances: list[speech.Utterance], output: Path, jobs: int) -> dict[str, float]:
    """Seconds of each file; runs `jobs` processes."""
    from tqdm import tqdm

    work = [(utterance, str(output)) for utterance in utterances]
    with multiprocessing.Pool(max(jobs, 1)) as pool:
        results = pool.imap_unordered(speech.speak_to_file, work, chunksize=16)
        return dict(tqdm(results, total=len(work), desc="speaking", unit="recording"))


def audio_statistics(rows: list[Row], seconds: dict[str, float]) -> dict[str, object]:
    """Hours, mean seconds and voices of each split."""
    splits = sorted({row["split"] for row in rows})
    of = {split: [row for row in rows if row["split"] == split] for split in splits}
    totals = {split: sum(seconds[row["audio"]] for row in of[split]) for split in splits}
    targets = {split: sum(seconds.get(row["tgt_speech"], 0.0) for row in of[split]) for split in splits}
    return {
        "hours": {split: round(totals[split] / 3600, 3) for split in splits},
        "target_hours": {split: round(targets[split] / 3600, 3) for split in splits},
        "mean_seconds": {split: round(totals[split] / len(of[split]), 3) for split in splits},
        "voices": {split: sorted({row["voice"] for row in of[split]}) for split in splits},
    }


def write_lists(rows: list[Row], output: Path) -> None:
    """manifest.tsv, and for each split but train the source and target lists that SimulEval reads."""
    lines = ["\t".join(COLUMNS)] + ["\t".join(row[column] for column in COLUMNS) for row in rows]
    write_text(output / "manifest.tsv", "\n".join(lines) + "\n")
    for split in sorted({row["split"] for row in rows} - {"train"}):
        of_split = [row for row in rows if row["split"] == split]
        sources = [str((output / row["audio"]).resolve()) for row in of_split]
        write_text(output / f"{split}.source.txt", "\n".join(sources) + "\n")
        write_text(output / f"{split}.target.txt", "\n".join(row["tgt_text"] for row in of_split) + "\n")


def report(figures: dict[str, object]) -> None:
    """Prints the statistics, one a line."""
    for name, value in figures.items():
        if name not in ("tags", "voices"):
            print(f"{name}: {value}")


def build(arguments: argparse.Namespace) -> list[str]:
    """Everything; returns what a corpus of full size fails of its requirements."""
    if arguments.sentences:
        rows, figures = read_sentences(arguments.sentences, arguments.split), {}
        figures["sentences"] = {arguments.split: len(rows)}
    else:
        if arguments.voices:
            raise ValueError("--voices goes with --sentences: the voices of the corpus are fixed (see speech.py)")
        rows, figures = grammar_rows(arguments)
    failures = texts.problems(figures) if not arguments.sentences and arguments.train >= 8000 else []
    if failures:
        return failures
    utterances = plan_speech(rows, arguments)
    if not arguments.text_only:
        speech.check_voices({utterance.voice for utterance in utterances}, speech.find_espeak())
    check_settings(arguments, rows)
    if not arguments.text_only:
        figures |= audio_statistics(rows, speak_all(utterances, arguments.output, arguments.jobs))
    write_lists(rows, arguments.output)
    write_text(arguments.output / "statistics.json", json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    report(figures)
    return []


def main() -> int:
    """Command line; 1 and a line on stderr where something is wrong."""
    try:
        failures = build(parse_arguments())
    except (ValueError, OSError, RuntimeError) as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    for failure in failures:
        print(f"build.py: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
