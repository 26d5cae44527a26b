"""Decides about polling for a moment instead of going to sleep; never waits itself.

At one connection most of the latency is waking up: a poll that hits saves a sleep at this end.
Polling burns only the polls themselves. Time in which another process ran, because we yielded to
it, is not counted: on one core that is usually the other end of the tunnel, at work on our answer.
Burned CPU is bounded: a share of the time that passes, spent in advance only up to a small credit.
A miss costs all that it burned, and more each time when nothing but misses come; a hit costs a part
of what it burned beyond the sleep that it saved. So polls go on where they hit, stop by themselves
where they miss, and an idle worker does not poll because it is not woken.
"""

from __future__ import annotations

from typing import Final

# Share of one core for polls that found nothing.
WASTE_SHARE: Final = 0.05
# Saved-up waste: a short run of misses after quiet time is not yet a reason to stop.
CREDIT_S_MAX: Final = 0.002
# CPU of going to sleep and waking up; a poll that hits sooner is free.
SLEEP_COST_S: Final = 10e-6
# Charge for a late hit: waste for the CPU, but not for the connection that waited. With WASTE_SHARE
# it bounds polls that always hit late to 40 % of a core.
LATE_SHARE: Final = 0.125
# Misses in a row double the price of the next one, up to this often.
MISS_DOUBLINGS_MAX: Final = 4
# A yield and a poll; anything longer is another process's time on this core.
POLL_S_MAX: Final = 5e-6
# Others may keep the core while we yield: after this long, yielding again is pointless.
WAIT_S_MAX: Final = 500e-6
# A turn that served more than these has no lack of work: the next poll returns at once anyway.
SPARSE_EVENTS_MAX: Final = 4


class Spin:
    __slots__ = (
        "_before_s",
        "_burned_s",
        "_credit_s",
        "_end_s",
        "_misses_running",
        "_seen_s",
        "hits",
        "misses",
        "spin_s",
    )

    def __init__(self, spin_us: int) -> None:
        self.spin_s = spin_us / 1e6
        self._credit_s = 0.0
        self._seen_s = 0.0
        self._before_s = 0.0
        self._end_s = 0.0
        self._burned_s = 0.0
        self._misses_running = 0
        self.hits = 0
        self.misses = 0

    def worth(self, now_s: float, events_before: int) -> bool:
        """True to begin; then report each poll to `polled` until it says that this is enough."""
        if not self.spin_s or events_before > SPARSE_EVENTS_MAX:
            return False
        credit_s = self._credit_s + (now_s - self._seen_s) * WASTE_SHARE
        self._credit_s = credit_s if credit_s < CREDIT_S_MAX else CREDIT_S_MAX
        self._seen_s = now_s
        if self._credit_s < self.spin_s:
            return False
        self._before_s = now_s
        self._end_s = now_s + WAIT_S_MAX
        self._burned_s = 0.0
        return True

    def polled(self, now_s: float, found: bool) -> bool:
        """Account for one poll; True when it was the last."""
        spent_s = now_s - self._before_s
        self._before_s = now_s
        self._burned_s += spent_s if spent_s < POLL_S_MAX else POLL_S_MAX
        if found:
            self._hit()
            return True
        if self._burned_s < self.spin_s and now_s < self._end_s:
            return False
        self._missed()
        return True

    def _hit(self) -> None:
        self.hits += 1
        self._misses_running = 0
        if self._burned_s > SLEEP_COST_S:
            self._credit_s -= (self._burned_s - SLEEP_COST_S) * LATE_SHARE

    def _missed(self) -> None:
        self.misses += 1
        self._credit_s -= self._burned_s * (1 << self._misses_running)
        if self._misses_running < MISS_DOUBLINGS_MAX:
            self._misses_running += 1
