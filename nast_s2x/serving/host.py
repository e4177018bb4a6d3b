"""The HTTP server: uvicorn, which ends every session in an orderly way before it stops."""

from __future__ import annotations

import socket

import uvicorn

from nast_s2x.serving.app import Server
from nast_s2x.serving.connections import WEBSOCKET_OPTIONS, reset_dead_connections


class HttpServer(uvicorn.Server):
    """Serves ``server`` until SIGINT or SIGTERM; then sessions get the rest of their translation.

    A second SIGINT ends it at once.

    Args:
        server: what is served.
        host, port: address to listen on.
    """

    def __init__(self, server: Server, host: str, port: int) -> None:
        self._server = server
        super().__init__(
            uvicorn.Config(
                server.app(),
                host,
                port,
                log_level="warning",
                ws_max_size=2 * server.limits.message_bytes,
                **WEBSOCKET_OPTIONS,
                timeout_graceful_shutdown=1,  # after the sessions have ended, or have had their time
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        if self.started:
            reset_dead_connections(self)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the sessions, then the server. New ones are refused meanwhile; /health says so."""
        await self._server.close(lambda: self.force_exit)
        await super().shutdown(sockets)
