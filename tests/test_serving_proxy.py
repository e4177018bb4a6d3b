"""Two servers behind HAProxy with the project's configuration, and the files of the container."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "examples" / "espeak_fr_en" / "bundle"
TOKEN = "a-token-of-16-letters"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment) as running:
        try:
            yield running
        finally:
            running.kill()


def server(port: int, *flags: str) -> ExitStack:
    """A server process that is starting; its ``process`` is the attribute of that name."""
    opened = ExitStack()
    words = ["serve", "--model", str(BUNDLE), "--port", str(port), "--threads", "1", *flags]
    opened.process = opened.enter_context(process(sys.executable, "-m", "nast_s2x.cli.main", *words))  # type: ignore[attr-defined]
    return opened


def status(url: str) -> int:
    try:
        with urlopen(url, timeout=10) as answer:
            return answer.status
    except HTTPError as error:
        return error.code
    except OSError:
        return 0


def slots_in_use(port: int) -> int:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        (line,) = [line for line in answer.read().decode().splitlines() if line.startswith("nast_s2x_slots_in_use ")]
    return int(line.split()[1])


def wait_for(condition: object, seconds: float = 60.0) -> None:
    assert callable(condition)
    for _ in range(round(seconds / 0.05)):
        if condition():
            return
        threading.Event().wait(0.05)
    raise AssertionError("waited in vain")


@pytest.mark.timeout(300)
def test_two_servers_behind_a_proxy(tmp_path: Path) -> None:
    for name in ("starlette", "uvicorn", "websockets"):
        pytest.importorskip(name, reason="needs the extra serve")
    haproxy = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if haproxy is None:
        pytest.skip("needs haproxy (Debian, Ubuntu: apt-get install haproxy)")
    from nast_s2x.frontend.audio import load_audio
    from nast_s2x.inference import load_system
    from nast_s2x.serving.client import Answer, Client, ServerError

    (tmp_path / "tokens").write_text(TOKEN + "\n")
    ports, proxy = [free_port(), free_port()], free_port()
    addresses = dict(zip(("SERVER_ONE", "SERVER_TWO"), (f"127.0.0.1:{port}" for port in ports)))
    addresses["PROXY_ADDRESS"] = f"127.0.0.1:{proxy}"
    samples = load_audio(BUNDLE.parent / "recordings" / "test_00002.flac")
    pieces = np.array_split(samples, 8)

    def push(client: Client, some: list[np.ndarray]) -> list[Answer]:
        return [answer for piece in some for answer in client.push(piece, 16000)]

    with ExitStack() as opened:
        servers = [opened.enter_context(server(port, "--token-file", str(tmp_path / "tokens"))) for port in ports]
        expected = load_system(BUNDLE).translate(samples, chunk_ms=320).text
        for running in servers:
            assert running.process.stdout.readline().startswith("ready: ")  # type: ignore[attr-defined]
        opened.enter_context(process(haproxy, "-db", "-f", str(ROOT / "scripts" / "haproxy.cfg"), **addresses))
        url = f"http://127.0.0.1:{proxy}"
        wait_for(lambda: status(f"{url}/health") == 200)
        assert status(f"{url}/metrics") == 403  # not for everybody
        with pytest.raises(ServerError, match="needs a valid token"):
            Client(url)
        with Client(url, TOKEN) as first, Client(url, TOKEN) as second:
            came = push(first, pieces[:4]), push(second, pieces[:4])
            wait_for(lambda: [slots_in_use(port) for port in ports] == [1, 1])  # the one with the fewest connections
            servers[0].process.kill()  # type: ignore[attr-defined]
            results = []
            for client, answers in zip((first, second), came):
                try:
                    answers += [*push(client, pieces[4:]), *client.finish()]
                    results.append("".join(answer.text for answer in answers))
                except ServerError as error:
                    results.append(str(error))
        assert sorted(text == expected for text in results) == [False, True]
        assert any("the server is gone" in text for text in results)
        with Client(url, TOKEN) as third:  # a new connection goes to the server that is left
            answers = [*push(third, pieces), *third.finish()]
        assert "".join(answer.text for answer in answers) == expected


def test_the_container_copies_what_it_needs() -> None:
    lines = (ROOT / "scripts" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert copied and all((ROOT / path).exists() for path in copied)
    shown = (ROOT / "scripts" / "Dockerfile.dockerignore").read_text().split()
    assert {f"!{path}" for path in copied} == {line for line in shown if line.startswith("!")}
    from nast_s2x.cli.main import build_parser

    entry, command = (
        yaml.safe_load(line.split(maxsplit=1)[1]) for line in lines if line.startswith(("ENTRYPOINT", "CMD"))
    )
    args = build_parser("serve").parse_args([*entry[1:], *command])
    assert (args.host, args.port) == ("0.0.0.0", 8080) and args.token_file == "/run/secrets/tokens"
    assert any(line.startswith("USER ") and line != "USER root" for line in lines)
    (check,) = [line for line in lines if line.startswith("HEALTHCHECK")]
    words = yaml.safe_load(check.partition(" CMD ")[2])
    assert words[1] == "-c" and compile(words[2], "health check", "exec") and "/health" in words[2]


def test_two_servers_in_compose() -> None:
    from nast_s2x.cli.main import build_parser

    services = yaml.safe_load((ROOT / "scripts" / "compose.yaml").read_text())["services"]
    assert services["one"] == services["two"] and set(services["proxy"]["depends_on"]) == {"one", "two"}
    assert (ROOT / services["one"]["build"]["dockerfile"]).exists()
    args = build_parser("serve").parse_args(["serve", *services["one"]["command"]])
    assert args.token_file and args.slots == 16
    named = set(services["proxy"]["environment"])
    configuration = (ROOT / "scripts" / "haproxy.cfg").read_text()
    assert named == {"PROXY_ADDRESS", "SERVER_ONE", "SERVER_TWO"} and all(
        f"${{{name}}}" in configuration for name in named
    )
