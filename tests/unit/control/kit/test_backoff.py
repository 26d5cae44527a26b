"""Waits between tries: they double, have a bound, and are spread."""

from __future__ import annotations

import random

from control.kit.backoff import Backoff


def test_it_doubles_to_its_bound_and_starts_again() -> None:
    backoff = Backoff(1.0, 5.0, jitter=0.0, random=random.Random(1))
    assert [backoff.next_s() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    backoff.reset()
    assert backoff.next_s() == 1.0


def test_it_is_spread_on_both_sides() -> None:
    spread = Backoff(10.0, 10.0, jitter=0.2, random=random.Random(1))
    waits = [spread.next_s() for _ in range(50)]
    assert all(8.0 <= each <= 12.0 for each in waits)
    assert min(waits) < 9.0 < 11.0 < max(waits)


def test_the_spread_does_not_add_up() -> None:
    """Each wait is spread around the plain one, not around the one before."""
    backoff = Backoff(1.0, 1024.0, jitter=0.1, random=random.Random(2))
    for exponent in range(10):
        assert 0.9 * 2**exponent <= backoff.next_s() <= 1.1 * 2**exponent
