"""Latency of simultaneous translation, utterance by utterance: pure functions of plain sequences.

All times are in ms from the start of the source. ``delays`` is the source that had been read when each word (text),
or each piece of speech, was written. Computation-aware figures, ``_CA``, use ``elapsed`` instead: delays plus the
computing time so far. Lengths follow SimulEval 1.1.4, so that values agree on the same log: AL and AP count the words
of the reference, LAAL those of the longer of reference and output, DAL those of the output.

An empty output has no latency: every metric raises ``ValueError`` for it, the tables of figures contain ``None``, and
:mod:`nast_s2x.evaluation.scoring` leaves such outputs out of the means and counts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, groupby

from nast_s2x.errors import NastError

TOKEN_MS = 300.0
"""Length of a token of speech for ATD (Kano et al., 2023), source and target alike."""
_NOTHING_MS = 1e-6
"""Shorter durations are rounding errors: neither gaps nor tokens."""

TEXT_FIGURES = ("AL", "LAAL", "AP", "DAL", "ATD", "StartOffset", "EndOffset", "NumChunks")
WORD_FIGURES = ("AL_words", "LAAL_words", "AP_words", "DAL_words")
PLAYBACK_FIGURES = ("StartOffset", "EndOffset", "NumChunks", "GapNum", "GapMean", "GapSum")
SPEECH_FIGURES = (*PLAYBACK_FIGURES, "ATD", "AL_chunks_vs_words", *WORD_FIGURES)


def average_lagging(times: Sequence[float], source_ms: float, reference_length: int) -> float:
    """Average Lagging, AL (Ma et al., 2019, "STACL"; for speech Ma et al., 2020, "SimulMT to SimulST").

    AL = 1/tau * sum over i = 1..tau of (d_i - (i - 1) * |X| / |Y*|): |Y*| words of the reference, tau the first i
    with d_i >= |X|, or the last i. For an output that begins after the end of the source, AL is its first delay, as in
    SimulEval.

    Args:
        times: (n,) delays, or elapsed times, of the output; n from 1.
        source_ms: |X|.
        reference_length: |Y*|.
    Raises:
        ValueError: no times, or lengths that are not positive.

    Example:
        >>> average_lagging([1000, 2000, 3000], 3000, 3)  # (1000 + (2000 - 1000) + (3000 - 2000)) / 3
        1000.0
    """
    _check(times, source_ms, reference_length)
    if times[0] > source_ms:
        return float(times[0])
    step = source_ms / reference_length
    lags = []
    for place, time in enumerate(times):
        lags.append(time - place * step)
        if time >= source_ms:
            break
    return sum(lags) / len(lags)


def length_adaptive_average_lagging(times: Sequence[float], source_ms: float, reference_length: int) -> float:
    """Length-Adaptive Average Lagging, LAAL (Polak et al., 2022; Papi et al., 2022).

    :func:`average_lagging` with max(|Y|, |Y*|) in place of |Y*|, |Y| the length of the output. An output longer than
    the reference does not lower the value.

    Example:
        >>> length_adaptive_average_lagging([1000, 2000, 3000], 3000, 1)
        1000.0
    """
    return average_lagging(times, source_ms, max(len(times), reference_length))


def average_proportion(times: Sequence[float], source_ms: float, reference_length: int) -> float:
    """Average Proportion, AP (Cho and Esipova, 2016): sum of d_i / (|X| |Y*|), without unit; arguments as for AL.

    Example:
        >>> average_proportion([1000, 2000, 3000], 3000, 3)  # 6000 / (3000 * 3)
        0.6666666666666666
    """
    _check(times, source_ms, reference_length)
    return sum(times) / (source_ms * reference_length)


def differentiable_average_lagging(times: Sequence[float], source_ms: float) -> float:
    """Differentiable Average Lagging, DAL (Cherry and Foster, 2019; Arivazhagan et al., 2019).

    DAL = 1/|Y| * sum of (d'_i - (i - 1) / g), g = |Y| / |X|, |Y| the length of the output, d'_1 = d_1 and
    d'_i = max(d_i, d'_(i-1) + 1/g): each word takes at least 1/g after the one before it.

    Example:
        >>> differentiable_average_lagging([2000, 2000], 2000)  # 1/g = 1000: (2000 + (3000 - 1000)) / 2
        2000.0
    """
    _check(times, source_ms, 1)
    step = source_ms / len(times)
    total, paced = 0.0, float("-inf")
    for place, time in enumerate(times):
        paced = max(time, paced + step)
        total += paced - place * step
    return total / len(times)


def average_token_delay(
    delays: Sequence[float], durations: Sequence[float] | None = None, elapsed: Sequence[float] | None = None
) -> float:
    """Average Token Delay, ATD (Kano et al., 2023, "Average Token Delay: A Latency Metric for ... Translation").

    ATD = 1/|y| * sum over t of (T(y_t) - T(x_a(t))), T the end of a token in ms; a(t) = min(s(t), X(c)),
    s(t) = t - max(0, Y(c - 1) - X(c - 1)): c is the chunk of token t, X(c) and Y(c) the tokens of source and output up
    to the end of chunk c. A chunk is the output written at one delay, and the source read for it. In each chunk, the
    source and the speech output are cut into tokens of 300 ms, the last one shorter; a token of text is a word, of
    length 0. Tokens end one after the other: T(y_t) = max(delay, T(y_(t-1))) + length + computing time.

    Args:
        delays: (n,) of words, or of pieces of speech.
        durations: (n,) ms of the pieces of speech; ``None`` for text.
        elapsed: (n,) for the computation-aware value, which adds the computing time between two outputs. In a chunk of
            speech it is spread evenly over the tokens, as in SimulEval.
    Raises:
        ValueError: no delays, lists of different lengths.

    Example:
        >>> average_token_delay([600, 600, 900])  # source tokens end at 300, 600, 900: (300 + 0 + 0) / 3
        100.0
    """
    _check(delays, 1.0, 1)
    if any(other is not None and len(other) != len(delays) for other in (durations, elapsed)):
        raise NastError(f"there must be {len(delays)} durations and elapsed times, one per delay")
    computing = _computing(delays, elapsed)
    chunks = [list(group) for _, group in groupby(range(len(delays)), key=lambda place: delays[place])]
    source_ends, source_count, output_count = [0.0], 0, 0
    total, end, read = 0.0, 0.0, 0.0
    for chunk in chunks:
        delay = delays[chunk[0]]
        surplus = max(0, output_count - source_count)
        source_ends += list(accumulate(_tokens(delay - read), initial=source_ends[-1]))[1:]
        source_count, read = len(source_ends) - 1, delay
        if durations is None:
            tokens = [(0.0, computing[place]) for place in chunk]
        else:
            lengths = _tokens(sum(durations[place] for place in chunk))
            share = sum(computing[place] for place in chunk) / max(1, len(lengths))
            tokens = [(length, share) for length in lengths]
        for length, cost in tokens:
            output_count += 1
            end = max(delay, end) + length + cost
            total += end - source_ends[min(output_count - surplus, source_count)]
    if not output_count:
        raise NastError("the pieces of speech must last longer than 0 ms in all")
    return total / output_count


def start_offset(times: Sequence[float]) -> float:
    """Delay, or elapsed time, of the first output in ms."""
    _check(times, 1.0, 1)
    return float(times[0])


def end_offset(times: Sequence[float], source_ms: float, durations: Sequence[float] | None = None) -> float:
    """End of the output (the last word, or the end of playback) in ms after the end of the source."""
    _check(times, source_ms, 1)
    if durations is None:
        return times[-1] - source_ms
    start, duration = playback_intervals(times, durations)[-1]
    return start + duration - source_ms


def num_chunks(times: Sequence[float], durations: Sequence[float] | None = None) -> int:
    """Number of outputs: pieces of speech; for text, different times at which words were written.

    SimulEval's NumChunks of text counts words instead.
    """
    _check(times, 1.0, 1)
    return len(times) if durations is not None else len([*groupby(times)])


def playback_intervals(times: Sequence[float], durations: Sequence[float]) -> list[tuple[float, float]]:
    """Playback of each piece of speech: as soon as it is available and the one before it has ended.

    The rule of :class:`~nast_s2x.inference.playback.Playback`, without rounding to samples.

    Returns:
        (start, duration) of each piece, in ms.

    Example:
        >>> playback_intervals([1000, 1200, 2000], [500, 300, 100])
        [(1000.0, 500.0), (1500.0, 300.0), (2000.0, 100.0)]
    """
    if len(times) != len(durations):
        raise NastError(f"{len(times)} times do not match {len(durations)} durations")
    intervals, end = [], 0.0
    for time, duration in zip(times, durations):
        start = max(end, float(time))
        intervals.append((start, float(duration)))
        end = start + duration
    return intervals


def playback_gaps(intervals: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Silences between pieces: (start, duration) of each, in ms.

    Example:
        >>> playback_gaps([(1000, 500), (1500, 300), (2000, 100)])
        [(1800, 200)]
    """
    gaps = []
    for (start, duration), (following, _) in zip(intervals, intervals[1:]):
        silence = following - (start + duration)
        if silence > _NOTHING_MS:
            gaps.append((start + duration, silence))
    return gaps


