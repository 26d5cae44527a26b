"""The clock of the system and the one of the tests keep the same contract."""

from __future__ import annotations

from datetime import timedelta

import pytest

from control.kit.clock import Clock, SystemClock
from tests.support.clock import START, FakeClock


@pytest.mark.parametrize("clock", [SystemClock(), FakeClock()])
def test_now_is_utc_and_ages_never_go_back(clock: Clock) -> None:
    assert clock.now().utcoffset() == timedelta(0)
    before = clock.monotonic_s()
    assert clock.monotonic_s() >= before


def test_a_fake_clock_moves_both_hands_when_told() -> None:
    clock = FakeClock()
    assert (clock.now(), clock.monotonic_s()) == (START, 0.0)
    clock.pass_s(1.5)
    assert clock.now() - START == timedelta(seconds=1.5)
    assert clock.monotonic_s() == 1.5
