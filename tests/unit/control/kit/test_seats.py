"""Places at a door: a newcomer finds one, and no source takes another one's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit.seats import DoorSeats, Seat, source_of

EACH, TOTAL = 3, 8


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(0, 30)), max_size=80))
def test_never_over_a_bound_and_the_newest_has_a_place(
    arrivals: list[tuple[int, bool, int]],
) -> None:
    seats, held = DoorSeats(EACH, TOTAL), list[Seat]()
    for number, busy, leaver in arrivals:
        before = {source: seats.held(str(source)) for source in range(10)}
        newcomer = Seat(str(number), busy)
        victim = seats.take(newcomer)
        assert victim is not newcomer
        if victim is not None:
            held.remove(victim)
            heaviest = max(before.values())
            assert victim.source == newcomer.source or before[int(victim.source)] == heaviest
        held.append(newcomer)
        assert seats.held(newcomer.source) <= EACH
        assert len(seats) == len(held) <= TOTAL
        if leaver < len(held):
            seats.leave(held.pop(leaver))
    for seat in held:
        seats.leave(seat)
        seats.leave(seat)  # the second time does nothing
    assert len(seats) == 0


def test_those_being_answered_go_last_and_in_a_patient_room_never() -> None:
    for patient in (False, True):
        seats = DoorSeats(2, 2, patient)
        busy, idle, third, fourth = (Seat("a", busy=at != 1) for at in range(4))
        assert seats.take(busy) is None
        assert seats.take(idle) is None
        assert seats.take(third) is idle
        assert seats.take(fourth) is (fourth if patient else busy)


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fd00:1:2:3:4:5:6:7", "fd00:1:2:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("nonsense", "unknown"),
    ],
)
def test_the_source_of_an_address(host: str, source: str) -> None:
    assert source_of(host) == source