def word_ends(intervals: Sequence[tuple[float, float]], ends_s: Sequence[float]) -> list[float]:
    """Times at which the end of each word is played, in ms.

    Args:
        intervals: (start, duration) of each piece in playback, in ms.
        ends_s: end of each word in the pieces joined without gaps, in seconds, in order. A word that ends with a piece
            is played when that piece ends. An end after the last piece counts as the end of that piece, an end earlier
            than the one before it as equal to that.
    Returns:
        one time per word.
    Raises:
        ValueError: words, but no piece of speech.

    Example:
        >>> word_ends([(1000, 500), (2000, 100)], [0.4, 0.5, 0.55])
        [1400.0, 1500.0, 2050.0]
    """
    if ends_s and not intervals:
        raise NastError(f"{len(ends_s)} words need at least one piece of speech, but there is none")
    borders = list(accumulate(duration for _, duration in intervals))
    ends, piece, last = [], 0, 0.0
    for end_s in ends_s:
        last = max(last, min(1000 * end_s, borders[-1]))
        while last > borders[piece] + _NOTHING_MS and piece + 1 < len(borders):
            piece += 1
        start, duration = intervals[piece]
        ends.append(start + duration - (borders[piece] - last))
    return ends


def playback_figures(times: Sequence[float], durations: Sequence[float], source_ms: float) -> dict[str, float | None]:
    """Figures :data:`PLAYBACK_FIGURES` of a speech output, ``None`` for an empty one; without gaps ``GapMean`` is 0.

    Args:
        times: (n,) delays, or elapsed times, of the pieces of speech.
        durations: (n,) their lengths in ms.
        source_ms: length of the source.
    """
    if not times:
        return dict.fromkeys(PLAYBACK_FIGURES)
    gaps = [duration for _, duration in playback_gaps(playback_intervals(times, durations))]
    return {
        "StartOffset": start_offset(times),
        "EndOffset": end_offset(times, source_ms, durations),
        "NumChunks": num_chunks(times, durations),
        "GapNum": len(gaps),
        "GapMean": sum(gaps) / len(gaps) if gaps else 0.0,
        "GapSum": float(sum(gaps)),
    }


