"""What a protocol gives to its host."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nast_s2x.errors import NastError

Message = str | bytes
"""A frame of a WebSocket."""


class ProtocolError(NastError):
    """A message that breaks the protocol so that the connection cannot go on.

    Args:
        code: of the closing frame (RFC 6455, section 7.4).
    """

    def __init__(self, message: str, code: int = 1007) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Wishes:
    """What a session asked for.

    Attributes:
        chunk_ms: chunk size; ``None``: the server's.
        voice: speech too, where the system has a vocoder.
        transcript: the words of the source too.
    """

    chunk_ms: int | None = None
    voice: bool = True
    transcript: bool = False


@dataclass
class Received:
    """What a message means.

    Attributes:
        samples: (n,) int16 of the source, with ``rate`` Hz; ``None`` without audio.
        final: the source ends here: everything is to be translated and sent.
        close: the connection ends after that.
        replies: messages to send at once.
    """

    samples: NDArray[np.int16] | None = None
    rate: int = 16000
    final: bool = False
    close: bool = False
    replies: list[Message] = field(default_factory=list)


def pcm16(samples: NDArray[np.float32]) -> bytes:
    """16-bit little-endian samples of a waveform (n,) in -1..1; exact for samples that came from 16 bits."""
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2").tobytes()
