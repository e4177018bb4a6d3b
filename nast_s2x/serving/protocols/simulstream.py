"""The WebSocket protocol of simulstream 1.0 (server side).

A client sends JSON with any of ``sample_rate``, ``source_lang``, ``target_lang``, ``metrics_metadata``; 16-bit mono
samples (little endian) as bytes; and JSON with ``end_of_stream``. The server sends ``{"new", "deleted"}`` for each
emission and ``{"end_of_processing": true}`` at the end, after which the connection can carry the next source.
``deleted`` is always empty: an emission is never revised. Our extension: ``chunk_ms`` and ``voice`` in the first JSON;
with ``voice`` the speech comes as bytes, 16-bit mono samples at 16 kHz.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from nast_s2x.errors import check_whole_number
from nast_s2x.inference.emission import Emission
from nast_s2x.serving.protocols.base import Message, ProtocolError, Received, Wishes, pcm16

DEFAULT_RATE = 16000


class SimulstreamProtocol:
    """One connection.

    Attributes:
        wishes: of the source that is being sent.
    """

    def __init__(self) -> None:
        self.wishes = Wishes(voice=False)
        self._rate = DEFAULT_RATE

    def opened(self) -> list[Message]:
        """Messages at the start: none."""
        return []

    def received(self, message: Message) -> Received:
        """The meaning of a message. Text that is no JSON object is ignored, as simulstream does.

        Raises:
            ProtocolError: an odd number of bytes, or a setting that cannot be used.
        """
        if isinstance(message, bytes):
            if len(message) % 2:
                raise ProtocolError(f"16-bit samples need an even number of bytes, got {len(message)}")
            return Received(np.frombuffer(message, dtype="<i2"), self._rate)
        try:
            values = json.loads(message)
        except (ValueError, RecursionError):
            return Received()
        if not isinstance(values, dict):
            return Received()
        self._take_settings(values)
        return Received(final="end_of_stream" in values)

    def emitted(self, emission: Emission) -> list[Message]:
        """Messages of an emission; texts bring their own spaces."""
        messages: list[Message] = []
        if emission.text:
            messages.append(json.dumps({"new": emission.delta, "deleted": ""}, ensure_ascii=False))
        if self.wishes.voice and emission.waveform is not None and len(emission.waveform):
            messages.append(pcm16(emission.waveform))
        return messages

    def finished(self) -> list[Message]:
        """Messages after the last emission; the next source begins with the default rate."""
        self._rate, self.wishes = DEFAULT_RATE, Wishes(voice=False)
        return [json.dumps({"end_of_processing": True})]

    def failed(self, error: Exception) -> list[Message]:
        """Messages of an error: simulstream has none, the connection is closed."""
        return []

    def _take_settings(self, values: dict[str, Any]) -> None:
        try:
            for name in ("sample_rate", "chunk_ms"):
                if name in values:
                    check_whole_number(name, values[name], 1)
        except ValueError as error:
            raise ProtocolError(str(error)) from None
        self._rate = values.get("sample_rate", self._rate)
        chunk_ms, voice = values.get("chunk_ms", self.wishes.chunk_ms), values.get("voice", self.wishes.voice)
        if not isinstance(voice, bool):
            raise ProtocolError(f"`voice` must be true or false, but is {voice!r}")
        self.wishes = Wishes(chunk_ms, voice)
