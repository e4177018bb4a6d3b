"""Using trained systems: bundles and checkpoints, offline translation, streaming translation. No fairseq, no SimulEval.

The names below are loaded on first use, so that importing the package stays instant.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "System": "bundle",
    "load_system": "bundle",
    "Emission": "streaming",
    "Playback": "playback",
    "StreamingTranslator": "streaming",
    "SynthesisWindow": "streaming",
    "Translation": "offline",
    "translate_batch": "offline",
    "translate_samples": "offline",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
