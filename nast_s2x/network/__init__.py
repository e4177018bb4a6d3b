"""The network, in plain torch: encoder, text decoder, unit decoder, each with streaming state."""

from nast_s2x.network.config import PRESETS, NastConfig, positions_for_seconds, preset
from nast_s2x.network.nast import Glancer, NastModel
from nast_s2x.network.output import NastOutput
from nast_s2x.network.state import ModelState

__all__ = [
    "PRESETS",
    "Glancer",
    "ModelState",
    "NastConfig",
    "NastModel",
    "NastOutput",
    "positions_for_seconds",
    "preset",
]
