"""The server: who may ask, what is refused, and that nothing goes on for nobody."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import msgspec
import numpy as np
import pytest
from starlette.testclient import TestClient

from minigpt.errors import ConfigError
from minigpt.explorer import app as server
from minigpt.explorer.app import REQUESTS, make_app
from minigpt.explorer.protocol import PositionRequest, TextAnswer
from minigpt.explorer.serve import serve
from minigpt.explorer.session import Session
from tests.explorer.conftest import TEXT

TOKEN = "token"


@pytest.fixture(scope="module")
def client(session):
    return TestClient(make_app(session, TOKEN), base_url="http://127.0.0.1:8000")


def ask(client: TestClient, name: str, **request: object) -> httpx.Response:
    return client.post(f"/{TOKEN}/api/{name}", content=json.dumps(request))


def test_the_page_and_its_files_come_with_a_strict_policy(client):
    for name, kind in (("", "text/html"), ("main.js", "text/javascript"), ("style.css", "text/css")):
        answer = client.get(f"/{TOKEN}/{name}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/", "/wrong/", "/wrong/main.js", f"/{TOKEN}/none.js", f"/{TOKEN}/..%2fapp.py", "/wrong/api/text"]
)
def test_without_the_token_or_a_file_there_is_nothing(client, path):
    for method in (client.get, client.post):
        answer = method(path)
        assert answer.status_code in (404, 405)
        assert "Mini-GPT" not in answer.text
        assert "content-security-policy" in answer.headers


def test_python_files_are_not_served(client):
    assert client.get(f"/{TOKEN}/__init__.py").status_code == 404
    assert client.get(f"/{TOKEN}/%2e%2e/app.py").status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "minigpt.localhost"])
def test_other_hosts_are_refused(client, host):
    assert client.get(f"/{TOKEN}/", headers={"host": host}).status_code == 400


def test_tokens_of_two_servers_differ(session):
    tokens = {make_app(session).state.token for _ in range(3)}
    assert len(tokens) == 3
    assert all(len(token) >= 20 for token in tokens)


def test_an_answer_is_that_of_the_session(client, session):
    answer = ask(client, "next", text=TEXT, position=9)
    expected = session.next(PositionRequest(text=TEXT, position=9))
    assert answer.json() == json.loads(msgspec.json.encode(expected))


def test_a_tensor_comes_as_float32(client, session):
    answer = ask(client, "pattern", text=TEXT, layer=1, head=0)
    size = len(TEXT)
    assert answer.headers["x-shape"] == f"{size},{size}"
    numbers = np.frombuffer(answer.content, "<f4").reshape(size, size)
    np.testing.assert_allclose(numbers.sum(1), 1, rtol=1e-5)
    assert not np.triu(numbers, 1).any()


def test_every_method_answers(client, session):
    for name, kind in REQUESTS.items():
        given = {"text": TEXT, "position": 9, "query": 5, "key": 2}
        request = {key: value for key, value in given.items() if key in kind.__struct_fields__}
        assert ask(client, name, **request).status_code == 200, name
        assert callable(getattr(Session, name))


@pytest.mark.parametrize(
    ("name", "request_", "word"),
    [
        ("text", {"text": "x" * 20_001}, "20000"),
        ("text", {"text": 5}, "str"),
        ("text", {"text": "a", "more": 1}, "more"),
        ("text", {"text": "a", "step": 10**30}, "invalid"),
        ("text", {"text": "a", "heads_off": [[0, -1]]}, ">= 0"),
        ("text", {"text": "a", "replacement": "rm"}, "rm"),
        ("next", {"text": "a", "position": 99}, "fewer tokens"),
        ("text", {"text": "a", "step": 12345}, "checkpoint"),
    ],
)
def test_requests_that_make_no_sense(client, name, request_, word):
    answer = ask(client, name, **request_)
    assert answer.status_code == 400
    assert word in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"[", b"\xff\xfe", b'{"text": "\\ud800"}', b"[" * 50_000])
def test_bodies_that_are_not_json(client, body):
    answer = client.post(f"/{TOKEN}/api/text", content=body)
    assert answer.status_code == 400
    assert "invalid" in answer.json()["error"]


def test_a_body_that_is_too_large(client):
    assert client.post(f"/{TOKEN}/api/text", content=b" " * 300_000).status_code == 413


def test_methods_of_python_are_not_answers(client):
    for name in ("__class__", "_read", "runs", "__init__"):
        assert ask(client, name).status_code == 404


def test_hostile_text_comes_back_as_text(client):
    text = "<script>x</script>\x1b[31m\u202e\x00"
    answer = ask(client, "text", text=text[:30])
    assert answer.headers["content-type"] == "application/json"
    pieces = "".join(token["piece"] for token in answer.json()["tokens"])
    assert pieces.startswith("<script>")
    assert "\x1b" not in pieces
    assert "\\x1b" in pieces


class Slow:
    """A session whose answers take until they are cancelled."""

    def __init__(self) -> None:
        self.started, self.stopped = threading.Event(), threading.Event()

    def text(self, request, check):
        self.started.set()
        try:
            while True:
                check()
                time.sleep(0.005)
        finally:
            self.stopped.set()


def send(app, body: bytes, disconnect: asyncio.Event) -> tuple:
    """Sends one request to an application, as a server does; the connection closes with an event."""
    sent, parts = [], [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if parts:
            return parts.pop()
        await disconnect.wait()
        return {"type": "http.disconnect"}

    async def note(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/{TOKEN}/api/text",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
    }
    return app(scope, receive, note), sent


def test_a_closed_connection_stops_the_work():
    slow = Slow()

    async def scenario():
        closed = asyncio.Event()
        work, sent = send(make_app(slow, TOKEN), b"{}", closed)
        task = asyncio.ensure_future(work)
        await asyncio.to_thread(slow.started.wait, 5)
        assert not slow.stopped.is_set()
        closed.set()
        await asyncio.wait_for(task, 5)
        return sent

    assert asyncio.run(scenario())[0]["status"] == 499
    assert slow.stopped.is_set()


def test_too_many_requests_are_refused():
    slow = Slow()

    async def scenario():
        app, closed = make_app(slow, TOKEN), asyncio.Event()
        waiting = [asyncio.ensure_future(send(app, b"{}", closed)[0]) for _ in range(server.MAX_WAITING)]
        await asyncio.to_thread(slow.started.wait, 5)
        work, sent = send(app, b"{}", closed)
        await asyncio.wait_for(work, 5)
        closed.set()
        await asyncio.wait_for(asyncio.gather(*waiting), 10)
        return sent

    assert asyncio.run(scenario())[0]["status"] == 503


def test_the_server_prints_its_address_and_listens_on_this_machine_only(session, monkeypatch):
    addresses = []

    def run(self, sockets):
        assert sockets[0].getsockname()[0] == "127.0.0.1"
        raise KeyboardInterrupt

    monkeypatch.setattr("uvicorn.Server.run", run)
    serve(session, 0, addresses.append)
    assert addresses[0].startswith("http://127.0.0.1:")
    for port in (70_000, 1 << 40):
        with pytest.raises(ConfigError, match="--port"):
            serve(session, port, addresses.append)


@pytest.mark.skipif(os.name == "nt", reason="an interrupt is sent as a signal")
def test_the_command_serves_until_it_is_interrupted(explored_folder):
    command = [sys.executable, "-m", "minigpt", "explore", str(explored_folder), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            address, hint = process.stdout.readline().strip(), process.stdout.readline()
            assert "Mini-GPT" in httpx.get(address).text
            assert httpx.get(address, headers={"host": "evil.example"}).status_code == 400
            assert httpx.get(f"{address[:-5]}/").status_code == 404
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    assert "Ctrl-C" in hint


def test_the_command_refuses_what_is_not_a_run(call, tmp_path):
    code, _, err = call("explore", tmp_path / "none", "--no-browser")
    assert code == 2
    assert "run folder" in err.lower()


def test_answers_are_small_structs():
    assert json.loads(msgspec.json.encode(TextAnswer(1, [], 0, float("nan"))))["mean_loss"] is None
