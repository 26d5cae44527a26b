"""The server of admin and metrics pages: answers, refusals and bounds."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from control.kit.door import LOOPBACK_NAMES, PORT, UNIX_SOCKET, DoorBounds
from control.kit.http import (
    HttpRequest,
    HttpResponse,
    HttpServer,
    as_json,
    text,
)
from control.kit.page_refusals import refusals
from control.kit.unix_socket import Unseen

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
        b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
        % (UNIX_SOCKET.body_bytes + 1)
        + b"x" * (UNIX_SOCKET.body_bytes + 1),
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
        (b"host: localhost:80:evil.example", b"403"),
        (b"host: [::1].evil.example", b"403"),
        (b"host: [::1", b"403"),
        (b"host: [::2]:15000", b"403"),
        (b"host:", b"403"),
        (b"host: localhost\r\norigin: http://localhost", b"403"),
        (b"host: localhost\r\norigin: null", b"403"),
        (b"host: localhost\r\nsec-fetch-site: cross-site", b"403"),
        (b"host: localhost\r\nhost: evil.example", b"400"),
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


FEW = DoorBounds(
    connections=4,
    connections_network=4,
    connections_each=2,
    opened_per_s=1e6,
    opened_burst=1e6,
    asked_per_s=1e6,
    asked_burst=1e6,
    body_bytes=10_000,
    request_s=0.2,
    idle_s=0.2,
    answer_s=0.2,
    answer_bytes_per_s=2**40,
)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BIG = b"x" * 8 * 1024 * 1024  # more than the kernel keeps for a reader that does not read


async def big(_: HttpRequest) -> HttpResponse:
    return HttpResponse(200, BIG)


@asynccontextmanager
async def port(door: str, bounds: DoorBounds) -> AsyncIterator[Callable[[str], Awaitable[Streams]]]:
    """A server on a loopback port; the value connects to it from an address of this host."""
    routes = {**ROUTES, ("GET", "/big"): big}
    async with HttpServer(routes, door=door).listen("127.0.0.1:0", bounds) as server:
        where = server.getsockname()[1]
        async with AsyncExitStack() as opened:

            async def dial(source: str) -> Streams:
                streams = await asyncio.open_connection(
                    "127.0.0.1", where, local_addr=(source, 0), limit=2**16
                )
                opened.callback(streams[1].transport.abort)
                return streams

            yield dial


async def said(streams: Streams, data: bytes = HELLO) -> bytes:
    reader, writer = streams
    writer.write(data)
    async with asyncio.timeout(DEADLINE_S):
        return await reader.readuntil(b"hello\n")


async def end(streams: Streams) -> bytes:
    """Its words until it ends."""
    async with asyncio.timeout(DEADLINE_S):
        try:
            return await streams[0].read()
        except ConnectionError:
            return b""


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(int(DEADLINE_S * 100)):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


def refused(door: str) -> dict[str, int]:
    return {why: count for (at, why), count in refusals.counts.items() if at == door}


def test_a_source_displaces_itself_and_a_probe_beside_it_is_served() -> None:
    async def scenario() -> None:
        async with port("flood", replace(PORT, connections_each=4)) as dial:
            started_s = asyncio.get_running_loop().time()
            flood = []
            for _ in range(2000):
                with contextlib.suppress(ConnectionError):  # reset before we have looked
                    flood.append(await dial("127.0.0.2"))
            assert b"hello" in await said(await dial("127.0.0.3"))
            assert asyncio.get_running_loop().time() - started_s < 10
            assert await end(flood[0]) == b"", "displaced"

    asyncio.run(scenario())
    assert refused("flood")["displaced"] >= PORT.opened_burst - 4
    assert sum(refused("flood").values()) >= 2000 - 4


def test_a_source_that_asks_without_end_waits_and_others_do_not() -> None:
    async def scenario() -> None:
        async with port("eager", replace(FEW, asked_per_s=20, asked_burst=2, request_s=5)) as dial:
            eager = await dial("127.0.0.2")
            eager[1].write(HELLO * 50)
            loop = asyncio.get_running_loop()
            started_s = loop.time()
            assert b"hello" in await said(await dial("127.0.0.3"))
            assert loop.time() - started_s < 0.5
            for _ in range(6):
                assert b"hello" in await said(eager, b"")
            assert loop.time() - started_s > 3 / 20

    asyncio.run(scenario())
    assert refused("eager") == {}


def test_many_sources_share_the_places_and_the_newest_has_one() -> None:
    async def scenario() -> None:
        async with port("crowd", replace(FEW, request_s=5, idle_s=5)) as dial:
            crowd = [await dial(f"127.0.0.{number}") for number in range(2, 12)]
            assert b"hello" in await said(crowd[-1])
            assert await end(crowd[0]) == b""

    asyncio.run(scenario())


@pytest.mark.parametrize("first", [b"", b"G"])
def test_a_request_that_never_comes_ends_in_time(first: bytes) -> None:
    async def scenario() -> None:
        async with port(f"slow{len(first)}", FEW) as dial:
            streams = await dial("127.0.0.2")
            streams[1].write(first)
            assert await end(streams) == b""

    asyncio.run(scenario())
    assert refused(f"slow{len(first)}") == {"slow_request": 1}


def test_a_request_of_single_bytes_ends_in_time_however_steady() -> None:
    async def scenario() -> None:
        async with port("drops", FEW) as dial:
            reader, writer = await dial("127.0.0.2")
            with contextlib.suppress(ConnectionError):
                for byte in itertools.cycle(b"GET /hello HTTP/1.1\r\nx: "):
                    writer.write(bytes([byte]))
                    await writer.drain()
                    try:
                        async with asyncio.timeout(0.02):
                            assert await reader.read() == b""
                            break
                    except TimeoutError:
                        continue

    asyncio.run(scenario())
    assert refused("drops") == {"slow_request": 1}


def test_a_reader_that_never_reads_loses_its_answer_and_its_place() -> None:
    async def scenario() -> None:
        async with port("mute", FEW) as dial:
            mute = [await dial("127.0.0.2") for _ in range(2)]
            for _, writer in mute:
                writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's
                writer.write(HELLO.replace(b"hello", b"big"))
            assert b"hello" in await said(await dial("127.0.0.3"))
            await until(lambda: refused("mute").get("slow_reader") == 2)
            assert b"hello" in await said(await dial("127.0.0.2"))

    asyncio.run(scenario())


def test_a_silent_connection_between_two_requests_ends_without_blame() -> None:
    async def scenario() -> None:
        async with port("idle", FEW) as dial:
            streams = await dial("127.0.0.2")
            assert b"hello" in await said(streams)
            assert b"hello" in await said(streams), "one connection, two requests"
            assert await end(streams) == b""

    asyncio.run(scenario())
    assert refused("idle") == {}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"rubbish\r\n\r\n", "malformed"),
        (b"GET http://evil/hello HTTP/1.1\r\nhost: x\r\n\r\n", "malformed"),
        (b"GET /hello HTTP/1.1\r\nhost: x\r\na: " + b"x" * 70_000, "head_too_large"),
        (
            b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999\r\n\r\n"
            + b"x" * (UNIX_SOCKET.body_bytes + 1),
            "body_too_large",
        ),
    ],
)
def test_every_refusal_is_counted_once(data: bytes, why: str) -> None:
    async def scenario() -> None:
        async with port(f"count{len(data)}", replace(FEW, request_s=5)) as dial:
            streams = await dial("127.0.0.2")
            streams[1].write(data)
            await end(streams)

    asyncio.run(scenario())
    assert refused(f"count{len(data)}") == {why: 1}


def test_requests_under_way_on_the_unix_socket_stay(tmp_path: Path) -> None:
    """A pod's registration takes its time; the next one over the bound is told so at once."""
    path, release = str(tmp_path / "s.sock"), asyncio.Event()

    waiting: list[HttpRequest] = []

    async def wait(request: HttpRequest) -> HttpResponse:
        waiting.append(request)
        await release.wait()
        return text("hello\n")

    async def scenario() -> None:
        server = HttpServer({("GET", "/hello"): wait}, door="busy")
        async with server.listen(tmp_path / "s.sock", FEW), AsyncExitStack() as opened:
            streams = []
            for _ in range(3):
                streams.append(await asyncio.open_unix_connection(path))
                opened.callback(streams[-1][1].close)
                streams[-1][1].write(HELLO)
                await until(lambda: len(waiting) == min(len(streams), 2))
            await until(lambda: bool(refused("busy")))
            release.set()
            answers = [await end(each) if each is streams[2] else b"" for each in streams]
            assert answers[2] == b""
            for each in streams[:2]:
                assert b"hello" in await said(each, b"")

    asyncio.run(scenario())
    assert refused("busy") == {"connections_max": 1}


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


def test_a_server_that_ends_leaves_the_path_to_its_successor(tmp_path: Path) -> None:
    """Python 3.13 would look for the name that it was bound to, and remove what it finds."""
    path = tmp_path / "s.sock"

    async def scenario() -> None:
        first, second = Unseen(path), Unseen(path)
        async with HttpServer(ROUTES).listen(second.sock):
            async with HttpServer(ROUTES).listen(first.sock):
                first.show()
                second.show()
                taken = path.stat().st_ino
            assert path.stat().st_ino == taken
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(HELLO)
            writer.write_eof()
            assert b"hello" in await reader.read()
            writer.close()
        assert path.stat().st_ino == taken

    asyncio.run(scenario())
