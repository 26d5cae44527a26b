"""Polling goes on while it hits, stops when it misses, and costs a bounded share."""

from __future__ import annotations

from ztunnel.spin import CREDIT_S_MAX, SLEEP_COST_S, SPARSE_EVENTS_MAX, WASTE_SHARE, Spin

SPIN_US = 50


def test_off_means_never() -> None:
    assert not Spin(0).worth(1000.0, 0)


def test_a_busy_turn_is_not_followed_by_polling() -> None:
    assert not Spin(SPIN_US).worth(1000.0, SPARSE_EVENTS_MAX + 1)
    assert Spin(SPIN_US).worth(1000.0, SPARSE_EVENTS_MAX)


def test_quick_hits_cost_nothing() -> None:
    spin = Spin(SPIN_US)
    now_s = 1000.0
    for _ in range(10_000):
        assert spin.worth(now_s, 1)
        spin.hit(SLEEP_COST_S)
        now_s += 20e-6


def test_hits_that_come_late_are_bounded_like_misses() -> None:
    spin = Spin(SPIN_US)
    now_s, wasted_s = 1000.0, 0.0
    while now_s < 1001.0:
        if spin.worth(now_s, 1):
            spin.hit(45e-6)
            wasted_s += 45e-6 - SLEEP_COST_S
            now_s += 45e-6
        now_s += 55e-6
    assert 0.0 < wasted_s <= 1.0 * WASTE_SHARE + CREDIT_S_MAX


def test_misses_stop_it_and_waste_stays_within_the_share() -> None:
    spin = Spin(SPIN_US)
    now_s, wasted_s = 1000.0, 0.0
    while now_s < 1010.0:
        if spin.worth(now_s, 1):
            spin.missed(50e-6)
            wasted_s += 50e-6
            now_s += 50e-6
        now_s += 100e-6
    assert wasted_s <= 10.0 * WASTE_SHARE + CREDIT_S_MAX
    assert spin.misses > 1000, "it keeps trying"
