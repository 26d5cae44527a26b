"""The supervisor's line to the agent: the order of messages, and an agent that falls silent."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from control.kit.clock import SystemClock
from control.kit.errors import WireError
from control.wire.direct import (
    LINE_BYTES_MAX,
    AgentHello,
    Cut,
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


def test_a_change_of_policy_reaches_nobody_before_the_kernel_knows() -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.greeted()
        bench.workers.told.clear()
        publishing = bench.publish(POLICY)
        number = (await agent.hear_kind("generation"))["generation"]
        assert number == bench.link.generation
        assert bench.workers.told == []
        agent.say({"kind": "generation", "generation": number - 1})
        agent.say({"kind": "moved", "flows": [[1, 0, 0]]})
        await bench.until(lambda: any(line["kind"] == "moved" for _, line in bench.workers.direct))
        assert bench.workers.told == [], "that was the answer to another question"
        agent.say({"kind": "generation", "generation": number})
        await publishing
        assert bench.workers.told == ["shop/p", number], "the number follows what it is for"

    run(test)


def test_what_cannot_matter_waits_for_nobody() -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.greeted()
        bench.workers.told.clear()
        before = bench.link.generation
        await bench.publish(FAR)
        assert bench.workers.told == [FAR.name]
        assert bench.link.generation == before
        agent.leave()

    run(test)


def test_a_dead_agents_lease_is_waited_out() -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.greeted()
        bench.refuse = True
        agent.leave()
        await bench.until(lambda: not bench.link.status.connected)
        bench.workers.told.clear()
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await bench.publish(POLICY)
        assert loop.time() - started_s > LEASE_S / 2
        assert bench.workers.told[0] == "shop/p"
        started_s = loop.time()
        await bench.publish(POLICY)
        assert loop.time() - started_s < LEASE_S / 2, "it runs out once"

    run(test)


def test_a_silent_agent_is_left_and_its_lease_waited_out() -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.greeted()
        bench.refuse = True
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await bench.publish(POLICY)
        assert loop.time() - started_s > TIMING.ack_s + LEASE_S
        assert await agent.hear_kind("generation")
        assert await agent.reader.read() == b""

    run(test)


def test_an_agent_that_comes_back_answers_for_what_waits() -> None:
    async def test(bench: Bench) -> None:
        first = await bench.greeted(lease_s=DEADLINE_S)
        bench.workers.told.clear()
        publishing = bench.publish(POLICY)
        await first.hear_kind("generation")
        first.leave()
        second = await bench.agent()
        hello = await second.hear()
        second.say(HELLO)
        asked = await second.hear_kind("generation")
        assert hello["generation"] == asked["generation"] == bench.link.generation
        assert bench.workers.told == [], "the number must not overtake what is held back"
        second.say(asked)
        await publishing
        assert bench.workers.told[:2] == ["shop/p", bench.link.generation]

    run(test)


def test_each_connection_has_a_number_of_its_own() -> None:
    """Or a lease that starts anew would bring old verdicts back to life."""

    async def test(bench: Bench) -> None:
        first = await bench.greeted()
        before = bench.link.generation
        first.leave()
        second = await bench.agent()
        assert (await second.hear())["generation"] > before
        second.say(HELLO)
        await bench.until(lambda: bench.link.generation in bench.workers.told)

    run(test)


def test_nobody_waits_for_an_agent_that_never_came() -> None:
    async def test(bench: Bench) -> None:
        bench.refuse = True
        await bench.publish(POLICY)
        assert bench.workers.told[0] == "shop/p"

    run(test)


def test_agents_that_never_answer_hold_policy_back_for_a_bounded_time() -> None:
    async def test(bench: Bench) -> None:
        async def flap() -> None:
            while True:
                agent = await bench.agents.get()
                await agent.hear()
                agent.say(HELLO)

        flapping = bench.tasks.create_task(flap())
        await bench.until(lambda: bench.link.status.connected)
        async with asyncio.timeout(TIMING.stale_s_max + 1):
            await bench.publish(POLICY)
        assert "shop/p" in bench.workers.told
        flapping.cancel()

    run(test)


def test_the_end_of_patience_is_not_the_end_of_a_lease() -> None:
    lease_s = TIMING.stale_s_max + 0.2

    async def test(bench: Bench) -> None:
        await bench.greeted(lease_s)
        bench.refuse = True  # it is heard no more
        since_s = asyncio.get_running_loop().time()
        await bench.publish(POLICY)
        assert asyncio.get_running_loop().time() - since_s >= lease_s

    run(test)


@pytest.mark.parametrize(
    "answer",
    [
        b'{"kind":"hello","version":2,"lease_s":2}\n',
        b'{"kind":"hello","version":1,"lease_s":0}\n',
        b'{"kind":"hello","version":1,"lease_s":3600}\n',
        b'{"kind":"generation","generation":1}\n',
        b"[]\n",
        b"nonsense\n",
        b"x" * (LINE_BYTES_MAX + 10),
        b"",
    ],
)
def test_an_agent_of_another_kind_is_left(answer: bytes) -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.agent()
        agent.writer.write(answer)
        if not answer:
            agent.writer.write_eof()
        await bench.until(lambda: bool(bench.link.status.error))
        assert not bench.link.status.connected
        assert bench.workers.direct == []

    run(test)


def test_a_number_that_was_never_said_is_no_answer() -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.greeted()
        agent.say({"kind": "generation", "generation": bench.link.generation + 1})
        await bench.until(lambda: bool(bench.link.status.error))

    run(test)


def test_unknown_kinds_are_passed_over() -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.greeted()
        agent.say({"kind": "future"})
        agent.say({"kind": "moved", "flows": [[4, 1, 1]]})
        await bench.until(lambda: (0, _moved([4, 1, 1])) in bench.workers.direct)
        assert bench.link.status.unknown_kinds == 1

    run(test)


def _moved(*flows: list[int]) -> Line:
    return {"kind": "moved", "flows": list(flows)}


def test_each_flow_has_its_worker() -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.greeted()
        agent.say(_moved([1, 0, 0], [2, 0, 0], [3, 0, 0]))
        agent.say({"kind": "closed", "flows": [{"id": 7}]})
        await bench.until(lambda: len(bench.workers.direct) == 5)
        assert bench.workers.direct[2:] == [
            (1, _moved([1, 0, 0], [3, 0, 0])),
            (0, _moved([2, 0, 0])),
            (1, {"kind": "closed", "flows": [{"id": 7}]}),
        ]

    run(test)


def test_workers_lines_go_up_and_a_lost_worker_is_forgotten() -> None:
    slot = {"weight": 1, "destination": "b", "address": "10.0.0.2", "port": 8080}
    share = {"kind": "service", "source": "a", "vip": "10.1.0.1", "port": 80, "total": 1}
    verdict = {"kind": "verdict", "generation": 1, "source": "a", "destination": "b", "port": 1}

    async def test(bench: Bench) -> None:
        bench.said(0, **share, slots=[slot])  # nobody there: not told, but known
        agent = await bench.greeted()
        bench.said(0, **verdict)
        bench.said(1, kind="cut", id=3)
        bench.said(0, **share, slots=[slot])
        bench.hub.worker_lost(0)
        bench.hub.worker_lost(1)
        assert [await agent.hear() for _ in range(3)] == [
            verdict,
            {"kind": "cut", "id": 3},
            {**share, "slots": [slot]},
        ]
        assert await agent.hear() == {**share, "total": 0, "slots": []}
        bench.hub.replay()
        assert await agent.hear() == {"kind": "replay"}

    run(test)


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"kind": "generation", "generation": 1},
        {"kind": "hello", "version": 1, "generation": 1},
        {"kind": "replay"},
        {"kind": "future"},
    ],
)
def test_a_worker_says_only_what_is_its_to_say(line: Line) -> None:
    async def test(bench: Bench) -> None:
        with pytest.raises(WireError):
            bench.said(0, **line)

    run(test)


def test_without_a_direct_path_everything_just_passes() -> None:
    workers = FakeWorkers()
    hub = DirectHub(workers)
    asyncio.run(hub.publish([POLICY, FAR], set()))
    assert workers.told == [POLICY.name, FAR.name]
    with pytest.raises(WireError):
        hub.said(0, Cut(1))
