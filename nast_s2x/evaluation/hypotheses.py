"""Translations of whole recordings with the times of their units, from logs of several programs.

* SimulEval's form, as ``nast-s2x evaluate`` and OmniSTEval use it: a line a recording with ``source``, ``prediction``,
  ``delays``, ``elapsed`` (may be missing) and ``source_length``.
* simulstream 1.0: a line a chunk with ``generated_tokens``, ``deleted_tokens``, ``total_audio_processed``,
  ``computation_time``. A unit counts from the last line that changed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nast_s2x.errors import NastError, shown
from nast_s2x.evaluation.log import LONGEST_MS, read_lines
from nast_s2x.files import parse_json
from nast_s2x.metrics.longform import real_time_elapsed
from nast_s2x.metrics.text import Unit, join_units, units_of

_SPACE_MARK = "▁"


@dataclass
class Hypothesis:
    """Translation of a recording.

    Attributes:
        name: name or path of the recording.
        units: words or characters.
        delays: for each unit the length of the source that had been read, in ms.
        elapsed: for each unit the time at which it was there, computing included, in ms; empty where it is not known.
        source_ms: length of the recording; ``None`` where it is not known.
        push_ms, chunk_ms: computing times, see :class:`~nast_s2x.evaluation.log.LoggedUtterance`.
    """

    name: str
    units: list[str] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    elapsed: list[float] = field(default_factory=list)
    source_ms: float | None = None
    push_ms: list[float] = field(default_factory=list)
    chunk_ms: list[float] = field(default_factory=list)

    def line(self, index: int, unit: Unit) -> dict[str, Any]:
        """A line in SimulEval's form."""
        return {
            "index": index,
            "prediction": join_units(self.units, unit),
            "delays": self.delays,
            "elapsed": self.elapsed,
            "prediction_length": len(self.units),
            "reference": "",
            "source": [self.name],
            "source_length": self.source_ms if self.source_ms is not None else max(self.delays, default=0.0),
        }


