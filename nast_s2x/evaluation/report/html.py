"""Data URIs: sounds and pictures embedded in the page."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nast_s2x.frontend.audio import compressed
from nast_s2x.frontend.samples import SAMPLE_RATE


def data_uri(content: bytes, media_type: str) -> str:
    """Return the content as a ``data:`` URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


@dataclass(frozen=True)
class Sound:
    """A sound on the page.

    Attributes:
        label: its name.
        uri: data URI of the sound file; "" without samples.
        css: class of the audio element.
    """

    label: str
    uri: str
    css: str = ""

    @classmethod
    def of(cls, label: str, samples: NDArray[np.float32], css: str = "") -> Sound:
        """Return the sound of samples (n,) or (n, channels) at 16 kHz, n from 0."""
        uri = data_uri(*compressed(samples, SAMPLE_RATE)) if len(samples) else ""
        return cls(label, uri, css)
