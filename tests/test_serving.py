"""The server on loopback: texts equal to `translate`'s, whatever the clients do."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
websockets = pytest.importorskip("websockets")

from random_system import make_bundle, make_signal  # noqa: E402
from running_server import Running  # noqa: E402

from nast_s2x.inference.engine import BatchedEngine  # noqa: E402
from nast_s2x.inference.streaming import TranslationStream  # noqa: E402
from nast_s2x.inference.system import System  # noqa: E402
from nast_s2x.serving.app import Admission  # noqa: E402
from nast_s2x.serving.sessions import Limits  # noqa: E402
from nast_s2x.serving.worker import Worker  # noqa: E402

SIGNAL = (make_signal(4.0, seed=21) * 32767).astype("<i2")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    return make_bundle(tmp_path_factory.mktemp("system"), voice=True)


@pytest.fixture(scope="module")
def running(system: System) -> Iterator[Running]:
    with Running(system) as server:
        yield server


def expected(system: System, samples: np.ndarray, chunk_ms: int | None = None) -> str:
    stream = TranslationStream(system, system.policy(chunk_ms), with_units=False)
    emissions = [*stream.push(samples), *stream.push([], final=True)]
    return "".join(emission.delta for emission in emissions)


async def simulstream(running: Running, samples: np.ndarray, piece: int = 3000, **settings: Any) -> tuple[str, bytes]:
    async with websockets.connect(running.url("/simulstream"), max_size=None) as client:
        return await one_source(client, samples, piece, **settings)


async def one_source(client: Any, samples: np.ndarray, piece: int, **settings: Any) -> tuple[str, bytes]:
    await client.send(json.dumps({"sample_rate": 16000, **settings}))
    for start in range(0, len(samples), piece):
        await client.send(samples[start : start + piece].tobytes())
    await client.send('{"end_of_stream": true}')
    text, sound = "", b""
    while True:
        message = await client.recv()
        if isinstance(message, bytes):
            sound += message
        elif json.loads(message).get("end_of_processing"):
            return text, sound
        else:
            assert json.loads(message)["deleted"] == ""
            text += json.loads(message)["new"]


def test_simulstream(system: System, running: Running) -> None:
    async def both() -> None:
        text, sound = await simulstream(running, SIGNAL)
        assert text == expected(system, SIGNAL) and not sound
        text, sound = await simulstream(running, SIGNAL, chunk_ms=640, voice=True)
        assert text == expected(system, SIGNAL, 640) and len(sound) > 3200
        async with websockets.connect(running.url("/simulstream")) as client:  # two sources, one connection
            first = await one_source(client, SIGNAL, 5000)
            second = await one_source(client, SIGNAL[:30000], 1000)
            empty = await one_source(client, SIGNAL[:0], 1000)
        assert (first[0], second[0], empty[0]) == (expected(system, SIGNAL), expected(system, SIGNAL[:30000]), "")

    asyncio.run(both())
    running.wait_until_free()


def test_realtime_translation(system: System, running: Running) -> None:
    import soxr

    upsampled = soxr.resample(SIGNAL.astype(np.float32) / 32768, 16000, 24000)
    samples = (upsampled * 32767).astype("<i2")
    stream = TranslationStream(system, system.policy(), with_units=False)
    emissions = [*stream.push(samples, 24000), *stream.push([], final=True)]
    wanted = "".join(emission.delta for emission in emissions)

    async def talk() -> list[dict[str, Any]]:
        got = []
        async with websockets.connect(running.url("/v1/realtime/translations?model=m"), max_size=None) as client:
            got.append(json.loads(await client.recv()))
            for start in range(0, len(samples), 4800):
                audio = base64.b64encode(samples[start : start + 4800].tobytes()).decode()
                await client.send(json.dumps({"type": "session.input_audio_buffer.append", "audio": audio}))
            await client.send('{"type": "session.close"}')
            async for message in client:
                got.append(json.loads(message))
        assert client.close_code == 1000
        return got

    events = asyncio.run(talk())
    assert events[0]["type"] == "session.created" and events[-1]["type"] == "session.closed"
    text = "".join(event["delta"] for event in events if event["type"] == "session.output_transcript.delta")
    assert text == wanted
    assert any(event["type"] == "session.output_audio.delta" for event in events)
    assert len({event["event_id"] for event in events}) == len(events)
    running.wait_until_free()


def test_many_clients_each_as_if_alone(system: System) -> None:
    async def all_of_them(server: Running) -> None:
        parts = [SIGNAL[number * 3000 :] for number in range(8)]
        texts = await asyncio.gather(
            *(simulstream(server, part, 700 + 500 * number) for number, part in enumerate(parts))
        )
        assert [text for text, _ in texts] == [expected(system, part) for part in parts]

    with Running(system, slots=8) as server:
        asyncio.run(all_of_them(server))
        server.wait_until_free()


def test_a_chunk_longer_than_what_may_wait(system: System) -> None:
    with Running(system, ahead_ms=100.0) as server:
        text, _ = asyncio.run(asyncio.wait_for(simulstream(server, SIGNAL, chunk_ms=640), 30))
        assert text == expected(system, SIGNAL, 640)
        server.wait_until_free()


def test_full_and_free_again(system: System) -> None:
    async def crowd(server: Running) -> None:
        first = await websockets.connect(server.url("/simulstream"))
        await first.send(SIGNAL[:1000].tobytes())
        async with websockets.connect(server.url("/v1/realtime/translations")) as second:
            await second.recv()
            audio = base64.b64encode(SIGNAL[:100].tobytes()).decode()
            await second.send(json.dumps({"type": "session.input_audio_buffer.append", "audio": audio}))
            error = json.loads(await second.recv())
            assert error["type"] == "error" and "all 1 slots are in use: try again in" in error["error"]["message"]
            with pytest.raises(websockets.ConnectionClosed):
                await second.recv()
            assert second.close_code == 1013
        first.transport.abort()  # without a closing handshake
        for _ in range(200):
            if not server.worker.in_use:
                break
            await asyncio.sleep(0.02)
        assert (await simulstream(server, SIGNAL))[0] == expected(system, SIGNAL)

    with Running(system, slots=1) as server:
        asyncio.run(crowd(server))
        server.wait_until_free()
        assert server.worker.figures.refused == 1


@pytest.mark.parametrize("bad", [b"\0", "x" * 9000, json.dumps({"sample_rate": -1}), json.dumps({"chunk_ms": 7})])
def test_a_bad_client_ends_alone(system: System, bad: str | bytes) -> None:
    async def together(server: Running) -> None:
        async def spoil() -> None:
            async with websockets.connect(server.url("/simulstream")) as client:
                await client.send(SIGNAL[:2000].tobytes() if "chunk" not in str(bad) else bad)
                await client.send(bad if "chunk" not in str(bad) else SIGNAL[:2000].tobytes())
                with pytest.raises(websockets.ConnectionClosed):
                    while True:
                        await client.recv()
                assert client.close_code in (1007, 1008, 1009)

        texts, _ = await asyncio.gather(simulstream(server, SIGNAL), spoil())
        assert texts[0] == expected(system, SIGNAL)

    with Running(system, message_bytes=8000) as server:
        asyncio.run(together(server))
        server.wait_until_free()


def test_an_idle_client_gets_what_it_said(system: System) -> None:
    async def wait(server: Running) -> str:
        text = ""
        async with websockets.connect(server.url("/simulstream")) as client:
            await client.send(SIGNAL.tobytes())
            async for message in client:
                text += json.loads(message).get("new", "")
        assert client.close_code == 1001
        return text

    with Running(system, idle_seconds=0.3) as server:
        assert asyncio.run(wait(server)) == expected(system, SIGNAL)
        server.wait_until_free()


def test_tokens_and_origins(system: System) -> None:
    async def knock(server: Running, **options: Any) -> int:
        path = options.pop("path", "/simulstream")
        try:
            async with websockets.connect(server.url(path), **options) as client:
                await client.send('{"end_of_stream": 1}')
                await client.recv()
            return 200
        except websockets.InvalidStatus as error:
            return error.response.status_code

    bearer = {"additional_headers": {"Authorization": "Bearer right"}}
    with Running(system, admission=Admission(["left", "right"], ["https://a.example"])) as server:
        assert asyncio.run(knock(server)) == 403
        assert asyncio.run(knock(server, additional_headers={"Authorization": "Bearer wrong"})) == 403
        assert asyncio.run(knock(server, **bearer)) == 200
        assert asyncio.run(knock(server, path="/simulstream?token=left")) == 200
        assert asyncio.run(knock(server, origin="https://evil.example", **bearer)) == 403
        assert asyncio.run(knock(server, origin="https://a.example", **bearer)) == 200
        assert asyncio.run(knock(server, origin=f"http://127.0.0.1:{server.port}", **bearer)) == 200


def test_health_and_metrics(running: Running) -> None:
    asyncio.run(simulstream(running, SIGNAL[:20000]))
    running.wait_until_free()
    health = running.health()
    assert health["chunks"] == [{"chunk_ms": size, "lookahead_ms": size} for size in (320, 160, 640)]
    assert health["transcript"] is None and health["needs_token"] is False
    assert health["slots"] == 3 and health["in_use"] == 0 and health["status"] == "ok" and health["voice"]
    text = urlopen(f"http://127.0.0.1:{running.port}/metrics").read().decode()
    values = dict(line.split(" ") for line in text.splitlines() if not line.startswith("#"))
    assert float(values["nast_s2x_sources_accepted_total"]) >= 1 and float(values["nast_s2x_steps_total"]) >= 1


def test_a_transcript_where_it_is_asked_for(system: System, running: Running) -> None:
    stream = TranslationStream(system, system.policy(), with_units=False, with_transcript=True)
    samples = SIGNAL[::2]
    emissions = [*stream.push(samples, 24000), *stream.push([], final=True)]

    async def talk() -> tuple[str, str]:
        got = {"session.input_transcript.delta": "", "session.output_transcript.delta": ""}
        async with websockets.connect(running.url("/v1/realtime/translations"), max_size=None) as client:
            await ask_for_transcript(client)
            await append(client, samples)
            await client.send('{"type": "session.close"}')
            async for message in client:
                event = json.loads(message)
                if event["type"] in got:
                    got[event["type"]] += event["delta"]
        return tuple(got.values())

    source = " ".join(emission.source_text for emission in emissions if emission.source_text)
    assert source and asyncio.run(talk()) == (source, "".join(e.delta for e in emissions))
    running.wait_until_free()


async def ask_for_transcript(client: Any) -> None:
    values = {"audio": {"input": {"transcription": {"model": "own"}}}}
    await client.send(json.dumps({"type": "session.update", "session": values}))


async def append(client: Any, samples: np.ndarray) -> None:
    audio = base64.b64encode(samples.tobytes()).decode()
    await client.send(json.dumps({"type": "session.input_audio_buffer.append", "audio": audio}))


async def rest(client: Any) -> list[Any]:
    """All messages until the connection is closed."""
    got = []
    try:
        while True:
            message = await client.recv()
            got.append(message if isinstance(message, bytes) else json.loads(message))
    except websockets.ConnectionClosed:
        return got


class Gate:
    """Steps of engines, which wait while it is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, step = threading.Event(), BatchedEngine.step
        monkeypatch.setattr(BatchedEngine, "step", lambda engine: self.open.wait(30) and step(engine))


