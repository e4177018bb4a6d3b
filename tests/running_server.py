"""A server of the project on a free port, for tests."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from nast_s2x.inference.system import System
from nast_s2x.serving.app import Admission, Server
from nast_s2x.serving.host import HttpServer
from nast_s2x.serving.sessions import Limits
from nast_s2x.serving.worker import Worker


class Running:
    """A server on a free port, in a thread."""

    def __init__(self, system: System, slots: int = 3, admission: Admission | None = None, **limits: Any) -> None:
        self.worker = Worker(system, slots)
        server = Server(system, self.worker, "tiny", admission or Admission(), Limits(**limits))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._server = HttpServer(server, "127.0.0.1", self.port)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> Running:
        self._thread.start()
        while not self._server.started:
            threading.Event().wait(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        """What a signal does."""
        self._server.should_exit = True

    def health(self) -> dict[str, Any]:
        try:
            return json.load(urlopen(f"http://127.0.0.1:{self.port}/health"))
        except HTTPError as answer:
            assert answer.code == 503
            return json.load(answer)

    def url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    def wait_until_free(self) -> None:
        for _ in range(500):
            if not self.worker.in_use:
                return
            threading.Event().wait(0.02)
        raise AssertionError("slots are not free")
