"""Is it worth polling for a moment instead of going to sleep? Decides only; never waits itself.

At one connection most of the latency is waking up: a poll that hits saves both ends a sleep. A poll
that misses is wasted, and so is the length of one that hits late: on few cores it is taken from
those who would answer. So waste is bounded: a share of the time that passes, spent in advance only
up to a small credit. Where polls hit they go on, where they miss they stop by
themselves, and an idle worker does not poll at all because it is not woken.
"""

from __future__ import annotations

from typing import Final

# Of one core, for polls that found nothing.
WASTE_SHARE: Final = 0.05
# Saved-up waste: a short run of misses after quiet time is not yet a reason to stop.
CREDIT_S_MAX: Final = 0.002
# CPU that going to sleep and waking up takes; a poll that hits sooner is for nothing.
SLEEP_COST_S: Final = 10e-6
# A turn that served more than these has no lack of work: the next poll returns at once anyway.
SPARSE_EVENTS_MAX: Final = 4


class Spin:
    __slots__ = ("_credit_s", "_seen_s", "hits", "misses", "spin_s")

    def __init__(self, spin_us: int) -> None:
        self.spin_s = spin_us / 1e6
        self._credit_s = 0.0
        self._seen_s = 0.0
        self.hits = 0
        self.misses = 0

    def worth(self, now_s: float, events_before: int) -> bool:
        if not self.spin_s or events_before > SPARSE_EVENTS_MAX:
            return False
        credit_s = self._credit_s + (now_s - self._seen_s) * WASTE_SHARE
        self._credit_s = credit_s if credit_s < CREDIT_S_MAX else CREDIT_S_MAX
        self._seen_s = now_s
        return self._credit_s >= self.spin_s

    def missed(self, spent_s: float) -> None:
        """`spent_s` is longer than asked for where somebody else wanted the core: costs more."""
        self.misses += 1
        self._credit_s -= spent_s

    def hit(self, spent_s: float) -> None:
        """What it took beyond the sleep that it saved was wasted too."""
        self.hits += 1
        if spent_s > SLEEP_COST_S:
            self._credit_s -= spent_s - SLEEP_COST_S
