"""Tells payers that never come to an end of their work, as floods and transfers, from those who
wait for answers and so slow down by themselves. Decides nothing about turns.

A payer goes on if it had more to do than its turn had room for. Who does so in turn after turn for
ENDLESS_S counts as endless, until it has nothing left once.
"""

from __future__ import annotations

from typing import Final

# Long enough for whatever somebody has under way who waits for the answers.
ENDLESS_S: Final = 0.004
# Turns between two counts.
COUNTED_TURNS: Final = 16


class _Going:
    __slots__ = ("served_turn", "since_s", "waits")

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.served_turn = -1
        self.waits = True


class Endless:
    __slots__ = ("_going", "_now_s", "_turn", "count")

    def __init__(self) -> None:
        self._going: dict[object, _Going] = {}
        self._turn = 0
        self._now_s = 0.0
        self.count = 0  # those there were a few turns ago

    def begin_turn(self, now_s: float) -> None:
        self._turn, self._now_s = self._turn + 1, now_s
        if self._turn % COUNTED_TURNS == 0:
            for payer, going in list(self._going.items()):
                if not going.waits and going.served_turn < self._turn - 1:
                    del self._going[payer]
            self.count = sum(map(self.has, self._going))

    def goes_on(self, payer: object) -> None:
        """The payer has something left from the turn that is over."""
        going = self._going.get(payer)
        if going is None or not (going.waits or going.served_turn == self._turn):
            self._going[payer] = _Going(self._now_s)
        else:
            going.waits = True

    def served(self, payer: object) -> None:
        """All that the payer had was handled."""
        going = self._going.get(payer)
        if going is not None and going.waits:
            going.waits, going.served_turn = False, self._turn

    def has(self, payer: object) -> bool:
        going = self._going.get(payer)
        if going is None or not (going.waits or going.served_turn >= self._turn - 1):
            return False
        return self._now_s - going.since_s >= ENDLESS_S

    def clear(self) -> None:
        self._going.clear()
