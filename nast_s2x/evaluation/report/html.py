"""Small pieces of HTML: escaped text, tables, sounds and pictures inside the page."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from numpy.typing import ArrayLike

from nast_s2x.frontend.audio import compressed
from nast_s2x.frontend.samples import SAMPLE_RATE


def data_uri(content: bytes, media_type: str) -> str:
    """Content inside an address."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def player(label: str, samples: ArrayLike, css: str = "") -> str:
    """A player of samples (n,) or (n, channels) at 16 kHz; n = 0: words that say that there is no sound."""
    content, media_type = compressed(samples, SAMPLE_RATE) if len(samples) else (b"", "")
    if not content:
        return f'<div class="player"><span>{escape(label)}</span><p class="none">no sound</p></div>'
    source = data_uri(content, media_type)
    sound = f'<audio class="{css}" controls preload="metadata" aria-label="{escape(label)}" src="{source}"></audio>'
    return f'<div class="player"><span aria-hidden="true">{escape(label)}</span>{sound}</div>'


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], css: str = "") -> str:
    """A table of texts; the first cell of each row is its heading."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return scrolling(
        caption,
        f'<table class="{css}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>",
    )


def scrolling(label: str, content: str) -> str:
    """Content that may be wider than a phone: it scrolls by itself, by keyboard too."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{content}</div>'


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and values, both plain text."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f"<dl>{items}</dl>"