def text_latency(
    delays: Sequence[float], elapsed: Sequence[float], source_ms: float, reference_length: int
) -> dict[str, float | None]:
    """All latency figures of a text output, each also as ``_CA``.

    Args:
        delays: (n,) of the words; empty: all figures are ``None``.
        elapsed: (n,), or empty where computing time was not measured: the ``_CA`` figures are then ``None``.
        source_ms: length of the source.
        reference_length: words of the reference.
    """
    figures: dict[str, float | None] = {}
    for suffix, times in (("", delays), ("_CA", elapsed)):
        values = dict.fromkeys(TEXT_FIGURES) if not times else {
            **_lagging(times, source_ms, reference_length, ""),
            "ATD": average_token_delay(delays, elapsed=elapsed if suffix else None),
            "StartOffset": start_offset(times),
            "EndOffset": end_offset(times, source_ms),
            "NumChunks": num_chunks(delays),
        }  # fmt: skip
        figures |= {f"{name}{suffix}": values[name] for name in TEXT_FIGURES}
    return figures


def speech_latency(
    delays: Sequence[float],
    elapsed: Sequence[float],
    durations: Sequence[float],
    source_ms: float,
    reference_length: int,
    ends_s: Sequence[float] | None = None,
) -> dict[str, float | None]:
    """All latency figures of a speech output, each also as ``_CA``.

    ``AL_chunks_vs_words`` is the published AL of speech output: :func:`average_lagging` with the delays of the pieces
    and the words of the reference; more pieces than words make it negative. ``AL_words`` and the other word figures
    use the times at which the ends of the words are played.

    Args:
        delays, elapsed, source_ms, reference_length: as for :func:`text_latency`; of the pieces of speech.
        durations: (n,) ms of the pieces.
        ends_s: end of each recognised word, in seconds of the speech without gaps; without words, the word figures
            are ``None``.
    """
    figures: dict[str, float | None] = {}
    for suffix, times in (("", delays), ("_CA", elapsed)):
        values: dict[str, float | None] = dict.fromkeys(SPEECH_FIGURES)
        if times:
            values |= playback_figures(times, durations, source_ms) | {
                "ATD": average_token_delay(delays, durations, elapsed if suffix else None),
                "AL_chunks_vs_words": average_lagging(times, source_ms, reference_length),
            }
            if ends_s:
                ends = word_ends(playback_intervals(times, durations), ends_s)
                values |= _lagging(ends, source_ms, reference_length, "_words")
        figures |= {f"{name}{suffix}": values[name] for name in SPEECH_FIGURES}
    return figures


