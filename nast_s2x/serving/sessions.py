"""One connection: messages in and out, one source after the other, limits."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nast_s2x.errors import NastError
from nast_s2x.inference.emission import Emission
from nast_s2x.serving.protocols.base import Message, ProtocolError, Received, Wishes
from nast_s2x.serving.worker import FullError, Result, Seat, Worker

NORMAL, GOING_AWAY, POLICY, TOO_BIG, FAILED, TRY_LATER = 1000, 1001, 1008, 1009, 1011, 1013
"""Codes of closing frames (RFC 6455, section 7.4, and the registry of the IANA)."""
ANY_RATE = 16000  # of a piece without samples

_CLOSE_SECONDS = 5.0  # longest time for a closing frame


class SessionProtocol(Protocol):
    """A protocol, see :mod:`nast_s2x.serving.protocols`."""

    wishes: Wishes

    def opened(self) -> list[Message]: ...
    def received(self, message: Message) -> Received: ...
    def emitted(self, emission: Emission) -> list[Message]: ...
    def finished(self) -> list[Message]: ...
    def failed(self, error: Exception) -> list[Message]: ...


class Socket(Protocol):
    """The part of starlette's ``WebSocket`` that a session uses."""

    async def receive(self) -> Any: ...
    async def send_text(self, data: str) -> None: ...
    async def send_bytes(self, data: bytes) -> None: ...
    async def close(self, code: int = 1000, reason: str | None = None) -> None: ...


@dataclass(frozen=True)
class Limits:
    """Limits of a session.

    Attributes:
        message_bytes: largest message.
        ahead_ms: audio that waits for the engine, beyond which nothing more is read: a client that is faster than the
            engine is slowed.
        most_ahead_ms: beyond this a single message is refused.
        idle_seconds: without any message; then the source ends as if the client had ended it. Silence is no idleness.
        most_seconds: of a session.
        unread: messages that a client has not read, beyond which it is disconnected.
        unread_seconds: longest time in which a client reads nothing although there is something; then it is
            disconnected.
        closing_seconds: time that open sessions have for the rest of their translation when the server stops.
    """

    message_bytes: int = 16 << 20
    ahead_ms: float = 2000.0
    most_ahead_ms: float = 600_000.0
    idle_seconds: float = 300.0
    most_seconds: float = 24 * 3600.0
    unread: int = 10_000
    unread_seconds: float = 60.0
    closing_seconds: float = 10.0


