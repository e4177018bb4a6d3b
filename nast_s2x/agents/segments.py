"""A first segment of its own length, through SimulEval's registry of instances.

Features of 25 ms every 10 ms need 10 n + 15 ms for n frames, so equal segments of a chunk's size always lack 15 ms of
the chunk that they should complete. The published latencies come from a first segment of 15 ms (on 16 kHz input).
"""

from __future__ import annotations

from typing import Any, ClassVar

from simuleval.data.segments import Segment
from simuleval.evaluator import instance

from nast_s2x.errors import ConfigError

_PLAIN = {f"speech-{target}": instance.INSTANCE_TYPE_DICT[f"speech-{target}"] for target in ("text", "speech")}


class FirstSegment(instance.SpeechInputInstance):
    """An utterance whose first segment may have another length than the others.

    Attributes:
        first_segment_ms: its length in milliseconds of source; ``None``: as long as the others.
    """

    first_segment_ms: ClassVar[int | None] = None

    def send_source(self, segment_size: int = 10) -> Segment:
        """The next segment of the source."""
        first = self.step == 0 and self.first_segment_ms is not None
        return super().send_source(self.first_segment_ms if first else segment_size)


def check_first_segment(first_segment_ms: int | None) -> int | None:
    """The length of the first segment, checked.

    Raises:
        ValueError: it is less than SimulEval's smallest segment, 1 ms.
    """
    if first_segment_ms is not None and first_segment_ms < 1:
        raise ConfigError(f"the first segment must be at least 1 ms long, got {first_segment_ms} ms")
    return first_segment_ms


def use_first_segment(first_segment_ms: int | None) -> None:
    """Let SimulEval's evaluators that are made from now on begin each source with a segment of so many milliseconds.

    ``None`` gives SimulEval its own instances back.
    """
    check_first_segment(first_segment_ms)
    values: dict[str, Any] = {"first_segment_ms": first_segment_ms}
    for key, plain in _PLAIN.items():
        ours = plain if first_segment_ms is None else type(plain.__name__, (FirstSegment, plain), values)
        instance.INSTANCE_TYPE_DICT[key] = ours
