"""First source segment of another length than the others, set in SimulEval's registry of instances.

:class:`~nast_s2x.inference.segments.Segments` gives the reason.
"""

from __future__ import annotations

from typing import Any, ClassVar

from simuleval.data.segments import Segment
from simuleval.evaluator import instance

from nast_s2x.inference.segments import Segments

_PLAIN = {f"speech-{target}": instance.INSTANCE_TYPE_DICT[f"speech-{target}"] for target in ("text", "speech")}


class FirstSegment(instance.SpeechInputInstance):
    """An utterance whose first segment may have another length than the others.

    Attributes:
        first_segment_ms: length of the first segment in milliseconds of source; ``None``: as long as the others.
    """

    first_segment_ms: ClassVar[int | None] = None

    def send_source(self, segment_size: int = 10) -> Segment:
        """Return the next segment of the source."""
        first = self.step == 0 and self.first_segment_ms is not None
        return super().send_source(self.first_segment_ms if first else segment_size)


def use_first_segment(first_segment_ms: int | None) -> None:
    """Set the length of the first segment of each source, for all SimulEval evaluators made from now on.

    Args:
        first_segment_ms: milliseconds of source; ``None`` restores SimulEval's own instances.
    Raises:
        ConfigError: less than 1 ms.
    """
    Segments(first_ms=first_segment_ms)  # checks the length
    values: dict[str, Any] = {"first_segment_ms": first_segment_ms}
    for key, plain in _PLAIN.items():
        ours = plain if first_segment_ms is None else type(plain.__name__, (FirstSegment, plain), values)
        instance.INSTANCE_TYPE_DICT[key] = ours
