"""COMET (Rei et al., 2020) of scored evaluations, by the program ``comet-score`` of unbabel-comet.

unbabel-comet 2.2.7 requires numpy below 2, transformers below 5 and huggingface-hub below 1, so it has an environment
of its own and is run as a program. It is run offline: of a model, it takes checkpoint and settings from the folder, and
the tokenizer of its encoder from the cache of the Hugging Face hub or from the folder that its settings name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nast_s2x.errors import ConfigError, NastError
from nast_s2x.evaluation.report.results import Results, load_results
from nast_s2x.evaluation.score_files import SCORES, write_scores
from nast_s2x.files import file_digest, locked, read_json

COMMAND = "comet-score"
CHECKPOINT = Path("checkpoints") / "model.ckpt"


@dataclass(frozen=True)
class Comet:
    """A model and the program that scores with it; see :meth:`find`.

    Attributes:
        program: path of ``comet-score``.
        checkpoint: the model.
        gpus: 0 for the CPU.
    """

    program: str
    checkpoint: Path
    gpus: int = 0

    @classmethod
    def find(cls, model: Path, command: str = COMMAND, gpus: int = 0) -> Comet:
        """Look for program and model.

        Args:
            model: folder of a model (``hparams.yaml``, ``checkpoints/model.ckpt``), or the checkpoint in it.
            command: name or path of ``comet-score``.
        Raises:
            ConfigError: no such program.
            FileNotFoundError: no such model, or a file is missing in it.
        """
        program = shutil.which(command)
        if program is None:
            raise ConfigError(
                f"COMET needs the program {command}, which is not found: install unbabel-comet in an environment of "
                "its own and give --comet-command ENVIRONMENT/bin/comet-score"
            )
        checkpoint = model / CHECKPOINT if model.is_dir() else model
        for path in (checkpoint, checkpoint.parent.parent / "hparams.yaml"):
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path}: no such file; a COMET model is a folder with hparams.yaml and {CHECKPOINT}"
                )
        return cls(program, checkpoint, gpus)

    @property
    def signature(self) -> str:
        """Name and digest of the model."""
        return f"{self.checkpoint.resolve().parent.parent.name} {file_digest(self.checkpoint)[:16]}"

    def score(self, sources: Sequence[str], outputs: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the score of each output.

        Raises:
            NastError: the program fails; with the last line that it has written.
        """
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            command = [self.program, "--quiet", "--gpus", str(self.gpus), "--model", str(self.checkpoint)]
            for flag, texts in (("sources", sources), ("translations", outputs), ("references", references)):
                lines = (" ".join(text.split()) + "\n" for text in texts)
                (folder / flag).write_text("".join(lines), encoding="utf-8")
                command += [f"--{flag}", str(folder / flag)]
            result = folder / "result.json"
            environment = os.environ | {"HF_HUB_OFFLINE": "1"}
            environment.pop("PYTHONPATH", None)  # packages of this program are not those of the other
            done = subprocess.run(
                [*command, "--to_json", str(result)], env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode or not result.is_file():
                said = (done.stderr.strip() or done.stdout.strip() or "without a message").splitlines()[-1]
                raise NastError(f"{self.program} ended with status {done.returncode}: {said[:300]}")
            (entries,) = read_json(result).values()
        if len(entries) != len(outputs):
            raise NastError(f"{self.program} has scored {len(entries)} texts, {len(outputs)} were given")
        return [float(entry["COMET"]) for entry in entries]


def add_comet(folder: Path, comet: Comet, source_text: Path | None = None) -> dict[str, Any]:
    """Add COMET to the scores of an evaluation: of each utterance or segment, of long recordings, and of each row.

    The texts are those of BLEU: of speech, the text that the system has spoken.

    Args:
        source_text: transcripts of the source, one a line, in the order of the references; ``None``: those of the
            manifest of the run.
    Returns:
        the content of ``scores.json``.
    Raises:
        FileNotFoundError, NastError: no scores, other or missing transcripts; what :meth:`Comet.score` raises.
    """
    with locked(folder / SCORES):
        results = load_results(folder)
        signature, lines = comet.signature, {}
        for row in results.rows:
            entries = results.utterance_scores(row["chunk"])
            sources = _sources(results, entries, source_text)
            if row["quality"].get("BLEU") is None:
                raise NastError(f"{folder}: the log of {row['chunk']} holds no words, so COMET is not known")
            references, texts = results.texts(row["chunk"])
            for entry, value in zip(entries, comet.score(sources, texts, references), strict=True):
                entry["COMET"] = value
            row["quality"]["COMET"] = _mean(entries)
            row.setdefault("signatures", {})["COMET"] = signature
            for talk in row.get("recordings", ()):
                own = [entry for entry in entries if entry["recording"] == talk["recording"]]
                talk["quality"]["COMET"] = _mean(own)
            lines[results.place(row["chunk"])] = entries
        write_scores(folder, results.scores, lines)
    return results.scores


def _sources(results: Results, entries: Sequence[dict[str, Any]], source_text: Path | None) -> list[str]:
    if source_text is not None:
        if not source_text.is_file():
            raise FileNotFoundError(f"{source_text}: no such file")
        lines = source_text.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        if len(lines) != len(entries):
            raise NastError(
                f"{source_text} has {len(lines)} lines, the evaluation {len(entries)} texts: one line a text"
            )
        return lines
    known = results.source_texts()
    missing = [str(entry["id"]) for entry in entries if entry["id"] not in known]
    if missing:
        raise ConfigError(
            f"COMET needs the transcript of each source, but {missing[0]} has none in a manifest: give --source-text"
        )
    return [known[entry["id"]] for entry in entries]


def _mean(entries: Sequence[dict[str, Any]]) -> float:
    return sum(entry["COMET"] for entry in entries) / len(entries)
