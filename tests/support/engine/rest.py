"""An engine that is driven by hand, in time of its own."""

from __future__ import annotations

from typing import Protocol

from ztunnel.loop.reactor import Reactor
from ztunnel.transport.keepalive import STEP_S, Keepalive

TURNS_MAX = 2000  # no exchange in these tests takes more


class Time(Protocol):
    now_s: float


def come_to_rest(reactor: Reactor, timers: Keepalive, time: Time) -> int:
    """Run turns until nothing happens any more; the number of turns that did something."""
    for turn in range(TURNS_MAX):
        waits = timers.waiting
        before = reactor.served
        reactor.turn(0)
        if waits:
            time.now_s += STEP_S
        elif reactor.served == before:
            return turn
    raise AssertionError("the reactor never comes to rest")
