"""The event loop of a worker: readiness, deadlines, and one flush of each tunnel per turn.

Theory of operation. Descriptors are watched edge-triggered, once, for their whole life: a handler
remembers what is readable or writable and no interest is ever switched on and off, which saves a
system call for every pause. The price is a rule: a handler reads until the socket is empty, or it
asks with `again` to be called in the next turn. A turn is: wait, serve each ready descriptor,
serve those of `again`, flush every tunnel that got output (so that all of a turn's bytes leave in
one TLS write), expire deadlines, close what was discarded. Sockets are closed last, so a
descriptor's number cannot be taken by another connection while an event for it still waits.
While several payers have work, `turns` gives each a slice of a turn; the rest waits for the next.

A handler that raises is a bug; the one boundary for that is `serve`. It never knows protocols.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from os import sched_yield as _yield
from typing import Any, Final

from ztunnel.loop.bill import SAMPLED_TURNS, Bill, Spender
from ztunnel.loop.countdown import Countdown, Timekeeper
from ztunnel.loop.served import Closable, Flushable, Handler, Resumable, Served
from ztunnel.loop.spin import Spin
from ztunnel.loop.turns import (
    ALONE_S,
    ALONE_TURNS,
    CROWDED_S,
    CROWDED_TURNS,
    LONG_TURN_S,
    Backlog,
)

READABLE: Final = select.EPOLLIN
WRITABLE: Final = select.EPOLLOUT
# The peer's FIN, a full hang-up, an error: after these a short read does not mean "empty".
ENDED: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
WATCH_READ: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
WATCH_BOTH: Final = WATCH_READ | select.EPOLLOUT
# Listeners and the supervisor's channel: a bounded part is taken each turn; epoll reports the rest.
WATCH_LEVEL: Final = select.EPOLLIN

# Descriptors served between two flushes: bounds a turn, so that no answer waits behind thousands.
EVENTS_PER_TURN_MAX: Final = 512
_AGAIN: Final = 1  # stands for events where a handler is resumed
# epoll's timeouts are in milliseconds.
SLEEP_S_LEAST: Final = 0.001
# An idle worker looks at its deadlines this often even if one was lost.
WAIT_S_MAX: Final = 60.0


BugReport = Callable[[Served], None]


class Reactor(Timekeeper):
    """One per worker process."""

    def __init__(
        self,
        report_bug: BugReport,
        monotonic_s: Callable[[], float] = time.monotonic,
        spin: Spin | None = None,
        cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        """`spin` decides about polling before a sleep; None never polls."""
        self.report_bug = report_bug
        self.clock: Final = monotonic_s
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._again: dict[Resumable, None] = {}
        self._dirty: list[Flushable] = []
        self._last: list[Flushable] = []
        self._closing: list[Closable] = []
        self._countdowns: list[Countdown] = []
        self._shared: dict[tuple[float, Callable[[Any], None]], Countdown] = {}
        self.running = True
        self.spin: Final = spin or Spin(0)
        self._events_before = 0
        self.bill: Final = Bill(cpu_s)
        self._sampled_turn = 0
        self.weight = 0  # turns that this one stands for in the bill; 0 if it is not measured
        self._backlog: Final = Backlog(monotonic_s, cpu_s, self.bill.add, self.bill.slow)
        self._queued = False  # something waits there
        self.payer: object = None  # the last one that had work
        self._look = False  # the last turn was long: has it several payers?
        self._alone_until_turn = 0  # it had not
        self._alone_until_s = 0.0
        self._crowded_until_s = 0.0
        self._crowded_until_turn = 0
        self.now_s = monotonic_s()
        self.next_due_s = float("inf")
        self.turns = 0
        self.served = (
            0  # events, resumed handlers and flushes, to tell an idle turn from a busy one
        )

    # -- watching --------------------------------------------------------------------------------

    def watch(self, fd: int, handler: Handler, interest: int) -> None:
        """Watch a descriptor, or change its handler or interest; readiness that exists is
        reported."""
        if fd in self._handlers:
            self._epoll.modify(fd, interest)
        else:
            self._epoll.register(fd, interest)
        self._handlers[fd] = handler

    def hand_over(self, fd: int, handler: Handler) -> None:
        """Change the handler only: no system call, and nothing is reported again."""
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        if self._queued:
            self._backlog.drop(fd)
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def discard(self, sock: Closable) -> None:
        """Forget the descriptor now, close it at the end of the turn (closing also unwatches)."""
        if self._queued:
            self._backlog.drop(sock.fileno())
        self._handlers.pop(sock.fileno(), None)
        self._closing.append(sock)

    # -- asking to be called ---------------------------------------------------------------------

    def again(self, item: Resumable) -> None:
        self._again[item] = None

    def flush_later(self, item: Flushable) -> None:
        """Call the item in the next turn. The item itself remembers that it has asked."""
        self._dirty.append(item)

    def flush_last(self, item: Flushable) -> None:
        """Flush after all tunnels: for output that no peer waits for."""
        self._last.append(item)

    def countdown(self, delay_s: float, on_due: Callable[[Any], None]) -> Countdown:
        made = Countdown(self, delay_s, on_due)
        self._countdowns.append(made)
        return made

    def shared_countdown(self, delay_s: float, on_due: Callable[[Any], None]) -> Countdown:
        """The one countdown of this length for this function, for items that share nothing else."""
        found = self._shared.get((delay_s, on_due))
        if found is None:
            found = self._shared[delay_s, on_due] = self.countdown(delay_s, on_due)
        return found

    def meet(self, payer: object) -> None:
        """Note that another payer than before has work: turns are fair for a while."""
        if self.payer is not None:
            self._crowded_until_s = self.now_s + CROWDED_S
            self._crowded_until_turn = self.turns + CROWDED_TURNS
        self.payer = payer

    @property
    def slice_s(self) -> float:
        """Time for the payer that is served, while several share the turns."""
        return self._backlog.slice_s

    @property
    def crowded(self) -> bool:
        """True while several payers share the turns."""
        return self.now_s < self._crowded_until_s or self.turns < self._crowded_until_turn

    # -- turning ---------------------------------------------------------------------------------

    def run(self) -> None:
        while self.running:
            self.turn(WAIT_S_MAX)

    def stop(self) -> None:
        self.running = False

    def turn(self, wait_s_max: float) -> None:
        """One turn; waits at most this long for something to do."""
        events = self._wait(wait_s_max)
        self.turns += 1
        self._events_before = len(events)
        self.served += len(events) + len(self._again)
        self.now_s = self.clock()
        # As `crowded`, written out because every turn passes here.
        if (
            self._queued
            or self._look
            or self.turns < self._crowded_until_turn
            or self.now_s < self._crowded_until_s
        ):
            self._serve_fairly(events)
        else:
            if self.turns < self._sampled_turn:
                self._serve_all(events)
            else:
                self._sampled_turn = self.turns + SAMPLED_TURNS
                self._serve_sampled(events)
            if self.turns >= self._alone_until_turn or self.now_s >= self._alone_until_s:
                self._look = self.clock() - self.now_s > LONG_TURN_S
        if self._dirty:
            self._flush()
        if self._last:
            last, self._last = self._last, []
            for each in last:
                self.serve(each, each.flush)
        if self.now_s >= self.next_due_s:
            self._expire()
        self._close_discarded()

    def _serve_all(self, events: list[tuple[int, int]]) -> None:
        handlers = self._handlers
        for fd, bits in events:
            handler = handlers.get(fd)
            if handler is not None:
                try:
                    handler.on_ready(bits)
                except Exception:  # the boundary, see `serve`; inlined because every event passes
                    self.caught(handler)
        if self._again:
            again, self._again = self._again, {}
            for item in again:
                self.serve(item, item.on_again)

    def _serve_sampled(self, events: list[tuple[int, int]]) -> None:
        """The same, and output leaves too, with a look at the time that each payer took."""
        self.weight = SAMPLED_TURNS
        began_s = self.now_s
        for fd, bits in events:
            handler = self._handlers.get(fd)
            if handler is not None:
                payer = getattr(handler, "payer", None)  # it may be over afterwards
                self.serve(handler, handler.on_ready, bits)
                began_s = self._sampled(payer, began_s)
        again, self._again = self._again, {}
        for item in again:
            payer = getattr(item, "payer", None)
            self.serve(item, item.on_again)
            began_s = self._sampled(payer, began_s)
        while self._dirty:
            dirty, self._dirty = self._dirty, []
            self.served += len(dirty)
            for output in dirty:
                payer = getattr(output, "payer", None)
                self.serve(output, output.flush)
                began_s = self._sampled(payer, began_s)
        self.weight = 0

    def blame(self, served: Spender, payer: Spender, took_s: float) -> None:
        """Put time on the bill of `payer` that would be on that of `served`, who only received it.
        Both have had it in their turns."""
        self.bill.add(served, -took_s * self.weight)
        if self.weight == 1:
            self._backlog.charge(payer, took_s)
        else:
            self.bill.add(payer, took_s * self.weight)

    def take_over(self, payer: Spender, took_s: float) -> None:
        """Count time that a stranger had as the payer's, in fair turns: that is who it was."""
        self._backlog.take_over(payer, took_s)

    def _sampled(self, payer: Spender | None, began_s: float) -> float:
        """Bill the time since then for all turns that this one stands for; returns the time."""
        now_s = self.clock()
        self.bill.add(payer, (now_s - began_s) * SAMPLED_TURNS)
        return now_s

    def _serve_fairly(self, events: list[tuple[int, int]]) -> None:
        """The same, with a slice of time for each payer if there are several; the rest waits in the
        backlog."""
        backlog, handlers = self._backlog, self._handlers
        again, self._again = self._again, {}
        if self._look:
            self._look = False
            self._alone_until_turn = self.turns + ALONE_TURNS
            self._alone_until_s = self.now_s + ALONE_S
        for fd, bits in events:
            handler = handlers.get(fd)
            if handler is not None:
                backlog.put(self._payer_of(handler), fd, bits)
        for item in again:
            backlog.put(self._payer_of(item), item, _AGAIN)
        self._queued = True  # what is served may end others that wait
        if self.crowded or backlog.anyone_stalled:
            self.weight = 1
            backlog.take_turns(self._serve_waiting, self._finish_slice)
            self.weight = 0
        else:
            backlog.take_all(self._serve_waiting)
        self._queued = bool(backlog)

    def _flush(self) -> None:
        """Let output leave: of a turn, or of one payer's slice, at whose cost it is."""
        while self._dirty:
            dirty, self._dirty = self._dirty, []
            self.served += len(dirty)
            for tunnel in dirty:
                try:
                    tunnel.flush()
                except Exception:  # the boundary, see `serve`
                    self.caught(tunnel)

    def _finish_slice(self) -> None:
        """Nothing that waits has a number of what is closed here: the backlog has dropped it."""
        self._flush()
        self._close_discarded()

    def _payer_of(self, item: object) -> object:
        """The one for whom it is served; None is the worker itself."""
        payer = getattr(item, "payer", None)
        if payer is not None and payer is not self.payer:
            self.meet(payer)
        return payer

    def _serve_waiting(self, key: object, events: int) -> None:
        if isinstance(key, int):
            handler = self._handlers.get(key)
            if handler is not None:
                self.serve(handler, handler.on_ready, events)
        else:
            item: Any = key
            self.serve(item, item.on_again)

    def _wait(self, wait_s_max: float) -> list[tuple[int, int]]:
        """Wait for events: the only place that sleeps."""
        if self._again or self._dirty or self._last:
            wait_s = 0.0
        elif self._queued:
            wait_s = min(wait_s_max, self._backlog.rest_s())
            if 0.0 < wait_s < SLEEP_S_LEAST:
                return self._poll_until(self.clock() + wait_s)
        else:
            now_s = self.clock()
            wait_s = max(0.0, min(wait_s_max, self.next_due_s - now_s))
            if wait_s and self.spin.worth(now_s, self._events_before):
                events = self._poll_a_moment()
                if events:
                    return events
        return self._epoll.poll(wait_s, EVENTS_PER_TURN_MAX)

    def _poll_until(self, end_s: float) -> list[tuple[int, int]]:
        """Poll for less time than a sleep has at least."""
        while True:
            _yield()
            events = self._epoll.poll(0, EVENTS_PER_TURN_MAX)
            if events or self.clock() >= end_s:
                return events

    def _poll_a_moment(self) -> list[tuple[int, int]]:
        spin = self.spin
        while True:
            _yield()  # other work on this core goes first, perhaps the other end's
            events = self._epoll.poll(0, EVENTS_PER_TURN_MAX)
            if spin.polled(self.clock(), bool(events)):
                return events

    def _expire(self) -> None:
        for countdown in self._countdowns:
            countdown.expire(self.now_s)
        firsts = [first for each in self._countdowns if (first := each.first_s()) is not None]
        self.next_due_s = min(firsts, default=float("inf"))

    def _close_discarded(self) -> None:
        self.served += len(self._closing)
        while self._closing:
            sock = self._closing.pop()
            try:
                sock.close()
            except OSError:
                pass  # ECONNRESET may be reported by close itself; the descriptor is free anyway

    # -- the boundary ----------------------------------------------------------------------------

    def serve(self, item: Served, call: Callable[..., None], *arguments: object) -> None:
        """Call into one connection. An exception that escapes is a bug in handling it: it is
        reported with its traceback and ends that connection, not the thousands beside it."""
        try:
            call(*arguments)
        except Exception:
            self.caught(item)

    def caught(self, item: Served) -> None:
        self.report_bug(item)
        try:
            item.on_bug()
        except Exception:  # a broken close must not take the others along either
            self.report_bug(item)

    def close(self) -> None:
        self._close_discarded()
        self._epoll.close()
