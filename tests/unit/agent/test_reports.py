"""All replicas of the control plane hear what is captured, each for itself."""

from __future__ import annotations

import asyncio

import pytest

from agent.enrol.facts import Pulse
from agent.intents import NoControl
from agent.reports import KNOWN_S, LOOK_S, RENEW_S, Replicas
from agent.whereabouts import Whereabouts
from control.model.address import Address, parse_address
from control.wire import node_pb2 as pb
from tests.support.clock import FakeClock

CAPTURED: dict[str, tuple[Address, ...]] = {"u1": (parse_address("10.0.0.1"),)}


class Bench:
    """Replicas at some addresses, of which some refuse."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.there = ["10.1.0.1:15012", "10.1.0.2:15012"]
        self.refusing: set[str] = set()
        self.heard: list[tuple[str, list[str]]] = []
        self.names: dict[str, str] = {}  # by address, where replicas say who they are
        self.streaming = ""
        self.said: list[Address] = []  # all that there are, as they say
        self.all_heard = asyncio.Event()
        self.arrivals: asyncio.Queue[tuple[str, list[str]]] = asyncio.Queue()
        self.hanging: set[str] = set()  # what never answers
        self.where = Whereabouts("replicas:15012", self.clock, lambda are_known: None)
        self.subject = Replicas(
            "n1",
            self.where,
            self._send,
            self.clock,
            streaming=lambda: self.streaming,
            resolve=self._resolve,
        )

    async def _resolve(self, name: str) -> list[str]:
        assert name == "replicas:15012"
        await self._hang(name)
        if not self.there:
            raise OSError("no such name")
        return self.there

    async def _hang(self, name: str) -> None:
        while name in self.hanging:
            await asyncio.Event().wait()

    async def _send(self, address: str, data: bytes) -> bytes:
        await self._hang(address)
        if address in self.refusing:
            raise NoControl("away")
        self.heard.append((address, list(pb.ReportRequest.FromString(data).captured_uids)))
        self.arrivals.put_nowait(self.heard[-1])
        if not len(self.heard) % max(1, len(self.there)):
            self.all_heard.set()
        answer = pb.ReportResponse(replica=self.names.get(address, ""), replica_addresses=self.said)
        return answer.SerializeToString()

    def step(self, captured: dict[str, tuple[Address, ...]] = CAPTURED) -> list[str]:
        """The addresses that heard something, once nothing is left to do now."""
        self.heard.clear()

        async def whole() -> None:
            while steps := list(self.subject.steps(captured)):
                for each in steps:
                    await each

        asyncio.run(whole())
        return sorted(address for address, _ in self.heard)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_each_replica_hears_each_change_once(bench: Bench) -> None:
    assert bench.step() == bench.there
    assert bench.step() == []
    assert bench.step({}) == bench.there
    assert [uids for _, uids in bench.heard] == [[], []]


def test_one_that_is_away_is_told_when_it_is_back_and_keeps_nobody_waiting(bench: Bench) -> None:
    first, second = bench.there
    bench.refusing.add(first)
    assert bench.step() == [second]
    assert bench.step() == []  # its back-off
    bench.refusing.clear()
    bench.clock.pass_s(LOOK_S)
    assert bench.step() == [first]


def test_a_new_one_is_told_and_one_that_went_is_forgotten(bench: Bench) -> None:
    bench.step()
    bench.there = [bench.there[0], "10.1.0.9:15012"]
    assert bench.step() == []
    bench.clock.pass_s(LOOK_S)
    assert bench.step() == ["10.1.0.9:15012"]


def test_a_name_that_is_not_resolved_leaves_those_that_are_known(bench: Bench) -> None:
    bench.step()
    known, bench.there = bench.there, []
    bench.clock.pass_s(LOOK_S)
    assert bench.step({}) == known


def test_where_no_name_is_resolved_those_are_told_that_an_answer_names(bench: Bench) -> None:
    told, bench.there = bench.there, []
    assert bench.step() == []
    bench.where.said([parse_address("10.1.0.1"), parse_address("10.1.0.2")])
    assert bench.step() == told
    bench.said = [parse_address("10.1.0.2"), parse_address("10.1.0.3")]
    assert bench.step({}) == [*told, "10.1.0.3:15012"], "they say who else there is"
    assert bench.step() == ["10.1.0.2:15012", "10.1.0.3:15012"]


@pytest.mark.parametrize("hanging", ["replicas:15012", "10.1.0.1:15012"])
def test_a_resolver_or_replica_that_does_not_answer_keeps_nobody_waiting(hanging: str) -> None:
    async def whole() -> None:
        bench, pulse, captured = Bench(), Pulse(), dict(CAPTURED)
        bench.where.said([parse_address("10.1.0.1"), parse_address("10.1.0.2")])
        bench.there, bench.hanging = ["10.1.0.2:15012"], {hanging}
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(bench.subject.run(lambda: captured, pulse))
            async with asyncio.timeout(5):
                while await bench.arrivals.get() != ("10.1.0.2:15012", ["u1"]):
                    pass
                captured = {}
                pulse.beat()
                while await bench.arrivals.get() != ("10.1.0.2:15012", []):
                    pass
            running.cancel()

    asyncio.run(whole())


def test_one_that_restarted_at_its_address_hears_it_again(bench: Bench) -> None:
    bench.step()
    bench.clock.pass_s(RENEW_S)
    assert bench.step() == bench.there


V4, V6 = ["10.1.0.1:15012", "10.1.0.2:15012"], ["[fd00::1]:15012", "[fd00::2]:15012"]


@pytest.fixture
def dual(bench: Bench) -> Bench:
    """Two replicas with an address of each family; each address was tried once."""
    bench.there = V4 + V6
    bench.names = dict(zip(bench.there, ["a", "b", "a", "b"], strict=True))
    assert bench.step() == V4 + V6
    return bench


def test_a_replica_with_two_addresses_hears_each_change_once(dual: Bench) -> None:
    assert dual.step({}) == V4
    dual.clock.pass_s(RENEW_S)
    assert dual.step({}) == V4
    assert dual.step() == V4
    dual.clock.pass_s(KNOWN_S)
    assert dual.step({}) == V4 + V6, "all are tried again"


def test_the_other_address_serves_when_the_first_does_not(dual: Bench) -> None:
    dual.refusing.add(V4[0])
    assert dual.step({}) == [V4[1], V6[0]]
    assert dual.step() == [V4[1], V6[0]]
    dual.refusing.clear()
    dual.clock.pass_s(LOOK_S)
    assert dual.step() == [V4[0]]
    assert dual.step({}) == V4


def test_one_that_has_the_stream_is_not_told_again_until_it_has_lost_it(dual: Bench) -> None:
    dual.streaming = "a"
    assert dual.step({}) == [V4[1]]
    assert dual.step() == [V4[1]]
    dual.streaming = "b"
    assert dual.step() == [V4[0]], "it has heard others since"
    dual.streaming = ""
    assert dual.step() == [V4[1]]


def test_one_that_comes_back_under_another_name_is_told_by_one_address(dual: Bench) -> None:
    dual.names |= {V4[0]: "c", V6[0]: "c"}
    assert dual.step({}) == [*V4, V6[0]], "nobody is known to be where a was"
    assert dual.step() == V4


def test_a_change_wakes_it() -> None:
    async def whole() -> None:
        bench, pulse, captured = Bench(), Pulse(), dict(CAPTURED)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(bench.subject.run(lambda: captured, pulse))
            async with asyncio.timeout(5):
                await bench.all_heard.wait()
                bench.all_heard.clear()
                captured = {}
                pulse.beat()
                await bench.all_heard.wait()
            running.cancel()
        assert [uids for _, uids in bench.heard] == [["u1"], ["u1"], [], []]

    asyncio.run(whole())
