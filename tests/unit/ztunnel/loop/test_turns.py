"""Fair turns: a slice of time for each payer, nothing lost, nothing served twice."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.loop.clocks import CLOCKS_MAX, CREDIT_S
from ztunnel.loop.turns import ENDLESS_TIMES, SLICE_S, TURN_S, Backlog
from ztunnel.loop.visits import STALL_S

COST_S = SLICE_S / 5


class Fresh(str):
    """A key of work that has just come."""

    fresh = True


class Stranger(str):
    """A payer that is an address."""

    stranger = True


class Bed:
    """Payers that always have work, each with a cost for one item of it."""

    def __init__(self, **costs_s: float) -> None:
        self.time = FakeTime()
        self.slowed: list[object] = []
        self.backlog = Backlog(self.time, slowed=self.slowed.append)
        self.costs_s: dict[object, float] = dict(costs_s)
        self.had_s: dict[object, float] = dict.fromkeys(costs_s, 0.0)
        self._number = 0

    def serve(self, key: object, _events: int) -> None:
        payer = str(key).split(":")[0]
        self.time.now_s += self.costs_s[payer]
        self.had_s[payer] += self.costs_s[payer]

    def turn(self, *payers: str, items: int = 50) -> float:
        """One turn in which these have more to do; its length."""
        for payer in payers:
            for _ in range(items):
                self._number += 1
                self.backlog.put(payer, Fresh(f"{payer}:{self._number}"), 1)
        began_s = self.time.now_s
        self.backlog.take_turns(self.serve)
        self.time.now_s += max(1e-6, self.backlog.rest_s())
        return self.time.now_s - began_s


def test_one_item_of_a_quiet_payer_waits_for_a_slice_of_the_busy_one() -> None:
    bed = Bed(busy=COST_S, quiet=COST_S)
    bed.turn("busy", items=1000)
    for turn in range(20):
        bed.backlog.put("quiet", Fresh(f"quiet:q{turn}"), 1)
        before_s = bed.had_s["quiet"]
        assert bed.turn() <= 2 * SLICE_S + 2 * COST_S
        assert bed.had_s["quiet"] > before_s
    assert bed.had_s["busy"] >= bed.had_s["quiet"]


@pytest.mark.parametrize("times", [0.1, 0.5, 2, 4])
def test_payers_that_always_have_work_have_the_same_time_however_long_an_item_takes(
    times: float,
) -> None:
    bed = Bed(small=0.1 * SLICE_S, large=times * SLICE_S)
    for _ in range(400):
        bed.turn("small", "large", items=20)
    assert bed.had_s["small"] == pytest.approx(bed.had_s["large"], rel=0.1)


def test_who_stalls_the_others_waits_for_as_long() -> None:
    bed = Bed(light=0.1 * SLICE_S, staller=40 * SLICE_S)
    began_s, asks_s = bed.time.now_s, 0.0
    for _ in range(4000):
        if bed.time.now_s >= asks_s and not bed.backlog._queues.get("light"):
            bed.backlog.put("light", Fresh("light:1"), 1)
            asks_s = bed.time.now_s + 0.5 * SLICE_S  # once it has its answer
        bed.turn("staller", items=1)
    passed_s = bed.time.now_s - began_s
    assert 0.4 * passed_s <= bed.had_s["staller"] <= 0.55 * passed_s


def test_a_staller_alone_is_told_to_rest_no_longer_than_it_took() -> None:
    bed = Bed(staller=40 * SLICE_S)
    bed.turn("staller", items=2)
    assert bed.backlog
    assert bed.time.now_s - 100.0 == pytest.approx(80 * SLICE_S, rel=0.01)
    bed.turn()
    assert not bed.backlog


def test_who_was_away_comes_first_and_has_a_small_credit_only() -> None:
    bed = Bed(busy=COST_S, away=COST_S)
    bed.turn("away", items=1)
    while bed.had_s["busy"] < 100 * CREDIT_S:
        bed.turn("busy", items=10)
    before_s = bed.had_s["busy"]
    for _ in range(1000):
        bed.turn("busy", "away", items=10)
        if bed.had_s["busy"] > before_s + SLICE_S:
            break
    assert bed.had_s["away"] <= CREDIT_S + 4 * SLICE_S


def test_a_turn_of_many_payers_ends_and_each_has_its_turn_later() -> None:
    bed = Bed(**{f"p{number}": COST_S for number in range(200)})
    names = list(bed.costs_s)
    assert bed.turn(*map(str, names), items=10) <= TURN_S + 2 * SLICE_S
    for _ in range(500):
        bed.turn()
    assert min(bed.had_s.values()) == pytest.approx(10 * COST_S)


def test_the_workers_own_business_owes_nobody() -> None:
    bed = Bed(busy=COST_S, own=20 * SLICE_S)
    for number in range(20):
        bed.backlog.put(None, f"own:{number}", 1)
        before_s = bed.had_s["own"]
        bed.turn("busy", items=1)
        assert bed.had_s["own"] > before_s


def test_time_spent_elsewhere_counts() -> None:
    bed = Bed(a=COST_S, b=COST_S)
    for _ in range(500):
        bed.turn("a", "b", items=10)
        bed.backlog.charge("a", COST_S)  # a flush, say
        bed.had_s["a"] += COST_S
    assert bed.had_s["a"] == pytest.approx(bed.had_s["b"], rel=0.1)


@given(st.integers(0, 1 << 32))
def test_one_payer_alone_has_everything_served_in_one_go(seed: int) -> None:
    chance, backlog = random.Random(seed), Backlog(FakeTime())
    served: list[object] = []

    def serve(key: object, _events: int) -> None:
        served.append(key)
        backlog.drop(chance.randrange(50))  # what is served may end others

    for _ in range(5):
        waiting = {chance.randrange(50) for _ in range(chance.randrange(40))}
        served.clear()
        for key in waiting:
            backlog.put("alone", key, 1)
        backlog.take_all(serve)
        assert not backlog
        assert len(served) == len(set(served))
        assert set(served) <= waiting
    assert not backlog._queues
    assert not backlog._heap
    for key in range(40):  # and turns go on as before
        backlog.put(key % 2, key, 1)
    while backlog:
        backlog.take_turns(serve)


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
        time.now_s += backlog.rest_s()
    assert not waiting


def test_stalls_without_a_break_are_bounded() -> None:
    time = FakeTime()
    backlog = Backlog(time)
    for number in range(3 * CLOCKS_MAX):
        time.now_s += 2 * STALL_S
        backlog.charge(number, 2 * STALL_S)
    assert backlog.anyone_stalled
    assert len(backlog._stalled) <= CLOCKS_MAX


@pytest.mark.parametrize("floods", [1, 2, 10])
def test_who_never_comes_to_an_end_has_less_than_who_waits_for_answers(floods: int) -> None:
    time, had_s = FakeTime(), {"flood": 0.0, "asks": 0.0}
    backlog = Backlog(time)

    def serve(key: object, _events: int) -> None:
        name = "asks" if isinstance(key, int) else "flood"
        time.now_s += 0.2 * SLICE_S
        had_s[name] += 0.2 * SLICE_S

    for turn in range(4000):
        for number in range(10):
            backlog.put("asks", number, 1)
            for flood in range(floods):
                backlog.put(f"flood {flood}", f"{turn % 2}:{flood}:{number}", 1)
        backlog.take_turns(serve)
    assert had_s["asks"] == pytest.approx(ENDLESS_TIMES * had_s["flood"], rel=0.2)


def test_strangers_together_have_no_more_than_one_that_is_known() -> None:
    names = [Stranger(f"from {number}") for number in range(60)]
    bed = Bed(known=COST_S, **dict.fromkeys(names, COST_S))
    for turn in range(600):
        bed.turn("known", *names[turn % 40 : turn % 40 + 20], items=2)
    strangers_s = sum(bed.had_s[name] for name in names)
    assert 0.2 * bed.had_s["known"] < strangers_s < 1.1 * bed.had_s["known"]
    assert set(bed.slowed) - {"known"}


def test_nobody_is_slowed_who_has_no_more_than_others() -> None:
    bed = Bed(one=COST_S, other=COST_S)
    for _ in range(50):
        bed.turn("one", "other", items=1)
    assert not bed.slowed
