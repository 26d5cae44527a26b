"""Asking Envoy's admin page: answers are bounded, and every failure is one kind of error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ztunnel.waypoint.envoy_admin import EnvoyAdmin, EnvoyAnswer, EnvoySilent

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"


def asked(
    folder: Path, reply: bytes, ask: Callable[[EnvoyAdmin], Awaitable[object]]
) -> tuple[object, bytes]:
    """The outcome and the request's head, with a server that says this and ends."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(reply)
        writer.close()

    async def whole() -> object:
        async with await asyncio.start_unix_server(serve, folder / "admin"):
            return await ask(EnvoyAdmin(folder / "admin"))

    return asyncio.run(whole()), heads[0]


def test_an_answer_has_a_status_and_a_body(tmp_path: Path) -> None:
    answer, head = asked(tmp_path, OK, lambda admin: admin.get("/ready?x=1"))
    assert answer == EnvoyAnswer(200, b"hello")
    assert head.startswith(b"GET /ready?x=1 HTTP/1.1\r\n")
    answer, head = asked(tmp_path, CHUNKED, lambda admin: admin.post("/drain"))
    assert answer == EnvoyAnswer(503, b"abc")
    assert head.startswith(b"POST /drain ")


def test_a_long_answer_comes_in_pieces_as_far_as_it_is_wanted(tmp_path: Path) -> None:
    pieces: list[bytes] = []

    def take(piece: bytes) -> bool:
        pieces.append(piece)
        return False

    asked(tmp_path, OK, lambda admin: admin.pieces("/stats", take))
    assert pieces == [b"hello"]
    with pytest.raises(EnvoySilent, match="503"):
        asked(tmp_path, CHUNKED, lambda admin: admin.pieces("/stats", lambda _: True))


@pytest.mark.parametrize("reply", [b"", OK[:-1], b"nonsense\r\n\r\n", CHUNKED[:-5]])
def test_an_answer_that_cannot_be_used(tmp_path: Path, reply: bytes) -> None:
    with pytest.raises(EnvoySilent):
        asked(tmp_path, reply, lambda admin: admin.get("/ready"))


def test_an_answer_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(EnvoySilent, match="more than 4 bytes"):
        asked(tmp_path, OK, lambda admin: admin.get("/ready", body_bytes_max=4))


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(EnvoySilent):
        asyncio.run(EnvoyAdmin(tmp_path / "none").get("/ready"))
