"""The server's side of one gRPC stream, without gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc


class Aborted(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code


class Stream:
    """Requests that a test `say`s, and the answers to them; the context of the call too."""

    def __init__(self) -> None:
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    def say(self, data: bytes | None) -> None:
        """None: the client ends the stream."""
        self._requests.put_nowait(data)

    async def requests(self) -> AsyncIterator[bytes]:
        while (data := await self._requests.get()) is not None:
            yield data

    async def write(self, data: bytes) -> None:
        await self.answers.put(data)

    async def abort(self, code: grpc.StatusCode, details: str = "", *_: Any) -> None:
        raise Aborted(code, details)


async def until(holds: Callable[[], object], deadline_s: float = 20.0) -> None:
    """Wait for a condition of another process."""
    async with asyncio.timeout(deadline_s):
        while True:
            if holds():
                return
            await asyncio.sleep(0.005)
