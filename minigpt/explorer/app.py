"""The page and its answers over HTTP, for this machine only.

    http://127.0.0.1:PORT/TOKEN/            the page
    http://127.0.0.1:PORT/TOKEN/api/NAME    answers (POST): JSON, or float32 numbers where the answer is a tensor

Other web pages and users cannot ask: the server listens on the loopback address, checks the host's name, sends no CORS
headers, and all addresses begin with a random token. The content security policy lets the page run no script but its
own and connect nowhere else. Nothing is written to disk. One answer is computed at a time; a request whose connection
is closed is dropped.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch import Tensor

from minigpt.errors import MiniGPTError
from minigpt.explorer import protocol
from minigpt.explorer.session import Session

HOSTS = ["127.0.0.1", "localhost"]
MAX_BYTES = 200_000
MAX_WAITING = 16
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
REQUESTS: dict[str, type[protocol.Request]] = {
    "describe": protocol.Request,
    "text": protocol.TextRequest,
    "next": protocol.PositionRequest,
    "bigram": protocol.PositionRequest,
    "heads": protocol.PositionRequest,
    "thumbnails": protocol.TextRequest,
    "pattern": protocol.HeadRequest,
    "effects": protocol.PositionRequest,
    "layers": protocol.PositionRequest,
    "cell": protocol.CellRequest,
    "neighbours": protocol.TokenRequest,
    "moment": protocol.PositionRequest,
    "passages": protocol.PositionRequest,
}
"""The methods of `Session` that the page may call, and what they are asked with."""


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


def make_app(session: Session, token: str | None = None) -> Starlette:
    """Returns the application.

    Args:
        session: the runs to explore.
        token: what addresses begin with; by default random. It is `app.state.token`.
    """
    token = token or secrets.token_urlsafe(16)
    answers = _Answers(session)

    def is_ours(request: Request) -> bool:
        return secrets.compare_digest(request.path_params["token"].encode(), token.encode())

    async def page(request: Request) -> Response:
        return _page_file(request.path_params.get("name", "index.html")) if is_ours(request) else _not_found()

    async def api(request: Request) -> Response:
        name = request.path_params["name"]
        return await answers.answer(name, request) if is_ours(request) and name in REQUESTS else _not_found()

    routes = [
        Route("/{token}/", page),
        Route("/{token}/{name}", page),
        Route("/{token}/api/{name}", api, methods=["POST"]),
    ]
    middleware = [
        Middleware(_SafeHeaders),
        Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False),
    ]
    app = Starlette(routes=routes, middleware=middleware)
    app.state.token = token
    return app


class _Answers:
    """Computes answers one at a time, in a thread of its own."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="explorer")
        self._waiting = 0

    async def answer(self, name: str, request: Request) -> Response:
        """Returns the answer, or an error as JSON: {"error": "..."}."""
        if self._waiting >= MAX_WAITING:
            return _error("Too many requests are waiting. Close other tabs of this page.", 503)
        self._waiting += 1
        try:
            asked = msgspec.json.decode(await _body(request), type=REQUESTS[name])
            return _encoded(await self._compute(name, asked, request))
        except _TooLarge:
            return _error(f"The request is larger than {MAX_BYTES:,} bytes.", 413)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _error(f"The request is invalid: {error}", 400)
        except MiniGPTError as error:
            return _error(str(error), 400)
        except (Cancelled, ClientDisconnect):
            return _error("The connection was closed.", 499)
        finally:
            self._waiting -= 1

    async def _compute(self, name: str, asked: protocol.Request, request: Request) -> object:
        """Calls a method of the session in the worker, and cancels it when the connection is closed."""
        closed = threading.Event()

        def check() -> None:
            if closed.is_set():
                raise Cancelled

        def call() -> object:
            check()
            method: Callable[[Any, Callable[[], None]], object] = getattr(self._session, name)
            return method(asked, check)

        work = asyncio.get_running_loop().run_in_executor(self._worker, call)
        watch = asyncio.ensure_future(_disconnected(request))
        pending: set[asyncio.Future[Any]] = {work, watch}
        try:
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                closed.set()
            return await work
        finally:
            closed.set()
            watch.cancel()


async def _disconnected(request: Request) -> None:
    """Returns when the connection is closed."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _TooLarge(Exception):
    """A request's body is longer than any that the page sends."""


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise _TooLarge
    return bytes(body)


def _encoded(answer: object) -> Response:
    """Returns an answer as a response: tensors as float32 in the machine's order, with their shape in a header."""
    if isinstance(answer, Tensor):
        shape = ",".join(map(str, answer.shape))
        content = answer.float().contiguous().numpy().astype("<f4", copy=False).tobytes()
        return Response(content, media_type="application/octet-stream", headers={"X-Shape": shape})
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _error(text: str, status: int) -> Response:
    return Response(msgspec.json.encode({"error": text}), status, media_type="application/json")


def _not_found() -> Response:
    return PlainTextResponse("Not found. The address of the page is what `minigpt explore` printed.", 404)


def _page_file(name: str) -> Response:
    """Returns a file of the page; there are no folders in it."""
    folder = files("minigpt.explorer") / "page"
    names = {file.name for file in folder.iterdir()}
    kind = TYPES.get(name[name.rfind(".") :])
    if name not in names or kind is None:
        return _not_found()
    return Response((folder / name).read_bytes(), media_type=f"{kind}; charset=utf-8")


class _SafeHeaders:
    """Adds the security headers to each response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)
