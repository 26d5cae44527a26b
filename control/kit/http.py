"""A small HTTP/1.1 server for admin, metrics and readiness pages. It never carries user traffic.

h11 parses; this file only moves bytes and bounds what a client may cost: places, head and body
size, and the time to send a request and to take its answer. A unix socket is for root and our own
user, who may take their time; a TCP port is for anybody who reaches it.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import h11

from control.kit import unix_socket
from control.kit.acceptor import Acceptor, let_go, streams_over
from control.kit.door import PORT, UNIX_SOCKET, DoorBounds
from control.kit.door_pace import DoorPace
from control.kit.listen import listen_address
from control.kit.page_refusals import PageRefusal, refusals
from control.kit.seats import DoorSeats, Seat, Source

HEAD_BYTES_MAX = 16 * 1024
PIECE_BYTES = 64 * 1024  # an answer is written in such pieces: a slow reader holds one


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: str
    path: str
    query: Mapping[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def text(body: str, status: int = 200) -> HttpResponse:
    return HttpResponse(status, body.encode(), {"content-type": "text/plain; charset=utf-8"})


async def alive(_: HttpRequest) -> HttpResponse:
    """The page /healthz/live: its event loop turns, whatever else is missing."""
    return text("alive\n")


def as_json(value: Any, status: int = 200) -> HttpResponse:
    body = json.dumps(value, indent=1).encode() + b"\n"
    return HttpResponse(status, body, {"content-type": "application/json"})


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]
Routes = Mapping[tuple[str, str], Handler]  # (method, path) → handler


class PageRefused(Exception):
    """The end of a connection for a reason of ours."""

    def __init__(self, why: PageRefusal) -> None:
        super().__init__(why.word)
        self.why = why


class HttpServer:
    """Serves `routes`; `*` as the last path segment matches any rest (`/pods/*`)."""

    def __init__(
        self, routes: Routes, names: frozenset[str] | None = None, *, door: str = "admin_socket"
    ) -> None:
        """With `names` the server answers only requests for one of those hosts (LOOPBACK_NAMES).
        `door` is its name in counters and log lines."""
        self._routes = routes
        self._names = names
        self._door = door
        self._bounds = UNIX_SOCKET
        self._seats = DoorSeats(0, 0, 0)
        self._opened = self._asked = DoorPace(0, 0)
        self._tasks: dict[Seat, asyncio.Task[None]] = {}
        self._transports: dict[Seat, asyncio.WriteTransport] = {}

    @asynccontextmanager
    async def listen(
        self, where: str | Path | socket.socket, bounds: DoorBounds | None = None
    ) -> AsyncIterator[socket.socket]:
        """Serve while the context lasts, on `address:port`, a unix socket path or a socket.

        A stale unix socket file is replaced; a path that is not a socket is an error. The socket
        file is 0600: only root and our own user may connect.
        """
        sock = where if isinstance(where, socket.socket) else bind(where)
        is_unix = sock.family == socket.AF_UNIX
        chosen = self._bounds = bounds or (UNIX_SOCKET if is_unix else PORT)
        self._seats = DoorSeats(
            chosen.connections_each,
            chosen.connections_network,
            chosen.connections,
            patient=is_unix,
        )
        self._opened = DoorPace(chosen.opened_per_s, chosen.opened_burst)
        self._asked = DoorPace(chosen.asked_per_s, chosen.asked_burst)
        acceptor = Acceptor(sock, self._arrived)
        try:
            yield sock
        finally:
            acceptor.close()
            for task in list(self._tasks.values()):
                task.cancel()

    def _arrived(self, sock: socket.socket, source: Source) -> None:
        if not self._opened.admit(source.address, time.monotonic()):
            self._refuse(PageRefusal.CONNECTIONS_RATE, source)
            let_go(sock)
            return
        seat = Seat(source)
        victim = self._seats.take(seat)
        if victim is seat:
            self._refuse(PageRefusal.CONNECTIONS_MAX, source)
            let_go(sock)
            return
        if victim is not None:
            self._refuse(PageRefusal.DISPLACED, victim.source)
            self._tasks[victim].cancel()
        loop = asyncio.get_running_loop()
        task = self._tasks[seat] = loop.create_task(self._serve(seat, sock), name="http")
        task.add_done_callback(lambda _: self._left(seat, sock))

    def _left(self, seat: Seat, sock: socket.socket) -> None:
        """Also of a task that was cancelled before it began."""
        self._seats.leave(seat)
        del self._tasks[seat]
        transport = self._transports.pop(seat, None)
        if transport is None:
            let_go(sock)
        elif not transport.is_closing():
            transport.abort()  # close() would wait for the reader of what is unsent

    async def _serve(self, seat: Seat, sock: socket.socket) -> None:
        try:
            reader, writer = await streams_over(sock)
            self._transports[seat] = writer.transport
            await self._talk(seat, reader, writer)
            writer.close()
        except PageRefused as exc:
            self._refuse(exc.why, seat.source)
        except (OSError, h11.ProtocolError):
            pass  # the client left

    def _refuse(self, why: PageRefusal, source: Source) -> None:
        refusals.count(self._door, why, time.monotonic(), source=source.address)

    async def _talk(
        self, seat: Seat, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        while await self._serve_one(connection, seat, reader, writer):
            connection.start_next_cycle()
            if not connection.trailing_data[0] and not await self._wait_for_next(
                connection, reader
            ):
                return

    async def _wait_for_next(
        self, connection: h11.Connection, reader: asyncio.StreamReader
    ) -> bool:
        """False when the client is done, or silent for long, which is no offence."""
        try:
            async with asyncio.timeout(self._bounds.idle_s):
                data = await reader.read(PIECE_BYTES)
        except TimeoutError:
            return False
        connection.receive_data(data)
        return bool(data)

    async def _serve_one(
        self,
        connection: h11.Connection,
        seat: Seat,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """One request and its answer; False when the connection ends."""
        refused: PageRefusal | None = None
        try:
            async with asyncio.timeout(self._bounds.request_s):
                request = await _read_request(connection, reader, self._bounds.body_bytes)
            if request is None:
                return False
            await asyncio.sleep(self._asked.wait_s(seat.source.address, time.monotonic()))
            seat.busy = True
            response = await self._dispatch(request)
        except h11.RemoteProtocolError as exc:
            response, refused = text(f"{exc}\n", exc.error_status_hint), _fault(exc)
        except TimeoutError as exc:
            raise PageRefused(PageRefusal.SLOW_REQUEST) from exc
        if refused is not None:
            self._refuse(refused, seat.source)
        if connection.our_state not in (h11.SEND_RESPONSE, h11.IDLE):
            return False
        await self._answer(connection, response, writer)
        seat.busy = False
        return bool(connection.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE})

    async def _answer(
        self, connection: h11.Connection, response: HttpResponse, writer: asyncio.StreamWriter
    ) -> None:
        """Send piece by piece: a client that does not read holds one piece, and not for ever."""
        head = [("content-length", str(len(response.body))), *response.headers.items()]
        begin = connection.send(h11.Response(status_code=response.status, headers=head)) or b""
        within_s = len(response.body) / self._bounds.answer_bytes_per_s + self._bounds.answer_s
        body = memoryview(response.body)
        try:
            async with asyncio.timeout(within_s):
                writer.write(begin)
                for start in range(0, len(body), PIECE_BYTES):
                    piece = bytes(body[start : start + PIECE_BYTES])
                    writer.write(connection.send(h11.Data(data=piece)) or b"")
                    await writer.drain()
                writer.write(connection.send(h11.EndOfMessage()) or b"")
                await _flushed(writer)
        except TimeoutError as exc:
            raise PageRefused(PageRefusal.SLOW_READER) from exc

    async def _dispatch(self, request: HttpRequest) -> HttpResponse:
        if self._names is not None and _is_forged(request, self._names):
            host = request.headers.get("host", "")
            refusals.count(self._door, PageRefusal.FOREIGN_HOST, time.monotonic(), host=host)
            return text("this page is for clients on this host\n", 403)
        handler = self._routes.get((request.method, request.path))
        if handler is None:
            head = request.path.rpartition("/")[0]
            handler = self._routes.get((request.method, f"{head}/*"))
        if handler is not None:
            return await handler(request)
        known = any(path == request.path for _, path in self._routes)
        return text("method not allowed\n", 405) if known else text("not found\n", 404)


def elsewhere(door: str, where: Path, flag: str) -> Handler:
    """The answer of a port to a request for a page that only the unix socket has."""

    async def page(request: HttpRequest) -> HttpResponse:
        refusals.count(door, PageRefusal.ADMIN_ONLY, time.monotonic(), path=request.path)
        return text(f"{request.path} is on {where}, or here with {flag}\n", 403)

    return page


_HOST = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::[0-9]*)?")


def _is_forged(request: HttpRequest, names: frozenset[str]) -> bool:
    """True unless the request is for us by name, and no web page sent it."""
    host = _HOST.fullmatch(request.headers.get("host", ""))
    name = (host[1] or host[2]).lower() if host is not None else ""
    site = request.headers.get("sec-fetch-site", "none")
    foreign = "origin" in request.headers or site not in ("none", "same-origin")
    return foreign or name not in names


def _fault(error: h11.RemoteProtocolError) -> PageRefusal:
    if error.error_status_hint == 413:
        return PageRefusal.BODY_TOO_LARGE
    return PageRefusal.HEAD_TOO_LARGE if error.error_status_hint == 431 else PageRefusal.MALFORMED


async def _flushed(writer: asyncio.StreamWriter) -> None:
    """Wait until the kernel has taken everything: drain() is content with less."""
    transport = writer.transport
    transport.set_write_buffer_limits(high=0)
    await writer.drain()
    transport.set_write_buffer_limits()


async def _read_request(
    connection: h11.Connection, reader: asyncio.StreamReader, body_bytes_max: int
) -> HttpRequest | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        item = connection.next_event()
        if item is h11.NEED_DATA:
            connection.receive_data(await reader.read(PIECE_BYTES))
        elif isinstance(item, h11.Request):
            head = item
        elif isinstance(item, h11.Data):
            body += item.data
            if len(body) > body_bytes_max:
                raise h11.RemoteProtocolError("body too large", error_status_hint=413)
        elif isinstance(item, h11.EndOfMessage) and head is not None:
            return _request(head, bytes(body))
        else:
            return None


def _request(head: h11.Request, body: bytes) -> HttpRequest:
    target = head.target.decode("ascii", "replace")
    if not target.startswith("/"):  # `http://…` names a host of its own; we are no proxy
        raise h11.RemoteProtocolError("not a path")
    path, _, query = target.partition("?")
    return HttpRequest(
        method=head.method.decode("ascii"),
        path=path,
        query={key: values[-1] for key, values in parse_qs(query, keep_blank_values=True).items()},
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers},
        body=body,
    )


def bind(where: str | Path) -> socket.socket:
    """A socket at `address:port` or at a path, for `listen`. `[::]` is every address of both
    families, on a host without IPv6 those of IPv4. ConfigError: it is neither."""
    if isinstance(where, Path):
        return unix_socket.bind(where)
    host, port = listen_address(where)
    dual = host == "::"
    if dual and not socket.has_dualstack_ipv6():
        dual, host = False, "0.0.0.0"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, dualstack_ipv6=dual)
