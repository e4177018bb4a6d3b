"""The server: addresses, who may come in, and what it says about itself."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from nast_s2x import __version__
from nast_s2x.inference import System
from nast_s2x.serving.page import page_routes
from nast_s2x.serving.protocols.realtime import RealtimeTranslation
from nast_s2x.serving.protocols.simulstream import SimulstreamProtocol
from nast_s2x.serving.sessions import Limits, Session, SessionProtocol
from nast_s2x.serving.worker import Worker

LOOPBACK = ("127.0.0.1", "::1", "localhost", "testclient")
FORWARDING_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip")
"""Headers by which proxies name the client. Requests that carry one come from somewhere else, whatever it says."""


@dataclass(frozen=True)
class Admission:
    """Who may connect.

    Attributes:
        tokens: one of them is needed, as ``Authorization: Bearer TOKEN`` or ``?token=TOKEN``; empty: clients on this
            machine only, and none that a proxy has forwarded.
        origins: pages of other hosts whose scripts may connect.
    """

    tokens: Sequence[str] = ()
    origins: Sequence[str] = ()

    def refusal(self, connection: HTTPConnection) -> str | None:
        """Why a client may not connect; ``None`` if it may."""
        origin = connection.headers.get("origin")
        own = connection.headers.get("host")
        if origin is not None and origin not in self.origins and urlsplit(origin).netloc != own:
            return f"pages of {origin} may not connect"
        if not self.tokens:
            host = connection.client.host if connection.client else ""
            if host in LOOPBACK and not any(name in connection.headers for name in FORWARDING_HEADERS):
                return None
            return "without a token file only clients on this machine may connect"
        kind, _, value = connection.headers.get("authorization", "").partition(" ")
        given = value if kind.lower() == "bearer" else connection.query_params.get("token", "")
        # Every token is compared, each in constant time: the time of an answer does not depend on the token.
        matches = [hmac.compare_digest(given.encode(), token.encode()) for token in self.tokens]
        return None if any(matches) else "a valid token is needed"


@dataclass
class Server:
    """What the addresses share.

    Attributes:
        system: the trained system.
        worker: the thread of the engines.
        model: name of the system, for clients that ask for one.
        is_closing: no new sessions are taken.
    """

    system: System
    worker: Worker
    model: str
    admission: Admission = field(default_factory=Admission)
    limits: Limits = field(default_factory=Limits)
    is_closing: bool = field(default=False, init=False)
    _sessions: set[Session] = field(default_factory=set, init=False, repr=False)

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/health", self.health),
            Route("/metrics", self.metrics),
            WebSocketRoute("/v1/realtime/translations", self.realtime),
            WebSocketRoute("/simulstream", self.simulstream),
            *page_routes(),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.worker.start()
        yield
        self.worker.stop()

    async def close(self, is_forced: Callable[[], bool] = lambda: False) -> None:
        """Take no new sessions and end the open ones as if their clients had; they have ``limits.closing_seconds``.

        Args:
            is_forced: stop waiting once it returns true.
        """
        self.is_closing = True
        for session in list(self._sessions):
            session.stop()
        end = time.monotonic() + self.limits.closing_seconds
        while self._sessions and not is_forced() and time.monotonic() < end:
            await asyncio.sleep(0.02)

    async def health(self, request: Request) -> JSONResponse:
        """Slots, load, versions, what sessions can have; status 503 where no source would be accepted."""
        figures, info = self.worker.figures, self.system.info
        free = not self.is_closing and self.worker.in_use < self.worker.slots
        chunks = [
            {"chunk_ms": size, "lookahead_ms": policy.lookahead_ms} for size, policy in self.worker.policies.items()
        ]
        status = {
            "status": "closing" if self.is_closing else "ok" if free else "full",
            "slots": self.worker.slots,
            "in_use": self.worker.in_use,
            "load": round(figures.load, 3),
            "model": self.model,
            "source_lang": info.source_lang,
            "target_lang": info.target_lang,
            "example": info.example,
            "voice": self.system.vocoder is not None,
            "transcript": self.system.has_recognition,
            "chunks": chunks,
            "needs_token": bool(self.admission.tokens),
            "version": __version__,
        }
        return JSONResponse(status, status_code=200 if free else 503)

    async def metrics(self, request: Request) -> PlainTextResponse:
        """Figures in the text form of Prometheus."""
        figures, worker = self.worker.figures, self.worker
        rows = [
            ("slots", "gauge", "sources at a time", worker.slots),
            ("slots_in_use", "gauge", "sources now", worker.in_use),
            ("load", "gauge", "computing time per time, last seconds", figures.load),
            ("sources_accepted_total", "counter", "sources accepted", figures.accepted),
            ("sources_refused_total", "counter", "sources refused for want of room", figures.refused),
            ("sources_failed_total", "counter", "sources ended by an error", figures.failed),
            ("emissions_total", "counter", "emissions sent", figures.emissions),
            ("audio_seconds_total", "counter", "audio of ended sources", figures.audio_seconds),
            ("steps_total", "counter", "steps of the engines", figures.steps),
            ("step_seconds_total", "counter", "computing time of the steps", figures.step_seconds),
        ]
        lines = [
            f"# HELP nast_s2x_{name} {text}\n# TYPE nast_s2x_{name} {kind}\nnast_s2x_{name} {value:g}\n"
            for name, kind, text, value in rows
        ]
        return PlainTextResponse("".join(lines), media_type="text/plain; version=0.0.4")

    async def realtime(self, socket: WebSocket) -> None:
        """A session of the Realtime translation protocol."""
        model = socket.query_params.get("model") or self.model
        voice = self.system.vocoder is not None
        transcript = self.system.has_recognition is not False
        await self._serve(socket, RealtimeTranslation(model, self.system.info.target_lang, voice, transcript))

    async def simulstream(self, socket: WebSocket) -> None:
        """A session of simulstream's protocol."""
        await self._serve(socket, SimulstreamProtocol())

    async def _serve(self, socket: WebSocket, protocol: SessionProtocol) -> None:
        refusal = self.admission.refusal(socket)
        if refusal is not None:
            await socket.close(1008, refusal[:120])  # before the handshake: HTTP 403
            return
        if self.is_closing:
            await socket.send_denial_response(Response("the server is stopping", 503, {"Retry-After": "10"}))
            return
        await socket.accept()
        session = Session(socket, protocol, self.worker, self.limits)
        self._sessions.add(session)
        try:
            if self.is_closing:  # since the handshake began
                session.stop()
            await session.run()
        finally:
            self._sessions.discard(session)