def test_a_server_that_stops_sends_the_rest(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)

    async def sessions(server: Running) -> None:
        first, second, between, idle = [
            await websockets.connect(server.url(path), max_size=None)
            for path in ("/simulstream", "/v1/realtime/translations", "/simulstream", "/v1/realtime/translations")
        ]
        await between.send('{"end_of_stream": 1}')
        assert json.loads(await between.recv()) == {"end_of_processing": True}
        await first.send(SIGNAL[:30000].tobytes())
        await append(second, SIGNAL[:30000])
        await second.send('{"type": "session.close"}')  # the client has ended this one itself
        while server.worker.in_use < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        server.stop()
        while (await asyncio.to_thread(server.health))["status"] != "closing":
            await asyncio.sleep(0.02)
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(server.url("/simulstream"))
        assert refused.value.response.status_code == 503
        gate.open.set()
        got = await asyncio.gather(*(rest(client) for client in (first, second, between, idle)))
        assert "".join(message.get("new", "") for message in got[0]) == expected(system, SIGNAL[:30000])
        assert got[0][-1] == {"end_of_processing": True} and got[2] == []
        assert [message["type"] for message in got[3]] == ["session.created", "session.closed"]
        assert [message["type"] for message in got[1]].count("session.closed") == 1
        codes = [client.close_code for client in (first, second, between, idle)]
        assert codes[0] == codes[2] == codes[3] == 1001 and codes[1] in (1000, 1001)

    with Running(system) as server:
        asyncio.run(asyncio.wait_for(sessions(server), 30))


