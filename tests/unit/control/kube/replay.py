"""A server that answers with recorded bytes, in order, and keeps the requests."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from control.kube.access import ClusterAccess
from control.kube.trust import Trust

VECTORS = Path(__file__).parents[3] / "vectors" / "kubernetes" / "http"
EMPTY = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def recorded(name: str) -> bytes:
    return (VECTORS / f"{name}.raw").read_bytes()


class Replay:
    def __init__(self, answers: list[Answer]) -> None:
        self.answers = answers
        self.requests: list[tuple[str, dict[str, str], bytes]] = []  # first line, headers, body
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            first, *rest = head.decode().rstrip().split("\r\n")
            headers = {
                key.lower(): text for key, _, text in (each.partition(": ") for each in rest)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append((first, headers, body))
            answer = self.answers.pop(0) if self.answers else EMPTY
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def replay(*answers: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Replay]:
    bench = Replay(list(answers))
    server = await asyncio.start_server(bench.serve, "127.0.0.1", 0, ssl=tls)
    bench.port = server.sockets[0].getsockname()[1]
    try:
        yield bench
    finally:
        server.close()


def plain(bench: Replay) -> ClusterAccess:
    return ClusterAccess(f"http://127.0.0.1:{bench.port}", Trust())
