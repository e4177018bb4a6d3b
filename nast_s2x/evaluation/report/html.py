"""Texts, sounds and pictures inside the page, and the policy that confines it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from nast_s2x.frontend.audio import compressed
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.texts import printable


def escaped(text: str) -> str:
    """Return a text as HTML that shows it, control characters as visible escapes."""
    return escape(printable(text))


def policy(style: str, script: str) -> str:
    """Return the content security policy of a page: this style and script, pictures and sounds inside the page.

    Everything else is refused by the browser: other scripts and styles, event handlers, frames, forms, the network.
    """
    return (
        f"default-src 'none'; script-src {_hash_source(script)}; style-src {_hash_source(style)}; img-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash_source(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}'"


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