def test_a_server_that_stops_does_not_wait_for_ever(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)

    async def one(server: Running) -> None:
        client = await websockets.connect(server.url("/simulstream"))
        await client.send(SIGNAL[:30000].tobytes())
        while not server.worker.in_use:
            await asyncio.sleep(0.01)
        server.stop()
        assert await rest(client) == [] and client.close_code in (1001, 1006, 1012)

    with Running(system, closing_seconds=0.2) as server:
        asyncio.run(asyncio.wait_for(one(server), 20))
    gate.open.set()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_command_and_sends_the_rest(name: str) -> None:
    import signal
    import subprocess
    import sys

    from nast_s2x.frontend.audio import load_audio
    from nast_s2x.inference import load_system

    example = Path(__file__).parents[1] / "examples" / "espeak_fr_en"
    samples = load_audio(example / "recordings" / "test_00002.flac")[:35000]
    system = load_system(example / "bundle")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "nast_s2x.cli.main", "serve", "--model", str(example / "bundle")]

    async def talk(process: subprocess.Popen[str]) -> tuple[str, int | None]:
        async with websockets.connect(f"ws://127.0.0.1:{port}/simulstream") as client:
            await client.send((samples * 32767).astype("<i2").tobytes())
            first = json.loads(await client.recv())["new"]
            process.send_signal(getattr(signal, name))
            messages = await rest(client)
        assert messages[-1] == {"end_of_processing": True}
        return first + "".join(message.get("new", "") for message in messages), client.close_code

    def heed_interrupts() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests that run in the background of a shell inherit "ignore"

    with subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline().startswith("ready: ")
            text, code = asyncio.run(asyncio.wait_for(talk(process), 30))
            assert process.wait(15) == {"SIGINT": 130, "SIGTERM": -signal.SIGTERM}[name]
        finally:
            process.kill()
    assert (text, code) == (expected(system, samples), 1001) and len(text.split()) > 4


