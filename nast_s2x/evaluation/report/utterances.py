"""Utterances on the page: outputs with times and sounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nast_s2x.corpus import AudioRef
from nast_s2x.errors import NastError
from nast_s2x.evaluation.log import LoggedUtterance, read_output_pieces
from nast_s2x.evaluation.report.glossary import LATENCY, describe, shown
from nast_s2x.evaluation.report.html import Sound
from nast_s2x.evaluation.report.results import Results, sentence_score
from nast_s2x.evaluation.report.tables import chunk_name
from nast_s2x.evaluation.report.timeline import Piece, Timeline, svg
from nast_s2x.evaluation.score_files import TRANSCRIPTS
from nast_s2x.evaluation.transcripts import StoredRecogniser, TranscriptMissingError, TranscriptStore
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.inference.playback import Playback, stereo
from nast_s2x.metrics.latency import word_ends
from nast_s2x.metrics.text import spaced_units


@dataclass(frozen=True)
class Shown:
    """One utterance at one chunk size.

    Attributes:
        chunk, chunk_ms: name of the chunk size, and its ms (``None``: offline).
        log, scores: log and scores of the utterance.
        playback: playback schedule of the speech; ``None`` for text.
        available_ms: time at which each piece of speech was available.
        recognised: (time at which the word ends in playback, word) from the recogniser; empty if it gives no times.
    """

    chunk: str
    chunk_ms: float | None
    log: LoggedUtterance
    scores: dict[str, Any]
    playback: Playback | None
    available_ms: tuple[float, ...]
    recognised: tuple[tuple[float, str], ...]

    @property
    def words(self) -> list[tuple[float, str]]:
        """(ms of source read, words) in order; words written at the same time are joined."""
        if self.log.words:
            pairs = list(zip(self.log.delays, spaced_units(self.log.text, self.log.unit)))
        else:
            pairs = [(emission.written_ms, emission.delta) for emission in self.log.emissions]
        joined: list[tuple[float, str]] = []
        for time_ms, delta in pairs:
            if not delta.strip():
                continue
            if joined and joined[-1][0] == time_ms:
                joined[-1] = (time_ms, joined[-1][1] + delta)
            else:
                joined.append((time_ms, delta))
        return [(time_ms, text.strip()) for time_ms, text in joined]

    @property
    def end_ms(self) -> float:
        """Time in ms at which source, words and speech have all ended."""
        played = self.playback.end_ms if self.playback else None
        return max(self.log.source_ms, played or 0.0, *(time_ms for time_ms, _ in self.words), 1.0)


def collect(results: Results, indices: Sequence[int]) -> list[list[Shown]]:
    """Read utterances by index, each at every chunk size.

    Raises:
        FileNotFoundError: a log, the scores of utterances, or a sound file is missing.
        ValueError: the log or the scores of a chunk size lack one of the utterances.
    """
    store = TranscriptStore(results.folder / TRANSCRIPTS)
    by_chunk = {}
    for chunk in results.chunks:
        log = {utterance.index: utterance for utterance in results.log(chunk)}
        scores = {entry["index"]: entry for entry in results.utterance_scores(chunk)}
        for index in indices:
            if index not in log or index not in scores:
                where = results.place(chunk)
                raise NastError(f"{where}: utterance {index} is not in both instances.log and utterances.jsonl")
        by_chunk[chunk] = (log, scores)
    return [
        [_shown(results, chunk, log[index], scores[index], store) for chunk, (log, scores) in by_chunk.items()]
        for index in indices
    ]


def _shown(results: Results, chunk: str, log: LoggedUtterance, scores: dict[str, Any], store: TranscriptStore) -> Shown:
    playback, available = None, list[float]()
    if results.target_type == "speech":
        playback = Playback()
        if log.wav is not None and not log.empty:
            if not log.wav.is_file():
                raise FileNotFoundError(
                    f"{log.wav} is missing: the speech of utterance {log.index}, chunk size {chunk}"
                )
            for delay, piece in zip(log.delays, read_output_pieces(log)):
                if playback.add(delay, piece) is not None:
                    available.append(delay)
    recognised = _recognised(results.scores.get("recogniser"), store, playback) if playback is not None else ()
    return Shown(chunk, results.row(chunk).get("chunk_ms"), log, scores, playback, tuple(available), recognised)


def _recognised(identity: str | None, store: TranscriptStore, playback: Playback) -> tuple[tuple[float, str], ...]:
    """Return the words of the stored transcript of the speech, with the times at which they end in playback."""
    if identity is None:
        return ()
    try:
        (transcript,) = store.transcribe(StoredRecogniser(identity), [playback.speech()])
    except TranscriptMissingError:
        return ()
    words = transcript.words or ()
    intervals = [(start, _ms(piece)) for start, piece in playback.pieces]
    ends = word_ends(intervals, [word.end_s for word in words])
    return tuple(zip(ends, (word.text for word in words)))


def _source(audio: AudioRef) -> NDArray[np.float32] | None:
    """Return the recording at 16 kHz, (n,); ``None`` if it is missing."""
    return audio.samples() if audio.path.is_file() else None


def article(number: int, versions: Sequence[Shown], main_chunk: str, source_text: str | None = None) -> dict[str, Any]:
    """Return the values of the template for an utterance, with a panel for each chunk size.

    Args:
        number: number of the utterance, unique on the page.
        versions: the utterance at every chunk size.
        main_chunk: the chunk size whose score is in the heading.
        source_text: transcript of the source, if known.
    """
    main = next(version for version in versions if version.chunk == main_chunk)
    source = _source(main.log.audio)
    total_ms = 1.02 * max(version.end_ms for version in versions)
    name, score = sentence_score(main.scores)
    return {
        "number": number,
        "name": str(main.log.id or main.log.index),
        "score": "" if score is None else f"{describe(name).label} {shown(name, score)} at {chunk_name(main_chunk)}",
        "texts": [("Source", source_text)] * bool(source_text) + [("Reference", main.log.reference)],
        "source": None if source is None else Sound.of("Source", source),
        "recording": str(main.log.audio),
        "panels": [_panel(number, place, version, source, total_ms) for place, version in enumerate(versions)],
    }


def _panel(
    number: int, place: int, version: Shown, source: NDArray[np.float32] | None, total_ms: float
) -> dict[str, Any]:
    """Return the values of the template for an utterance at one chunk size, the ``place``-th (from 0)."""
    from markupsafe import Markup

    name, where = f"timeline-{number}-{place}", chunk_name(version.chunk)
    tables = _times(version)
    return {
        "place": place,
        "name": name,
        "heading": _heading(version),
        "texts": _texts(version),
        "timeline_label": f"Timeline at {where}",
        "timeline": Markup(svg(_timeline(name, version, source, total_ms))),  # svg() escapes its texts
        "sounds": _sounds(version, source),
        "figures": _figures(version),
        "tables": tables,
        "summary": f"Words and times at {where}, as {'tables' if len(tables) > 1 else 'a table'}",
    }


def _heading(version: Shown) -> str:
    return "Offline" if version.chunk_ms is None else f"Chunks of {chunk_name(version.chunk)}"


def _texts(version: Shown) -> list[tuple[str, str]] | None:
    """Return the translation and its transcripts; ``None`` for an empty output."""
    if version.log.empty:
        return None
    pairs = [("Translation", version.log.text)]
    transcript, played = version.scores.get("transcript"), version.scores.get("transcript_silence")
    if transcript is not None:
        pairs.append(("Recognised", transcript or "(nothing)"))
    if played is not None and played != transcript:
        pairs.append(("… with the silences", played or "(nothing)"))
    return [(name, text) for name, text in pairs if text]


def _sounds(version: Shown, source: NDArray[np.float32] | None) -> list[Sound]:
    if version.playback is None or not version.playback.pieces:
        return []
    where = chunk_name(version.chunk)
    sounds = [Sound.of(f"Translation, {where}, without the gaps", version.playback.speech())]
    if source is not None:
        label = f"Playback, {where}: left the source, right the translation"
        sounds.append(Sound.of(label, stereo(source, version.playback), "follows"))
    return sounds


def _figures(version: Shown) -> str:
    """Format the figures of the utterance in one line."""
    latency = version.scores.get("latency") or {}
    names = ("ASR_BLEU", "BLEU")
    parts = [(name, version.scores.get(name)) for name in names] + [(name, latency.get(name)) for name in LATENCY]
    found = [
        f"{describe(name).label} {shown(name, value)} {describe(name).unit}".rstrip()
        for name, value in parts
        if value is not None
    ]
    return " · ".join(found)


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    return {"caption": caption, "header": header, "rows": rows}


def _times(version: Shown) -> list[dict[str, Any]]:
    """Return the content of the timeline as tables."""
    where = chunk_name(version.chunk)
    tables = []
    if version.words:
        words = [(f"{time_ms / 1000:.3f} s", text) for time_ms, text in version.words]
        tables.append(_table(f"Words at {where}", ("Source read", "Words written"), words))
    if version.playback is not None and version.playback.pieces:
        gaps = {round(start + duration, 3): duration for start, duration in version.playback.gaps}
        pieces = [
            (
                f"{start / 1000:.3f} s",
                f"{(start + _ms(piece)) / 1000:.3f} s",
                f"{available / 1000:.3f} s",
                f"{gaps[round(start, 3)]:.0f} ms" if round(start, 3) in gaps else "none",
            )
            for (start, piece), available in zip(version.playback.pieces, version.available_ms)
        ]
        header = ("Played from", "Played until", "Available at", "Gap before it")
        tables.append(_table(f"Speech at {where}", header, pieces))
    if version.recognised:
        found = [(f"{time_ms / 1000:.3f} s", word) for time_ms, word in version.recognised]
        tables.append(_table(f"Words recognised at {where}", ("Played until", "Word"), found))
    return tables


def _ms(piece: NDArray[np.float32]) -> float:
    return 1000 * len(piece) / SAMPLE_RATE


def _timeline(name: str, version: Shown, source: NDArray[np.float32] | None, total_ms: float) -> Timeline:
    pieces = None
    if version.playback is not None:
        placed = zip(version.playback.pieces, version.available_ms)
        pieces = [Piece(start, _ms(samples), available, samples) for (start, samples), available in placed]
    gaps = version.playback.gaps if version.playback is not None else []
    return Timeline(
        name=name,
        title=f"{version.log.id or version.log.index}: {_heading(version).lower()}",
        description=_description(version, len(pieces) if pieces is not None else None, gaps),
        source=source,
        source_ms=version.log.source_ms,
        chunk_ms=version.chunk_ms,
        words=version.words,
        pieces=pieces,
        gaps=gaps,
        recognised=version.recognised,
        total_ms=total_ms,
    )


def _description(version: Shown, pieces: int | None, gaps: Sequence[tuple[float, float]]) -> str:
    """Describe the timeline in a few sentences, for screen readers."""
    sentences = [f"The source lasts {version.log.source_ms / 1000:.2f} seconds."]
    words = version.words
    if words:
        first, last = words[0][0] / 1000, words[-1][0] / 1000
        sentences.append(f"Words were written at {len(words)} moments, from {first:.2f} to {last:.2f} seconds.")
    else:
        sentences.append("No words were written.")
    if pieces and version.playback is not None:
        start, end = (version.playback.start_ms or 0) / 1000, (version.playback.end_ms or 0) / 1000
        sentences.append(f"Speech in {pieces} pieces is played from {start:.2f} to {end:.2f} seconds.")
        sentences.append(f"It has {len(gaps)} gaps, {sum(duration for _, duration in gaps):.0f} ms together.")
    elif pieces is not None:
        sentences.append("There is no speech.")
    return " ".join([*sentences, "All words and times are in the tables below the timeline."])
