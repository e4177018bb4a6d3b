"""Names, units and one line of explanation for every figure of ``scores.json``."""

from __future__ import annotations

from dataclasses import dataclass

CA_SUFFIX = "_CA"


@dataclass(frozen=True)
class Figure:
    """Description of a figure.

    Attributes:
        label: its name on the page.
        unit: its unit, "" without one.
        digits: decimal places shown.
        meaning: one line of explanation.
    """

    label: str
    unit: str
    digits: int
    meaning: str


QUALITY: dict[str, Figure] = {
    "BLEU": Figure("BLEU", "", 2, "Overlap of word n-grams with the reference, 0 to 100; higher is better."),
    "chrF": Figure("chrF", "", 2, "Overlap of character n-grams with the reference, 0 to 100; higher is better."),
    "COMET": Figure("COMET", "", 4, "Mean of the scores of a trained model of translation quality; higher is better."),
    "unit_BLEU": Figure("Unit BLEU", "", 2, "BLEU over speech units instead of words; needs reference units."),
    "ASR_BLEU": Figure(
        "ASR-BLEU", "", 2, "BLEU of the recogniser's transcript of the speech, with silences between pieces removed."
    ),
    "ASR_BLEU_silence": Figure(
        "ASR-BLEU with silence", "", 2, "The same for the speech as it is played, with the gaps between pieces."
    ),
    "ASR_chrF": Figure("chrF of the speech", "", 2, "chrF of the transcript that ASR-BLEU is computed of."),
    "ASR_WER": Figure(
        "Word error rate", "%", 1, "Word errors of the transcript against the reference; lower is better."
    ),
}

_WORD_ALIGNED = " of the spoken words, each at the time its end is played; word times come from the recogniser."
LATENCY: dict[str, Figure] = {
    "AL": Figure(
        "AL", "ms", 0, "Average lagging: mean delay of a word relative to an output evenly spread over the source."
    ),
    "LAAL": Figure(
        "LAAL",
        "ms",
        0,
        "Length-adaptive average lagging: as AL; an output longer than the reference does not lower it.",
    ),
    "AP": Figure(
        "AP", "", 3, "Average proportion: mean share of the source that had been read when a word was written."
    ),
    "DAL": Figure(
        "DAL", "ms", 0, "Differentiable average lagging: as AL; each word takes at least its share of the source time."
    ),
    "ATD": Figure(
        "ATD", "ms", 0, "Average token delay: mean time from the end of a source token to the end of its output token."
    ),
    "LongYAAL": Figure(
        "LongYAAL",
        "ms",
        0,
        "Long recordings: as LAAL in each segment, over all words before the end of the recording. Of speech, a word "
        "counts when its end is played.",
    ),
    "LongLAAL": Figure("LongLAAL", "ms", 0, "LAAL in each segment that has a part of the translation."),
    "StreamLAAL": Figure(
        "StreamLAAL", "ms", 0, "The same with the translation divided among the segments by the fewest word errors."
    ),
    "YAAL": Figure("YAAL", "ms", 0, "As LongYAAL, over the words before the end of their segment."),
    "StartOffset": Figure("StartOffset", "ms", 0, "From the start of the source to the first output."),
    "EndOffset": Figure("EndOffset", "ms", 0, "From the end of the source to the end of the output."),
    "NumChunks": Figure("NumChunks", "", 2, "Number of times at which output was written."),
    "GapNum": Figure(
        "Gaps", "", 2, "Number of silences between pieces of speech because the next piece was not available yet."
    ),
    "GapMean": Figure("Mean gap", "ms", 0, "Mean length of such a silence."),
    "GapSum": Figure("Sum of gaps", "ms", 0, "Sum of such silences in an utterance."),
    "AL_words": Figure("AL of words", "ms", 0, "Average lagging" + _WORD_ALIGNED),
    "LAAL_words": Figure("LAAL of words", "ms", 0, "Length-adaptive average lagging" + _WORD_ALIGNED),
    "AP_words": Figure("AP of words", "", 3, "Average proportion" + _WORD_ALIGNED),
    "DAL_words": Figure("DAL of words", "ms", 0, "Differentiable average lagging" + _WORD_ALIGNED),
    "AL_chunks_vs_words": Figure(
        "AL, pieces against words",
        "ms",
        0,
        "The published form: delays of pieces of speech against words of the reference; can be negative.",
    ),
}

COST: dict[str, Figure] = {
    "chunk_ms_p50": Figure("Time per chunk, median", "ms", 1, "Half of the chunks need less computing time."),
    "chunk_ms_p95": Figure("Time per chunk, 95 %", "ms", 1, "95 % of the chunks need less computing time."),
    "real_time_factor": Figure(
        "Real-time factor", "", 3, "Computing time divided by audio time; below 1 is faster than real time."
    ),
    "compute_s": Figure("Computing time", "s", 1, "Sum over all utterances."),
    "audio_s": Figure("Audio time", "s", 1, "Length of all sources."),
}


def describe(name: str) -> Figure:
    """Return the description of a figure of ``scores.json``; an unknown name is its own label.

    Names that end in ``_CA`` are computation-aware: computing time is included in the delays.
    """
    known = QUALITY | LATENCY | COST
    if name in known:
        return known[name]
    base = name.removesuffix(CA_SUFFIX)
    if base != name and base in known:
        figure = known[base]
        meaning = f"{figure.label} with computing time included in the delays."
        return Figure(f"{figure.label} (CA)", figure.unit, figure.digits, meaning)
    return Figure(name, "", 2, "")


def shown(name: str, value: float | int | None) -> str:
    """Format a value with the decimal places of its figure; ``"–"`` for ``None``."""
    if value is None:
        return "–"
    text = f"{value:.{describe(name).digits}f}"
    # No minus sign before a rounded zero; U+2212 is as wide as the digits.
    text = text.removeprefix("-") if not text.strip("-0.") else text
    return text.replace("-", "−")
