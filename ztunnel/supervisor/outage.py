"""Decides which broken tries of one connection are worth a line in the log. Pure.

Each of the first tries after a loss follows the one before within a moment, and has nothing new to
say: the loss is told, then another reason, then how it is now and then.
"""

from __future__ import annotations

from typing import Final

LINE_EVERY_S: Final = 10.0


class Outage:
    """`connected` ends it."""

    def __init__(self) -> None:
        self._told = ""  # the kind of trouble
        self._told_s = 0.0
        self._untold = 0

    def connected(self) -> None:
        self._told, self._untold = "", 0

    def broken(self, kind: str, now_s: float) -> int | None:
        """A try has failed, or a connection has ended. None: nothing to say; else the number of
        tries since the last line."""
        self._untold += 1
        if kind == self._told and now_s - self._told_s < LINE_EVERY_S:
            return None
        tries, self._untold = self._untold, 0
        self._told, self._told_s = kind, now_s
        return tries
