"""Using trained systems: bundles and checkpoints, offline translation, streaming translation. No fairseq, no SimulEval.

The names below are loaded on first use, so that importing the package stays instant.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "ChunkPolicy": "nast_s2x.chunking",
    "Emission": "nast_s2x.inference.streaming",
    "Playback": "nast_s2x.inference.playback",
    "SynthesisWindow": "nast_s2x.vocoder.streaming",
    "System": "nast_s2x.inference.system",
    "Translation": "nast_s2x.inference.offline",
    "TranslationStream": "nast_s2x.inference.streaming",
    "load_system": "nast_s2x.inference.loading",
    "save_bundle": "nast_s2x.inference.bundle",
    "translate_batch": "nast_s2x.inference.offline",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
