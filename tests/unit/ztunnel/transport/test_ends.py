"""Words for ends, and the queue of relays that wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ztunnel.loop.reactor import Reactor
from ztunnel.transport.ends import Queue, RelayEnd, TunnelEnd


class Relay:
    def __init__(self, name: str, order: list[str]) -> None:
        self._name = name
        self._order = order

    def on_again(self) -> None:
        self._order.append(self._name)

    def on_bug(self) -> None:
        raise AssertionError


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    made = Reactor(lambda item: pytest.fail(f"a bug in {item}"))
    yield made
    made.close()


def test_relays_without_a_share_of_the_turn_are_resumed_first(reactor: Reactor) -> None:
    order: list[str] = []
    queue = Queue()
    queue.add(Relay("bulk", order), had_share=True)
    queue.add(Relay("one", order), had_share=False)
    queue.add(Relay("two", order), had_share=False)
    assert queue
    queue.resume(reactor)
    assert not queue
    reactor.turn(0)
    assert order == ["one", "two", "bulk"]


def test_a_relay_waits_once_however_often_it_asks(reactor: Reactor) -> None:
    order: list[str] = []
    queue, relay = Queue(), Relay("one", order)
    queue.add(relay, had_share=False)
    queue.add(relay, had_share=False)
    queue.resume(reactor)
    reactor.turn(0)
    assert order == ["one"]


def test_a_cleared_queue_resumes_nobody(reactor: Reactor) -> None:
    order: list[str] = []
    queue = Queue()
    queue.add(Relay("one", order), had_share=False)
    queue.add(Relay("two", order), had_share=True)
    queue.clear()
    queue.resume(reactor)
    reactor.turn(0)
    assert order == []


def test_every_end_says_something_but_the_good_one() -> None:
    assert [end for end in RelayEnd if not end.value] == [RelayEnd.FINISHED]
    assert all(end.value for end in TunnelEnd)
