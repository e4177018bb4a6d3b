"""The page for browsers at ``/``, and the headers that confine it to this server."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER = Path(__file__).parent
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HOST = re.compile(r"[\w.\-]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?")


def page_routes() -> list[Route]:
    """Routes of the page's files: ``index.html`` at ``/``, the others under their names at ``/page/``."""
    files = {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir()) if path.suffix in _KINDS}

    async def send(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in files:
            return Response("not found", 404)
        return Response(files[name], headers=_headers(request), media_type=_KINDS[Path(name).suffix])

    return [Route("/", send), Route("/page/{name}", send)]


def _headers(request: Request) -> dict[str, str]:
    """Nothing from another host, no frames, no inline scripts or styles; WebSockets to this host."""
    host = request.headers.get("host", "")
    # 'self' does not cover ws: and wss: in every browser.
    own = f"ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' {own}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
