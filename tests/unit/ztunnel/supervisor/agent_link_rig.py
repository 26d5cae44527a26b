"""Shared parts of the tests of agent_link and agent_lines."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from control.kit.clock import SystemClock
from control.wire.direct import (
    LINE_BYTES_MAX,
    AgentHello,
    FlowLine,
    encode,
    read_ztunnel_line,
)
from ztunnel.mesh.entries import Entry, Op
from ztunnel.supervisor.agent_link import DirectLink, Streams, Timing
from ztunnel.supervisor.direct import DirectHub

Line = dict[str, Any]


LEASE_S = 0.08


TIMING = Timing(hello_s=0.5, ack_s=0.1, lease_margin_s=0.02, stale_s_max=1.0)


DEADLINE_S = 5.0


HELLO = {"kind": "hello", "version": 1, "lease_s": LEASE_S}


POLICY = Entry(Op.POLICY, "shop/p")


FAR = Entry(Op.ADDRESS, "Kubernetes//Pod/load/far")


class Agent:
    """The other end of one connection, by script."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def hear(self) -> Line:
        async with asyncio.timeout(DEADLINE_S):
            line: Line = json.loads(await self.reader.readline())
        return line

    async def hear_kind(self, kind: str) -> Line:
        while (line := await self.hear())["kind"] != kind:
            pass
        return line

    def say(self, line: Any) -> None:
        self.writer.write(json.dumps(line).encode() + b"\n")

    async def greet(self, lease_s: float = LEASE_S) -> int:
        """Hellos and the first generation; the number."""
        hello = await self.hear()
        assert (hello["kind"], hello["version"]) == ("hello", 1)
        self.say({**HELLO, "lease_s": lease_s})
        return await self.acknowledge()

    async def acknowledge(self) -> int:
        number = int((await self.hear_kind("generation"))["generation"])
        self.say({"kind": "generation", "generation": number})
        return number

    def leave(self) -> None:
        self.writer.transport.abort()


class FakeWorkers:
    def __init__(self, count: int = 2) -> None:
        self.count = count
        self.told: list[object] = []
        self.direct: list[tuple[int, Line]] = []

    def publish(self, entries: Iterable[Entry]) -> None:
        self.told += [each.name for each in entries]

    def publish_generation(self, generation: int) -> None:
        self.told.append(generation)

    def send_direct(self, worker: int, line: AgentHello | FlowLine) -> None:
        self.direct.append((worker, json.loads(encode(line))))


class Bench:
    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.workers = FakeWorkers()
        self.hub = DirectHub(self.workers)
        self.agents: asyncio.Queue[Agent] = asyncio.Queue()
        self.refuse = False
        self.link = DirectLink(
            Path("direct.sock"),
            SystemClock(),
            self.hub.heard,
            timing=TIMING,
            connect=self._connect,
        )
        self.hub.link = self.link
        self.tasks = tasks

    async def _connect(self) -> Streams:
        if self.refuse:
            raise ConnectionRefusedError("nobody listens")
        ours, theirs = socket.socketpair()
        self.agents.put_nowait(Agent(*await asyncio.open_connection(sock=theirs)))
        return await asyncio.open_connection(sock=ours, limit=LINE_BYTES_MAX)

    async def agent(self) -> Agent:
        async with asyncio.timeout(DEADLINE_S):
            return await self.agents.get()

    async def greeted(self, lease_s: float = LEASE_S) -> Agent:
        agent = await self.agent()
        number = await agent.greet(lease_s)
        await self.until(lambda: self.link.status.acknowledged == number)
        await agent.hear_kind("replay")
        return agent

    def said(self, worker: int, **line: Any) -> None:
        """A worker sends this line up."""
        self.hub.said(worker, read_ztunnel_line(json.dumps(line).encode()))

    def publish(self, *entries: Entry) -> asyncio.Task[None]:
        served = {("shop", "server")}
        return self.tasks.create_task(self.hub.publish(list(entries), served))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():  # noqa: ASYNC110 # a condition of any kind, not an event's
                await asyncio.sleep(0.002)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with asyncio.TaskGroup() as tasks:
        made = Bench(tasks)
        running = tasks.create_task(made.link.run())
        yield made
        running.cancel()


def run(test: Callable[[Bench], Awaitable[None]]) -> None:
    async def inner() -> None:
        async with bench() as made:
            await test(made)

    asyncio.run(inner())
