"""A loopback server that answers as the Hugging Face Hub does for the files of one repository."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Hub:
    """Files by name, and what goes wrong with them.

    Attributes:
        files: name in the repository -> content.
        cut: name -> bytes after which the connection is closed, for the first request of it.
        requests: (method, name, Range header) of each request.
    """

    def __init__(self, repository: str, revision: str, folder: Path) -> None:
        self.prefix = f"/{repository}/resolve/{revision}/"
        self.revision = revision
        self.files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.cut: dict[str, int] = {}
        self.requests: list[tuple[str, str, str]] = []


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            name = self.path.removeprefix(hub.prefix)
            span = self.headers.get("Range", "")
            hub.requests.append((self.command, name, span))
            content = hub.files.get(name) if self.path.startswith(hub.prefix) else None
            if content is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("X-Repo-Commit", hub.revision)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(span.removeprefix("bytes=").partition("-")[0] or 0) if span else 0
            self.send_response(206 if span else 200)
            self.send_header("X-Repo-Commit", hub.revision)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Accept-Ranges", "bytes")
            if span:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if with_body:
                limit = hub.cut.pop(name, None)
                self.wfile.write(content[start:] if limit is None else content[start : start + limit])
                if limit is not None:
                    self.close_connection = True

    return Handler


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """Serve on a free port of the loopback device; yields the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
