"""Runs the server until it is interrupted."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from minigpt.errors import ConfigError
from minigpt.explorer.app import make_app
from minigpt.explorer.session import Session

HOST = "127.0.0.1"


def serve(session: Session, port: int, on_start: Callable[[str], None]) -> None:
    """Serves the page of a session on the loopback address until Ctrl-C.

    Args:
        session: the runs to explore.
        port: to listen on; 0 for any free one.
        on_start: called with the page's address once it can be opened.

    Raises:
        ConfigError: if the port is in use or not allowed.
    """
    app = make_app(session)
    # asyncio sends without delay only if the protocol is named; otherwise each answer waits 40 ms for an ACK
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except (OSError, OverflowError) as error:
            remedy = "Choose another with --port; without it, any free port is used."
            raise ConfigError(f"Port {port} cannot be used", got=error, remedy=remedy) from None
        listener.listen()
        on_start(f"http://{HOST}:{listener.getsockname()[1]}/{app.state.token}/")
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            return
