"""HTTP over a unix socket: answers, refusals, and every way for nobody to be there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

import pytest

from agent.fetch import Answer, FetchError, checked, get_json, request


class Handler(BaseHTTPRequestHandler):
    """Echoes the request as JSON; /bad is an error page, /cut an answer that ends too early."""

    def do_GET(self) -> None:
        if self.path == "/cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{")
            return
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length) or b'{"path": "%s"}' % self.path.encode()
        self.send_response(503 if self.path == "/bad" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "admin.sock"
    with UnixStreamServer(str(path), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield path
        made.shutdown()
        thread.join()


def test_a_page_is_its_json(server: Path) -> None:
    assert get_json(server, "/status") == {"path": "/status"}
    assert request(server, "POST", "/pods", {"uid": "é"}).json() == {"uid": "é"}
    found = request(server, "POST", "/logging", query={"level": "a b"})
    assert found.json() == {"path": "/logging?level=a+b"}


def test_a_refusal_gives_the_servers_reason(server: Path) -> None:
    answer = request(server, "POST", "/bad", {"error": "the disk is full"})
    with pytest.raises(FetchError, match="writing: 503 the disk is full") as refused:
        checked(answer, "writing")
    assert (refused.value.status, refused.value.reason) == (503, "admin")
    with pytest.raises(FetchError, match="GET /x: 404 <html>"):
        checked(Answer(404, b"<html>"), "GET /x")
    assert checked(Answer(200, b""), "x") is None


def test_an_answer_that_is_cut_short_is_no_answer(server: Path) -> None:
    with pytest.raises(FetchError, match=r"GET /cut on .*admin\.sock"):
        get_json(server, "/cut")


def test_nobody_there_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with pytest.raises(FetchError, match="no such socket"):
        get_json(path, "/status")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with pytest.raises(FetchError, match="nothing listens"):
        get_json(path, "/status")


def test_a_server_that_accepts_nobody_is_said_to_be_stuck(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with ExitStack() as stack:
        stuck = stack.enter_context(socket.socket(socket.AF_UNIX))
        stuck.bind(str(path))
        stuck.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(path))
        with pytest.raises(FetchError, match=r"takes no more connections|no answer in time"):
            get_json(path, "/status", timeout_s=0.01)


def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen(1)
        with pytest.raises(FetchError, match="no answer in time"):
            get_json(path, "/status", timeout_s=0.01)
