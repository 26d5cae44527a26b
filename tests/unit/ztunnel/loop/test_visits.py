"""A long piece of work waits for those who are about to come back, as far as that is fair."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.loop.turns import Backlog
from ztunnel.loop.visits import AWAY_S_MAX, KNOWN_MAX, LONG_PIECE_S, STALL_S, Visits

US = 1e-6


def always(_who: object, _payer: object) -> bool:
    return True


def visit(visits: Visits, payer: object, now_s: float, took_s: float) -> float:
    """One visit; returns its end."""
    visits.came(payer, now_s)
    visits.served(payer, took_s, now_s + took_s)
    visits.left(payer, now_s + took_s)
    return now_s + took_s


def learned(away_s: float, took_s: float, piece_s: float) -> tuple[Visits, float]:
    """Many visits of a light one, and pieces of a heavy one."""
    visits, now_s = Visits(), 10.0
    for _ in range(60):
        visits.came("heavy", now_s)
        visits.served("heavy", piece_s, now_s - 20 * US)
        visits.polled(now_s)
        now_s = visit(visits, "light", now_s, took_s) + away_s
    return visits, now_s - away_s


@pytest.mark.parametrize(
    ("away_us", "took_us", "piece_us", "is_worth_it"),
    [
        (50, 20, 250, True),
        (100, 100, 250, True),
        (200, 100, 250, False),  # it loses less than half by a piece
        (50, 20, 90, False),  # short pieces
        (450, 20, 900, False),  # too far away
        (50, 20, 1500, False),  # a stall, for which one rests anyway
    ],
)
def test_a_wait_is_worth_it_for_who_comes_back_before_the_piece_would_end(
    away_us: float, took_us: float, piece_us: float, is_worth_it: bool
) -> None:
    visits, left_s = learned(away_us * US, took_us * US, piece_us * US)
    waits = visits.is_long("heavy") and visits.awaited("heavy", left_s, always) is not None
    assert waits == is_worth_it


def test_who_is_late_is_not_waited_for() -> None:
    visits, left_s = learned(50 * US, 20 * US, 250 * US)
    found = visits.awaited("heavy", left_s, always)
    assert found is not None
    assert found[0] == "light"
    assert left_s < found[1] <= left_s + 110 * US
    assert visits.awaited("heavy", found[1] + US, always) is None


def test_nobody_waits_for_who_had_more() -> None:
    visits, left_s = learned(50 * US, 20 * US, 250 * US)
    assert visits.awaited("heavy", left_s, lambda who, payer: False) is None


def test_who_stays_away_again_and_again_is_not_expected_any_more() -> None:
    visits, now_s = learned(50 * US, 20 * US, 250 * US)
    waited = 0
    for _ in range(40):
        waited += visits.awaited("heavy", now_s, always) is not None
        assert visits.awaited("heavy", now_s + 2 * AWAY_S_MAX, always) is None
        now_s = visit(visits, "light", now_s + 0.01, 20 * US)
    assert waited <= 10


def test_a_listener_is_not_expected() -> None:
    class Door:
        returns = False

    door = Door()
    visits, now_s = Visits(), 10.0
    for _ in range(60):
        visits.came("heavy", now_s)
        visits.served("heavy", 250 * US, now_s - 20 * US)
        visits.polled(now_s)
        now_s = visit(visits, door, now_s, 20 * US) + 50 * US
    assert visits.awaited("heavy", now_s - 50 * US, always) is None


def test_somebody_new_is_as_long_as_those_who_were_new_before() -> None:
    """A flood from addresses that come once each is one of long pieces from their first on."""
    visits, now_s = Visits(), 10.0
    for number in range(100):
        now_s = visit(visits, f"from {number}", now_s, 2 * LONG_PIECE_S)
    visits.came("from elsewhere", now_s)
    assert visits.is_long("from elsewhere")


def test_those_who_are_remembered_are_bounded_and_who_comes_often_stays() -> None:
    visits, now_s = Visits(), 10.0
    for number in range(20 * KNOWN_MAX):
        now_s = visit(visits, f"from {number}", now_s, 2 * LONG_PIECE_S)
        if number % 20 == 0:
            now_s = visit(visits, "often", now_s, 20 * US)
    assert len(visits._known) <= KNOWN_MAX
    assert len(visits._away) <= KNOWN_MAX
    assert not visits._known["often"].is_new


@dataclass
class Client:
    """Somebody who waits for an answer before it asks again."""

    took_s: float
    away_s: float
    next_s: float = 0.0
    answers: int = 0


def rates(
    heavy_s: float, heavies: int, light: Client, *, seconds: float = 0.5
) -> tuple[float, float]:
    """Part of its rate that the light one keeps, and part of the time of all heavy ones."""
    time, had_s = FakeTime(), 0.0
    backlog, number = Backlog(time), 0
    begin_s = light.next_s = time.now_s

    def serve(key: object, _events: int) -> None:
        nonlocal had_s
        if key == 1:
            time.now_s += light.took_s
            light.answers += 1
            light.next_s = time.now_s + light.away_s
        else:
            time.now_s += heavy_s
            had_s += heavy_s

    while time.now_s < begin_s + seconds:
        if time.now_s >= light.next_s:
            light.next_s = float("inf")
            backlog.put("light", 1, 1)
        for each in range(heavies):
            number += 1
            backlog.put(f"heavy {each}", 10 + (number % 2) * 100 + each, 1)
        backlog.take_turns(serve)
        rest_s = backlog.rest_s()
        if rest_s:
            time.now_s = max(time.now_s + US, min(time.now_s + rest_s, light.next_s))
        time.now_s += US
    alone = seconds / (light.took_s + light.away_s + 3 * US)
    return light.answers / alone, had_s / seconds


@pytest.mark.parametrize("heavies", [1, 3])
@pytest.mark.parametrize("heavy_us", [60, 150, 250, 400, 800])
@pytest.mark.parametrize("away_us", [30, 60, 150, 300, 1000])
def test_who_waits_for_answers_keeps_its_part_however_long_others_pieces_are(
    away_us: float, heavy_us: float, heavies: int
) -> None:
    part, heavy_part = rates(heavy_us * US, heavies, Client(30 * US, away_us * US))
    assert part >= 0.95 / (1 + heavies)
    # And what is waited for is on the bill of whom it was for.
    assert heavy_part >= 0.45


def test_a_client_that_comes_back_late_each_time_holds_nobody_up_for_long() -> None:
    part, heavy_part = rates(250 * US, 1, Client(1 * US, AWAY_S_MAX * 0.9))
    assert heavy_part >= 0.45
    assert part >= 0.5


def test_stalls_are_longer_than_long_pieces() -> None:
    assert LONG_PIECE_S < AWAY_S_MAX < STALL_S
