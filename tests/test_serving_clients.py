"""Clients of others against the server on loopback: OpenAI's for Realtime translation, simulstream's for WAV files.

The extra ``dev`` has the first. The second comes with ``bash scripts/install.sh clients``; as its client module imports
only numpy and websockets, ``pip install --no-deps simulstream==1.0.0`` will do too, without librosa and numba.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import logging
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _name in ("starlette", "uvicorn", "websockets"):
    pytest.importorskip(_name, reason="needs the extra serve")

from random_system import make_bundle, make_signal  # noqa: E402
from running_server import Running  # noqa: E402

from nast_s2x.inference.system import System  # noqa: E402

RATE = 24000
SIGNAL = (make_signal(5.0, seed=31, rate=RATE) * 32767).astype("<i2")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    return make_bundle(tmp_path_factory.mktemp("system"), voice=True)


@pytest.fixture(scope="module")
def running(system: System) -> Iterator[Running]:
    with Running(system) as server:
        yield server


def translated(system: System, samples: np.ndarray, rate: int, chunk_ms: int | None = None) -> tuple[str, float]:
    """The text, and the seconds of speech, of a stream in this process."""
    stream = system.stream(chunk_ms=chunk_ms, with_speech=True)
    emissions = [*stream.push(samples, rate), *stream.push([], final=True)]
    seconds = sum(len(emission.waveform) for emission in emissions if emission.waveform is not None) / 16000
    return "".join(emission.delta for emission in emissions), seconds


# --- OpenAI's client ----------------------------------------------------------------------------------------------


def audio_of(samples: np.ndarray) -> str:
    return base64.b64encode(samples.tobytes()).decode()


def session_of_openai(running: Running, **audio: Any) -> list[Any]:
    """Events of a session: an update if ``audio`` is given, appends of 200 ms, close."""
    openai = pytest.importorskip("openai", reason="needs the extra dev: openai")
    client = openai.OpenAI(api_key="key", base_url=f"http://127.0.0.1:{running.port}/v1")
    events = []
    with client.realtime.translations.connect(model="tiny") as connection:
        if audio:
            connection.send({"type": "session.update", "session": {"audio": audio}})
        for start in range(0, len(SIGNAL), RATE // 5):
            append = {
                "type": "session.input_audio_buffer.append",
                "audio": audio_of(SIGNAL[start : start + RATE // 5]),
            }
            connection.send(append)
        connection.send({"type": "session.close"})
        for event in connection:
            events.append(event)
            # The client takes an event of a kind that it does not know for an error.
            assert type(event).__name__ != "RealtimeErrorEvent" or event.type == "error", event
    return events


def test_openai_client(system: System, running: Running) -> None:
    events = session_of_openai(running, output={"language": "en"})
    kinds = [event.type for event in events]
    assert kinds[:2] == ["session.created", "session.updated"] and kinds[-1] == "session.closed"
    assert set(kinds[2:-1]) == {"session.output_transcript.delta", "session.output_audio.delta"}
    assert events[0].session.model == "tiny" and events[1].session.audio.output.language == "en"
    assert all(isinstance(event, tuple(known_events())) for event in events)
    text, seconds = translated(system, SIGNAL, RATE)
    assert "".join(event.delta for event in events if event.type == "session.output_transcript.delta") == text
    sound = b"".join(base64.b64decode(event.delta) for event in events if event.type == "session.output_audio.delta")
    assert len(sound) / 2 / RATE == pytest.approx(seconds, abs=0.01) and seconds > 0.5
    running.wait_until_free()


def known_events() -> list[type]:
    """Classes of the client's union of the server's events."""
    from typing import get_args

    from openai.types.realtime import RealtimeTranslationServerEvent

    union = get_args(RealtimeTranslationServerEvent)[0]
    return list(get_args(union))


def test_openai_client_with_our_settings(system: System, running: Running) -> None:
    events = session_of_openai(running, input={"chunk_ms": 640}, output={"voice": False})
    kinds = {event.type for event in events}
    assert kinds == {"session.created", "session.updated", "session.output_transcript.delta", "session.closed"}
    text = "".join(event.delta for event in events if event.type == "session.output_transcript.delta")
    assert text == translated(system, SIGNAL, RATE, 640)[0]


def test_openai_client_is_told_of_errors(running: Running) -> None:
    first, second, *rest = session_of_openai(running, output={"language": "xx"})
    assert (first.type, second.type, rest[-1].type) == ("session.created", "error", "session.closed")
    assert second.error.type == "invalid_request_error" and "must be 'en', but is 'xx'" in second.error.message
    running.wait_until_free()


def test_openai_asynchronous_client(system: System, running: Running) -> None:
    openai = pytest.importorskip("openai", reason="needs the extra dev: openai")

    async def talk() -> str:
        client = openai.AsyncOpenAI(api_key="key", base_url=f"http://127.0.0.1:{running.port}/v1")
        async with client.realtime.translations.connect(model="tiny") as connection:
            # All of it in one message: it is split here.
            await connection.send({"type": "session.input_audio_buffer.append", "audio": audio_of(SIGNAL)})
            await connection.send({"type": "session.close"})
            return "".join(
                [event.delta async for event in connection if event.type == "session.output_transcript.delta"]
            )

    assert asyncio.run(talk()) == translated(system, SIGNAL, RATE)[0]
    running.wait_until_free()


# --- simulstream's WAV client -------------------------------------------------------------------------------------


def test_simulstream_wav_client(
    system: System, running: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import json

    why = "needs simulstream: bash scripts/install.sh clients"
    wav_client = pytest.importorskip("simulstream.client.wav_reader_client", reason=why)
    signals = {"a.wav": (SIGNAL[: 3 * RATE], RATE), "b.wav": (SIGNAL[10000 : 10000 + 40321], 16000)}
    for name, (samples, rate) in signals.items():
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setparams((1, 2, rate, len(samples), "NONE", ""))
            file.writeframes(samples.tobytes())
    (tmp_path / "list.txt").write_text("".join(f"{name}\n" for name in signals))
    arguments = argparse.Namespace(
        uri=running.url("/simulstream"),
        wav_list_file=str(tmp_path / "list.txt"),
        chunk_duration_ms=100,
        tgt_lang="en",
        src_lang="fr",
    )
    with caplog.at_level(logging.DEBUG, logger="simulstream.wav_reader_client"):
        asyncio.run(wav_client.main(arguments))
    texts, text = [], ""
    for record in caplog.records:
        if record.name != "simulstream.wav_reader_client" or record.levelno != logging.DEBUG:
            continue
        values = json.loads(record.getMessage())
        assert set(values) in ({"new", "deleted"}, {"end_of_processing"})
        if "end_of_processing" in values:
            texts.append(text)
            text = ""
        else:
            assert values["deleted"] == ""
            text += values["new"]
    wanted = []
    for samples, rate in signals.values():
        last = (len(samples) - 1) // (rate // 10) * (rate // 10)
        sent = np.concatenate([samples, samples[last:]])  # this client sends its last message twice
        wanted.append(translated(system, sent, rate)[0])
    assert texts == wanted and all(texts)
    running.wait_until_free()
