"""A gRPC call as a handler sees it, without a server."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc


class Aborted(Exception):
    """The end that a handler gave to the call."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


class Call:
    """`authorization` is the header of that name, if there is one."""

    def __init__(self, authorization: str | bytes | None = None) -> None:
        self._metadata = () if authorization is None else (("authorization", authorization),)
        self.written: asyncio.Queue[bytes] = asyncio.Queue()

    def invocation_metadata(self) -> Any:
        return self._metadata

    def peer(self) -> str:
        return "ipv4:10.0.0.1:40000"

    async def write(self, message: bytes) -> None:
        """Take a message of the server's side of a stream."""
        self.written.put_nowait(message)

    async def abort(self, code: grpc.StatusCode, details: str = "", *_: Any) -> NoReturn:
        raise Aborted(code, details)
