"""The hub between the agent's link and the workers: what passes, and what waits for the kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from control.kit.errors import WireError
from control.model.address import parse_address, parse_endpoint
from control.wire.direct import (
    SERVICES_MAX,
    AgentHello,
    Cut,
    FlowLine,
    FlowNews,
    Generation,
    Replay,
    ServiceShare,
    ShareSlot,
    Unknown,
    Verdict,
    ZtunnelLine,
)
from tests.support.clock import FakeClock
from ztunnel.mesh.entries import Entry, Op
from ztunnel.supervisor.agent_link import DirectLink
from ztunnel.supervisor.direct import DirectHub

POLICY = Entry(Op.POLICY, "shop/p")
FAR = Entry(Op.ADDRESS, "Kubernetes//Pod/far/away")
SLOT = ShareSlot(1, "b", parse_endpoint("10.0.0.2:8080"))
VIP = parse_address("10.1.0.1")


class Link(DirectLink):
    """A link without a socket: keeps the lines, and says when it was asked to wait."""

    def __init__(self) -> None:
        super().__init__(Path("direct.sock"), FakeClock(), lambda _line: None)
        self.sent: list[ZtunnelLine] = []
        self.connected = True
        self.kernel_knows = asyncio.Event()

    def send(self, line: ZtunnelLine) -> bool:
        if self.connected:
            self.sent.append(line)
        return self.connected

    async def stale(self) -> None:
        self.generation += 1
        await self.kernel_knows.wait()


class Workers:
    def __init__(self, count: int = 2) -> None:
        self.count = count
        self.told: list[object] = []
        self.direct: list[tuple[int, AgentHello | FlowLine]] = []

    def publish(self, entries: Iterable[Entry]) -> None:
        self.told += [each.name for each in entries]

    def publish_generation(self, generation: int) -> None:
        self.told.append(generation)

    def send_direct(self, worker: int, line: AgentHello | FlowLine) -> None:
        self.direct.append((worker, line))


def made(count: int = 2) -> tuple[DirectHub, Workers, Link]:
    workers, link = Workers(count), Link()
    return DirectHub(workers, link), workers, link


def test_a_change_that_matters_waits_until_the_kernel_knows() -> None:
    async def test() -> None:
        hub, workers, link = made()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hub.publish([POLICY], set()))
            await asyncio.sleep(0)
            assert workers.told == []
            hub.heard(AgentHello(2.0))  # meanwhile: its generation must not overtake the policy
            assert workers.told == []
            link.kernel_knows.set()
        assert workers.told == ["shop/p", link.generation]

    asyncio.run(test())


def test_any_other_change_passes() -> None:
    hub, workers, link = made()
    before = link.generation
    asyncio.run(hub.publish([FAR], {("shop", "web")}))
    assert (workers.told, link.generation) == ([FAR.name], before)


def test_a_hello_goes_to_every_worker_and_asks_for_the_flows() -> None:
    hub, workers, link = made()
    hello = AgentHello(2.0)
    hub.heard(hello)
    assert workers.direct == [(0, hello), (1, hello)]
    assert workers.told == [link.generation]
    assert link.sent == [Replay()]


def test_each_flow_goes_to_its_own_worker() -> None:
    hub, workers, _ = made()
    hub.heard(FlowLine(FlowNews.MOVED, [[1, 0, 0], [2, 0, 0], [3, 0, 0]]))
    hub.heard(FlowLine(FlowNews.CLOSED, [{"id": 7}]))
    assert workers.direct == [
        (1, FlowLine(FlowNews.MOVED, [[1, 0, 0], [3, 0, 0]])),
        (0, FlowLine(FlowNews.MOVED, [[2, 0, 0]])),
        (1, FlowLine(FlowNews.CLOSED, [{"id": 7}])),
    ]
    assert hub.lines == {"moved": 1, "closed": 1}
    with pytest.raises(WireError):
        hub.heard(FlowLine(FlowNews.OPENED, [{}]))


def test_offers_go_up_and_a_lost_worker_takes_its_shares_back() -> None:
    hub, _, link = made()
    share = ServiceShare("a", VIP, 80, 1, (SLOT,))
    verdict = Verdict(1, "a", "b", 8080)
    for line in (verdict, share, ServiceShare("a", VIP, 81, 1, (SLOT,)), Cut(3)):
        hub.said(0, line)
    hub.said(0, ServiceShare("a", VIP, 81))  # taken back by the worker itself
    link.sent.clear()
    hub.worker_lost(0)
    hub.worker_lost(1)
    assert link.sent == [ServiceShare("a", VIP, 80)]
    assert hub.lines == {"verdict": 1, "service": 3, "cut": 1}


def test_lines_that_nobody_heard_are_not_counted_but_shares_are_known() -> None:
    hub, _, link = made()
    link.connected = False
    hub.said(0, ServiceShare("a", VIP, 80, 1, (SLOT,)))
    assert hub.lines == {}
    link.connected = True
    hub.worker_lost(0)
    assert link.sent == [ServiceShare("a", VIP, 80)]


@pytest.mark.parametrize("line", [Generation(1), Replay(), Unknown("future")])
def test_a_worker_may_not_say_everything(line: ZtunnelLine | Unknown) -> None:
    hub, _, link = made()
    with pytest.raises(WireError):
        hub.said(0, line)
    assert link.sent == []


def test_a_worker_that_offers_too_much_is_broken() -> None:
    hub, _, _ = made()
    for number in range(SERVICES_MAX):
        hub.said(0, ServiceShare(f"pod-{number}", VIP, 80, 1, (SLOT,)))
    hub.said(0, ServiceShare("pod-0", VIP, 80, 1, (SLOT,)))
    with pytest.raises(WireError):
        hub.said(0, ServiceShare("one more", VIP, 80, 1, (SLOT,)))


def test_without_a_link_everything_passes_and_nothing_is_offered() -> None:
    workers = Workers()
    hub = DirectHub(workers)
    asyncio.run(hub.publish([POLICY], set()))
    assert workers.told == ["shop/p"]
    hub.replay()
    hub.worker_lost(0)
    with pytest.raises(WireError):
        hub.said(0, Cut(1))
