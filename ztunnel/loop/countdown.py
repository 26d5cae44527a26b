"""Deadlines of one length, which the reactor looks at between its turns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class Timekeeper:
    """The reactor's time, for its countdowns."""

    now_s: float
    next_due_s: float  # nobody has a deadline before

    def serve(self, item: Any, call: Callable[..., None], *arguments: object) -> None:
        """Call into one item; an exception ends that item alone."""
        raise NotImplementedError


class Countdown:
    """Deadlines of one length, so that they expire in the order in which they were started."""

    __slots__ = ("_due", "_on_due", "_reactor", "delay_s")

    def __init__(self, reactor: Timekeeper, delay_s: float, on_due: Callable[[Any], None]) -> None:
        self.delay_s = delay_s
        self._reactor = reactor
        self._on_due = on_due
        self._due: OrderedDict[Any, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._due)

    def start(self, item: Any) -> None:
        """(Re)start the item's deadline from now."""
        due = self._reactor.now_s + self.delay_s
        self._due[item] = due
        self._due.move_to_end(item)
        if due < self._reactor.next_due_s:
            self._reactor.next_due_s = due

    def stop(self, item: Any) -> None:
        self._due.pop(item, None)

    def first_s(self) -> float | None:
        return next(iter(self._due.values()), None)

    def expire(self, now_s: float) -> None:
        while self._due:
            item, due = next(iter(self._due.items()))
            if due > now_s:
                return
            del self._due[item]
            self._reactor.serve(item, self._on_due, item)
