"""The clock of the system and the one of the tests keep the same contract."""

from __future__ import annotations

from datetime import timedelta

import pytest

from control.kit.clock import Clock, PassedTime, SystemClock
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


def test_time_that_has_passed_follows_no_clock_that_is_set_ahead() -> None:
    clock = FakeClock()
    passed = PassedTime(clock)
    clock.pass_s(5)
    clock.jump_s(9 * 86400)
    assert passed.now() == START + timedelta(seconds=5)
    clock.pass_s(5)
    assert passed.now() == START + timedelta(seconds=10)
    clock.jump_s(-9 * 86400)
    assert passed.now() == clock.now() == START + timedelta(seconds=10)
    clock.jump_s(-3)
    assert passed.now() == clock.now(), "never ahead of the wall clock"
