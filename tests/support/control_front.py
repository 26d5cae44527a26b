"""The control plane's listener in front of something that is not gRPC, and TLS clients of it."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from control.kit.clock import SystemClock
from control.server.ca.keys import load_authority
from control.server.callers.arrivals import Arrival, Arrivals
from control.server.callers.budget import node_tenant
from control.server.front.listener import TlsFront, bind
from control.server.front.meter import HEADERS
from control.server.metrics import Metrics
from control.server.ports import ServingCertificates, TlsContexts
from tests.support.authorities import held


def frame(kind: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">BHBBI", 0, len(payload), kind, 0, stream) + payload


CALL = frame(HEADERS, 1)


class Bench:
    """A listener in front of something that is not gRPC: it keeps what it gets and answers."""

    def __init__(self, folder: Path) -> None:
        self.metrics, self.clock = Metrics(), SystemClock()
        self.arrivals = Arrivals(self.metrics, self.clock, 1000)
        self.received = bytearray()
        self.answers: list[asyncio.StreamWriter] = []
        self.admit_with = "n1"
        self.path = str(folder / "grpc")
        self.contexts = TlsContexts(
            ServingCertificates(
                held(load_authority(folder, "td", self.clock), self.clock),
                ["localhost"],
                self.clock,
            )
        )
        self.port = 0
        self.front: TlsFront

    async def inner(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.answers.append(writer)
        if self.admit_with:
            number = int(writer.get_extra_info("peername").rpartition(b"-")[2])
            arrival = self.arrivals.get(number)
            assert arrival is not None
            self.arrivals.admit(arrival, node_tenant(self.admit_with))
        while data := await reader.read(65536):
            self.received += data
        writer.close()

    def open_arrivals(self) -> list[Arrival]:
        return list(self.arrivals._by_number.values())

    def refused(self) -> set[str]:
        return {why.word for each in self.arrivals.refusals.values() for why in each.by_reason}

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  # what is awaited has no event
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Bench]:
    bench = Bench(folder)
    server = await asyncio.start_unix_server(bench.inner, bench.path)
    async with asyncio.TaskGroup() as tasks:
        subject = TlsFront(bench.arrivals, bench.clock, bench.contexts.current, bench.path, tasks)
        bench.front = subject
        sockets = bind("127.0.0.1:0")
        bench.port = sockets[0].getsockname()[1]
        await subject.start(sockets)
        try:
            yield bench
        finally:
            subject.close()
            for each in bench.open_arrivals():
                each.close(None)
            server.close()
            await asyncio.sleep(0.01)


def run(folder: Path, test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        async with running(folder) as bench:
            await test(bench)

    asyncio.run(whole())


def client_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    return context


async def connect(
    bench: Bench, context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = context or client_context()
    return await asyncio.open_connection("127.0.0.1", bench.port, ssl=context)
