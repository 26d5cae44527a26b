"""Strangers by age: a crowd of new addresses shares one part, those from before have theirs."""

from __future__ import annotations

import math

import pytest

from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.loop.strangers import AGES, NEW_S, OLDEST_S, AgeClasses, age, is_stranger
from ztunnel.loop.turns import SLICE_S, Backlog

COST_S = 0.75 * SLICE_S


class Address(str):
    """A payer."""

    __slots__ = ("since_s",)
    stranger = True

    def __new__(cls, name: str, since_s: float) -> Address:
        made = super().__new__(cls, name)
        made.since_s = since_s
        return made


class Turns:
    """Payers that always have one thing to do, and what they had."""

    def __init__(self) -> None:
        self.time = FakeTime()
        self.backlog = Backlog(self.time)
        self.had_s: dict[str, float] = {}

    def serve(self, key: object, _events: int) -> None:
        name = str(key).partition(":")[0]
        self.time.now_s += COST_S
        self.had_s[name] = self.had_s.get(name, 0.0) + COST_S

    def turn(self, payers: dict[str, object]) -> None:
        for name, payer in payers.items():
            self.backlog.put(payer, f"{name}:{payer}", 1)
        self.backlog.take_turns(self.serve)
        self.time.now_s += max(1e-6, self.backlog.rest_s())


@pytest.mark.parametrize(
    ("known_s", "number"),
    [
        (-math.inf, 0),
        (0.0, 0),
        (NEW_S, 1),
        (2 * NEW_S, 2),
        (3 * NEW_S, 2),
        (4 * NEW_S, 3),
        (OLDEST_S, AGES - 1),
        (math.inf, AGES - 1),
    ],
)
def test_each_class_is_twice_as_old_as_the_one_before(known_s: float, number: int) -> None:
    assert age(Address("one", 100.0 - known_s), 100.0) == number


def test_who_says_nothing_about_its_age_is_new_and_no_stranger() -> None:
    assert age(object(), 100.0) == 0
    assert not is_stranger(object())


def test_one_that_was_there_before_keeps_half_beside_a_crowd_of_new_ones() -> None:
    turns = Turns()
    honest = Address("honest", turns.time.now_s - 10.0)
    for turn in range(2000):
        crowd = {f"new {n}": Address(f"{turn}.{n}", turns.time.now_s) for n in range(8)}
        turns.turn({"honest": honest, **(crowd if turn % 8 == 0 else {})})
    assert turns.had_s["honest"] >= 0.48 * sum(turns.had_s.values())


def test_a_crowd_that_was_there_before_has_no_more_than_one_that_is_new() -> None:
    turns = Turns()
    crowd = {f"old {n}": Address(f"old {n}", turns.time.now_s - 10.0) for n in range(20)}
    for turn in range(2000):
        new = Address(f"new {turn}", turns.time.now_s)
        turns.turn({**crowd, "new": new})
    assert turns.had_s["new"] >= 0.4 * sum(turns.had_s.values())
    olds_s = [turns.had_s[name] for name in crowd]
    assert min(olds_s) > 0.5 * max(olds_s)


def test_strangers_of_one_age_have_the_same_time() -> None:
    turns = Turns()
    crowd = {f"{n}": Address(f"{n}", turns.time.now_s) for n in range(10)}
    for _ in range(1000):
        turns.turn(crowd)
    assert min(turns.had_s.values()) > 0.8 * max(turns.had_s.values())


def test_a_class_that_was_away_does_not_make_up_for_it() -> None:
    turns = Turns()
    old = {"old": Address("old", turns.time.now_s - 10.0)}
    for _ in range(1000):
        turns.turn(old)
    before_s = turns.had_s["old"]
    for turn in range(1000):
        turns.turn({**old, "new": Address(f"new {turn}", turns.time.now_s)})
    assert turns.had_s["old"] - before_s >= 0.45 * (sum(turns.had_s.values()) - before_s)


def test_nobody_waits_in_an_empty_one() -> None:
    strangers = AgeClasses()
    assert not strangers
    assert not strangers.behind()
    strangers.heap_of(Address("one", 0.0), 100.0).append((0.0, 1, "one"))
    assert strangers
    assert strangers.behind() == [(0.0, 1, "one")]
    strangers.clear()
    assert not strangers
