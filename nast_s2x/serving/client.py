"""A client of the server: simulstream's protocol, for one source."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nast_s2x.errors import ConfigError, NastError
from nast_s2x.frontend.samples import as_mono
from nast_s2x.serving.protocols.base import pcm16

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

PATH = "/simulstream"
TIMEOUT_SECONDS = 10.0
"""Longest time for opening a connection."""


class ServerError(NastError):
    """The server cannot be reached, has refused the client, or is gone."""


@dataclass(frozen=True)
class Answer:
    """What the server sent: text, with the space before it, or speech (n,) at 16 kHz; and whether it was the end."""

    text: str = ""
    waveform: NDArray[np.float32] | None = None
    final: bool = False


def websocket_url(url: str) -> str:
    """The address of simulstream's protocol at a server.

    Args:
        url: ``ws://``, ``wss://``, ``http://`` or ``https://``; without a path the server's own is added.
    Raises:
        ConfigError: something else.

    Example:
        >>> websocket_url("http://localhost:8080")
        'ws://localhost:8080/simulstream'
    """
    parts = urlsplit(url)
    schemes = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
    if parts.scheme not in schemes or not parts.netloc:
        raise ConfigError(f"a server's address must begin with ws://, wss://, http:// or https://, but is {url!r}")
    path = parts.path if parts.path.strip("/") else PATH
    return urlunsplit((schemes[parts.scheme], parts.netloc, path, parts.query, ""))


class Client:
    """Sends one source to a server and receives its translation.

    A thread receives, so that the server is never kept waiting.

    Args:
        url: see :func:`websocket_url`.
        token: what lets the client in; ``None``: none.
        settings: of the source: ``chunk_ms``, ``voice``.
    Raises:
        ServerError: no server there, or it has refused.
    """

    def __init__(self, url: str, token: str | None = None, **settings: Any) -> None:
        self._url, self._settings = websocket_url(url), settings
        self._rate: int | None = None
        self._answers: queue.Queue[Answer | ServerError] = queue.Queue()
        self._error: ServerError | None = None
        self._socket = self._connect(token)
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _connect(self, token: str | None) -> ClientConnection:
        from websockets.exceptions import InvalidHandshake, InvalidStatus
        from websockets.sync.client import connect

        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            return connect(self._url, additional_headers=headers, max_size=None, open_timeout=TIMEOUT_SECONDS)
        except InvalidStatus as error:
            status = error.response.status_code
            why = ": it needs a valid token, or has nothing at this path" if status in (401, 403) else ""
            raise ServerError(f"{self._url}: the server has refused the connection with HTTP {status}{why}") from None
        except (OSError, InvalidHandshake, EOFError) as error:
            raise ServerError(f"{self._url}: no server can be reached there ({error})") from None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()
        self._thread.join(TIMEOUT_SECONDS)

    def push(self, samples: ArrayLike, rate: int) -> list[Answer]:
        """Send the next piece, (n,) or (n, channels), as 16-bit samples; returns what has come since.

        Raises:
            ServerError: the server is gone, or has ended the session; NastError: samples that cannot be used.
        """
        data = pcm16(as_mono(samples))
        if self._rate is None:
            self._rate = rate
            self._send(json.dumps({"sample_rate": rate, **self._settings}))
        self._send(data)
        came: list[Answer] = []
        with contextlib.suppress(queue.Empty):
            while self._error is None:
                answer = self._answers.get_nowait()
                if isinstance(answer, ServerError):
                    self._error = answer
                else:
                    came.append(answer)
        if self._error is not None and not came:
            raise self._error
        return came

    def finish(self) -> Iterator[Answer]:
        """End the source; yields the rest, the last one ``final``.

        Raises:
            ServerError: the server is gone, or has ended the session.
        """
        self._send(json.dumps({"end_of_stream": True}))
        while self._error is None:
            answer = self._answers.get()
            if isinstance(answer, ServerError):
                self._error = answer
                break
            yield answer
            if answer.final:
                return
        raise self._error

    def _send(self, message: str | bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        # What was received before the end is returned first; then the reason of the end is raised.
        with contextlib.suppress(ConnectionClosed):
            self._socket.send(message)

    def _receive(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            for message in self._socket:
                if isinstance(message, bytes):
                    self._answers.put(Answer(waveform=as_mono(np.frombuffer(message, "<i2"))))
                    continue
                values = json.loads(message)
                self._answers.put(Answer(values.get("new", ""), final="end_of_processing" in values))
        except ConnectionClosed:
            pass
        reason = self._socket.close_reason
        ended = f"the server has ended the session: {reason}" if reason else "the server is gone"
        self._answers.put(ServerError(f"{self._url}: {ended}"))
