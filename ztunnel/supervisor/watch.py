"""Finds the worker that says nothing any more: stopped, or caught in one piece of work for good.

Its sockets go on accepting, so everybody who comes would wait for it without end. A new worker
serves those who still wait in the accept queues.
"""

from __future__ import annotations

from collections.abc import Mapping

from control.kit.clock import Clock

LOOK_S = 1.0
# Together with the start of another one below the 10 s that a client may have to wait.
SILENT_LOOKS_MAX = 7
LATE_LOOKS = 2.0  # a look that came so late says more about us than about the workers


class Watch:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._looked_s = clock.monotonic_s()
        self._known: dict[int, tuple[int, int]] = {}

    def turn(self, heard: Mapping[int, int]) -> list[int]:
        """Look at all workers: the times that each was heard so far. Those that have said nothing
        for too many looks in a row, each of them in time."""
        now_s = self._clock.monotonic_s()
        late, self._looked_s = now_s - self._looked_s > LATE_LOOKS * LOOK_S, now_s
        known: dict[int, tuple[int, int]] = {}
        for who, times in heard.items():
            before, silent = self._known.get(who, (-1, 0))
            known[who] = times, 0 if late or times != before else silent + 1
        self._known = known
        return [who for who, (_, silent) in known.items() if silent >= SILENT_LOOKS_MAX]
