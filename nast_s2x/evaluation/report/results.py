"""A scored evaluation as reports and comparisons read it: scores, scores of utterances, logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nast_s2x.corpus import read_manifest
from nast_s2x.errors import NastError
from nast_s2x.evaluation.log import LOG_NAME, LoggedUtterance, read_log
from nast_s2x.files import read_json

FORMAT = 1
DEFAULT_CHUNK = "320"


@dataclass(frozen=True)
class Results:
    """An evaluation's folder with its ``scores.json``.

    Attributes:
        folder: the evaluation's folder.
        scores: content of ``scores.json``.
    """

    folder: Path
    scores: dict[str, Any]

    @property
    def target_type(self) -> str:
        """``"text"`` or ``"speech"``."""
        return self.scores["target_type"]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row of figures per chunk size."""
        return self.scores["rows"]

    @property
    def settings(self) -> dict[str, Any]:
        """What was run; empty for logs of SimulEval alone."""
        return self.scores.get("settings") or {}

    @property
    def chunks(self) -> list[str]:
        """Names of the chunk sizes, in order."""
        return [row["chunk"] for row in self.rows]

    @property
    def main_chunk(self) -> str:
        """The chunk size to look at first: 320 ms, or else the first one."""
        return DEFAULT_CHUNK if DEFAULT_CHUNK in self.chunks else self.chunks[0]

    def row(self, chunk: str) -> dict[str, Any]:
        """Figures of a chunk size."""
        return self.rows[self.chunks.index(chunk)]

    def place(self, chunk: str) -> Path:
        """Folder of a chunk size; logs of SimulEval alone may lie in the evaluation's folder itself."""
        inner = self.folder / chunk
        return self.folder if not inner.is_dir() and (self.folder / LOG_NAME).is_file() else inner

    def log(self, chunk: str) -> list[LoggedUtterance]:
        """Utterances of a chunk size, in order of index."""
        return read_log(self.place(chunk))

    def source_texts(self) -> dict[str, str]:
        """Name of an utterance -> its transcript, where the sources came from a manifest that has transcripts."""
        path = Path(str((self.settings.get("source") or {}).get("path", "")))
        if path.suffix != ".tsv" or not path.is_file():
            return {}
        rows = read_manifest(path, unique_ids=False, strict=False).rows
        return {row.id: row.source_text for row in rows if row.id and row.source_text}

    def utterance_scores(self, chunk: str) -> list[dict[str, Any]]:
        """Scores of each utterance of a chunk size, in order of index.

        Raises:
            FileNotFoundError: ``utterances.jsonl`` is missing.
            ValueError: a line that is no JSON object with an index.
        """
        path = self.place(chunk) / "utterances.jsonl"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: score the evaluation again (nast-s2x score {self.folder})")
        found = []
        # Texts may hold characters that str.splitlines takes for line ends: split at newlines only.
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if not line:
                continue
            try:
                entry = json.loads(line)
                entry["index"]
            except (ValueError, KeyError, TypeError) as error:
                raise NastError(f"{path}, line {number}: scores of an utterance need an index: {error}") from None
            found.append(entry)
        return sorted(found, key=lambda entry: entry["index"])


def load_results(folder: Path) -> Results:
    """Read a scored evaluation.

    Args:
        folder: the evaluation's folder, with ``scores.json``.
    Raises:
        FileNotFoundError: no ``scores.json``.
        ValueError: it is broken, of another format, without rows, or of an unknown kind of target; names the file.
    """
    path = Path(folder) / "scores.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {folder} is not a scored evaluation (nast-s2x score {folder})")
    scores = read_json(path)
    if scores.get("format") != FORMAT:
        raise NastError(f"{path} must have format {FORMAT}, got {scores.get('format')!r}")
    missing = [key for key in ("target_type", "rows") if not scores.get(key)]
    if missing:
        raise NastError(f"{path} lacks {', '.join(missing)}")
    if scores["target_type"] not in ("text", "speech"):
        raise NastError(f"{path}: target_type must be text or speech, got {scores['target_type']!r}")
    for row in scores["rows"]:
        lacking = [key for key in ("chunk", "utterances", "empty", "quality", "latency", "cost") if key not in row]
        if lacking:
            raise NastError(f"{path}: the row of chunk size {row.get('chunk')!r} lacks {', '.join(lacking)}")
    return Results(Path(folder), scores)


def sentence_score(entry: dict[str, Any]) -> tuple[str, float | None]:
    """Name and value of the sentence score by which an utterance is ranked: ASR-BLEU where it is known, else BLEU."""
    name = "BLEU" if entry.get("ASR_BLEU") is None else "ASR_BLEU"
    return name, entry.get(name)


def spread(scores: Sequence[dict[str, Any]], count: int) -> list[int]:
    """Indices of ``count`` utterances from the best to the worst, evenly spread over the ranking.

    The ranking is by :func:`sentence_score`; ties go by index. From two on, the best and the worst are among them.

    Example:
        >>> spread([{"index": i, "BLEU": score} for i, score in enumerate([10, 90, 50, 70, 30])], 3)
        [1, 2, 0]
    """
    ranked = sorted(scores, key=lambda entry: (-(sentence_score(entry)[1] or 0.0), entry["index"]))
    count = min(count, len(ranked))
    if count < 2:
        return [entry["index"] for entry in ranked[:count]]
    positions = [round(place * (len(ranked) - 1) / (count - 1)) for place in range(count)]
    return [ranked[position]["index"] for position in positions]
