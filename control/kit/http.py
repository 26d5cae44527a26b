"""A small HTTP/1.1 server for admin, metrics and readiness pages. It never carries user traffic.

h11 parses; this file only moves bytes and bounds what a client may cost: connections, head and
body size, and the time one request may take.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11

from control.kit import unix_socket
from control.kit.log import event

log = logging.getLogger("http")

CONNECTIONS_MAX = 64  # a scraper, a prober, a few people: more is a leak or an attack
HEAD_BYTES_MAX = 16 * 1024
BODY_BYTES_MAX = 1024 * 1024
# Names that a client on this host uses for us. A page that changes things and listens on TCP
# answers to no other: a web page in a browser on this host, or a service that can be made to fetch
# an address, sends another Host, or an Origin (DNS rebinding, request forgery).
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
REQUEST_TIMEOUT_S = 30.0  # for reading one request, and for keeping an idle connection


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


def as_json(value: Any, status: int = 200) -> HttpResponse:
    body = json.dumps(value, indent=1).encode() + b"\n"
    return HttpResponse(status, body, {"content-type": "application/json"})


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]
Routes = Mapping[tuple[str, str], Handler]  # (method, path) → handler


class HttpServer:
    """Serves `routes`; `*` as the last path segment matches any rest (`/pods/*`)."""

    def __init__(self, routes: Routes, names: frozenset[str] | None = None) -> None:
        """With `names` the server answers only requests for one of those hosts (LOOPBACK_NAMES)."""
        self._routes = routes
        self._names = names
        self._live = 0

    @asynccontextmanager
    async def listen(self, where: str | Path | socket.socket) -> AsyncIterator[asyncio.Server]:
        """Serve while the context lasts, on `address:port`, a unix socket path or a socket.

        A stale unix socket file is replaced; a path that is not a socket is an error. The socket
        file is 0600: only root and our own user may connect.
        """
        sock = where if isinstance(where, socket.socket) else bind(where)
        if sock.family == socket.AF_UNIX:
            server: asyncio.Server = await asyncio.start_unix_server(self._serve, sock=sock)
        else:
            server = await asyncio.start_server(self._serve, sock=sock)
        try:
            yield server
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._live >= CONNECTIONS_MAX:
            event(log, logging.WARNING, "http.refused", reason="too_many_connections")
            writer.close()
            return
        self._live += 1
        try:
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
            while await self._serve_one(connection, reader, writer):
                connection.start_next_cycle()
        except (OSError, h11.ProtocolError, TimeoutError) as exc:
            event(log, logging.DEBUG, "http.closed", error=exc)
        finally:
            self._live -= 1
            writer.close()

    async def _serve_one(
        self,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """One request and its answer; False when the connection ends."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                request = await _read_request(connection, reader)
            if request is None:
                return False
            response = await self._dispatch(request)
        except h11.RemoteProtocolError as exc:
            response = text(f"{exc}\n", exc.error_status_hint)
        head = [("content-length", str(len(response.body))), *response.headers.items()]
        if connection.our_state not in (h11.SEND_RESPONSE, h11.IDLE):
            return False
        writer.write(
            connection.send(h11.Response(status_code=response.status, headers=head)) or b""
        )
        if response.body:
            writer.write(connection.send(h11.Data(data=response.body)) or b"")
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        return bool(connection.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE})

    async def _dispatch(self, request: HttpRequest) -> HttpResponse:
        if self._names is not None and _is_forged(request, self._names):
            event(log, logging.WARNING, "http.refused", reason="foreign_host", path=request.path)
            return text("this page is for clients on this host\n", 403)
        handler = self._routes.get((request.method, request.path))
        if handler is None:
            head = request.path.rpartition("/")[0]
            handler = self._routes.get((request.method, f"{head}/*"))
        if handler is not None:
            return await handler(request)
        known = any(path == request.path for _, path in self._routes)
        return text("method not allowed\n", 405) if known else text("not found\n", 404)


def _is_forged(request: HttpRequest, names: frozenset[str]) -> bool:
    host = request.headers.get("host", "")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() not in names or "origin" in request.headers


async def _read_request(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> HttpRequest | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        item = connection.next_event()
        if item is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(item, h11.Request):
            head = item
        elif isinstance(item, h11.Data):
            body += item.data
            if len(body) > BODY_BYTES_MAX:
                raise h11.RemoteProtocolError("body too large", error_status_hint=413)
        elif isinstance(item, h11.EndOfMessage) and head is not None:
            return _request(head, bytes(body))
        else:
            return None


def _request(head: h11.Request, body: bytes) -> HttpRequest:
    target = urlsplit(head.target.decode("ascii", "replace"))
    return HttpRequest(
        method=head.method.decode("ascii"),
        path=target.path,
        query={key: values[-1] for key, values in parse_qs(target.query).items()},
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers},
        body=body,
    )


def bind(where: str | Path) -> socket.socket:
    """A socket at `address:port` or at a path, for `listen`."""
    if isinstance(where, Path):
        return unix_socket.bind(where)
    host, _, port = where.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family)