class _EndOfSession(Exception):
    """The connection is to be closed."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Session:
    """Serves one accepted connection until it ends."""

    def __init__(self, socket: Socket, protocol: SessionProtocol, worker: Worker, limits: Limits) -> None:
        self._socket, self._protocol, self._worker, self._limits = socket, protocol, worker, limits
        self._out: asyncio.Queue[Message | Result] = asyncio.Queue()
        self._seat: Seat | None = None
        self._source_ended, self._stopped = asyncio.Event(), asyncio.Event()
        self._is_ending = False  # the end of the source was pushed, or sent if there was no audio
        self._failure: Exception | None = None

    def stop(self) -> None:
        """End the session because the server stops: what was read from the client is translated and sent."""
        self._stopped.set()

    async def run(self) -> None:
        """Serve; every way out frees the slot."""
        sender = asyncio.create_task(self._send_all())
        receiver = asyncio.create_task(self._receive_all())
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            done, _ = await asyncio.wait(
                {sender, receiver, stopped}, timeout=self._limits.most_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            end = _EndOfSession(POLICY, "the longest time of a session is over")
            for task in done & {sender, receiver}:
                error = task.exception()
                if isinstance(error, _EndOfSession):
                    end = error
                elif error is not None:  # the connection is gone, or a fault of ours
                    end = _EndOfSession(FAILED, "")
                else:
                    end = _EndOfSession(NORMAL)
            if done == {stopped}:
                end = await self._end_by_server(sender, receiver)
            if sender not in done:
                await self._flush(sender)
            await self._close(end)
        finally:
            for task in (sender, receiver, stopped):
                task.cancel()
            if self._seat is not None:
                self._seat.close()

    async def _end_by_server(self, sender: asyncio.Task[None], receiver: asyncio.Task[None]) -> _EndOfSession:
        """Read no more, and end the source as if the client had."""
        receiver.cancel()
        await asyncio.wait({receiver})
        ending = asyncio.create_task(self._end_source(by_server=True))
        await asyncio.wait({ending, sender}, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            ending.exception()  # of a source that failed; the client was told
        ending.cancel()
        return _EndOfSession(GOING_AWAY, "the server is stopping")

    async def _flush(self, sender: asyncio.Task[None]) -> None:
        """Give what is queued some time to be sent."""
        for _ in range(200):
            if self._out.empty() or sender.done():
                return
            await asyncio.sleep(0.01)

    async def _close(self, end: _EndOfSession) -> None:
        # It may be closed already; and where the client reads nothing, the closing frame waits for ever.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._socket.close(end.code, end.reason[:120])

    # ---- out

    async def _send_all(self) -> None:
        while True:
            item = await self._out.get()
            if isinstance(item, Emission):
                messages = self._protocol.emitted(item)
            elif item is None or isinstance(item, Exception):
                self._failure = item
                messages = self._protocol.finished() if item is None else self._protocol.failed(item)
            else:
                messages = [item]
            for message in messages:
                await self._send(message)
            if item is None or isinstance(item, Exception):
                self._seat = None
                self._source_ended.set()

    async def _send(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._limits.unread_seconds):
                if isinstance(message, bytes):
                    await self._socket.send_bytes(message)
                else:
                    await self._socket.send_text(message)
        except TimeoutError:
            raise _EndOfSession(POLICY, f"nothing was read for {self._limits.unread_seconds:g} s") from None

    # ---- in

    async def _receive_all(self) -> None:
        for message in self._protocol.opened():
            self._out.put_nowait(message)
        while True:
            message = await self._next_message()
            if message is None:
                return
            try:
                got = self._protocol.received(message)
            except ProtocolError as error:
                raise _EndOfSession(error.code, str(error)) from None
            for reply in got.replies:
                self._out.put_nowait(reply)
            if self._out.qsize() > self._limits.unread:
                raise _EndOfSession(POLICY, f"{self._limits.unread} messages were not read")
            if got.samples is not None and len(got.samples):
                await self._push(got)
            if got.final:
                await self._end_source()
            if got.close:
                return

    async def _next_message(self) -> Message | None:
        """The next message; ``None`` when the client has gone, or was idle for too long."""
        try:
            event = await asyncio.wait_for(self._socket.receive(), self._limits.idle_seconds)
        except TimeoutError:
            await self._end_source(by_server=True)
            raise _EndOfSession(GOING_AWAY, f"no message for {self._limits.idle_seconds:g} s") from None
        if event["type"] != "websocket.receive":
            return None
        message: Message = event["text"] if event.get("text") is not None else event.get("bytes") or b""
        if len(message) > self._limits.message_bytes:
            raise _EndOfSession(TOO_BIG, f"a message has more than {self._limits.message_bytes} bytes")
        return message

    async def _push(self, got: Received) -> None:
        """Give samples to the engine; waits while too much lies before it."""
        assert got.samples is not None
        if 1000 * len(got.samples) / got.rate > self._limits.most_ahead_ms:
            raise _EndOfSession(TOO_BIG, f"a message holds more than {self._limits.most_ahead_ms / 1000:g} s of audio")
        seat = self._seat or self._open()
        seat.push(got.samples, got.rate)
        while seat.is_open and seat.backlog_ms > self._limits.ahead_ms:
            await asyncio.sleep(0.02)
        if self._failure is not None:
            await self._source_ended.wait()
            raise _EndOfSession(FAILED, str(self._failure))

    def _open(self) -> Seat:
        loop = asyncio.get_running_loop()
        self._source_ended.clear()
        self._is_ending = False
        try:
            self._seat = self._worker.open(
                self._protocol.wishes, lambda result: loop.call_soon_threadsafe(self._out.put_nowait, result)
            )
        except FullError as error:
            for message in self._protocol.failed(error):
                self._out.put_nowait(message)
            raise _EndOfSession(TRY_LATER, str(error)) from None
        except NastError as error:
            for message in self._protocol.failed(error):
                self._out.put_nowait(message)
            raise _EndOfSession(POLICY, str(error)) from None
        return self._seat

    async def _end_source(self, by_server: bool = False) -> None:
        """Translate everything and wait until it was sent; a source without audio has nothing but its end.

        Args:
            by_server: the client did not ask for it; where it has, nothing is sent twice.
        """
        was_ending, self._is_ending = self._is_ending, True
        if self._seat is None:
            for message in () if by_server and was_ending else self._protocol.finished():
                self._out.put_nowait(message)
            return
        if not was_ending:
            self._seat.push(np.zeros(0, np.int16), ANY_RATE, final=True)
        await self._source_ended.wait()
        if self._failure is not None:
            raise _EndOfSession(FAILED, str(self._failure))
