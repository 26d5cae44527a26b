"""Hands memory back after peaks: what was used then is free, and the allocator keeps it.

Nothing says when a peak is over, least of all one that callers make: they go, and the process stays
as large as at its last release. So a process that has grown releases, and then tries again, after
longer and longer if that yields nothing.
"""

from __future__ import annotations

import asyncio

from control.kit.memory import AGED_MAX, release, resident_bytes

LOOK_S = 10.0
GROWTH = 1.1
# One in ten minutes that yields nothing costs nobody: a release takes some milliseconds, and more
# with many young objects. A peak of an hour is given back so late at most.
LOOKS_MAX = 60


class Surplus:
    """Decides when to release. Pure: sizes in, answers out."""

    def __init__(self) -> None:
        self._kept = 0  # after the last release
        self._looks = 0  # since the last release
        self._pause = 1  # so many of them, until one that may yield nothing

    def is_due(self, resident: int) -> bool:
        """Ask at each look; `released` after each yes."""
        self._looks += 1
        if resident > self._kept * GROWTH:
            self._pause = 1
            return True
        return self._looks >= self._pause

    def released(self, before: int, after: int) -> None:
        gained = before > after * GROWTH
        self._pause = 1 if gained else min(2 * self._pause, LOOKS_MAX)
        self._kept, self._looks = after, 0


async def give_back() -> None:
    """Look now and then, for ever."""
    surplus = Surplus()
    while True:
        await asyncio.sleep(LOOK_S)
        before = resident_bytes()
        if surplus.is_due(before):
            await asyncio.to_thread(release, AGED_MAX)  # some 15 ms in a large process
            surplus.released(before, resident_bytes())
