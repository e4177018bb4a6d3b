"""``nast-s2x serve``: translate for many clients over WebSockets."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nast_s2x.cli.system import add_system_flags, log_stderr, open_system
from nast_s2x.errors import ConfigError

if TYPE_CHECKING:
    from nast_s2x.serving.host import HttpServer


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand ``serve``."""
    parser = subparsers.add_parser(
        "serve",
        help="translate for many clients over WebSockets",
        description="Serve a system over WebSockets: /v1/realtime/translations (the Realtime translation protocol) and "
        "/simulstream; / is a page for browsers, /health and /metrics tell the state. Without --token-file only "
        "clients on this machine may connect. Ctrl-C ends all sources and sends what is left of their translations. "
        "Needs the extra serve.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default: %(default)s)")
    parser.add_argument("--slots", type=int, default=32, metavar="N", help="sources at a time (default: %(default)s)")
    parser.add_argument("--token-file", metavar="FILE", help="tokens that let clients in, one a line")
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="URL",
        help="also let scripts of pages of this origin connect, such as https://example.org; may be repeated",
    )
    parser.add_argument(
        "--idle-seconds", type=float, default=300.0, metavar="S", help="longest time without any message (default: 300)"
    )
    parser.add_argument(
        "--max-seconds", type=float, default=86400.0, metavar="S", help="longest time of a session (default: 86400)"
    )
    parser.add_argument(
        "--closing-seconds",
        type=float,
        default=10.0,
        metavar="S",
        help="longest time for the rest of the translations when the server is stopped (default: 10)",
    )
    add_system_flags(parser, "320 if trained for, else the smallest; sessions may name another trained size")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; returns the exit status."""
    from nast_s2x.serving.app import Admission, Server
    from nast_s2x.serving.host import HttpServer
    from nast_s2x.serving.sessions import Limits
    from nast_s2x.serving.worker import Worker

    if args.slots < 1:
        raise ConfigError(f"--slots must be at least 1, but is {args.slots}")
    if not 0 <= args.port <= 65535:
        raise ConfigError(f"--port must be from 0 to 65535, but is {args.port}")
    tokens = read_tokens(Path(args.token_file)) if args.token_file else []
    system, policy = open_system(args, prefer_offline=False)
    limits = Limits(idle_seconds=args.idle_seconds, most_seconds=args.max_seconds, closing_seconds=args.closing_seconds)
    worker = Worker(system, args.slots, policy)
    server = Server(system, worker, Path(args.model).name, Admission(tokens, args.allow_origin), limits)
    return _serve(HttpServer(server, args.host, args.port), args)


def _serve(server: HttpServer, args: argparse.Namespace) -> int:
    """Run the server; says its addresses once it listens."""
    import asyncio

    async def both() -> None:
        task = asyncio.create_task(server.serve())
        while not server.started and not task.done():
            await asyncio.sleep(0.05)
        if server.started:
            at = f"{args.host}:{args.port}"
            print(
                f"ready: ws://{at}/v1/realtime/translations  ws://{at}/simulstream  http://{at}/health  http://{at}/",
                flush=True,
            )
        await task

    try:
        asyncio.run(both())
    except KeyboardInterrupt:
        return 130
    except SystemExit:  # uvicorn's answer to an address that it cannot have
        log_stderr(f"nast-s2x serve: error: cannot listen on {args.host}:{args.port}")
        return 1
    return 0


def read_tokens(path: Path) -> list[str]:
    """Tokens of a file, one a line.

    Raises:
        ConfigError: there is none, or one is shorter than 16 characters.
        OSError: the file cannot be read.
    """
    tokens = path.read_text(encoding="utf-8").split()
    if not tokens:
        raise ConfigError(f"{path} holds no token")
    if any(len(token) < 16 for token in tokens):
        raise ConfigError(f"{path}: a token must have at least 16 characters")
    return tokens
