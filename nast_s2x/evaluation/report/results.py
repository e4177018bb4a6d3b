"""Reading of scored evaluations: scores, scores of utterances, logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nast_s2x.corpus import read_manifest
from nast_s2x.errors import NastError
from nast_s2x.evaluation.log import LOG_NAME, LoggedUtterance, read_lines, read_log
from nast_s2x.evaluation.stored import read_scores, utterance_line
from nast_s2x.metrics.text import TextRules, rules_of

DEFAULT_CHUNK = "320"


@dataclass(frozen=True)
class Results:
    """A scored evaluation.

    Attributes:
        folder: folder of the evaluation.
        scores: content of ``scores.json``.
    """

    folder: Path
    scores: dict[str, Any]

    @property
    def target_type(self) -> str:
        """``"text"`` or ``"speech"``."""
        return self.scores["target_type"]

    @property
    def is_long_form(self) -> bool:
        """True for long recordings; the utterances are then the segments that their translations were divided among."""
        return bool(self.scores.get("long_form"))

    def texts(self, chunk: str) -> tuple[list[str], list[str]]:
        """Return reference and output of each utterance of a chunk size."""
        if self.is_long_form:
            pairs = [(entry["reference"], entry["text"]) for entry in self.utterance_scores(chunk)]
        else:
            pairs = [(utterance.reference, utterance.text) for utterance in self.log(chunk)]
        return [reference for reference, _ in pairs], [output for _, output in pairs]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row of figures per chunk size."""
        return self.scores["rows"]

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the run; empty for logs written by SimulEval."""
        return self.scores.get("settings") or {}

    @property
    def chunks(self) -> list[str]:
        """Names of the chunk sizes, in order."""
        return [row["chunk"] for row in self.rows]

    @property
    def main_chunk(self) -> str:
        """The chunk size that the page shows first: 320 ms if it was evaluated, otherwise the first one."""
        return DEFAULT_CHUNK if DEFAULT_CHUNK in self.chunks else self.chunks[0]

    def row(self, chunk: str) -> dict[str, Any]:
        """Return the figures of a chunk size."""
        return self.rows[self.chunks.index(chunk)]

    def place(self, chunk: str) -> Path:
        """Return the folder of a chunk size; logs written by SimulEval may lie in the evaluation's folder itself."""
        inner = self.folder / chunk
        return self.folder if not inner.is_dir() and (self.folder / LOG_NAME).is_file() else inner

    def log(self, chunk: str) -> list[LoggedUtterance]:
        """Read the log of a chunk size: its utterances, in order of index."""
        return read_log(self.place(chunk), self.rules.unit)

    @property
    def rules(self) -> TextRules:
        """How texts are scored, by the language of the output."""
        model = self.settings.get("model") or {}
        return rules_of(self.scores.get("target_lang") or self.settings.get("target_lang") or model.get("target_lang"))

    def source_texts(self) -> dict[str, str]:
        """Return the source transcripts of the manifest by the id of the utterance; empty without such a manifest.

        Ids that appear with different transcripts, for example in several splits, are left out.
        """
        path = Path(str((self.settings.get("source") or {}).get("path", "")))
        if path.suffix != ".tsv" or not path.is_file():
            return {}
        texts: dict[str, set[str]] = {}
        for row in read_manifest(path, unique_ids=False, strict=False).rows:
            if row.id and row.source_text:
                texts.setdefault(row.id, set()).add(row.source_text)
        return {name: found.pop() for name, found in texts.items() if len(found) == 1}

    def utterance_scores(self, chunk: str) -> list[dict[str, Any]]:
        """Read the scores of each utterance of a chunk size, in order of index.

        Raises:
            FileNotFoundError: ``utterances.jsonl`` is missing.
            ValueError: the file is not UTF-8, or has a line that is not a JSON object with an index.
        """
        path = self.place(chunk) / "utterances.jsonl"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: score the evaluation again (nast-s2x score {self.folder})")
        found = []
        for number, line in read_lines(path):
            try:
                entry = utterance_line(line, self.is_long_form)
            except NastError as error:
                raise NastError(f"{path}, line {number}: {error}") from None
            found.append(entry)
        return sorted(found, key=lambda entry: entry["index"])


def load_results(folder: Path) -> Results:
    """Read a scored evaluation.

    Args:
        folder: the evaluation's folder, with ``scores.json``.
    Raises:
        FileNotFoundError: no ``scores.json``.
        ValueError: it is damaged, of another format, without rows, or of an unknown target type; names the file.
    """
    path = Path(folder) / "scores.json"
    if Path(folder).is_file():
        raise NastError(
            f"{folder} is a file, not the folder of a scored evaluation: a log of another program is scored by "
            f"`nast-s2x score {folder} --segments YAML --target REFS --output DIR`, and DIR is then compared"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {folder} is not a scored evaluation (nast-s2x score {folder})")
    scores = read_scores(path)
    return Results(Path(folder), scores)


def sentence_score(entry: dict[str, Any]) -> tuple[str, float | None]:
    """Return name and value of the score by which utterances are ranked: ASR-BLEU if it is known, otherwise BLEU."""
    name = "BLEU" if entry.get("ASR_BLEU") is None else "ASR_BLEU"
    return name, entry.get(name)


def spread(scores: Sequence[dict[str, Any]], count: int) -> list[int]:
    """Return indices of ``count`` utterances, evenly spread from the best to the worst.

    The ranking is by :func:`sentence_score`, ties by index. With a count of two or more, the best and the worst
    utterance are included.

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
