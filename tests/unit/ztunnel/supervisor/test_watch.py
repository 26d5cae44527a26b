"""Workers that say nothing any more are found; those that a busy host keeps waiting are not."""

from __future__ import annotations

from tests.support.clock import FakeClock
from ztunnel.supervisor.watch import LATE_LOOKS, LOOK_S, SILENT_LOOKS_MAX, Watch


def looks(watch: Watch, clock: FakeClock, count: int, *heard: dict[int, int]) -> list[int]:
    """The last one's answer; every look is in time, and sees the next of `heard`, or the last."""
    found: list[int] = []
    for number in range(count):
        clock.pass_s(LOOK_S)
        found = watch.turn(heard[min(number, len(heard) - 1)])
    return found


def test_one_that_was_not_heard_for_seven_looks_is_found() -> None:
    clock = FakeClock()
    watch = Watch(clock)
    assert looks(watch, clock, SILENT_LOOKS_MAX, {1: 5, 2: 0}) == []  # the first look is the first
    clock.pass_s(LOOK_S)
    assert watch.turn({1: 6, 2: 0}) == [2]


def test_a_word_now_and_then_is_enough() -> None:
    clock = FakeClock()
    watch = Watch(clock)
    for times in range(5):
        assert looks(watch, clock, SILENT_LOOKS_MAX, {1: times}) == []


def test_its_successor_begins_anew() -> None:
    clock = FakeClock()
    watch = Watch(clock)
    looks(watch, clock, SILENT_LOOKS_MAX, {1: 0})
    assert looks(watch, clock, SILENT_LOOKS_MAX, {2: 0}) == []


def test_looks_that_came_late_blame_nobody() -> None:
    clock = FakeClock()
    watch = Watch(clock)
    looks(watch, clock, SILENT_LOOKS_MAX, {1: 0})
    clock.pass_s(LOOK_S * LATE_LOOKS * 20)  # we were stopped ourselves
    assert watch.turn({1: 0}) == []
    assert looks(watch, clock, SILENT_LOOKS_MAX - 1, {1: 0}) == []
    assert looks(watch, clock, 1, {1: 0}) == [1]
