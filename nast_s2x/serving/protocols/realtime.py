"""The Realtime translation protocol (``/v1/realtime/translations``), server side.

A client appends 16-bit mono samples at 24 kHz in base64 and closes the session; the server sends deltas of the
translated text and of its speech, also at 24 kHz, and of the transcript of the source where
``session.audio.input.transcription`` is set. Deltas of text only append and bring their own spaces.

Our extensions, in ``session.update`` before the first audio: ``session.audio.input.chunk_ms`` and
``session.audio.output.voice``; in deltas ``source_ms``, the milliseconds of source audio that they required.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
from typing import Any

import numpy as np

from nast_s2x.errors import ConfigError, NastError, check_whole_number
from nast_s2x.frontend.resampling import StreamResampler
from nast_s2x.inference.emission import SPEECH_RATE, Emission
from nast_s2x.serving.protocols.base import Message, Received, Wishes, pcm16

RATE = 24000
"""Sample rate of both directions, Hz."""
STEP_MS = 200
"""``elapsed_ms`` advances in steps of this."""
LIFETIME_SECONDS = 3600 * 24


class RealtimeTranslation:
    """One session.

    Args:
        model: name of the model, as the client gave it.
        language: target language, the only one that there is; ``None`` where it is not known.
        has_voice: the system has a vocoder.
        has_transcript: the system has a trained recognition head.
    """

    def __init__(self, model: str, language: str | None, has_voice: bool, has_transcript: bool = True) -> None:
        self.wishes = Wishes(voice=has_voice)
        self._language, self._has_voice, self._has_transcript = language, has_voice, has_transcript
        self._session: dict[str, Any] = {
            "id": f"sess_{secrets.token_hex(8)}",
            "type": "translation",
            "model": model,
            "expires_at": int(time.time()) + LIFETIME_SECONDS,
            "audio": {
                "input": {"transcription": None, "noise_reduction": None},
                "output": {"language": language},
            },
        }
        self._events = 0
        self._has_audio = self._closing = False
        self._resampler = StreamResampler(SPEECH_RATE, RATE)

    def opened(self) -> list[Message]:
        """The first message, unasked."""
        return [self._event("session.created", session=self._session)]

    def received(self, message: Message) -> Received:
        """The meaning of a message. What cannot be used is answered with an ``error`` event; the session goes on."""
        cause: str | None = None
        try:
            values = _as_object(message)
            cause = values.get("event_id") if isinstance(values.get("event_id"), str) else None
            return self._handle(values)
        except ConfigError as error:
            return Received(replies=[self.error(str(error), event_id=cause)])

    def _handle(self, values: dict[str, Any]) -> Received:
        kind = values.get("type")
        if kind == "session.update":
            self._update(values.get("session"))
            return Received(replies=[self._event("session.updated", session=self._session)])
        if kind == "session.input_audio_buffer.append":
            if self._closing:
                raise ConfigError("no audio is taken after session.close")
            self._has_audio = True
            return Received(_samples(values.get("audio")), RATE)
        if kind == "session.close":
            self._closing = True
            return Received(final=True, close=True)
        raise ConfigError(f"`type` must be an event of this protocol, but is {kind!r}")

    def emitted(self, emission: Emission) -> list[Message]:
        """Events of an emission."""
        elapsed = int(emission.source_ms // STEP_MS * STEP_MS)
        times = {"elapsed_ms": elapsed, "source_ms": round(emission.source_ms, 1)}
        messages: list[Message] = []
        if self.wishes.transcript and emission.source_text:
            messages.append(self._event("session.input_transcript.delta", delta=emission.source_delta, **times))
        if emission.text:
            messages.append(self._event("session.output_transcript.delta", delta=emission.delta, **times))
        if self.wishes.voice and emission.waveform is not None:
            sound = self._resampler.push(emission.waveform, emission.final)
            if len(sound):
                data = base64.b64encode(pcm16(sound)).decode("ascii")
                form = {"sample_rate": RATE, "channels": 1, "format": "pcm16"}
                messages.append(self._event("session.output_audio.delta", delta=data, **times, **form))
        return messages

    def finished(self) -> list[Message]:
        """The last event."""
        return [self._event("session.closed")]

    def failed(self, error: Exception) -> list[Message]:
        """An ``error`` event for what ended the source."""
        if isinstance(error, NastError):
            return [self.error(str(error), "server_error")]
        return [self.error("the source ended by a fault of the server", "server_error")]

    def error(self, message: str, kind: str = "invalid_request_error", **details: str | None) -> Message:
        """An ``error`` event."""
        given = {name: value for name, value in details.items() if value is not None}
        return self._event("error", error={"type": kind, "message": message, **given})

    def _event(self, kind: str, **fields: Any) -> str:
        self._events += 1
        return json.dumps({"type": kind, "event_id": f"event_{self._events:08d}", **fields}, ensure_ascii=False)

    def _update(self, session: Any) -> None:
        """Change the session; refuses as a whole what cannot be had."""
        session = _table("session", session)
        for name in ("type", "model"):
            if session.get(name, self._session[name]) != self._session[name]:
                raise ConfigError(f"`session.{name}` cannot be changed: it is {self._session[name]!r}")
        audio = _table("session.audio", session.get("audio"))
        given, wanted = (_table(f"session.audio.{side}", audio.get(side)) for side in ("input", "output"))
        if given.get("noise_reduction") is not None:
            raise ConfigError("`session.audio.input.noise_reduction` must be null: there is none here")
        language = wanted.get("language", self._language)
        if self._language is not None and language != self._language:
            raise ConfigError(f"`session.audio.output.language` must be {self._language!r}, but is {language!r}")
        wishes = self._wishes(given, wanted)
        if wishes != self.wishes and self._has_audio:
            raise ConfigError("`chunk_ms`, `voice` and `transcription` can be set before the first audio only")
        self.wishes = wishes
        if "transcription" in given:
            self._session["audio"]["input"]["transcription"] = given["transcription"]
        self._session["audio"]["output"]["language"] = language

    def _wishes(self, given: dict[str, Any], wanted: dict[str, Any]) -> Wishes:
        chunk_ms, voice = given.get("chunk_ms", self.wishes.chunk_ms), wanted.get("voice", self.wishes.voice)
        if chunk_ms is not None:
            check_whole_number("session.audio.input.chunk_ms", chunk_ms, 1)
        if not isinstance(voice, bool):
            raise ConfigError(f"`session.audio.output.voice` must be true or false, but is {voice!r}")
        if voice and not self._has_voice:
            raise ConfigError("`session.audio.output.voice` must be false: this system has no vocoder")
        transcript = self.wishes.transcript
        if "transcription" in given:
            transcript = given["transcription"] is not None
        if transcript and not self._has_transcript:
            raise ConfigError(
                "`session.audio.input.transcription` must be null: the recognition head of this system was not trained"
            )
        return Wishes(chunk_ms, voice, transcript)


def _as_object(message: Message) -> dict[str, Any]:
    if isinstance(message, bytes):
        raise ConfigError("messages of this protocol are text, but this one has bytes")
    try:
        values = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"a message must be a JSON object: {error}") from None
    return _table("message", values)


def _table(name: str, value: Any) -> dict[str, Any]:
    if value is None and name != "message":
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"`{name}` must be an object, but is {type(value).__name__}")
    return value


def _samples(audio: Any) -> np.ndarray:
    if not isinstance(audio, str):
        raise ConfigError("`audio` must be base64 text of 16-bit mono samples at 24 kHz")
    try:
        data = base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"`audio` must be base64 text: {error}") from None
    if len(data) % 2:
        raise ConfigError(f"`audio` must hold 16-bit samples, an even number of bytes, but has {len(data)}")
    return np.frombuffer(data, dtype="<i2")
