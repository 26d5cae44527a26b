"""The direct path as it runs: a ztunnel at the other end of a socket, tables in memory."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from agent.datapath.entries import PlaintextRules
from agent.datapath.flows import FlowReport
from agent.direct import path as path_module
from agent.direct.path import DirectPath
from agent.direct.peer import OUT_BYTES_MAX, PeerRefused, check_credentials
from control.model.address import parse_address, parse_endpoint
from control.wire import direct as wire
from tests.support.clock import FakeClock
from tests.support.kernel.direct_tables import FakeTables

PID = os.getpid()
LEASE_NS = 2 * 10**9
DEADLINE_S = 5.0
A, B = parse_address("10.0.0.1"), parse_address("10.0.0.2")
VERDICT = {"kind": "verdict", "generation": 5, "source": "a", "destination": "b", "port": 80}


def event(number: int, is_closed: bool = False) -> FlowReport:
    client, target = parse_endpoint("10.0.0.1:40000"), parse_endpoint("10.0.0.2:80")
    return FlowReport(number, is_closed, 11, 12, client, target, target)


@contextmanager
def nowhere(uid: str) -> Iterator[int]:
    raise OSError(f"no namespace of {uid}")
    yield 0


class Bed:
    def __init__(self, *, grants: bool = True) -> None:
        self.tables = FakeTables(generation=40)
        self.clock = FakeClock()
        self.plaintext: dict[str, PlaintextRules] = {}
        self.path = DirectPath(
            self.tables, self.clock, nowhere, self.refuse_plaintext, grants=grants
        )
        self.path.captured("a", 11, (A,))
        self.path.captured("b", 12, (B,))

    def refuse_plaintext(self, uid: str, rules: PlaintextRules) -> None:
        self.plaintext[uid] = rules

    def connect(self) -> Ztunnel:
        ours, theirs = socket.socketpair()
        self.path.admit(theirs)
        return Ztunnel(ours)


class Ztunnel:
    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._read = b""

    def say(self, **fields: Any) -> None:
        self.sock.send(json.dumps(fields).encode() + b"\n")

    def hello(self, generation: int = 5) -> None:
        self.say(kind="hello", version=1, pid=PID, generation=generation)

    async def hear(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE_S):
            while b"\n" not in self._read:
                data = await loop.sock_recv(self.sock, 1 << 20)
                if not data:
                    return {"kind": "end"}
                self._read += data
        line, _, self._read = self._read.partition(b"\n")
        found = json.loads(line)
        assert isinstance(found, dict)
        return found


@asynccontextmanager
async def running(*, grants: bool = True) -> AsyncIterator[Bed]:
    bed = Bed(grants=grants)
    listener, other = socket.socketpair()
    try:
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(bed.path.run(listener))
            await asyncio.sleep(0)
            yield bed
            serving.cancel()
    finally:
        for each in (listener, other):
            each.close()
        bed.tables.close()


@asynccontextmanager
async def connected(*, grants: bool = True) -> AsyncIterator[tuple[Bed, Ztunnel]]:
    """One ztunnel that counts."""
    async with running(grants=grants) as bed:
        bed.path.newest(PID)
        ztunnel = bed.connect()
        ztunnel.hello()
        assert (await ztunnel.hear())["kind"] == "hello"
        await until(lambda: bed.path.status()["on"] is grants)
        bed.tables.taken()
        yield bed, ztunnel


async def until(condition: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


def test_the_start_voids_what_was_left() -> None:
    bed = Bed()
    assert bed.tables.taken() == [("set_state", 41, 0), ("drop_services",)]
    bed.tables.close()


def test_hello_grants_a_lease_and_verdicts_are_written() -> None:
    async def scenario() -> None:
        async with connected() as (bed, ztunnel):
            now_ns = int(bed.clock.monotonic_s() * 1e9)
            assert bed.tables.in_force == (42, now_ns + LEASE_NS)
            ztunnel.say(**VERDICT)
            await until(lambda: bed.tables.calls)
            assert bed.tables.taken() == [("put_verdict", 11, 12, 80, 42)]
            ztunnel.say(kind="plaintext", pod="c", refused=True, but=[90])
            await until(lambda: bed.plaintext)
            assert bed.plaintext == {"c": PlaintextRules(True, frozenset({90}))}

    asyncio.run(scenario())


def test_switched_off_there_is_no_lease_and_plaintext_is_refused_all_the_same() -> None:
    async def scenario() -> None:
        async with connected(grants=False) as (bed, ztunnel):
            assert bed.tables.in_force[1] == 0
            assert (bed.path.status()["on"], bed.path.status()["reason"]) == (False, "no_direct")
            ztunnel.say(kind="plaintext", pod="c", refused=True)
            await until(lambda: bed.plaintext)
            bed.clock.pass_s(1)
            bed.path.newest(PID)
            assert bed.tables.in_force[1] == 0

    asyncio.run(scenario())


def test_a_registration_waits_for_a_ztunnel_that_tells_of_pods(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        async with connected() as (bed, _), asyncio.timeout(DEADLINE_S):
            await bed.path.known("c")  # this one never tells
            other = bed.connect()
            other.say(kind="hello", version=1, pid=PID, generation=1, tells_pods=True)
            await until(lambda: bed.path.ledger.lacks("c"))
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(bed.path.known("c"))
                other.say(kind="plaintext", pod="other", refused=False)
                await until(lambda: "other" in bed.plaintext)
                assert not waiting.done()
                other.say(kind="plaintext", pod="c", refused=False)
            monkeypatch.setattr(path_module, "KNOWN_S", 0.01)
            await bed.path.known("never")

    asyncio.run(scenario())


def test_what_was_said_is_handled_before_the_lease_is_renewed() -> None:
    async def scenario() -> None:
        async with connected() as (bed, ztunnel):
            bed.clock.pass_s(0.5)
            ztunnel.say(**VERDICT)
            ztunnel.say(kind="generation", generation=6)
            bed.path.newest(PID)  # renews, with the lines unread
            end_ns = int(bed.clock.monotonic_s() * 1e9) + LEASE_NS
            assert [call[0] for call in bed.tables.calls] == [
                "put_verdict",
                "set_state",
                "set_state",
            ]
            assert bed.tables.in_force == (43, end_ns)
            assert (await ztunnel.hear()) == {"kind": "generation", "generation": 6}

    asyncio.run(scenario())


def test_a_ztunnel_that_left_unseen_gets_no_further_lease() -> None:
    async def scenario() -> None:
        async with connected() as (bed, ztunnel):
            bed.clock.pass_s(1.9)
            ztunnel.sock.close()
            bed.path.newest(PID)  # as the timer would
            assert bed.tables.in_force == (43, 0)
            assert bed.path.dismissed == {"closed": 1}

    asyncio.run(scenario())


def test_the_end_of_the_agent_ends_the_lease() -> None:
    async def scenario() -> None:
        async with connected() as (bed, _):
            tables = bed.tables
        assert tables.in_force == (43, 0)

    asyncio.run(scenario())


def test_flows_are_told_before_a_generation_is_acknowledged() -> None:
    async def scenario() -> None:
        async with connected() as (bed, ztunnel):
            bed.tables.happen(event(7), event(8), event(8, is_closed=True))
            ztunnel.say(kind="generation", generation=6)
            heard = [await ztunnel.hear() for _ in range(3)]
            assert [each["kind"] for each in heard] == ["opened", "closed", "generation"]
            assert heard[0]["flows"][0]["id"] == 7

    asyncio.run(scenario())


def test_flows_come_by_themselves_and_again_when_asked() -> None:
    async def scenario() -> None:
        async with connected() as (bed, ztunnel):
            bed.tables.happen(event(7))
            assert (await ztunnel.hear())["flows"][0]["source"] == "a"
            bed.tables.happen(event(9))
            assert (await ztunnel.hear())["flows"][0]["id"] == 9
            ztunnel.say(kind="replay")
            assert [flow["id"] for flow in (await ztunnel.hear())["flows"]] == [7, 9]

    asyncio.run(scenario())


def test_a_ring_full_of_flows_is_read_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_module, "EVENTS_PER_TURN", 10)

    async def scenario() -> None:
        async with connected() as (bed, ztunnel):
            bed.tables.happen(*[event(number) for number in range(95)])
            found: list[int] = []
            while len(found) < 95:
                line = await ztunnel.hear()
                assert len(line["flows"]) <= 10
                found += [flow["id"] for flow in line["flows"]]
            assert found == list(range(95))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"nonsense\n", "wire"),
        (b'{"kind":"generation"}\n', "wire"),
        (b"x" * (wire.LINE_BYTES_MAX + 2), "wire"),
        (b'{"kind":"x","y":"' + b"x" * wire.LINE_BYTES_MAX + b'"}\n', "wire"),
        (b'{"kind":"hello","version":1,"generation":9}\n', "second_hello"),
    ],
)
def test_whoever_breaks_the_protocol_is_shown_out(data: bytes, reason: str) -> None:
    async def scenario() -> None:
        async with connected() as (bed, ztunnel):
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(ztunnel.sock, data)
            assert (await ztunnel.hear())["kind"] == "end"
            assert bed.path.dismissed == {reason: 1}
            assert bed.tables.in_force == (43, 0)
            assert bed.path.status()["reason"] == "no_ztunnel"

    asyncio.run(scenario())


def test_unknown_kinds_and_fields_are_nothing() -> None:
    async def scenario() -> None:
        async with connected() as (bed, ztunnel):
            ztunnel.say(kind="weather", is_fine=True)
            ztunnel.say(**VERDICT, mood="good")
            await until(lambda: bed.tables.calls)
            assert len(bed.tables.taken()) == 1
            assert bed.path.dismissed == {}

    asyncio.run(scenario())


def test_lines_may_come_in_pieces() -> None:
    async def scenario() -> None:
        async with connected() as (bed, ztunnel):
            for byte in json.dumps(VERDICT).encode() + b"\n":
                ztunnel.sock.send(bytes([byte]))
                await asyncio.sleep(0)
            await until(lambda: bed.tables.calls)
            assert bed.tables.taken() == [("put_verdict", 11, 12, 80, 42)]

    asyncio.run(scenario())


def test_a_ztunnel_that_does_not_read_is_let_go() -> None:
    async def scenario() -> None:
        async with connected() as (bed, ztunnel):
            bed.tables.happen(*[event(number) for number in range(1000)])
            await until(lambda: len(bed.path.flows) == 1000)
            for _ in range(OUT_BYTES_MAX // 100_000):  # each answer is larger than that
                if bed.path.dismissed:
                    break
                ztunnel.say(kind="replay")
                await asyncio.sleep(0)
            assert bed.path.dismissed == {"slow_reader": 1}
            assert bed.tables.in_force == (43, 0)

    asyncio.run(scenario())


def test_a_generation_that_the_kernel_did_not_take_is_not_acknowledged() -> None:
    async def scenario() -> None:
        async with connected() as (bed, ztunnel):
            bed.tables.refuse.add("set_state")
            ztunnel.say(kind="generation", generation=6)
            assert (await ztunnel.hear())["kind"] == "end"
            bed.tables.refuse.clear()
            assert bed.path.kernel_refusals > 0

    asyncio.run(scenario())


def test_a_verdict_that_the_kernel_did_not_take_is_only_counted() -> None:
    async def scenario() -> None:
        async with connected() as (bed, ztunnel):
            bed.tables.refuse.add("put_verdict")
            ztunnel.say(**VERDICT)
            await until(lambda: bed.path.kernel_refusals == 1)
            ztunnel.say(kind="generation", generation=6)
            assert (await ztunnel.hear())["kind"] == "generation"

    asyncio.run(scenario())


def test_a_cut_of_a_pod_that_is_gone_is_counted() -> None:
    async def scenario() -> None:
        async with connected() as (bed, ztunnel):
            bed.tables.happen(event(7))
            await ztunnel.hear()
            ztunnel.say(kind="cut", id=7)
            await until(lambda: bed.path.cuts.counts.failed == 1)

    asyncio.run(scenario())


@pytest.mark.parametrize(("pid", "user"), [(0, 0), (7, 65534)])
def test_not_everybody_is_a_ztunnel(pid: int, user: int) -> None:
    with pytest.raises(PeerRefused):
        check_credentials(pid, user)


def test_too_many_ztunnels_are_refused() -> None:
    async def scenario() -> None:
        async with running() as bed:
            ztunnels = [bed.connect() for _ in range(path_module.PEERS_MAX + 1)]
            heard = [(await each.hear())["kind"] for each in ztunnels]
            assert heard == ["hello"] * path_module.PEERS_MAX + ["end"]

    asyncio.run(scenario())
