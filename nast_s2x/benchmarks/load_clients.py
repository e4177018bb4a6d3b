"""Clients of the load test: healthy ones, which send audio in real time, and misbehaving ones."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

PIECE_MS = 80
RETRY_SECONDS = 1.0
PAUSE_SECONDS = 2.0
"""Between two misdeeds of a kind."""
SIMULSTREAM, REALTIME = "/simulstream", "/v1/realtime/translations?model=load"
RATES = {SIMULSTREAM: 16000, REALTIME: 24000}
GOODBYE = {SIMULSTREAM: '{"end_of_stream": true}', REALTIME: '{"type": "session.close"}'}
TRY_LATER = 1013


@dataclass(frozen=True)
class Talk:
    """A source and its translation.

    Attributes:
        samples: (n,) int16 at ``rate`` Hz.
        emissions: (ms of the source that it required, delta) of each emission with text, as `translate` gives them.
    """

    samples: NDArray[np.int16]
    rate: int
    emissions: list[tuple[float, str]]

    @property
    def seconds(self) -> float:
        """Length of the source."""
        return len(self.samples) / self.rate

    @property
    def text(self) -> str:
        """The whole translation."""
        return "".join(delta for _, delta in self.emissions)


@dataclass
class Outcome:
    """What a source gave.

    Attributes:
        text: of all that was received.
        delays: seconds from the moment when the last sample that an emission needs was spoken to its arrival.
        error: what ended the connection before the end.
    """

    talk: Talk
    text: str = ""
    delays: list[float] = field(default_factory=list)
    error: str | None = None

    @property
    def is_equal(self) -> bool:
        """Everything has come, and nothing else."""
        return self.error is None and self.text == self.talk.text


@dataclass
class Record:
    """What has happened so far.

    Attributes:
        outcomes: of sources in real time, by the number of their session.
        unpaced: of sources that were sent as fast as the server took them.
        refused: sources that the server had no room for; they were tried again.
        misdeeds: by kind of client.
    """

    outcomes: dict[int, list[Outcome]] = field(default_factory=dict)
    unpaced: list[Outcome] = field(default_factory=list)
    refused: int = 0
    misdeeds: dict[str, int] = field(default_factory=dict)


class FullServerError(Exception):
    """The server has no room for a source now."""


def open_connection(url: str, path: str) -> connect:
    """A WebSocket to the server, as an asynchronous context."""
    return connect(f"{url}{path}", max_size=None, compression=None, proxy=None, ping_interval=None)


def audio_message(path: str, samples: NDArray[np.int16]) -> str | bytes:
    """A message with samples, in the protocol of a path."""
    if path == SIMULSTREAM:
        return samples.tobytes()
    audio = base64.b64encode(samples.tobytes()).decode("ascii")
    return json.dumps({"type": "session.input_audio_buffer.append", "audio": audio})


def text_of(message: str | bytes) -> tuple[str, bool]:
    """Words of a message of either protocol, and whether the source has ended with it.

    Raises:
        FullServerError: the message says so; ValueError: another error.
    """
    values = json.loads(message)
    if values.get("type") == "error":
        why = values["error"]["message"]
        raise FullServerError(why) if "try again in" in why else ValueError(why)
    is_end = "end_of_processing" in values or values.get("type") == "session.closed"
    return values.get("new", "") or (values["delta"] if "transcript.delta" in values.get("type", "") else ""), is_end


async def send_source(socket: ClientConnection, path: str, talk: Talk, paced: bool) -> Outcome:
    """Send a source and receive its translation.

    Raises:
        FullServerError: the server has no room for it.
    """
    outcome, loop = Outcome(talk), asyncio.get_running_loop()
    begun = loop.time()

    async def send() -> None:
        size = PIECE_MS * talk.rate // 1000
        for start in range(0, len(talk.samples), size):
            piece = talk.samples[start : start + size]
            if paced:
                await asyncio.sleep(max(0.0, begun + (start + len(piece)) / talk.rate - loop.time()))
            await socket.send(audio_message(path, piece))
        await socket.send(GOODBYE[path])

    sending = asyncio.create_task(send())
    try:
        while True:
            text, is_end = text_of(await socket.recv())
            outcome.text += text
            if text and len(outcome.delays) < len(talk.emissions):
                outcome.delays.append(loop.time() - begun - talk.emissions[len(outcome.delays)][0] / 1000)
            if is_end:
                return outcome
    except ConnectionClosed as error:
        if error.rcvd is not None and error.rcvd.code == TRY_LATER:
            raise FullServerError(error.rcvd.reason) from None
        outcome.error = str(error)
    except ValueError as error:
        outcome.error = str(error)
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
            await sending
    return outcome


async def healthy(
    url: str, path: str, number: int, talks: Sequence[Talk], end: float, record: Record, delay: float
) -> None:
    """A session in real time: talks one after the other, as long as the next one ends before ``end``."""
    loop = asyncio.get_running_loop()
    mine = record.outcomes.setdefault(number, [])
    await asyncio.sleep(delay)
    following = itertools.cycle(talks)
    talk = next(following)
    while not mine or loop.time() + talk.seconds < end:
        try:
            async with open_connection(url, path) as socket:
                while not mine or loop.time() + talk.seconds < end:
                    mine.append(await send_source(socket, path, talk, paced=True))
                    talk = next(following)
                    if path == REALTIME or mine[-1].error is not None:  # one source for each connection
                        break
        except FullServerError:
            record.refused += 1
            await asyncio.sleep(RETRY_SECONDS)


# --- clients that do what they should not -------------------------------------------------------------------------

Misdeed = Callable[[str, Talk], Awaitable[None]]


async def vanish(url: str, talk: Talk) -> None:
    """Audio, then the connection is reset in the middle of a message."""
    for path in (SIMULSTREAM, REALTIME):
        async with _abandoned(url, path) as socket:
            for start in range(0, talk.rate, talk.rate // 10):
                await socket.send(audio_message(path, talk.samples[start : start + talk.rate // 10]))
            socket.transport.write(b"\x82\xfe\xff\xff")  # a frame of 65535 bytes begins


async def stall(url: str, talk: Talk) -> None:
    """Audio in real time, and nothing is ever read."""
    async with _abandoned(url, SIMULSTREAM) as socket:
        socket.transport.pause_reading()
        for start in range(0, min(len(talk.samples), 10 * talk.rate), talk.rate // 10):
            await socket.send(talk.samples[start : start + talk.rate // 10].tobytes())
            await asyncio.sleep(0.1)


async def ignore_answers(url: str, talk: Talk) -> None:
    """Settings without end, whose answers are not read."""
    async with _abandoned(url, REALTIME) as socket:
        socket.transport.pause_reading()
        settings = b'{"type": "session.update", "session": {}}'
        frame = bytes([0x81, 0x80 | len(settings)]) + bytes(4) + settings  # a text, masked with zeros
        for _ in range(200):
            if socket.transport.get_write_buffer_size() < 1 << 20:
                socket.transport.write(100 * frame)
            await asyncio.sleep(0.01)


async def send_rubbish(url: str, talk: Talk) -> None:
    """Messages that mean nothing, are damaged, or are too large."""
    sound = talk.samples[: talk.rate].tobytes()
    minutes = np.zeros(11 * 60 * 8000, np.int16).tobytes()
    for path, messages in (
        (SIMULSTREAM, [sound, sound[:-1]]),
        (SIMULSTREAM, [b"", "", "{", "[]", sound, '{"sample_rate": "many"}']),
        (SIMULSTREAM, ['{"sample_rate": 8000}', minutes]),
        (SIMULSTREAM, [bytes(17 << 20)]),
        (REALTIME, [sound, "", "{", '"text"', '{"type": 3}', '{"type": "session.input_audio_buffer.append"}']),
        (REALTIME, ['{"type": "session.input_audio_buffer.append", "audio": "AAA"}', '{"type": "session.close"}']),
        (REALTIME, ['{"type": "session.update", "session": {"audio": [' + "[" * 5000]),
        (REALTIME, ["x" * (33 << 20)]),
    ):
        with contextlib.suppress(WebSocketException, OSError, asyncio.TimeoutError):
            async with _abandoned(url, path) as socket:
                for message in messages:
                    await socket.send(message)
                async with asyncio.timeout(1):
                    async for _ in socket:
                        pass
    async with _abandoned(url, SIMULSTREAM) as socket:
        socket.transport.write(secrets.token_bytes(2000))  # no frames
        await asyncio.sleep(0.1)


async def fail_handshakes(url: str, talk: Talk) -> None:
    """Connections that never become sessions."""
    host, _, port = url.removeprefix("ws://").partition(":")
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    for request in (
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        secrets.token_bytes(500),
        b"GET /simulstream HTTP/1.1\r\nHost: x\r\n",
        b"GET /simulstream HTTP/1.1\r\nHost: x\r\n\r\n",
        f"GET /nothing HTTP/1.1\r\nHost: x\r\n{upgrade}Sec-WebSocket-Version: 13\r\n\r\n".encode(),
        f"GET /simulstream HTTP/1.1\r\nHost: x\r\n{upgrade}Sec-WebSocket-Version: 1\r\n\r\n".encode(),
        b"POST /simulstream HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123",
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            writer.write(request)
            await asyncio.wait_for(reader.read(1000), 0.1)
        writer.transport.abort()


MISDEEDS: dict[str, Misdeed] = {
    "vanish": vanish,
    "stall": stall,
    "ignore_answers": ignore_answers,
    "rubbish": send_rubbish,
    "handshakes": fail_handshakes,
}


async def misbehave(url: str, name: str, talk: Talk, record: Record) -> None:
    """One kind of misdeed again and again."""
    while True:
        with contextlib.suppress(WebSocketException, OSError, asyncio.TimeoutError):
            await MISDEEDS[name](url, talk)
        record.misdeeds[name] = record.misdeeds.get(name, 0) + 1
        await asyncio.sleep(PAUSE_SECONDS)


async def flood(url: str, talk: Talk, record: Record) -> None:
    """Whole talks as fast as the server takes them, again and again."""
    while True:
        try:
            async with open_connection(url, SIMULSTREAM) as socket:
                record.unpaced.append(await send_source(socket, SIMULSTREAM, talk, paced=False))
        except FullServerError:
            record.refused += 1
        await asyncio.sleep(PAUSE_SECONDS)


@contextlib.asynccontextmanager
async def _abandoned(url: str, path: str) -> AsyncIterator[Any]:
    """A connection that ends with a reset."""
    socket = await open_connection(url, path)
    try:
        yield socket
    finally:
        socket.transport.abort()
