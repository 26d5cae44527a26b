"""Fair turns: whatever is ready waits by payer, and the time of a turn goes to those who had least.

Without this a payer with a thousand busy connections makes every turn a thousand connections long,
and another with one connection is served once in each. It knows no handlers and does no I/O.

Whoever is behind (`clocks`) comes first, for a slice; whoever is more than a slice ahead of all
that wait is left out of the turn. A long piece waits a moment for those who are behind and about to
come back (`visits`): that time is on their bill, so it is half of the time at most.

A single handler that takes long is a stall for everybody, and others may have nothing that waits
just when it is over. So who stalls the rest waits for as long as it made them wait.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

from ztunnel.loop.clocks import CLOCKS_MAX, Clocks, is_stranger
from ztunnel.loop.endless import Endless
from ztunnel.loop.visits import LONG_PIECE_S, STALL_S, Visits

# A payer's time in a turn: a few requests of somebody who waits for answers. They share reads and
# writes; one by one each costs twice as much. The last thing may take longer.
SLICE_S: Final = 0.0002
# The same for those who never come to an end: whoever comes meanwhile waits for no more than this.
ENDLESS_SLICE_S: Final = 0.00003
# A turn that took longer is looked at: do several payers share it?
LONG_TURN_S: Final = 0.0001
# Turns after a long one of a single payer, and time, in which nobody looks again.
ALONE_TURNS: Final = 16
ALONE_S: Final = 0.01
# All payers' time in a turn, so that one who comes meanwhile waits no longer than this.
TURN_S: Final = 0.0005
# Two payers within this time, or so many turns (which may be long), make turns fair; one alone has
# nobody to wait for.
CROWDED_S: Final = 0.01
CROWDED_TURNS: Final = 16
# As much of a stall as is paid back by waiting.
STALL_S_MAX: Final = 0.05
# Time of somebody who never comes to an end counts so many times as much, and as many times again
# as there are of them. A flood or a transfer has a quarter of what somebody has who waits for
# answers and so slows down by itself, and all of them together no more than one: a host with ten
# identities leaves as much to the others as one with a single one. Half was too much: between
# slices of others a request costs half as much again, so at 0.67 of the time a neighbour had 0.47
# of its requests.
ENDLESS_TIMES: Final = 4.0
# All of them, as one who may never come to an end.
_STRANGERS: Final = "strangers"


class Backlog:
    """Keys (descriptors, and handlers to resume) with the events that they wait with. The payer
    None is the worker itself: it comes first, for a slice, and owes nobody."""

    __slots__ = (
        "_clock",
        "_clocks",
        "_cpu",
        "_cpu_s",
        "_endless",
        "_heap",
        "_held_for",
        "_held_s",
        "_held_until_s",
        "_number",
        "_payers",
        "_queues",
        "_slowed",
        "_spent",
        "_stalled",
        "_stalled_until_s",
        "_strangers",
        "_visits",
        "slice_s",
    )

    def __init__(
        self,
        clock: Callable[[], float],
        cpu: Callable[[], float] | None = None,
        spent: Callable[[Any, float], None] = lambda payer, took_s: None,
        slowed: Callable[[Any], None] = lambda payer: None,
    ) -> None:
        """`cpu` tells the CPU time of the process, `spent` hears of all time of each payer in fair
        turns, `slowed` of who has less of a turn than it could use, for what it had before."""
        self._clock = clock
        self._cpu = cpu or clock
        self._cpu_s = 0.0  # when the turn began
        self._spent = spent
        self._slowed = slowed
        self._queues: dict[object, dict[object, int]] = {}
        self._payers: dict[object, object] = {}  # by key
        self._clocks: Final = Clocks()
        self._endless: Final = Endless()
        self.slice_s = SLICE_S  # for the payer that is served
        # Each payer with a queue but None, once: its clock, a number against ties, itself.
        self._heap: list[tuple[float, int, object]] = []
        self._strangers: list[tuple[float, int, object]] = []  # likewise
        self._number = 0
        self._stalled: dict[object, float] = {}  # payers, and when they are served again
        self._stalled_until_s = 0.0  # all of them
        self._visits: Final = Visits()
        self._held_for: object = None  # the one that all who wait make room for
        self._held_s = 0.0  # since then
        self._held_until_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._payers)

    def put(self, payer: object, key: object, events: int) -> None:
        """Add events of a key; those that it waits with already are kept."""
        if key in self._payers:
            payer = self._payers[key]
        else:
            self._payers[key] = payer
        if not isinstance(key, int) and not getattr(key, "fresh", False):
            self._endless.goes_on(payer)
        queue = self._queues.get(payer)
        if queue is None:
            queue = self._queues[payer] = {}
            self._line_up(payer)
            if payer is not None:
                self._visits.came(payer, self._clock())
        queue[key] = queue.get(key, 0) | events

    @property
    def anyone_stalled(self) -> bool:
        """True while somebody is not to be served."""
        if not self._stalled:
            return False
        if self._clock() < self._stalled_until_s:
            return True
        self._stalled.clear()
        return False

    def rest_s(self) -> float:
        """Time in which nobody that waits is to be served."""
        if self._held_for is not None:
            return max(0.0, self._held_until_s - self._clock())
        if not self.anyone_stalled:
            return 0.0
        until_s = self._stalled_until_s
        for payer in self._queues:
            at_s = self._stalled.get(payer)
            if at_s is None:
                return 0.0
            until_s = min(until_s, at_s)
        return max(0.0, until_s - self._clock())

    def drop(self, key: object) -> None:
        """The key is gone; its number may come again for something else."""
        queue = self._queues.get(self._payers.pop(key, None))
        if queue is not None:
            queue.pop(key, None)  # an empty queue goes when its turn comes

    def charge(self, payer: object, took_s: float) -> None:
        """Let the payer's clock run: time was spent on it, by one handler or in one slice."""
        self._spent(payer, took_s)
        if payer is None:
            return
        if took_s > STALL_S:  # unless it was others who had the core
            took_s = min(took_s, max(SLICE_S, self._cpu() - self._cpu_s))
        if took_s > STALL_S:
            now_s = self._clock()
            until_s = now_s + min(took_s, STALL_S_MAX)
            if len(self._stalled) >= CLOCKS_MAX:  # stalls without a break: most are long over
                self._stalled = {who: at_s for who, at_s in self._stalled.items() if at_s > now_s}
            self._stalled[payer] = until_s
            self._stalled_until_s = max(self._stalled_until_s, until_s)
        times = ENDLESS_TIMES if self._endless.has(_STRANGERS) else 1.0
        self._clocks.run(payer, took_s, times)

    def take_over(self, payer: object, took_s: float) -> None:
        """Count time that a stranger had as the payer's, which it turned out to be."""
        self._clocks.take_over(payer, took_s)

    def take_all(self, serve: Callable[[object, int], None]) -> None:
        """Serve everything that waits, at nobody's cost: there is one payer."""
        self._held_for = None
        self._visits.clear()
        for queue in list(self._queues.values()):
            for key in list(queue):
                events = queue.pop(key, None)
                if events is not None:  # not dropped meanwhile
                    del self._payers[key]
                    serve(key, events)
        if not self._payers:
            self._queues.clear()
            self._endless.clear()
            self._heap.clear()
            self._strangers.clear()

    def take_turns(
        self, serve: Callable[[object, int], None], flush: Callable[[], None] = lambda: None
    ) -> None:
        """Serve those who had least, each for a slice, and `flush` what came of it. Who has more to
        do keeps it for the next turn."""
        self._cpu_s = self._cpu()
        self._endless.begin_turn(self._clock())
        self._pay_for_wait()
        self._visits.polled(self._clock())
        if None in self._queues:
            self._serve_one(None, serve, flush)
        again, end_s = list[object](), self._clock() + TURN_S
        stalled, first_s, held = self.anyone_stalled, -1.0, 0
        while heap := self._behind():
            at_s, _, payer = heap[0]
            if self._clocks.moved(payer, at_s):  # it was charged since
                heappop(heap)
                self._line_up(payer)
                continue
            at_s = self._clocks.among_all(payer)
            if stalled and self._stalled.get(payer, 0.0) > self._clock():
                heappop(heap)
                again.append(payer)
                self._slowed(payer)
                continue
            if self._visits.is_long(payer) and self._has_to_wait(payer):
                heappop(heap)
                again.append(payer)
                self._slowed(payer)
                held += 1
                continue
            if first_s < 0.0:
                first_s = at_s
                self._clocks.begin_turn_at(at_s)
            elif at_s > first_s + SLICE_S:
                self._slowed(payer)
                break
            elif self._clock() >= end_s:
                break
            heappop(heap)
            if self._serve_one(payer, serve, flush):
                again.append(payer)
            if self._visits.may_have_come(payer):
                break  # and look
        if held < len(self._queues):
            self._held_for = None
        self._held_s = self._clock()
        for payer in again:
            self._line_up(payer)
        if self._strangers:
            self._endless.goes_on(_STRANGERS)
        else:
            self._endless.served(_STRANGERS)

    def _has_to_wait(self, payer: object) -> bool:
        """True while somebody is about to come back who had less than the payer."""
        found = self._visits.awaited(payer, self._clock(), self._clocks.is_behind)
        if found is None:
            return False
        self._held_for, self._held_until_s = found
        return True

    def _pay_for_wait(self) -> None:
        """The time in which nobody was served is on the bill of whom it was for."""
        held_for, self._held_for = self._held_for, None
        if held_for is not None:
            waited_s = min(self._clock(), self._held_until_s) - self._held_s
            self.charge(held_for, max(0.0, waited_s))

    def _line_up(self, payer: object) -> None:
        if payer is not None:
            self._number += 1
            heap = self._strangers if is_stranger(payer) else self._heap
            heappush(heap, (self._clocks.at(payer), self._number, payer))

    def _behind(self) -> list[tuple[float, int, object]]:
        """Those that wait, with the one that is the furthest behind on top."""
        known, strangers = self._heap, self._strangers
        if not (strangers and known):
            return strangers or known
        is_first = known[0][0] <= self._clocks.among_all(strangers[0][2])
        return known if is_first else strangers

    def _serve_one(
        self, payer: object, serve: Callable[[object, int], None], flush: Callable[[], None]
    ) -> bool:
        """False if nothing of the payer waits any more."""
        queue = self._queues[payer]
        endless = payer is not None and self._endless.has(payer)
        self.slice_s = ENDLESS_SLICE_S if endless else SLICE_S
        began_s = now_s = self._clock()
        end_s = began_s + self.slice_s
        while queue and now_s < end_s:
            key = next(iter(queue))
            events = queue.pop(key)
            del self._payers[key]
            serve(key, events)
            before_s, now_s = now_s, self._clock()
            if now_s - before_s >= LONG_PIECE_S and self._visits.is_anyone_away:
                break
        flush()
        now_s = self._clock()
        took_s = now_s - began_s
        self._visits.served(payer, took_s, now_s)
        self.charge(payer, took_s)
        if endless:
            self._slowed(payer)
            more = ENDLESS_TIMES * max(1, self._endless.count) - 1.0
            self._clocks.run_on(payer, more * took_s)
        if queue:
            return True
        del self._queues[payer]
        self._endless.served(payer)
        self._visits.left(payer, now_s)
        return False
