"""Connections whose client is not there any more, or does not read: they end, and healthy ones do not."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import uvicorn

WEBSOCKET_OPTIONS: dict[str, Any] = {"ws_ping_interval": 20.0, "ws_ping_timeout": None}
"""Options of ``uvicorn.Config``. Pings are sent, so that proxies see a live connection, but no answer is waited for:
while much audio of a client waits for the engine nothing is read from it, its answers neither."""
GONE_SECONDS = 60
"""Time after which a connection whose client takes no data is reset."""


def reset_dead_connections(server: uvicorn.Server, seconds: float = GONE_SECONDS) -> None:
    """Let the system reset connections whose client takes no data for that long.

    Such a client has lost its network, or reads nothing while its buffers are full; closing the connection would wait
    for it without end. Pings make sure that there are data to take. Nothing happens on systems without the option
    (Linux has it: ``TCP_USER_TIMEOUT``, RFC 5482).

    Args:
        server: one that listens; connections that it accepts later have the limit.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is None:
        return
    for listener in (item for listening in server.servers for item in listening.sockets):
        with contextlib.suppress(OSError):  # not a TCP socket
            listener.setsockopt(socket.IPPROTO_TCP, option, round(1000 * seconds))
