"""Speech of long recordings: its playback, and the words of its transcript, each with its time.

A word counts when its end is played, as in the latency of words of single utterances
(:func:`~nast_s2x.metrics.latency.word_ends`). The recogniser is given parts of the speech that end in its pauses, of
12 s at most, so that memory does not grow with the recording. Transcripts and references are normalised before they
are compared, and the words of both are counted in that form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nast_s2x.evaluation.divided import ScoredRecording, divide, join_part
from nast_s2x.evaluation.hypotheses import Hypothesis
from nast_s2x.evaluation.log import LoggedUtterance, output_pieces, output_with_gaps
from nast_s2x.evaluation.segmentation import SegmentedRecording
from nast_s2x.evaluation.transcripts import GROUP
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.metrics.latency import playback_figures, playback_intervals, word_ends
from nast_s2x.metrics.longform import resegment
from nast_s2x.metrics.text import TextRules, Unit, normalise, units_of
from nast_s2x.recognisers.base import NOTHING, Transcript, Waveform

LONGEST_PART = 1200
"""Frames (10 ms) of the longest part of speech that a recogniser is given."""
PAUSE = 20
"""Quiet frames that end a part."""
Transcribe = Callable[[Sequence[Waveform]], list[Transcript]]


@dataclass(frozen=True)
class Recognised:
    """Transcript of the speech of a recording.

    Attributes:
        speech: units of the transcript of the pieces joined without gaps, with the times at which they have been
            played; without times where the recogniser gives none, and for characters.
        with_silence: units of the transcript of the speech as it is played.
    """

    speech: Hypothesis
    with_silence: list[str]


def recognise(utterance: LoggedUtterance, transcribe: Transcribe, unit: Unit) -> Recognised:
    """Transcribe the speech of a recording, part by part.

    Args:
        transcribe: returns the transcripts of a few waveforms.
    Raises:
        ValueError: as :func:`~nast_s2x.evaluation.log.output_pieces`, and what ``transcribe`` raises.
    """
    speech = Hypothesis(str(utterance.audio), source_ms=utterance.source_ms)
    ends_s: list[float] = []
    # A recogniser's words are no characters: their times would be set against another unit of the reference.
    is_timed = unit == "word"
    for start_s, transcript in _transcripts(output_pieces(utterance), transcribe):
        speech.units += _units(transcript, unit)
        if transcript.words is None:
            is_timed = False
        for word in transcript.words or ():
            ends_s += [start_s + word.end_s] * len(units_of(normalise(word.text, unit), unit))
    if is_timed:
        assert utterance.durations is not None
        times = (utterance.delays, utterance.elapsed)
        speech.delays, speech.elapsed = (
            word_ends(playback_intervals(values, utterance.durations), ends_s) if values else [] for values in times
        )
    played = _transcripts(output_with_gaps(utterance), transcribe)
    return Recognised(speech, [unit_ for _, transcript in played for unit_ in _units(transcript, unit)])


def divide_speech(
    number: int, item: SegmentedRecording, utterance: LoggedUtterance, recognised: Recognised | None, rules: TextRules
) -> ScoredRecording:
    """The segments of a recording with their parts of the text and of the transcript; times are those of speech.

    Args:
        recognised: ``None`` without a recogniser.
    """
    written = Hypothesis(item.name, units_of(utterance.text, rules.unit))
    segments = divide(number, item, written, rules)
    if recognised is not None:
        plain = replace(
            item,
            segments=tuple(replace(part, reference=normalise(part.reference, rules.unit)) for part in item.segments),
        )
        silences = resegment(plain.references, recognised.with_silence, rules.unit)
        segments = [
            replace(
                segment,
                times=spoken.times,
                latency=spoken.latency,
                transcript=spoken.text,
                transcript_silence=join_part(recognised.with_silence, part, rules),
            )
            for segment, spoken, part in zip(segments, divide(number, plain, recognised.speech, rules), silences)
        ]
    assert utterance.durations is not None
    playback = {
        f"{name}{suffix}": value
        for suffix, times in (("", utterance.delays), ("_CA", utterance.elapsed))
        for name, value in playback_figures(times, utterance.durations, utterance.source_ms).items()
    }
    return ScoredRecording(segments, utterance, playback)


def cut_at_pauses(speech: Iterable[Waveform]) -> Iterator[Waveform]:
    """Cut speech, which comes piece by piece, into parts of :data:`LONGEST_PART` frames at most.

    From 1 s on, a pause of :data:`PAUSE` frames ends a part; the nearer the limit, the shorter a pause. Parts depend on
    the samples alone.
    """
    from nast_s2x.frontend.fbank import SHIFT_SAMPLES, StreamingFbank  # here: reading scores needs no torch
    from nast_s2x.inference.segmenter import Segmenter, levels_of

    features, segmenter = StreamingFbank(), Segmenter(LONGEST_PART, PAUSE)
    waiting, start = np.zeros(0, np.float32), 0
    for piece in speech:
        waiting = np.concatenate([waiting, piece])
        for cut in segmenter.push(levels_of(features.push(piece))):
            size = cut.frame * SHIFT_SAMPLES - start
            yield waiting[:size].copy()
            waiting, start = waiting[size:], start + size
    if len(waiting):
        yield waiting


def _transcripts(speech: Iterable[Waveform], transcribe: Transcribe) -> Iterator[tuple[float, Transcript]]:
    """Start of each part of the speech in seconds, and its transcript; that of digital silence is empty."""
    group: list[Waveform] = []
    start = 0
    parts = cut_at_pauses(speech)
    while True:
        part = next(parts, None)
        if part is not None:
            group.append(part)
        if len(group) == GROUP or part is None:
            sounds = [waveform for waveform in group if waveform.any()]
            made = iter(transcribe(sounds) if sounds else ())
            for waveform in group:
                yield start / SAMPLE_RATE, next(made) if waveform.any() else NOTHING
                start += len(waveform)
            group = []
        if part is None:
            return


def _units(transcript: Transcript, unit: Unit) -> list[str]:
    """Normalised units: word by word where their times are known, so that each has one."""
    texts = [transcript.text] if transcript.words is None else [word.text for word in transcript.words]
    return [part for text in texts for part in units_of(normalise(text, unit), unit)]
