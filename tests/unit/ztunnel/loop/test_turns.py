"""Fair turns: a slice of time for each payer, nothing lost, nothing served twice."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.loop.turns import SLICE_S, Backlog

COST_S = SLICE_S / 5


def test_one_item_of_a_quiet_payer_waits_for_a_slice_of_the_busy_one() -> None:
    time = FakeTime()
    backlog = Backlog(time)
    served: list[object] = []

    def serve(key: object, events: int) -> None:
        served.append(key)
        time.now_s += COST_S

    for number in range(1000):
        backlog.put("busy", number, 1)
    for turn in range(20):
        backlog.put("quiet", f"q{turn}", 1)
        began_s = time.now_s
        backlog.take_turns(serve)
        assert f"q{turn}" in served
        assert time.now_s - began_s <= SLICE_S + 3 * COST_S
    busy = [each for each in served if isinstance(each, int)]
    assert busy == list(range(len(busy)))
    assert len(busy) >= 20 * 5


def test_events_of_a_key_that_waits_are_joined() -> None:
    backlog = Backlog(FakeTime())
    served: list[tuple[object, int]] = []
    backlog.put("a", 5, 1)
    backlog.put("b", 5, 4)
    backlog.take_turns(lambda key, events: served.append((key, events)))
    assert served == [(5, 5)]
    assert not backlog


def test_what_is_dropped_is_not_served_and_its_number_may_come_again() -> None:
    backlog = Backlog(FakeTime())
    served: list[tuple[object, int]] = []
    backlog.put("a", 5, 1)
    backlog.drop(5)
    backlog.drop(5)
    assert not backlog
    backlog.put("b", 5, 2)
    backlog.take_turns(lambda key, events: served.append((key, events)))
    assert served == [(5, 2)]


@given(st.integers(0, 1 << 32))
def test_every_key_is_served_once_for_each_time_that_it_was_put(seed: int) -> None:
    chance, time = random.Random(seed), FakeTime()
    backlog = Backlog(time)
    waiting: set[object] = set()

    def serve(key: object, _events: int) -> None:
        waiting.remove(key)
        time.now_s += chance.choice((0.0, COST_S, 2 * SLICE_S))
        if chance.random() < 0.2:  # what is served may end others
            gone = chance.randrange(50)
            backlog.drop(gone)
            waiting.discard(gone)
        if chance.random() < 0.2:
            again = chance.randrange(50)
            backlog.put(again % 5, again, 1)
            waiting.add(again)

    for _ in range(60):
        for _ in range(chance.randrange(10)):
            key = chance.randrange(50)
            backlog.put(key % 5, key, 1)
            waiting.add(key)
        backlog.take_turns(serve)
        assert bool(backlog) == bool(waiting)
    for _ in range(10_000):
        if not backlog:
            break
        backlog.take_turns(serve)
    assert not waiting