def _lagging(times: Sequence[float], source_ms: float, reference_length: int, suffix: str) -> dict[str, float]:
    return {
        f"AL{suffix}": average_lagging(times, source_ms, reference_length),
        f"LAAL{suffix}": length_adaptive_average_lagging(times, source_ms, reference_length),
        f"AP{suffix}": average_proportion(times, source_ms, reference_length),
        f"DAL{suffix}": differentiable_average_lagging(times, source_ms),
    }


def _computing(delays: Sequence[float], elapsed: Sequence[float] | None) -> list[float]:
    """Computing time between each output and the one before it, ms."""
    if elapsed is None:
        return [0.0] * len(delays)
    sums = [time - delay for time, delay in zip(elapsed, delays)]
    return [after - before for before, after in zip([0.0, *sums], sums)]


def _tokens(ms: float) -> list[float]:
    """Lengths of the tokens of ``ms``: 300 ms each, and the rest."""
    whole = int((ms + _NOTHING_MS) // TOKEN_MS)
    rest = ms - whole * TOKEN_MS
    return [TOKEN_MS] * whole + ([rest] if rest > _NOTHING_MS else [])


def _check(times: Sequence[float], source_ms: float, reference_length: int) -> None:
    if not times:
        raise NastError("an empty output has no latency")
    if source_ms <= 0 or reference_length <= 0:
        raise NastError(f"source and reference must not be empty, but have {source_ms} ms and {reference_length} words")
