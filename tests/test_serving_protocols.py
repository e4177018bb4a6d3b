"""Protocols of the server: messages in, audio and messages out, without a network."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nast_s2x.inference.emission import Emission
from nast_s2x.serving.protocols.base import ProtocolError, Wishes, pcm16
from nast_s2x.serving.protocols.realtime import RealtimeTranslation
from nast_s2x.serving.protocols.simulstream import SimulstreamProtocol


def emission(delta: str, source_ms: float = 655.0, samples: int | None = None, final: bool = False) -> Emission:
    waveform = None if samples is None else np.full(samples, 0.5, np.float32)
    return Emission(0, source_ms, "", [], [], final=final, waveform=waveform).with_deltas(delta)


def events(messages: list) -> list[dict[str, Any]]:
    return [json.loads(message) for message in messages]


# --- simulstream --------------------------------------------------------------------------------------------------


def test_simulstream_samples_and_settings() -> None:
    protocol = SimulstreamProtocol()
    assert protocol.opened() == []
    assert (
        protocol.received(json.dumps({"sample_rate": 48000, "metrics_metadata": {"wav_name": "a.wav"}})).samples is None
    )
    got = protocol.received(np.array([1, -2], "<i2").tobytes())
    assert got.samples.tolist() == [1, -2] and got.rate == 48000 and not got.final
    assert protocol.received('{"end_of_stream": false}').final  # the value is ignored
    assert events(protocol.finished()) == [{"end_of_processing": True}]
    assert protocol.received(b"\0\0").rate == 16000  # the next source begins with the default
    assert protocol.received("no json").replies == protocol.received("[1]").replies == []
    assert protocol.received("[" * 100_000).replies == []


def test_simulstream_texts_bring_their_spaces() -> None:
    protocol = SimulstreamProtocol()
    messages = [m for text in ("the", "", " big house", "屋") for m in protocol.emitted(emission(text, samples=320))]
    assert [event["new"] for event in events(messages)] == ["the", " big house", "屋"]
    assert {event["deleted"] for event in events(messages)} == {""}


def test_simulstream_voice_and_chunk_size_are_asked_for() -> None:
    protocol = SimulstreamProtocol()
    protocol.received('{"voice": true, "chunk_ms": 640}')
    assert protocol.wishes == Wishes(640, True)
    text, sound = protocol.emitted(emission("a", samples=320))
    assert json.loads(text)["new"] == "a" and np.frombuffer(sound, "<i2").tolist() == [16384] * 320


@pytest.mark.parametrize(
    "message", [b"\0", '{"sample_rate": 0}', '{"sample_rate": "x"}', '{"chunk_ms": 1.5}', '{"voice": 1}']
)
def test_simulstream_refuses(message: str | bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        SimulstreamProtocol().received(message)
    assert caught.value.code == 1007


def test_samples_of_16_bits() -> None:
    assert np.frombuffer(pcm16(np.array([0.0, 1.0, -1.0, 2.0, -2.0], np.float32)), "<i2").tolist() == [
        0, 32767, -32768, 32767, -32768,
    ]  # fmt: skip


# --- Realtime translation -----------------------------------------------------------------------------------------


def session(has_voice: bool = True) -> RealtimeTranslation:
    return RealtimeTranslation("model-1", "en", has_voice)


def update(protocol: RealtimeTranslation, **values: Any) -> dict[str, Any]:
    (reply,) = protocol.received(json.dumps({"type": "session.update", "event_id": "mine", "session": values})).replies
    return json.loads(reply)


def test_a_session_is_announced_and_closed() -> None:
    protocol = session()
    (created,) = events(protocol.opened())
    assert created["type"] == "session.created" and created["session"]["model"] == "model-1"
    assert created["session"]["id"].startswith("sess_") and created["session"]["audio"]["output"] == {"language": "en"}
    got = protocol.received('{"type": "session.close"}')
    assert got.final and got.close and got.samples is None
    (closed,) = events(protocol.finished())
    assert closed["type"] == "session.closed" and closed["event_id"] != created["event_id"]


def test_audio_is_16_bit_at_24_khz() -> None:
    samples = np.arange(-100, 100, dtype="<i2")
    audio = base64.b64encode(samples.tobytes()).decode()
    got = session().received(json.dumps({"type": "session.input_audio_buffer.append", "audio": audio}))
    assert got.rate == 24000 and got.samples.tolist() == samples.tolist() and not got.replies


def test_deltas_append_and_bring_their_spaces() -> None:
    protocol = session()
    messages = [m for text in ("the", " cat sleeps", "。") for m in protocol.emitted(emission(text, 975.0))]
    deltas = events(messages)
    assert [delta["delta"] for delta in deltas] == ["the", " cat sleeps", "。"]
    assert {delta["type"] for delta in deltas} == {"session.output_transcript.delta"}
    assert {delta["elapsed_ms"] for delta in deltas} == {800}


def test_speech_is_sent_at_24_khz_without_seams() -> None:
    protocol = session()
    messages = [m for final in (False, False, True) for m in protocol.emitted(emission("", samples=1600, final=final))]
    deltas = events(messages)
    assert {delta["type"] for delta in deltas} == {"session.output_audio.delta"}
    assert all((delta["sample_rate"], delta["format"]) == (24000, "pcm16") for delta in deltas)
    sound = np.concatenate([np.frombuffer(base64.b64decode(delta["delta"]), "<i2") for delta in deltas])
    assert len(sound) == 7200 and abs(sound[200:-200].astype(int) - 16384).max() < 20


def test_settings_of_a_session() -> None:
    protocol = session()
    updated = update(
        protocol, audio={"input": {"transcription": {"model": "x"}, "chunk_ms": 640}, "output": {"voice": False}}
    )
    assert updated["type"] == "session.updated" and protocol.wishes == Wishes(640, False, transcript=True)
    assert updated["session"]["audio"]["input"]["transcription"] == {"model": "x"}
    assert protocol.emitted(emission("", samples=1600)) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model": "other"}, "`session.model` cannot be changed"),
        ({"audio": {"output": {"language": "de"}}}, "language` must be 'en', but is 'de'"),
        ({"audio": {"input": {"noise_reduction": {"type": "near_field"}}}}, "noise_reduction` must be null"),
        ({"audio": {"input": {"chunk_ms": 0}}}, "chunk_ms` must be a whole number of at least 1"),
        ({"audio": 3}, "`session.audio` must be an object, but is int"),
        ({"audio": {"output": {"voice": "yes"}}}, "voice` must be true or false"),
    ],
)
def test_settings_that_cannot_be_had_are_answered(values: dict[str, Any], words: str) -> None:
    protocol = session()
    answer = update(protocol, **values)
    assert answer["type"] == "error" and words in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error" and answer["error"]["event_id"] == "mine"
    assert protocol.wishes == Wishes(None, True)


def test_the_transcript_comes_first_and_only_where_asked_for() -> None:
    heard = emission("the cat", 975.04).with_deltas("the cat", "le chat")
    plain, asked = session(), session()
    assert [event["type"] for event in events(plain.emitted(heard))] == ["session.output_transcript.delta"]
    update(asked, audio={"input": {"transcription": {"model": "x"}}})
    first, second = (events(asked.emitted(item)) for item in (heard, replace(heard, source_space=True)))
    assert [(event["type"], event["delta"]) for event in first] == [
        ("session.input_transcript.delta", "le chat"),
        ("session.output_transcript.delta", "the cat"),
    ]
    assert second[0]["delta"] == " le chat" and (first[0]["elapsed_ms"], first[0]["source_ms"]) == (800, 975.0)
    update(asked, audio={"input": {"transcription": None}})
    assert len(asked.emitted(heard)) == 1 and not asked.wishes.transcript
    answer = update(
        RealtimeTranslation("m", "en", False, has_transcript=False), audio={"input": {"transcription": {"model": "x"}}}
    )
    assert "transcription` must be null" in answer["error"]["message"]


def test_settings_are_fixed_by_the_first_audio_and_voice_needs_a_vocoder() -> None:
    protocol = session(has_voice=False)
    assert "no vocoder" in update(protocol, audio={"output": {"voice": True}})["error"]["message"]
    protocol.received('{"type": "session.input_audio_buffer.append", "audio": ""}')
    assert "before the first audio" in update(protocol, audio={"input": {"chunk_ms": 640}})["error"]["message"]
    assert update(protocol, audio={"output": {"language": "en"}})["type"] == "session.updated"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"\0\0", "this one has bytes"),
        ("{", "must be a JSON object"),
        ("[" * 100_000, "must be a JSON object"),
        ("[]", "`message` must be an object, but is list"),
        ('{"type": "response.create"}', "but is 'response.create'"),
        ('{"type": "session.input_audio_buffer.append"}', "`audio` must be base64 text of 16-bit"),
        ('{"type": "session.input_audio_buffer.append", "audio": "***"}', "`audio` must be base64 text"),
        ('{"type": "session.input_audio_buffer.append", "audio": "AA=="}', "an even number of bytes, but has 1"),
    ],
)
def test_messages_that_mean_nothing_are_answered(message: str | bytes, words: str) -> None:
    protocol = session()
    (answer,) = events(protocol.received(message).replies)
    assert answer["type"] == "error" and words in answer["error"]["message"]
    assert protocol.received('{"type": "session.close"}').final  # the session went on
    late = protocol.received('{"type": "session.input_audio_buffer.append", "audio": "AAA="}')
    assert "after session.close" in events(late.replies)[0]["error"]["message"]
