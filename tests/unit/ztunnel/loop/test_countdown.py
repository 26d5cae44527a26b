"""Deadlines: their order, and a reactor that waits for the next one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served


class Item:
    def __init__(self, name: str) -> None:
        self.name = name

    def on_bug(self) -> None:
        raise AssertionError


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def reactor(time: FakeTime) -> Iterator[Reactor]:
    def bug(item: Served) -> None:
        raise AssertionError(item)

    made = Reactor(bug, time)
    yield made
    made.close()


def test_deadlines_come_in_order_and_only_once(time: FakeTime, reactor: Reactor) -> None:
    due: list[str] = []
    countdown = reactor.countdown(10, lambda item: due.append(item.name))
    items = [Item(name) for name in "abc"]
    for item in items:
        countdown.start(item)
        time.now_s += 1
        reactor.turn(0)
    countdown.stop(items[1])
    time.now_s = 100 + 10
    reactor.turn(0)
    assert due == ["a"]
    countdown.start(items[0])
    time.now_s = 100 + 13
    reactor.turn(0)
    assert due == ["a", "c"]
    time.now_s = 100 + 20
    reactor.turn(0)
    assert due == ["a", "c", "a"]
    assert len(countdown) == 0


def test_an_idle_reactor_waits_for_the_next_deadline(time: FakeTime, reactor: Reactor) -> None:
    due: list[str] = []
    reactor.countdown(0.02, lambda item: due.append(item.name)).start(Item("a"))
    time.now_s += 0.02
    reactor.turn(60)
    assert due == ["a"]
