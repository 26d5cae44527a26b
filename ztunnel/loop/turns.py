"""Fair turns: whatever is ready waits by payer, and each has a slice of time in a turn.

Without this a payer with a thousand busy connections makes every turn a thousand connections long,
and another with one connection is served once in each. It knows no handlers and does no I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

# A payer's time in a turn. The last thing that it does in it may take longer.
SLICE_S: Final = 0.0002
# Two payers within this time, or so many turns (which may be long), make turns fair; one alone has
# nobody to wait for.
CROWDED_S: Final = 0.01
CROWDED_TURNS: Final = 16


class Backlog:
    """Keys (descriptors, and handlers to resume) with the events that they wait with."""

    __slots__ = ("_clock", "_payers", "_queues")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._queues: OrderedDict[object, dict[object, int]] = OrderedDict()
        self._payers: dict[object, object] = {}  # by key

    def __bool__(self) -> bool:
        return bool(self._payers)

    def put(self, payer: object, key: object, events: int) -> None:
        """Add events of a key; those that it waits with already are kept."""
        if key in self._payers:
            payer = self._payers[key]
        else:
            self._payers[key] = payer
        queue = self._queues.get(payer)
        if queue is None:
            queue = self._queues[payer] = {}
        queue[key] = queue.get(key, 0) | events

    def drop(self, key: object) -> None:
        """The key is gone; its number may come again for something else."""
        queue = self._queues.get(self._payers.pop(key, None))
        if queue is not None:
            queue.pop(key, None)  # an empty queue goes in the next turn

    def take_turns(self, serve: Callable[[object, int], None]) -> None:
        """Serve each payer for a slice, those first that waited longest. Who has more to do keeps
        it for the next turn."""
        for payer, queue in list(self._queues.items()):
            end_s = self._clock() + SLICE_S
            while queue:
                key = next(iter(queue))
                events = queue.pop(key)
                del self._payers[key]
                serve(key, events)
                if self._clock() >= end_s:
                    break
            if queue:
                self._queues.move_to_end(payer)
            else:
                del self._queues[payer]