def read_hypotheses(path: Path, unit: Unit, cumulative: bool = False) -> list[Hypothesis]:
    """Read a log of either form; its lines show which.

    Args:
        unit: unit of ``delays`` (SimulEval's form), or the unit to take (simulstream).
        cumulative: ``elapsed`` adds all computing so far, as SimulEval writes it: see
            :func:`~nast_s2x.metrics.longform.real_time_elapsed`.
    Raises:
        FileNotFoundError: no such file.
        NastError: a damaged line, or one of no known form; names file and line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such log")
    found: dict[str, Hypothesis] = {}
    stream: _SimulstreamLog | None = None
    for number, text in read_lines(path):
        try:
            line = parse_json(text)
            if not isinstance(line, dict):
                raise NastError(f"a line is a JSON object, not {type(line).__name__}")
            if "prediction" in line:
                hypothesis = _hypothesis(line, unit)
                if hypothesis.name in found:
                    raise NastError(f"{hypothesis.name} appears twice")
                found[hypothesis.name] = hypothesis
            else:
                stream = stream or _SimulstreamLog(unit)
                stream.add(line)
        except NastError as error:
            raise NastError(f"{path}, line {number}: {error}") from None
    if stream is not None and found:
        raise NastError(f"{path} has lines of SimulEval and of simulstream: a log has one form")
    hypotheses = list(found.values()) if stream is None else stream.hypotheses()
    if not hypotheses:
        raise NastError(f"{path}: the log holds no recording")
    if cumulative:
        for hypothesis in hypotheses:
            hypothesis.elapsed = real_time_elapsed(hypothesis.delays, hypothesis.elapsed)
    return hypotheses


def _hypothesis(line: dict[str, Any], unit: Unit) -> Hypothesis:
    source = line.get("source")
    name = source[0] if isinstance(source, list) and source else source
    prediction = line["prediction"]
    if not isinstance(name, str) or not isinstance(prediction, str):
        raise NastError("`source`, the name of a recording, and `prediction` must be texts")
    delays, elapsed = _numbers(line, "delays"), _numbers(line, "elapsed")
    units = units_of(prediction, unit)
    if unit == "char" and len(units) != len(delays):
        units = list(prediction)  # OmniSTEval and simulstream count spaces as characters
    if len(units) != len(delays):
        kind = "words" if unit == "word" else "characters"
        raise NastError(f"{len(units)} {kind} do not match {len(delays)} delays: each must have one; see --target-lang")
    if elapsed and len(elapsed) != len(delays):
        raise NastError(f"{len(elapsed)} elapsed times do not match {len(delays)} delays")
    length = line.get("source_length")
    source_ms = None if length is None else _number(length, "source_length")
    return Hypothesis(name, units, delays, elapsed, source_ms, _numbers(line, "push_ms"), _numbers(line, "chunk_ms"))


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST_MS:
        raise NastError(f"`{key}` must hold times from 0 to {LONGEST_MS:g}, not {shown(value)}")
    return float(value)


def _numbers(line: dict[str, Any], key: str) -> list[float]:
    values = line.get(key) or []
    if not isinstance(values, list):
        raise NastError(f"`{key}` must be a list of times, not {shown(values)}")
    return [_number(value, key) for value in values]


class _SimulstreamLog:
    """Lines of a log of simulstream, in order."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._names: dict[Any, str] = {}
        self._outputs: dict[str, Hypothesis] = {}
        self._tokens: dict[str, list[str]] = {}

    def add(self, line: dict[str, Any]) -> None:
        """Take one line.

        Raises:
            NastError: it is not one of simulstream's.
        """
        if "model_loading_time" in line and "id" not in line:
            return
        identity = line.get("id")
        if not isinstance(identity, int | str):
            raise NastError("neither a line of SimulEval (`prediction`) nor one of simulstream (`id`)")
        if "metadata" in line:
            name = line["metadata"].get("wav_name") if isinstance(line["metadata"], dict) else None
            if not isinstance(name, str):
                raise NastError("`metadata` must hold `wav_name`, the name of the recording")
            self._names[identity] = Path(name).stem
            return
        if identity not in self._names:
            raise NastError(f"no line before names the recording of id {shown(identity)}")
        name = self._names[identity]
        output = self._outputs.setdefault(name, Hypothesis(name))
        tokens = self._tokens.setdefault(name, [])
        delay = 1000 * _number(line.get("total_audio_processed"), "total_audio_processed")
        computing = 1000 * _number(line.get("computation_time"), "computation_time")
        output.source_ms = max(delay, output.source_ms or 0.0)
        output.push_ms.append(computing)
        output.chunk_ms.append(computing)
        deleted, generated = _texts(line, "deleted_tokens"), _texts(line, "generated_tokens")
        if deleted:
            if tokens[-len(deleted) :] != deleted:
                raise NastError(f"deleted_tokens {shown(deleted)} are not the last tokens of {name}")
            del tokens[-len(deleted) :]
            self._update(output, tokens, delay, delay + computing)
        if generated:
            tokens += generated
            self._update(output, tokens, delay, delay + computing)

    def _update(self, output: Hypothesis, tokens: Sequence[str], delay: float, elapsed: float) -> None:
        """Give the units of ``tokens`` their times: new ones, and a changed last word, those of this line."""
        units = self._split(tokens)
        kept = min(len(units), len(output.units))
        if self._unit == "word" and kept and units[kept - 1] != output.units[kept - 1]:
            kept -= 1
        added = len(units) - kept
        output.units = units
        output.delays = output.delays[:kept] + [delay] * added
        output.elapsed = output.elapsed[:kept] + [elapsed] * added

    def _split(self, tokens: Sequence[str]) -> list[str]:
        """Units of the text of tokens: SentencePiece's pieces; without its mark of a space, words or characters."""
        if any(_SPACE_MARK in token for token in tokens):
            text = "".join(tokens).replace(_SPACE_MARK, " ").strip()
        else:
            text = join_units(list(tokens), self._unit)
        return text.split() if self._unit == "word" else list(text)

    def hypotheses(self) -> list[Hypothesis]:
        """The recordings, in order."""
        return list(self._outputs.values())


def _texts(line: dict[str, Any], key: str) -> list[str]:
    values = line.get(key)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise NastError(f"`{key}` must be a list of tokens, not {shown(values)}"[:200])
    return values
