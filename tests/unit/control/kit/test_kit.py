"""The small tools: log lines nobody can forge, whole files, growing waits, bounded HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
import stat
from pathlib import Path

import pytest

from control.kit import log as kit_log
from control.kit.backoff import Backoff
from control.kit.files import write_atomic
from control.kit.http import (
    BODY_BYTES_MAX,
    LOOPBACK_NAMES,
    HttpRequest,
    HttpResponse,
    HttpServer,
    as_json,
    text,
)
from control.kit.log import FIELD_CHARS_MAX, JsonFormatter, TextFormatter, quote


def record(**fields: object) -> logging.LogRecord:
    found = logging.makeLogRecord(
        {"name": "xds", "levelname": "INFO", "levelno": 20, "msg": "xds.connected", "created": 0.0}
    )
    found.fields = fields
    return found


def test_a_text_line() -> None:
    assert TextFormatter().format(record(node="n1", error="a b\n2026 info forged")) == (
        "1970-01-01T00:00:00.000000Z\tinfo\txds\txds.connected"
        ' node=n1 error="a b\\n2026 info forged"'
    )


def test_a_json_line() -> None:
    entry = json.loads(JsonFormatter().format(record(port=80, peer=Path("/x"), message_id="a")))
    assert entry["message"] == "xds.connected"
    assert (entry["port"], entry["peer"]) == (80, "/x")


@pytest.mark.parametrize(
    ("value", "expected"), [("", '""'), ("a=b", '"a=b"'), ('a"', '"a\\""'), ("ü", '"\\u00fc"')]
)
def test_quoting(value: str, expected: str) -> None:
    assert quote(value) == expected
    assert len(quote("x" * 10_000)) <= FIELD_CHARS_MAX + 10


def test_levels_by_scope_and_nothing_on_error() -> None:
    root = logging.getLogger()
    before = root.level
    try:
        kit_log.set_level("warning,test.scope:debug")
        assert kit_log.current_levels()["test.scope"] == "debug"
        with pytest.raises(ValueError):
            kit_log.set_level("debug,x:loud")
        assert kit_log.current_levels()[""] == "warning"
        kit_log.set_level("off,test.scope=trace")  # as in RUST_LOG
        assert kit_log.current_levels()["test.scope"] == "debug"
        assert not root.isEnabledFor(logging.CRITICAL)
    finally:
        root.setLevel(before)
        logging.getLogger("test.scope").setLevel(logging.NOTSET)


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_atomic(path, b"one", 0o600)
    write_atomic(path, b"two", 0o600)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]


def test_backoff_doubles_to_its_bound_and_starts_again() -> None:
    backoff = Backoff(1.0, 5.0, jitter=0.0, random=random.Random(1))
    assert [backoff.next_s() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    backoff.reset()
    assert backoff.next_s() == 1.0
    spread = Backoff(10.0, 10.0, jitter=0.2, random=random.Random(1))
    assert all(8.0 <= spread.next_s() <= 12.0 for _ in range(50))


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
