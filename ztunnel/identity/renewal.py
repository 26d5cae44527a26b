"""The moments at which certificates are renewed, whatever the clocks do. Decides; never sleeps.

Two clocks take part. A leaf lives by the wall clock, which may be set, and which goes on while the
host sleeps. Pauses are measured by the monotonic clock, which does neither.
"""

from __future__ import annotations

import random
from datetime import datetime
from typing import Final

from control.kit.clock import Clock
from ztunnel.identity.csr import Issued

# Part of the life that a leaf has left when it comes. A signer may date it back, so its own dates
# say nothing about that.
RENEWAL_SHARE: Final = 0.5
RENEWAL_JITTER: Final = 0.1  # spreads a node's renewals
# Lives below ten seconds are renewed late rather than without a pause.
RENEWAL_S_MIN: Final = 5.0
# Smaller differences between the clocks are left to the share that a leaf has in reserve.
JUMP_S: Final = 10.0


def renewal_pause_s(issued: Issued, received: datetime, rng: random.Random) -> float:
    """Seconds from the receipt of a leaf to its renewal."""
    left_s = (issued.not_after - received).total_seconds()
    return max(RENEWAL_S_MIN, left_s * RENEWAL_SHARE * rng.uniform(1 - RENEWAL_JITTER, 1))


def is_valid(issued: Issued, now: datetime) -> bool:
    return issued.not_before <= now < issued.not_after


class ClockWatch:
    """Compares the two clocks: they part when one is set, or when the host has slept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_s = self._measure()

    def _measure(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic_s()

    def jump_s(self) -> float:
        """Seconds by which the wall clock has jumped since the last jump that was told; 0 for
        less than JUMP_S."""
        offset_s = self._measure()
        jump_s = offset_s - self._offset_s
        if abs(jump_s) < JUMP_S:
            return 0.0
        self._offset_s = offset_s
        return jump_s
