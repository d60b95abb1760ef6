"""`rlaif serve`: the reward over HTTP, until Ctrl-C (exit code 130) or SIGTERM (0). What is being scored then is still answered."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from rlaif.cli.flags import CommandLine
from rlaif.config import ServeConfig
from rlaif.errors import EnvironmentFailure, UsageError

SHORTEST_TOKEN = 16
BACKLOG = 2048
GRACE_S = 30
"""Seconds that requests in flight get to end."""

LINE = CommandLine(
    "rlaif serve",
    "The reward over HTTP: OpenRLHF's remote reward at /get_reward, one row as `rlaif reward` takes it at /reward, and /health.",
    "rlaif serve --feedback execution --port 8000",
    ServeConfig,
    details=(
        "Listens on this machine only, unless --host says otherwise and RLAIF_TOKEN holds a token, which clients then send as"
        " `Authorization: Bearer TOKEN`, or in the URL as http://any:TOKEN@host:8000/get_reward. The description of it all is at /openapi.json."
    ),
)


def run(argv: Sequence[str]) -> int:
    """Returns 0 after SIGTERM; raises KeyboardInterrupt after Ctrl-C, and RlaifError if nothing could be started."""
    config = LINE.parse(argv).settings
    token = token_of(config)
    try:
        import uvicorn

        from rlaif.serve import make_app
    except ImportError as error:
        raise EnvironmentFailure("The reward server needs fastapi and uvicorn", str(error), "pip install 'rlaif[serve]'") from None
    from rlaif.integrations import Scorer

    with listen(config) as sock, Scorer(config) as scorer:
        app = make_app(scorer, config, token)
        options = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_S)
        host, port = sock.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        kept = "with a token" if token else "for this machine only"
        print(f"rlaif serve: {config.feedback} feedback at http://{shown}:{port} {kept}; Ctrl-C ends it", file=sys.stderr, flush=True)
        stopped_by = asyncio.run(_serve(uvicorn.Server(options), sock))
    if stopped_by == signal.SIGINT:
        raise KeyboardInterrupt
    return 0


def token_of(config: ServeConfig) -> str | None:
    """The token, or None. Raises UsageError if there has to be one, or it is too short to be a secret."""
    token = os.environ.get(config.token_env, "").strip() or None
    if token is None and not is_loopback(config.host):
        raise UsageError(
            f"Listening on {config.host} needs a token", f"{config.token_env} is not set", f"export {config.token_env}=$(openssl rand -hex 16)"
        )
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise UsageError(f"The token in {config.token_env} will not do", f"at least {SHORTEST_TOKEN} ASCII characters", "openssl rand -hex 16")
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def listen(config: ServeConfig) -> Iterator[socket.socket]:
    """The socket, listening before the judge is loaded: early requests wait for it. Raises EnvironmentFailure if it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise EnvironmentFailure(f"Cannot listen on {config.host}", error.strerror or str(error), "another --host") from None
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
            sock.listen(BACKLOG)
        except OSError as error:
            raise EnvironmentFailure(f"Cannot listen on {config.host}:{config.port}", error.strerror or str(error), "another --port") from None
        yield sock


async def _serve(server: Any, sock: socket.socket) -> signal.Signals | None:
    """Serve until a signal, which is returned. uvicorn's own handling would end the process by the signal, past our exit codes."""
    caught: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        server.force_exit = bool(caught) and number == signal.SIGINT  # Ctrl-C once more: at once
        caught.append(number)
        server.should_exit = True

    server.capture_signals = nullcontext
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        await server.serve(sockets=[sock])
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return caught[0] if caught else None
