"""Places at a door: a newcomer finds one, and no source takes another one's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit.seats import DoorSeats, Seat, Source, source_of

EACH, NETWORK, TOTAL = 3, 5, 9
SOURCES = [Source(f"{net}.{host}", str(net)) for net in range(4) for host in range(3)]


def of_network(held: list[Seat], network: str) -> int:
    return sum(seat.source.network == network for seat in held)


def of_address(held: list[Seat], source: Source) -> int:
    return sum(seat.source == source for seat in held)


def weight(held: list[Seat], seat: Seat) -> float:
    """The share that its network has, or the address there that has most."""
    beside = [each for each in held if each.source.network == seat.source.network]
    most = max(of_address(held, each.source) for each in beside)
    return max(most / EACH, len(beside) / NETWORK)


@given(st.lists(st.tuples(st.sampled_from(SOURCES), st.booleans(), st.integers(0, 30))))
def test_never_over_a_bound_and_the_newest_has_a_place(
    arrivals: list[tuple[Source, bool, int]],
) -> None:
    seats, held = DoorSeats(EACH, NETWORK, TOTAL), list[Seat]()
    for source, busy, leaver in arrivals:
        newcomer = Seat(source, busy)
        victim = seats.take(newcomer)
        assert victim is not newcomer
        if victim is not None and victim.source != source:
            full = of_network(held, source.network) == NETWORK
            among = [each for each in held if not full or each.source.network == source.network]
            assert weight(held, victim) == max(weight(held, each) for each in among)
            beside = [each for each in held if each.source.network == victim.source.network]
            most = max(of_address(held, each.source) for each in beside)
            assert of_address(held, victim.source) == most
        if victim is not None:
            held.remove(victim)
        held.append(newcomer)
        assert seats.held(source) == of_address(held, source) <= EACH
        assert of_network(held, source.network) <= NETWORK
        assert len(seats) == len(held) <= TOTAL
        if leaver < len(held):
            seats.leave(held.pop(leaver))
    for seat in held:
        seats.leave(seat)
        seats.leave(seat)  # the second time does nothing
    assert len(seats) == 0


def test_those_being_answered_go_last_and_in_a_patient_room_never() -> None:
    for patient in (False, True):
        seats = DoorSeats(2, 2, 2, patient)
        busy, idle, third, fourth = (Seat(SOURCES[0], busy=at != 1) for at in range(4))
        assert seats.take(busy) is None
        assert seats.take(idle) is None
        assert seats.take(third) is idle
        assert seats.take(fourth) is (fourth if patient else busy)


@pytest.mark.parametrize(
    ("host", "address", "network"),
    [
        ("10.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("fd00:1:2:3:4:5:6:7", "fd00:1:2:3:4:5:6:7", "fd00:1:2:3::/64"),
        ("fe80::1%eth0", "fe80::1", "fe80::/64"),
        ("", "unknown", "unknown"),
        ("nonsense", "unknown", "unknown"),
    ],
)
def test_the_source_of_an_address(host: str, address: str, network: str) -> None:
    assert source_of(host) == Source(address, network)
