"""The server of admin and metrics pages: answers, refusals and bounds."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from control.kit.http import (
    BODY_BYTES_MAX,
    CONNECTIONS_MAX,
    LOOPBACK_NAMES,
    HttpRequest,
    HttpResponse,
    HttpServer,
    as_json,
    text,
)

HELLO = b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n"
DEADLINE_S = 5.0


async def echo(request: HttpRequest) -> HttpResponse:
    return as_json({"path": request.path, "query": request.query, "bytes": len(request.body)})


async def hello(_: HttpRequest) -> HttpResponse:
    return text("hello\n")


ROUTES = {("GET", "/hello"): hello, ("POST", "/echo"): echo, ("GET", "/pods/*"): echo}


def talk(folder: Path, data: bytes, names: frozenset[str] | None = None) -> bytes:
    """Send bytes to a server on a unix socket, end, and read everything it says."""

    async def whole() -> bytes:
        async with HttpServer(ROUTES, names).listen(folder / "s.sock"):
            reader, writer = await asyncio.open_unix_connection(str(folder / "s.sock"))
            writer.write(data)
            writer.write_eof()
            async with asyncio.timeout(5):
                answer = await reader.read()
            writer.close()
            return answer

    return asyncio.run(whole())


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n", b"200", b"hello"),
        (b"GET /pods/u-1?a=1&a=2 HTTP/1.1\r\nhost: x\r\n\r\n", b"200", b'"a": "2"'),
        (b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc", b"200", b'"bytes": 3'),
        (b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n", b"404", b"not found"),
        (b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n", b"405", b"not allowed"),
    ],
)
def test_http_answers(tmp_path: Path, data: bytes, status: bytes, body: bytes) -> None:
    answer = talk(tmp_path, data)
    assert answer.split(b" ", 2)[1] == status
    assert body in answer


@pytest.mark.parametrize(
    "data",
    [
        b"rubbish\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nhost: x\r\na: " + b"x" * 70_000,
        b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1)
        + b"x" * (BODY_BYTES_MAX + 1),
    ],
    ids=["not http", "long head", "long body"],
)
def test_http_refuses_what_is_no_request_or_too_large(tmp_path: Path, data: bytes) -> None:
    answer = talk(tmp_path, data)
    assert answer == b"" or answer.split(b" ", 2)[1].startswith(b"4")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"host: localhost:15000", b"200"),
        (b"host: 127.0.0.1", b"200"),
        (b"host: [::1]:15000", b"200"),
        (b"host: evil.example", b"403"),
        (b"host: localhost.evil.example", b"403"),
        (b"host: [::1", b"200"),
        (b"host: [::2]:15000", b"403"),
        (b"host:", b"403"),
        (b"host: localhost\r\norigin: http://localhost", b"403"),
    ],
)
def test_a_page_for_this_host_answers_no_web_page(
    tmp_path: Path, headers: bytes, status: bytes
) -> None:
    answer = talk(tmp_path, b"GET /hello HTTP/1.1\r\n" + headers + b"\r\n\r\n", LOOPBACK_NAMES)
    assert answer.split(b" ", 2)[1] == status


def test_two_requests_on_one_connection(tmp_path: Path) -> None:
    answer = talk(tmp_path, b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n" * 2)
    assert answer.count(b"200") == 2


def test_a_stale_socket_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(tmp_path / "s.sock"))
    assert b"hello" in talk(tmp_path, b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
    (tmp_path / "s.sock").unlink()
    (tmp_path / "s.sock").write_text("mine")
    with pytest.raises(FileExistsError):
        talk(tmp_path, b"")


def test_one_client_too_many_is_let_go_and_the_others_are_served(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")

    async def scenario() -> tuple[bytes, bytes]:
        async with HttpServer(ROUTES).listen(tmp_path / "s.sock"), AsyncExitStack() as opened:
            streams = []
            for _ in range(CONNECTIONS_MAX + 1):
                reader, writer = await asyncio.open_unix_connection(path)
                opened.callback(writer.close)
                streams.append((reader, writer))
            async with asyncio.timeout(DEADLINE_S):
                last = await streams[-1][0].read()
                first_reader, first_writer = streams[0]
                first_writer.write(HELLO)
                first_writer.write_eof()
                return last, await first_reader.read()

    last, first = asyncio.run(scenario())
    assert last == b""
    assert b"hello" in first


def test_a_socket_of_the_caller_is_served(tmp_path: Path) -> None:
    async def scenario() -> bytes:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "given.sock"))
        async with HttpServer(ROUTES).listen(listener):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "given.sock"))
            writer.write(HELLO)
            writer.write_eof()
            async with asyncio.timeout(DEADLINE_S):
                answer = await reader.read()
            writer.close()
            return answer

    assert b"hello" in asyncio.run(scenario())


def test_the_socket_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    async def scenario() -> int:
        async with HttpServer(ROUTES).listen(tmp_path / "s.sock"):
            return (tmp_path / "s.sock").stat().st_mode & 0o777

    assert asyncio.run(scenario()) == 0o600
