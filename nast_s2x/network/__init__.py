"""The network, in plain torch: encoder, text decoder, unit decoder, each with streaming state."""

from nast_s2x.network.config import (
    PRESETS,
    NastConfig,
    config_from_published,
    geometry_from_published,
    positions_for_seconds,
    preset,
)
from nast_s2x.network.nast import Glancer, ModelState, NastModel, NastOutput, load_published_state

__all__ = [
    "PRESETS",
    "Glancer",
    "ModelState",
    "NastConfig",
    "NastModel",
    "NastOutput",
    "config_from_published",
    "geometry_from_published",
    "load_published_state",
    "positions_for_seconds",
    "preset",
]
