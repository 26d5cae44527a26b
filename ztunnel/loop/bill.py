"""The worker's CPU time, told to those that it was spent on: all of it, by parts that are measured.

While turns are fair each payer's time is measured anyway. Else every SAMPLED_TURNS-th turn is, and
counts for all of them. At a settlement the CPU time that the process has used since the last one
goes to the payers by their parts of what was measured; so reads of sockets, polls and what the
kernel did for us are in it, and time in which another process had the core is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

# One turn in so many is measured, where not all are: a clock for each event costs some 5 %. It is a
# prime, so that it keeps no step with turns that alternate.
SAMPLED_TURNS: Final = 17
# Measured time after which it is shared out: a question to the kernel each time, 0.3 µs.
SETTLED_AFTER_S: Final = 0.02


class Spender(Protocol):
    """Somebody that time is spent on."""

    cpu_s: float
    slowed: int  # turns in which it had less than it could use


class Bill:
    __slots__ = ("_all_s", "_cpu", "_cpu_s", "_parts_s", "own_s", "slowed")

    def __init__(self, cpu: Callable[[], float]) -> None:
        """`cpu` tells the CPU time of the process."""
        self._cpu = cpu
        self._cpu_s = cpu()
        self._parts_s: dict[Spender, float] = {}
        self._all_s = 0.0
        self.own_s = 0.0  # CPU time that was nobody's
        self.slowed = 0  # times that somebody was

    def add(self, payer: Spender | None, took_s: float) -> None:
        """Note time that passed while somebody was served; None is the worker itself."""
        self._all_s += took_s
        if payer is not None:
            self._parts_s[payer] = self._parts_s.get(payer, 0.0) + took_s
        if self._all_s >= SETTLED_AFTER_S:
            self.settle()

    def slow(self, payer: Spender) -> None:
        """Note that somebody waits, or has a shorter slice, for what it had before."""
        payer.slowed += 1
        self.slowed += 1

    def settle(self) -> None:
        """Share out the CPU time since the last settlement."""
        cpu_s, before_s = self._cpu(), self._cpu_s
        self._cpu_s = cpu_s
        spent_s = cpu_s - before_s
        each_s = spent_s / self._all_s if self._all_s else 0.0
        for payer, part_s in self._parts_s.items():
            payer.cpu_s += part_s * each_s
            spent_s -= part_s * each_s
        self.own_s += spent_s
        self._parts_s.clear()
        self._all_s = 0.0
