"""The output of a long recording divided among its reference segments, with the latency of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nast_s2x.evaluation.hypotheses import Hypothesis
from nast_s2x.evaluation.log import LoggedUtterance
from nast_s2x.evaluation.segmentation import ReferenceSegment, SegmentedRecording
from nast_s2x.metrics.longform import laal, resegment, resegment_by_edits, yaal
from nast_s2x.metrics.text import TextRules, join_units, units_of

FIGURES = ("LongYAAL", "LongLAAL", "StreamLAAL", "YAAL")


@dataclass(frozen=True)
class ScoredSegment:
    """A reference segment with the part of the translation that belongs to it.

    Attributes:
        recording: number of the recording.
        name: its name.
        place: number of the segment in it.
        segment: start, length and reference.
        reference: the reference as it is scored: of a language measured in characters without spaces.
        end_ms: end of the recording, from the start of the segment.
        text: the part of the translation; of speech, of the text that the system has spoken.
        times: ``""`` and ``"_CA"`` -> delays and elapsed times of its units from the start of the segment, in ms; of
            speech those of the units of ``transcript``.
        latency: figures, ``None`` where there is none.
        transcript, transcript_silence: of speech, the parts of its transcript without gaps and as
            it is played; ``None`` for text and without a recogniser.
    """

    recording: int
    name: str
    place: int
    segment: ReferenceSegment
    reference: str
    end_ms: float
    text: str
    times: dict[str, list[float]]
    latency: dict[str, float | None]
    transcript: str | None = None
    transcript_silence: str | None = None


@dataclass(frozen=True)
class ScoredRecording:
    """A recording.

    Attributes:
        segments: its segments, in order.
        output: its entry in the log.
        playback: figures of the playback of its speech, see
            :func:`~nast_s2x.metrics.latency.playback_figures`, each also as ``_CA``; empty for text.
    """

    segments: list[ScoredSegment]
    output: Hypothesis | LoggedUtterance
    playback: dict[str, float | None] = field(default_factory=dict)


def divide(number: int, item: SegmentedRecording, hypothesis: Hypothesis, rules: TextRules) -> list[ScoredSegment]:
    """The segments of a recording with their parts of the translation.

    Args:
        number: number of the recording.
        hypothesis: without times its parts have no latency.
    """
    parts = resegment(item.references, hypothesis.units, rules.unit)
    by_edits = resegment_by_edits(item.references, hypothesis.units, rules.unit)
    found = []
    for place, (segment, part, other) in enumerate(zip(item.segments, parts, by_edits)):
        start_ms, source_ms = 1000 * segment.offset_s, 1000 * segment.duration_s
        end_ms = 1000 * item.end_s - start_ms
        reference = units_of(segment.reference, rules.unit)
        times, latency = {}, {}
        for suffix, values in (("", hypothesis.delays), ("_CA", hypothesis.elapsed)):
            times[suffix] = [values[index] - start_ms for index in part] if values else []
            stream = [values[index] - start_ms for index in other] if values else []
            figures = (
                yaal(times[suffix], source_ms, len(reference), end_ms),
                laal(times[suffix], source_ms, len(reference)),
                laal(stream, source_ms, len(reference)),
                yaal(times[suffix], source_ms, len(reference)),
            )
            latency |= {f"{name}{suffix}": value for name, value in zip(FIGURES, figures, strict=True)}
        text = join_part(hypothesis.units, part, rules)
        scored = segment.reference if rules.unit == "word" else join_units(reference, rules.unit)
        found.append(ScoredSegment(number, item.name, place, segment, scored, end_ms, text, times, latency))
    return found


def join_part(units: Sequence[str], part: Sequence[int], rules: TextRules) -> str:
    """Text of some of the units."""
    return join_units([units[index] for index in part], rules.unit)