def test_the_command_says_where_it_listens_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import subprocess
    import sys

    from nast_s2x.cli.main import main

    bundle = Path(__file__).parents[1] / "examples" / "espeak_fr_en" / "bundle"
    tokens = tmp_path / "tokens"
    for text, words in (("", "holds no token"), ("short\n", "at least 16 characters")):
        tokens.write_text(text)
        assert main(["serve", "--model", str(bundle), "--token-file", str(tokens)]) == 1
        assert words in capsys.readouterr().err
    assert main(["serve", "--model", str(bundle), "--slots", "0"]) == 1
    assert main(["serve", "--model", str(bundle), "--chunk-ms", "offline"]) == 1
    assert "cannot be offline" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "nast_s2x.cli.main", "serve", "--model", str(bundle), "--port", port]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and f"cannot listen on 127.0.0.1:{port}" in refused.stderr
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready: ws://127.0.0.1:")
        assert json.load(urlopen(f"http://127.0.0.1:{port}/health"))["model"] == "bundle"
        process.terminate()


def test_clients_behind_a_proxy_are_not_local(system: System) -> None:
    async def status(server: Running, headers: dict[str, str]) -> int:
        try:
            async with websockets.connect(server.url("/simulstream"), additional_headers=headers):
                return 101
        except websockets.InvalidStatus as error:
            return error.response.status_code

    forwarded = [{name: "127.0.0.1"} for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP")]
    with Running(system) as server:
        assert asyncio.run(status(server, {})) == 101
        assert [asyncio.run(status(server, headers)) for headers in forwarded] == [403] * 3
    with Running(system, admission=Admission(["a token"])) as server:
        token = {"Authorization": "Bearer a token"}
        assert [asyncio.run(status(server, headers | token)) for headers in forwarded] == [101] * 3


def frame(text: str) -> bytes:
    """A text frame of a client, masked with zeros."""
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text.encode()


async def read_nothing(server: Running, seconds: float) -> bool:
    """Send audio and many messages that are answered, and read nothing; true if the connection was reset."""
    plain = socket.create_connection(("127.0.0.1", server.port))
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setblocking(False)
    client = await websockets.connect(server.url("/v1/realtime/translations"), sock=plain, compression=None)
    audio = base64.b64encode(SIGNAL[:20].tobytes()).decode()
    client.transport.write(frame(json.dumps({"type": "session.input_audio_buffer.append", "audio": audio})))
    client.transport.pause_reading()
    while not server.worker.in_use:
        await asyncio.sleep(0.01)
    for _ in range(round(seconds / 0.01)):
        if client.transport.is_closing():
            return True
        if client.transport.get_write_buffer_size() < 100_000:
            client.transport.write(100 * frame('{"type": "session.update", "session": {}}'))
        await asyncio.sleep(0.01)
    client.transport.abort()
    return False


class DeafSocket:
    """A connection whose client sends audio and questions, and whose answers are never taken, as when it reads nothing.

    Args:
        questions: how many; then the client is silent.
    """

    def __init__(self, questions: int) -> None:
        audio = base64.b64encode(SIGNAL[:20].tobytes()).decode()
        texts = [json.dumps({"type": "session.input_audio_buffer.append", "audio": audio})]
        texts += ['{"type": "session.update", "session": {}}'] * questions
        self.events = iter([{"type": "websocket.receive", "text": text} for text in texts])
        self.received = 0

    async def receive(self) -> Any:
        await asyncio.sleep(0)
        for event in self.events:
            self.received += 1
            return event
        await asyncio.Event().wait()

    async def send_text(self, data: str) -> None:
        await asyncio.Event().wait()

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        self.code, self.reason = code, reason
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"unread": 100}, "100 messages were not read"), ({"unread_seconds": 0.1}, "nothing was read for 0.1 s")],
)
def test_a_client_that_reads_nothing_loses_its_slot(
    system: System, monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any], reason: str
) -> None:
    from nast_s2x.serving import sessions
    from nast_s2x.serving.protocols.realtime import RealtimeTranslation

    monkeypatch.setattr(sessions, "_CLOSE_SECONDS", 0.05)
    worker = Worker(system, 1)
    worker.start()
    client = DeafSocket(1000 if "unread" in limits else 10)
    session = sessions.Session(client, RealtimeTranslation("m", None, False), worker, Limits(**limits))
    asyncio.run(asyncio.wait_for(session.run(), 60))
    assert (client.code, client.reason) == (1008, reason) and client.received <= 103
    for _ in range(1000):
        if not worker.in_use:
            break
        threading.Event().wait(0.01)
    assert not worker.in_use and worker.figures.accepted == 1
    worker.stop()


