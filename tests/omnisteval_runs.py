"""OmniSTEval 0.1.10 on files, in this process: it starts one for each CPU, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest


class InProcess:
    """multiprocessing.Pool without processes."""

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return [function(item) for item in items]


def divide(segments: Path, references: Path, log: Path, unit: str) -> tuple[list[Any], list[dict[str, Any]]]:
    """Its instances of the segments, and the lines that it writes of them; the test is skipped without OmniSTEval."""
    pytest.importorskip("omnisteval", reason="OmniSTEval is not installed (extra clients)")
    from omnisteval import alignment
    from omnisteval.io import load_resegmentation_inputs
    from omnisteval.resegment import resegment

    is_char = unit == "char"
    words = load_resegmentation_inputs(str(segments), None, str(references), str(log), char_level=is_char)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "Pool", InProcess)
        return resegment(*words, char_level=is_char)
