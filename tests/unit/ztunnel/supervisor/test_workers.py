"""Worker processes: brought up, replaced, drained; by stand-ins that speak frames."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from control.kit.clock import Clock, SystemClock
from control.model.identity import SpiffeId
from control.wire.direct import Unknown, ZtunnelLine
from ztunnel.identity.csr import Issued
from ztunnel.ipc import FrameKind
from ztunnel.mesh.entries import Entry, Op
from ztunnel.supervisor import watch
from ztunnel.supervisor import workers as workers_module
from ztunnel.supervisor.copies import Copy
from ztunnel.supervisor.pods import HeldPod
from ztunnel.supervisor.spawn import spawn
from ztunnel.supervisor.workers import Workers

DEADLINE_S = 10.0
# Reads frames; says READY after CONFIG, answers a QUERY with what it has read, ends at DRAIN.
# `%d` are frame kinds; "die" as its number of life makes it leave after CONFIG.
STAND_IN = """
import os, socket, struct, sys, threading, time
sock, life = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
seen, data = [], b""
def say(kind, payload):
    sock.sendall(struct.pack("!IBB", len(payload), kind, 0) + payload)
while True:
    more = sock.recv(65536)
    if not more:
        sys.exit(0)
    data += more
    while len(data) >= 6 and len(data) >= 6 + struct.unpack("!I", data[:4])[0]:
        size, kind = struct.unpack("!I", data[:4])[0], data[4]
        payload, data = data[6:6 + size], data[6 + size:]
        seen.append(kind)
        if kind == {CONFIG}:
            if life == "die":
                sys.exit(3)
            if life == "beating":
                def beat():
                    while True:
                        say({BEAT}, b"{{}}")
                        time.sleep(0.01)
                threading.Thread(target=beat, daemon=True).start()
            if life == "babble":
                say({GENERATION}, b"{{}}")
            say({READY}, b"{{}}")
        elif kind == {QUERY}:
            if life == "silent":
                continue
            number = payload.split(b'"id":')[1].split(b",")[0]
            half = len(seen) // 2 if life == "pieces" else 0
            for part, more in ((seen[:half], b"true"), (seen[half:], b"false")):
                if part:
                    say({ANSWER}, b'{{"id":' + number + b',"more":' + more + b',"seen":'
                        + repr(part).encode() + b"}}")
        elif kind == {LEAVE}:
            say({IDLE}, b'{{"idle":' + (b"false" if life == "busy" else b"true") + b"}}")
        elif kind == {DRAIN}:
            say({DRAINED}, b"{{}}")
