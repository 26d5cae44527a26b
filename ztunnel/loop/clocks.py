"""A clock for each payer, which runs while it is served: whoever is behind comes first.

Somebody who was away comes back where the others are, with a small credit for the moments in which
it had nothing to do. Addresses come cheap, so all strangers together have a clock as well, and are
one among the others.
"""

from __future__ import annotations

from typing import Final

# The credit of somebody who comes back, and the debt that is remembered at most.
CREDIT_S: Final = 0.002
DEBT_S_MAX: Final = 0.02
# Payers whose clocks are kept; those that are behind by the credit need none.
CLOCKS_MAX: Final = 1024


def is_stranger(payer: object) -> bool:
    """True for an address: nothing is known of who is there."""
    return bool(getattr(payer, "stranger", False))


class Clocks:
    __slots__ = ("_at_s", "_floor_s", "_strangers_s")

    def __init__(self) -> None:
        self._at_s: dict[object, float] = {}
        self._floor_s = 0.0  # the clock of the one that was last the furthest behind
        self._strangers_s = 0.0  # the one of all strangers

    def __len__(self) -> int:
        return len(self._at_s)

    def at(self, payer: object) -> float:
        """The payer's own clock."""
        floor_s = self._floor_s
        return max(self._at_s.get(payer, floor_s), floor_s - CREDIT_S)

    def moved(self, payer: object, at_s: float) -> bool:
        """True if the payer's clock is past what it was."""
        return self._at_s.get(payer, at_s) > at_s

    def among_all(self, payer: object) -> float:
        """The clock that counts beside those that are no strangers: the later one of both."""
        at_s = self.at(payer)
        return max(at_s, self._strangers_s) if is_stranger(payer) else at_s

    def is_behind(self, payer: object, other: object) -> bool:
        """True if the payer had less than the other one."""
        if is_stranger(payer) and is_stranger(other):
            return self.at(payer) < self.at(other)
        return self.among_all(payer) < self.among_all(other)

    def begin_turn_at(self, at_s: float) -> None:
        """Nobody that waits is further behind than this."""
        self._floor_s = max(self._floor_s, at_s)

    def run(self, payer: object, took_s: float, strangers_times: float) -> None:
        """Time was spent on the payer; it counts so many times for all strangers, if it is one."""
        most_s = self._floor_s + DEBT_S_MAX
        self._at_s[payer] = min(self.at(payer) + took_s, most_s)
        if is_stranger(payer):
            since_s = max(self._strangers_s, self._floor_s - CREDIT_S)
            self._strangers_s = min(since_s + strangers_times * took_s, most_s)
        if len(self._at_s) > CLOCKS_MAX:
            self._forget()

    def run_on(self, payer: object, took_s: float) -> None:
        """The same time counts once more, beyond any debt; the clock may have been forgotten."""
        self._at_s[payer] = self.at(payer) + took_s

    def take_over(self, payer: object, took_s: float) -> None:
        """Time that a stranger had was the payer's: it is none. The address stays where it is."""
        self.run(payer, took_s, 0.0)
        self._strangers_s -= took_s

    def _forget(self) -> None:
        """Forget clocks that say no more than none would."""
        kept = {payer: at_s for payer, at_s in self._at_s.items() if at_s > self._floor_s}
        if len(kept) > CLOCKS_MAX // 2:
            kept.clear()  # so many at once: all begin anew
        self._at_s = kept
