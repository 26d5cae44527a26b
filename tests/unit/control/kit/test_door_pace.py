"""Paces: no address gets more than its own, and none keeps another one from its."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control.kit.door_pace import ADDRESSES_MAX, DoorPace

PER_S, BURST = 5.0, 3.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 2)), max_size=60))
def test_in_no_span_of_time_does_an_address_get_more(steps: list[tuple[str, float]]) -> None:
    pace, now_s, admitted = DoorPace(PER_S, BURST), 0.0, list[tuple[str, float]]()
    for address, later_s in steps:
        now_s += later_s
        first = not any(each == address for each, _ in admitted)
        if pace.admit(address, now_s):
            admitted.append((address, now_s))
        else:
            assert not first, "a newcomer has its burst"
    for address in "abc":
        times = [at_s for each, at_s in admitted if each == address]
        for start, from_s in enumerate(times):
            for end, to_s in enumerate(times[start:], 1):
                assert end <= BURST + (to_s - from_s) * PER_S + 1e-6


def test_those_who_wait_get_one_after_the_other() -> None:
    pace = DoorPace(PER_S, BURST)
    waits = [pace.wait_s("a", 0.0) for _ in range(5)]
    assert waits == [0.0, 0.0, 0.0, 1 / PER_S, 2 / PER_S]
    assert pace.wait_s("b", 0.0) == 0.0
    assert pace.wait_s("a", 10.0) == 0.0


def test_what_is_kept_of_addresses_is_bounded() -> None:
    pace = DoorPace(PER_S, BURST)
    for number in range(ADDRESSES_MAX + 100):
        assert pace.admit(str(number), 0.0)
    assert len(pace) == ADDRESSES_MAX
