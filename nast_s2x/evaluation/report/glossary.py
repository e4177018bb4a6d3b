"""Names, units and one line of explanation for every figure of ``scores.json``."""

from __future__ import annotations

from dataclasses import dataclass

CA_SUFFIX = "_CA"


@dataclass(frozen=True)
class Figure:
    """What a reader needs to know of a figure: name, unit, digits shown, and what it means."""

    label: str
    unit: str
    digits: int
    meaning: str


QUALITY: dict[str, Figure] = {
    "BLEU": Figure("BLEU", "", 2, "Overlap of word sequences with the reference, 0 to 100; higher is better."),
    "chrF": Figure("chrF", "", 2, "Overlap of letter sequences with the reference, 0 to 100; higher is better."),
    "unit_BLEU": Figure("Unit BLEU", "", 2, "BLEU over speech units instead of words; needs reference units."),
    "ASR_BLEU": Figure(
        "ASR-BLEU", "", 2, "BLEU of the transcript that the recogniser makes of the speech, silences removed."
    ),
    "ASR_BLEU_silence": Figure(
        "ASR-BLEU with silence", "", 2, "The same on the speech as it is played, with the gaps between its pieces."
    ),
    "ASR_WER": Figure("Word errors", "%", 1, "Word errors of that transcript against the reference; lower is better."),
}

_WORD_ALIGNED = "; a word counts when its end is played, by the times of the recogniser."
LATENCY: dict[str, Figure] = {
    "AL": Figure("AL", "ms", 0, "Average lagging: how far words stay behind an ideal translator that keeps pace."),
    "LAAL": Figure("LAAL", "ms", 0, "Length-adaptive average lagging: AL that long outputs cannot lower."),
    "AP": Figure("AP", "", 3, "Average proportion: share of the source that had been read when a word was written."),
    "DAL": Figure("DAL", "ms", 0, "Differentiable average lagging: AL in which time lost stays lost."),
    "ATD": Figure("ATD", "ms", 0, "Average token delay: from a source moment to the end of the output token for it."),
    "StartOffset": Figure("StartOffset", "ms", 0, "From the start of the source to the first output."),
    "EndOffset": Figure("EndOffset", "ms", 0, "From the end of the source to the end of the output."),
    "NumChunks": Figure("NumChunks", "", 2, "Pieces in which the output came."),
    "GapNum": Figure("Gaps", "", 2, "Silences between pieces of speech, because the next piece was not available yet."),
    "GapMean": Figure("Mean gap", "ms", 0, "Mean length of such a silence."),
    "GapSum": Figure("Sum of gaps", "ms", 0, "All such silences of an utterance together."),
    "AL_words": Figure("AL of words", "ms", 0, "Average lagging" + _WORD_ALIGNED),
    "LAAL_words": Figure("LAAL of words", "ms", 0, "Length-adaptive average lagging" + _WORD_ALIGNED),
    "AP_words": Figure("AP of words", "", 3, "Average proportion" + _WORD_ALIGNED),
    "DAL_words": Figure("DAL of words", "ms", 0, "Differentiable average lagging" + _WORD_ALIGNED),
    "AL_chunks_vs_words": Figure(
        "AL, pieces against words",
        "ms",
        0,
        "The published form: pieces of speech set against words of the reference; can be negative.",
    ),
}

COST: dict[str, Figure] = {
    "chunk_ms_p50": Figure("Time per chunk, median", "ms", 1, "Computing time of half of the chunks is below."),
    "chunk_ms_p95": Figure("Time per chunk, 95 %", "ms", 1, "Computing time of 95 % of the chunks is below."),
    "real_time_factor": Figure(
        "Real-time factor", "", 3, "Computing time over audio time; below 1 it keeps pace with the speaker."
    ),
    "compute_s": Figure("Computing time", "s", 1, "All pushes of all utterances together."),
    "audio_s": Figure("Audio time", "s", 1, "Length of all sources together."),
}


def describe(name: str) -> Figure:
    """The figure of a name of ``scores.json``; unknown names describe themselves.

    Names that end in ``_CA`` are computation-aware: computing time counts as time that passes.
    """
    known = QUALITY | LATENCY | COST
    if name in known:
        return known[name]
    base = name.removesuffix(CA_SUFFIX)
    if base != name and base in known:
        figure = known[base]
        meaning = f"{figure.label} with the time spent computing counted as delay."
        return Figure(f"{figure.label} (CA)", figure.unit, figure.digits, meaning)
    return Figure(name, "", 2, "")


def shown(name: str, value: float | int | None) -> str:
    """A value with the digits of its figure; ``"–"`` for none."""
    if value is None:
        return "–"
    text = f"{value:.{describe(name).digits}f}"
    # A minus sign before zeros alone has no meaning, and the typographic one is as wide as the digits.
    text = text.removeprefix("-") if not text.strip("-0.") else text
    return text.replace("-", "−")