def test_a_connection_whose_client_takes_nothing_is_reset(system: System) -> None:
    from nast_s2x.serving.connections import reset_dead_connections

    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        pytest.skip("this system has no TCP_USER_TIMEOUT")
    with Running(system) as server:
        reset_dead_connections(server._server, 0.5)
        assert asyncio.run(read_nothing(server, 30))
        server.wait_until_free()


def test_answers_to_pings_may_come_late(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait behind the audio of a client that is faster than the engine, which is read only as it is translated."""
    from nast_s2x.serving.connections import WEBSOCKET_OPTIONS

    async def answer_late(server: Running) -> str:
        async with websockets.connect(server.url("/simulstream"), max_size=None) as client:
            client.transport.pause_reading()  # no ping is seen, and none is answered
            await client.send(SIGNAL.tobytes())
            await client.send('{"end_of_stream": true}')
            await asyncio.sleep(1.0)
            client.transport.resume_reading()
            text = ""
            async for message in client:
                if "end_of_processing" in json.loads(message):
                    break
                text += json.loads(message)["new"]
            return text

    timeout = WEBSOCKET_OPTIONS["ws_ping_timeout"]
    monkeypatch.setitem(WEBSOCKET_OPTIONS, "ws_ping_interval", 0.05)
    monkeypatch.setitem(WEBSOCKET_OPTIONS, "ws_ping_timeout", timeout and timeout / 100)
    with Running(system) as server:
        assert asyncio.run(answer_late(server)) == expected(system, SIGNAL)


def test_a_step_that_fails_ends_its_sources_only(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    from nast_s2x.inference.engine import BatchedEngine

    step = BatchedEngine.step

    def fail(engine: BatchedEngine) -> list[Any]:
        if engine.policy.chunk_ms == 640:
            raise RuntimeError("out of memory")
        return step(engine)

    async def together(server: Running) -> tuple[str, int]:
        async def spoiled() -> int:
            async with websockets.connect(server.url("/simulstream")) as client:
                with pytest.raises(websockets.ConnectionClosed):
                    await one_source(client, SIGNAL, 3000, chunk_ms=640)
                return client.close_code

        (text, _), code = await asyncio.gather(simulstream(server, SIGNAL), spoiled())
        return text, code

    monkeypatch.setattr(BatchedEngine, "step", fail)
    with Running(system) as server:
        assert asyncio.run(together(server)) == (expected(system, SIGNAL), 1011)
        server.wait_until_free()
        assert server.worker.figures.failed == 1
        monkeypatch.setattr(BatchedEngine, "step", step)
        assert asyncio.run(simulstream(server, SIGNAL, chunk_ms=640))[0] == expected(system, SIGNAL, 640)


def test_a_client_faster_than_speech_keeps_nobody_out() -> None:
    from nast_s2x.serving.worker import Figures

    figures = Figures()
    assert figures.load == figures.needed_load(3) == 0
    for _ in range(50):  # 5 s of computing in 5 s: 50 s of audio were translated
        figures.add_step(0.1, 1.0)
    assert figures.load == pytest.approx(1)
    assert figures.needed_load(2) == pytest.approx(0.2) and figures.needed_load(30) == pytest.approx(1)
