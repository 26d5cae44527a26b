"""The bill: all CPU time is somebody's, by parts that were measured, and none is counted twice."""

from __future__ import annotations

import socket

import pytest

from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.loop.bill import SAMPLED_TURNS, SETTLED_AFTER_S, Bill
from ztunnel.loop.reactor import WATCH_READ, Reactor
from ztunnel.loop.served import Served


class Spent:
    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.slowed = 0


def test_cpu_time_goes_by_the_parts_of_the_time_that_was_measured() -> None:
    cpu = FakeTime()
    bill, a, b = Bill(cpu), Spent(), Spent()
    bill.add(a, 0.003)
    bill.add(b, 0.001)
    bill.add(None, 0.004)
    cpu.now_s += 0.8  # polls and the kernel's work for us are in it
    bill.settle()
    assert (a.cpu_s, b.cpu_s, bill.own_s) == pytest.approx((0.3, 0.1, 0.4))
    bill.settle()
    assert a.cpu_s == pytest.approx(0.3)


def test_time_without_anybody_is_the_workers_own() -> None:
    cpu = FakeTime()
    bill = Bill(cpu)
    cpu.now_s += 1.0
    bill.settle()
    assert bill.own_s == pytest.approx(1.0)


def test_who_is_gone_is_not_remembered() -> None:
    bill, spent = Bill(FakeTime()), Spent()
    bill.add(spent, 2 * SETTLED_AFTER_S)
    assert not bill._parts_s


class Working:
    """A handler that takes a while and has output that takes as long."""

    def __init__(self, time: FakeTime, cpu: FakeTime, took_s: float) -> None:
        self.payer = Spent()
        self.reactor: Reactor | None = None
        self.worked_s = 0.0
        self._clocks, self._took_s = (time, cpu), took_s

    def on_ready(self, _events: int) -> None:
        self._work()
        assert self.reactor is not None
        self.reactor.flush_later(self)

    def flush(self) -> None:
        self._work()

    def _work(self) -> None:
        self.worked_s += self._took_s
        for each in self._clocks:
            each.now_s += self._took_s

    def on_bug(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("fair", [False, True])
def test_each_pays_for_its_handlers_and_its_output_in_turns_of_both_kinds(fair: bool) -> None:
    def bug(_item: Served) -> None:
        raise AssertionError

    time, cpu = FakeTime(), FakeTime()
    reactor = Reactor(bug, time, cpu_s=cpu)
    began_s = cpu.now_s
    pairs = [socket.socketpair() for _ in range(2)]
    working = [Working(time, cpu, 1e-6), Working(time, cpu, 3e-6)]
    for each, (ours, theirs) in zip(working, pairs, strict=True):
        each.reactor = reactor
        theirs.send(b"x")
        reactor.watch(ours.fileno(), each, WATCH_READ)
    for _ in range(10 * SAMPLED_TURNS):
        for each, (ours, _) in zip(working, pairs, strict=True):
            reactor.watch(ours.fileno(), each, WATCH_READ)  # reports it again
            if fair:
                reactor.meet(each.payer)
        reactor.turn(0)
        assert reactor.crowded is fair
    reactor.bill.settle()
    assert sum(each.payer.cpu_s for each in working) == pytest.approx(cpu.now_s - began_s)
    for each in working:
        assert each.payer.cpu_s == pytest.approx(each.worked_s, rel=0.1)
    for pair in pairs:
        for sock in pair:
            sock.close()
    reactor.close()