""".format(**{kind.name: int(kind) for kind in FrameKind})


@dataclass
class Supervisor:
    """Source and listener: one policy, no pods; and everything that was heard."""

    ready: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def entries(self) -> Iterable[Entry]:
        return [Entry(Op.REJECTED_POLICY, "shop/p"), Entry(Op.SNAPSHOT)]

    def pods(self) -> Iterable[HeldPod]:
        return ()

    def certificates(self) -> Iterable[Issued]:
        return ()

    def generation(self) -> int | None:
        return 7

    def pod_ready(self, worker: int, uid: str) -> None: ...

    def certificate_needed(self, identity: SpiffeId, *, waiting: bool) -> None: ...

    def direct_line(self, worker: int, line: ZtunnelLine | Unknown) -> None: ...

    def metrics_changed(self, worker: int, piece: dict[str, Any]) -> None: ...

    def worker_ready(self, worker: int) -> None:
        self.ready.append(worker)
        self.changed.set()

    def worker_lost(self, worker: int) -> None:
        self.lost.append(worker)
        self.changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self.changed.clear()
            await self.changed.wait()


def run(
    test: Callable[[Workers, Supervisor], Awaitable[None]],
    lives: Iterable[str],
    count: int = 1,
    *,
    early: int = 0,
) -> None:
    """`lives`: how each process that is started behaves, the last one again and again. `early`:
    so many are started before their supervisor is there."""
    left = list(lives)

    def argv(descriptor: int) -> list[str]:
        life = left.pop(0) if len(left) > 1 else left[0]
        return [sys.executable, "-I", "-S", "-c", STAND_IN, str(descriptor), life]

    async def whole() -> None:
        above = Supervisor()
        started = [spawn(argv) for _ in range(early)]
        copies = [Copy(each.process.pid, each.pipe) for each in started]
        workers = Workers(count, {"node": "n1"}, above, above, SystemClock(), argv, copies)
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(workers.run())
            try:
                await test(workers, above)
            finally:
                await workers.kill()
                running.cancel()

    asyncio.run(whole())


def test_a_worker_is_brought_up_with_everything_in_order() -> None:
    async def test(workers: Workers, above: Supervisor) -> None:
        assert not workers.all_ready
        await above.until(lambda: len(above.ready) == 2)
        assert workers.all_ready
        assert [each["worker"] for each in workers.status()] == [0, 1]
        answers = await workers.query("pools")
        kinds = [FrameKind.CONFIG, FrameKind.RESOURCES, FrameKind.GENERATION, FrameKind.QUERY]
        assert {worker: answer["seen"] for worker, answer in answers.items()} == {
            0: [int(each) for each in kinds],
            1: [int(each) for each in kinds],
        }

    run(test, ["good"], count=2)


def test_one_that_was_started_early_is_used_and_the_next_is_started_when_it_dies() -> None:
    async def test(workers: Workers, above: Supervisor) -> None:
        await above.until(lambda: bool(above.ready))
        assert workers.restarts == 0
        os.kill(int(str(workers.status()[0]["pid"])), signal.SIGKILL)
        await above.until(lambda: len(above.ready) == 2)

    run(test, ["good", "good", "die"], early=1)


def test_an_answer_in_pieces_is_whole() -> None:
    async def test(workers: Workers, above: Supervisor) -> None:
        await above.until(lambda: bool(above.ready))
        assert len((await workers.query("pools"))[0]["seen"]) == 4

    run(test, ["pieces"])


def test_news_reach_every_worker() -> None:
    async def test(workers: Workers, above: Supervisor) -> None:
        await above.until(lambda: bool(above.ready))
        workers.publish([Entry(Op.REJECTED_POLICY, "shop/q")])
        workers.publish_generation(8)
        workers.delete_pod("u1")
        workers.set_log_level("debug")
        answer = (await workers.query("pools"))[0]
        assert answer["seen"][3:-1] == [
            int(each)
            for each in (
                FrameKind.RESOURCES,
                FrameKind.GENERATION,
                FrameKind.POD_DELETE,
                FrameKind.LOG_LEVEL,
            )
        ]

    run(test, ["good"])


@pytest.mark.parametrize("life", ["die", "babble"])
def test_a_worker_that_dies_or_breaks_the_protocol_is_replaced(life: str) -> None:
    async def test(workers: Workers, above: Supervisor) -> None:
        await above.until(lambda: bool(above.lost) and bool(above.ready))
        assert above.lost == [0]
        assert workers.restarts == 1

    run(test, [life, "good"])


def test_a_worker_that_does_not_answer_does_not_hang_a_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ztunnel.supervisor.workers.QUERY_DEADLINE_S", 0.05)

    async def test(workers: Workers, above: Supervisor) -> None:
        await above.until(lambda: bool(above.ready))
        assert await workers.query("pools") == {}

    run(test, ["silent"])


def test_a_drain_ends_when_every_worker_has() -> None:
    async def test(workers: Workers, above: Supervisor) -> None:
        await above.until(lambda: len(above.ready) == 2)
        await workers.drain(5.0)
        assert sorted(above.lost) == [0, 1]
        assert (workers.status(), workers.restarts) == ([], 0)

    run(test, ["good"], count=2)


def test_a_leave_waits_for_every_worker_and_new_ones_hear_of_it() -> None:
    async def test(workers: Workers, above: Supervisor) -> None:
        await above.until(lambda: len(above.ready) == 1)
        assert not await workers.leave(0.05)
        workers.status()
        os.kill(int(str(workers.status()[0]["pid"])), signal.SIGKILL)
        assert await workers.leave(DEADLINE_S)
        assert workers.restarts == 1

    run(test, ["busy", "good"])


class Looks(watch.Watch):
    """Says when there were enough to find the second of two workers that say nothing."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.left = 4 * watch.SILENT_LOOKS_MAX
        self.enough = asyncio.Event()

    def turn(self, heard: Mapping[int, int]) -> list[int]:
        self.left -= 1 if heard else 0
        if self.left <= 0:
            self.enough.set()
        return super().turn(heard)


def test_one_that_says_nothing_any_more_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is alive, and never heard; the one after it is, and stays."""
    for module in (workers_module, watch):
        monkeypatch.setattr(module, "LOOK_S", 0.05)
    monkeypatch.setattr(watch, "LATE_LOOKS", 50.0)
    made: list[Looks] = []

    def looks(clock: Clock) -> Looks:
        made.append(Looks(clock))
        return made[0]

    monkeypatch.setattr(workers_module, "Watch", looks)

    async def test(workers: Workers, above: Supervisor) -> None:
        await above.until(lambda: len(above.ready) == 2)
        assert above.lost == [0]
        await made[0].enough.wait()
        assert above.lost == [0]

    run(test, ["good", "beating"])
