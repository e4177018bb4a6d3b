"""Unit vocoder: speech units to a waveform with CodeHiFiGAN's generator; streaming synthesis and training.

The names below are loaded on first use, so that importing the package stays instant.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "SynthesisWindow": "streaming",
    "UnitVocoder": "network",
    "VocoderConfig": "config",
    "VocoderStream": "streaming",
    "load_vocoder": "checkpoint",
    "save_vocoder": "checkpoint",
    "synthesize": "offline",
    "synthesize_chunks": "streaming",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
