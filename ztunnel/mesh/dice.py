"""Random numbers that remember their use; not compiled, because the base class is C."""

from __future__ import annotations

import random


class Dice(random.Random):
    """Knows if it was rolled: a decision that took no roll is the same the next time."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(seed)
        self.rolls = 0

    def random(self) -> float:
        self.rolls += 1
        return super().random()

    def getrandbits(self, k: int, /) -> int:
        self.rolls += 1
        return super().getrandbits(k)
