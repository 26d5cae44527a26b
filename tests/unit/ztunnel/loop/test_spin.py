"""Polling goes on while it hits, stops when it misses, and costs a bounded share."""

from __future__ import annotations

from ztunnel.loop.spin import (
    CREDIT_S_MAX,
    LATE_SHARE,
    POLL_S_MAX,
    SLEEP_COST_S,
    SPARSE_EVENTS_MAX,
    WAIT_S_MAX,
    WASTE_SHARE,
    Spin,
)

SPIN_US = 50
POLL_S = 2e-6
SLACK_S = CREDIT_S_MAX + SPIN_US * 1e-6


class Core:
    """A worker that waits for something again and again, and what its polls burned."""

    def __init__(self) -> None:
        self.spin = Spin(SPIN_US)
        self.now_s = 1000.0
        self.burned_s = 0.0
        self.tried = 0

    def wait(self, for_s: float, others_s: float = 0.0) -> bool:
        """Until something comes; each yield gives `others_s` to another process. False: slept."""
        due_s = self.now_s + for_s
        if not self.spin.worth(self.now_s, 1):
            self.now_s = due_s
            return False
        self.tried += 1
        while True:
            self.now_s += POLL_S + others_s
            self.burned_s += POLL_S
            found = self.now_s >= due_s
            if self.spin.polled(self.now_s, found):
                self.now_s = max(self.now_s, due_s)
                return found


def test_off_means_never() -> None:
    assert not Spin(0).worth(1000.0, 0)


def test_a_busy_turn_is_not_followed_by_polling() -> None:
    assert not Spin(SPIN_US).worth(1000.0, SPARSE_EVENTS_MAX + 1)
    assert Spin(SPIN_US).worth(1000.0, SPARSE_EVENTS_MAX)


def test_quick_hits_cost_nothing() -> None:
    core = Core()
    assert all(core.wait(SLEEP_COST_S - POLL_S) for _ in range(10_000))


def test_the_time_of_the_other_end_is_not_ours() -> None:
    core = Core()
    assert all(core.wait(200e-6, others_s=40e-6) for _ in range(1000))


def test_a_core_that_others_keep_is_not_polled_on() -> None:
    core = Core()
    assert not core.wait(1.0, others_s=WAIT_S_MAX / 2)
    assert (core.tried, core.spin.misses) == (1, 1)
    assert core.burned_s < 3 * POLL_S_MAX


def test_hits_that_come_late_are_bounded() -> None:
    core = Core()
    while core.now_s < 1001.0:
        core.wait(45e-6)
    assert core.burned_s - core.spin.hits * SLEEP_COST_S > 0.0
    assert core.burned_s - core.spin.hits * (SLEEP_COST_S + POLL_S) <= (
        WASTE_SHARE / LATE_SHARE + SLACK_S / LATE_SHARE
    )
    assert core.burned_s < 0.6, "of a second in which it always waited"


def test_misses_stop_it_and_burn_next_to_nothing() -> None:
    core = Core()
    while core.now_s < 1010.0:
        core.wait(100e-6)
    assert core.burned_s <= 10.0 * WASTE_SHARE / 8 + SLACK_S
    assert core.spin.misses > 10, "it keeps trying"


def test_every_second_a_miss_stays_within_the_share() -> None:
    core = Core()
    while core.now_s < 1010.0:
        core.wait(8e-6)
        core.wait(300e-6)
    assert core.burned_s - core.spin.hits * SLEEP_COST_S <= 10.0 * WASTE_SHARE + SLACK_S


def test_hits_bring_it_back_soon() -> None:
    core = Core()
    for _ in range(10_000):
        core.wait(1e-3)
    before_s = core.now_s
    while not core.wait(8e-6):
        pass
    assert core.now_s - before_s < 0.05
