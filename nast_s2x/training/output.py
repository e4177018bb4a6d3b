"""What ``nast-s2x train`` shows of the output of ``fairseq-train``; the log file has all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nast_s2x.progress import hidden, progress_bar

SAMPLES = 2
"""Validation samples that are shown."""
EMPTY_AFTER_WARMUP = 1000
"""Updates after the warm-up of the learning rate until which outputs of blanks only are normal."""
_TAIL_BYTES = 20_000
_TAIL_LINES = 12

# `2026-01-31 12:00:00 | INFO | train_inner | epoch 001:     50 / 407 loss=16.65, num_updates=50, ...`
_LINE = re.compile(r"^\S+ \S+ \| (?P<level>[A-Z]+) \| (?P<name>\S+) \| (?P<text>.*)$", re.DOTALL)
_UPDATE_VALUE = re.compile(r"(\w+)=([^\s,]+)")
# `... | valid | epoch 001 | valid on 'dev' subset | loss 16.65 | bleu 3.2 | num_updates 50`
_VALID_VALUE = re.compile(r"\| (\w+) ([^\s|]+)")
_LOADED = re.compile(r"^Loaded checkpoint .*@ (\d+) updates\)")
_SUBSET = re.compile(r"valid on '([^']*)' subset")
_SAMPLE = re.compile(r"^(?P<kind>[TH])-(?P<id>\d+)(?: \((?P<chunk>[^)]*)\))?\t(?P<text>.*)$", re.DOTALL)


class StageOutput:
    """Shows the progress of a stage: a progress bar with the loss, each validation with sample outputs, warnings.

    Args:
        stage: its name.
        command: words of its command: ``--max-update`` and ``--warmup-updates`` are read from it.
        report: called with each line for the user.
    """

    def __init__(self, stage: str, command: Sequence[str], report: Callable[[str], None]) -> None:
        self.stage, self.report = stage, report
        self.updates = int(_number(_flag(command, "--max-update")) or 0)
        self.warmup = int(_number(_flag(command, "--warmup-updates")) or 0)
        self.best = ""
        self._bar: Any = None
        self._loaded = 0  # updates of the checkpoint that the run continues
        self._samples: list[tuple[str, str]] = []  # (reference or chunk size, text)
        self._references = 0

    def line(self, text: str) -> None:
        """Read one line of fairseq's output and show what is for the user."""
        match = _LINE.match(text.rstrip("\n"))
        if match is None:
            return
        if match["name"] == "train_inner":
            self._update(match["text"])
        elif match["name"] in ("valid", "dev"):
            self._validation(match["text"])
        elif match["level"] in ("WARNING", "ERROR", "CRITICAL"):
            self._show(f"{match['level'].lower()}: {match['text']}")
        elif sample := _SAMPLE.match(match["text"]):
            self._sample(sample)
        elif loaded := _LOADED.match(match["text"]):
            self._loaded = int(loaded[1])
        elif match["text"].startswith("begin training epoch"):
            self._start()

    def close(self) -> None:
        """End the progress bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self, text: str) -> None:
        with hidden(self._bar):
            self.report(text)

    def _start(self) -> None:
        if self._bar is None:
            self._bar = progress_bar(self.updates or None, self.stage, "update", initial=self._loaded)

    def _update(self, text: str) -> None:
        values = _values(text, _UPDATE_VALUE)
        number, loss = _number(values.get("num_updates")), _number(values.get("loss"))
        if number is None:
            return
        self._start()
        if loss is not None:
            self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        self._bar.update(int(number) - self._bar.n)

    def _sample(self, sample: re.Match[str]) -> None:
        if sample["kind"] == "T":
            self._references += 1
        if self._references <= SAMPLES:
            self._samples.append((sample["chunk"] or "reference", sample["text"]))

    def _validation(self, text: str) -> None:
        values = _values(text, _VALID_VALUE)
        subset = _SUBSET.search(text)
        updates = _number(values.get("num_updates"))
        where = f", update {updates:.0f}" if updates is not None else ""
        name = f" on {subset[1]}" if subset else ""
        self._show(f"{self.stage}{where}: {', '.join(_scores(values))}{name}")
        best = [(key, value) for key, value in values.items() if key.startswith("best_")]
        self.best = f"best {_label(best[0][0].removeprefix('best_'))} {best[0][1]}" if best else self.best
        width = max((len(label) for label, _ in self._samples), default=0)
        for label, output in self._samples:
            self._show(f"    {label + ':':<{width + 1}} {output or '(empty)'}")
        self._check_empty(updates)
        self._samples, self._references = [], 0

    def _check_empty(self, updates: float | None) -> None:
        outputs = [text for label, text in self._samples if label != "reference"]
        limit = self.warmup + EMPTY_AFTER_WARMUP
        if outputs and not any(outputs) and updates is not None and updates >= limit:
            self._show(
                f"note: the outputs are empty (blanks only) after {updates:.0f} updates; this is normal until about "
                f"{limit}, see `Your own recordings` in configs/own_recordings.md"
            )


def last_lines(log: Path) -> list[str]:
    """The lines of a log that tell why a run ended: the message of the last exception, else the last lines."""
    with open(log, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    lines = [line for line in lines if line.strip()]
    for line in reversed(lines):
        if line.startswith(("nast_s2x.errors.", "OSError: ", "PermissionError: ")):
            return [line.partition(": ")[2]]
    return [line[:300] for line in lines[-_TAIL_LINES:]]


def _scores(values: dict[str, str]) -> list[str]:
    """Scores of a validation in words, BLEU first: ``BLEU 12.3 (320: 10.1, offline: 14.5)``."""
    parts = []
    for kind in ("bleu", "unit_bleu"):
        if kind in values:
            sizes = [(key.removeprefix(f"{kind}_"), value) for key, value in values.items() if _is_size(key, kind)]
            each = ", ".join(f"{size}: {value}" for size, value in sizes)
            parts.append(f"{_label(kind)} {values[kind]}" + (f" ({each})" if len(sizes) > 1 else ""))
    return [*parts, *(f"loss {values[key]}" for key in ("loss",) if key in values)]


def _is_size(key: str, kind: str) -> bool:
    return key.startswith(f"{kind}_") and re.fullmatch(r"\d+|offline", key.removeprefix(f"{kind}_")) is not None


def _label(kind: str) -> str:
    return {"bleu": "BLEU", "unit_bleu": "unit BLEU"}.get(kind, kind)


def _values(text: str, pattern: re.Pattern[str]) -> dict[str, str]:
    """Names and values of a line of statistics in fairseq's formats ``simple`` and ``json``."""
    if not text.startswith("{"):
        return dict(pattern.findall(text))
    try:
        return {re.sub(r"^(valid|dev)_", "", key): str(value) for key, value in json.loads(text).items()}
    except ValueError:
        return {}


def _flag(command: Sequence[str], name: str) -> str | None:
    """Value of a flag; the last one counts."""
    return next((value for word, value in reversed(list(zip(command, command[1:]))) if word == name), None)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
