"""Published results of NAST-S2X, shown beside measured ones for orientation; data and models differ.

Source: Ma et al., "A Non-autoregressive Generation Framework for End-to-End Simultaneous Speech-to-Any Translation",
ACL 2024, arXiv 2406.06937.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SOURCE = "Ma et al., ACL 2024 (arXiv 2406.06937)"


@dataclass(frozen=True)
class PublishedPoint:
    """One published result.

    Attributes:
        target_type: ``"text"`` or ``"speech"``.
        data: test set and languages.
        chunk: chunk size in ms, or ``"offline"``; the look-ahead is as long as the chunk.
        quality: figure -> value, under the names of ``scores.json``.
        latency: figure -> ms, under the names of ``scores.json``; empty if none was published (offline).
    """

    target_type: str
    data: str
    chunk: str
    quality: dict[str, float]
    latency: dict[str, float] = field(default_factory=dict)


def _speech(chunk: str, silence: float, removed: float, start: float, lagging: float, end: float) -> PublishedPoint:
    # The published AL of speech compares delays of pieces of speech with words of the reference.
    latency = {"StartOffset": start, "AL_chunks_vs_words": lagging, "EndOffset": end}
    quality = {"ASR_BLEU_silence": silence, "ASR_BLEU": removed}
    return PublishedPoint("speech", "CVSS-C Fr-En", chunk, quality, latency)


def _text(data: str, chunk: str, bleu: float, lagging: float | None = None) -> PublishedPoint:
    return PublishedPoint("text", data, chunk, {"BLEU": bleu}, {} if lagging is None else {"AL": lagging})


POINTS: tuple[PublishedPoint, ...] = (
    _speech("320", 19.67, 24.90, 655, -393, 562),
    _speech("640", 19.15, 25.67, 1295, 1533, 863),
    _speech("1280", 20.20, 25.71, 2566, 3330, 1648),
    _speech("2560", 24.88, 26.14, 4697, 4976, 2753),
    PublishedPoint("speech", "CVSS-C Fr-En", "offline", {"ASR_BLEU": 25.82}),
    _text("MuST-C En-De", "160", 19.51, 1082),
    _text("MuST-C En-De", "320", 21.56, 1234),
    _text("MuST-C En-De", "640", 22.85, 1582),
    _text("MuST-C En-De", "1280", 23.30, 2338),
    _text("MuST-C En-De", "offline", 24.54),
    _text("MuST-C En-Es", "160", 23.81, 1023),
    _text("MuST-C En-Es", "320", 26.48, 1114),
    _text("MuST-C En-Es", "640", 27.02, 1396),
    _text("MuST-C En-Es", "1280", 28.05, 2180),
    _text("MuST-C En-Es", "offline", 28.21),
)


def points(target_type: str, quality: str, latency: str) -> dict[str, list[tuple[str, float, float]]]:
    """Return the published curves of one figure against another.

    Args:
        target_type: ``"text"`` or ``"speech"``.
        quality: name in ``scores.json``, such as ``"ASR_BLEU"``.
        latency: name in ``scores.json``, such as ``"StartOffset"``.
    Returns:
        test set -> points (chunk size, latency in ms, quality), in order of chunk size. Test sets without points are
        left out.
    """
    curves: dict[str, list[tuple[str, float, float]]] = {}
    for point in POINTS:
        if point.target_type == target_type and quality in point.quality and latency in point.latency:
            curves.setdefault(point.data, []).append((point.chunk, point.latency[latency], point.quality[quality]))
    return curves


def offline(target_type: str, quality: str) -> dict[str, float]:
    """Return the published quality of offline translation: test set -> value, if the figure was published."""
    return {
        point.data: point.quality[quality]
        for point in POINTS
        if point.target_type == target_type and point.chunk == "offline" and quality in point.quality
    }


def comparison(chunk: str, row: Mapping[str, Any]) -> list[str]:
    """Lines of measured and published figures of speech at a chunk size.

    Args:
        chunk: of the published result.
        row: an entry of ``rows`` of ``scores.json``.
    """
    (point,) = (point for point in POINTS if point.target_type == "speech" and point.chunk == chunk)
    lines = [f"published: {SOURCE}, {point.data}, {chunk if chunk == 'offline' else f'{chunk} ms'}"]
    for kind, values in (("quality", point.quality), ("latency", point.latency)):
        for name, value in values.items():
            measured = row[kind].get(name)
            lines.append(f"  {name}: {'-' if measured is None else f'{measured:.2f}'}, published {value:g}")
    return lines
