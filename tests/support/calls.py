"""A gRPC call as a handler sees it, without a server."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc

from control.server.callers.door import peer_name


class Aborted(Exception):
    """The end that a handler gave to the call."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


class Call:
    """`authorization` is the header of that name, if there is one; `arrival` the number of the
    connection that the call came on."""

    def __init__(self, authorization: str | bytes | None = None, arrival: int = 1) -> None:
        self._arrival = arrival
        self._metadata = () if authorization is None else (("authorization", authorization),)
        self.written: asyncio.Queue[bytes] = asyncio.Queue()
        self.said: dict[str, str] = {}  # before the first message

    def invocation_metadata(self) -> Any:
        return self._metadata

    def peer(self) -> str:
        return "unix-abstract:" + peer_name(7, self._arrival).lstrip("\0")

    async def send_initial_metadata(self, metadata: Any) -> None:
        self.said = dict(metadata)

    async def write(self, message: bytes) -> None:
        """Take a message of the server's side of a stream."""
        self.written.put_nowait(message)

    async def abort(self, code: grpc.StatusCode, details: str = "", *_: Any) -> NoReturn:
        raise Aborted(code, details)
