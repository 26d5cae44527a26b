"""Payers that are addresses: their common clock, and turns among them by how long they are known.

Addresses come cheap, so all of them together are one payer among the others. Within that part a
crowd of new ones would leave nothing to those that were there before. A flood can have as many
addresses as it likes, but none that it had not used before it began. So strangers are apart by
age, each class twice as old as the one before it, and the classes share the time. Decides the order
among strangers; serves nobody.
"""

from __future__ import annotations

import math
from typing import Final

# Known for less, an address is new.
NEW_S: Final = 0.25
# Classes of age; the oldest ones are known for a quarter of an hour.
AGES: Final = 13
OLDEST_S: Final = NEW_S * 2 ** (AGES - 2)
# A class that was away comes back with this much credit at most.
CREDIT_S: Final = 0.002

# The first time of what was always there.
ALWAYS_S: Final = -math.inf

Waiting = tuple[float, int, object]  # its clock, a number against ties, the payer


def is_stranger(payer: object) -> bool:
    return bool(getattr(payer, "stranger", False))


def age(payer: object, now_s: float) -> int:
    """The payer's class."""
    known_s = now_s - float(getattr(payer, "since_s", now_s))
    return int(max(0.0, min(known_s, OLDEST_S)) / NEW_S).bit_length()


class AgeClasses:
    __slots__ = ("_clocks_s", "_floor_s", "_heaps", "clock_s")

    def __init__(self) -> None:
        self.clock_s = 0.0  # all of them together, among the others
        self._heaps: Final[list[list[Waiting]]] = [[] for _ in range(AGES)]
        self._clocks_s: Final = [0.0] * AGES
        self._floor_s = 0.0  # the clock of the class that was last the furthest behind

    def __bool__(self) -> bool:
        return any(self._heaps)

    def heap_of(self, payer: object, now_s: float) -> list[Waiting]:
        """The queue that it lines up in."""
        return self._heaps[age(payer, now_s)]

    def behind(self) -> list[Waiting]:
        """The queue of the class that had least; an empty one if nobody waits."""
        clocks_s, least = self._clocks_s, self._heaps[0]
        least_s = clocks_s[0]
        for heap, at_s in zip(self._heaps, clocks_s, strict=True):
            if heap and (not least or at_s < least_s):
                least, least_s = heap, at_s
        return least

    def charge(self, payer: object, took_s: float, now_s: float) -> None:
        """Let the clock of the payer's class run."""
        number = age(payer, now_s)
        at_s = max(self._clocks_s[number], self._floor_s - CREDIT_S)
        others_s = (self._clocks_s[each] for each in range(AGES) if self._heaps[each])
        self._floor_s = max(self._floor_s, min((at_s, *others_s)))
        self._clocks_s[number] = at_s + took_s

    def clear(self) -> None:
        for heap in self._heaps:
            heap.clear()
