"""Facts that all tracks of the enroller share; wakes the tracks, takes no step itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from agent import registry, zds
from agent.enrol.book import Book
from agent.registry import Registration, Registry
from control.kit.clock import Clock
from control.kit.errors import MeshError
from control.kit.log import event
from control.model.intent import Intent

log = logging.getLogger("enrol")


@dataclass(slots=True)
class Stats:
    """Counts for /metrics that the status does not have."""

    enrolments: int = 0
    enrolment_s_sum: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)


class Pulse:
    """Wakes everybody who waits for news. Take `next()` first, then look, then wait on it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def beat(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    def next(self) -> asyncio.Event:
        return self._event


class Watches:
    """Wakes those who wait for one pod; at most one entry for each pod.

    A node that starts has dozens of callers waiting: to wake all of them for every pod would cost
    the square of their number.
    """

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def next(self, uid: str) -> asyncio.Event:
        return self._events.setdefault(uid, asyncio.Event())

    def changed(self, uid: str) -> None:
        event = self._events.pop(uid, None)
        if event is not None:
            event.set()


@dataclass(slots=True)
class Facts:
    """Everything the tracks know."""

    clock: Clock
    book: Book
    known: Registry
    intents: dict[str, Intent] = field(default_factory=dict)
    ztunnels: dict[int, zds.Ztunnel] = field(default_factory=dict)
    # (uid, ztunnel) → listeners of an acknowledgement that are not in the kernel yet
    listeners: dict[tuple[str, int], zds.Descriptors] = field(default_factory=dict)
    waiting_since_s: dict[str, float] = field(default_factory=dict)  # uid → its wait began
    stats: Stats = field(default_factory=Stats)
    pulse: Pulse = field(default_factory=Pulse)
    watches: Watches = field(default_factory=Watches)

    def news(self) -> None:
        """Log the states that have changed, and wake everybody who waits."""
        for uid, state, reason in self.book.observe(self.clock.now()):
            event(log, logging.INFO, "pod.state", uid=uid, state=state.value, reason=reason)
            self.watches.changed(uid)
        self.pulse.beat()

    @contextmanager
    def startup(self, uid: str) -> Iterator[None]:
        """The pod starts when the context ends: nothing of it runs, so it has no past."""
        self.book.starts(uid, 1)
        try:
            yield
        finally:
            self.book.starts(uid, -1)

    def vanished(self, *registrations: Registration) -> None:
        """Look for namespaces that are not where they were registered.

        One that lives on elsewhere (its process was restarted, its name changed) keeps its pod,
        and the pod its capture. One search through all processes serves all registrations.
        """
        if not registrations:
            return
        try:
            found = registry.find({each.cookie for each in registrations})
        except (MeshError, OSError) as exc:
            # No pod is released on a guess: the next sweep looks again.
            event(log, logging.ERROR, "pod.namespaces_not_found", error=exc)
            return
        for each in registrations:
            if each.cookie in found:
                path, inode = found[each.cookie]
                event(log, logging.INFO, "pod.namespace_moved", uid=each.uid, netns=path)
                self.known.learn(replace(each, netns=path, inode=inode))
            else:
                event(log, logging.INFO, "pod.namespace_gone", uid=each.uid)
                self.book.gone(each.uid)

    def failed(self, uid: str, error: MeshError | OSError) -> None:
        """Count, log and record a failed step. One that is tried again and fails in the same way
        is no news: a full node has many of them."""
        reason = error.reason if isinstance(error, MeshError) else "os"
        self.stats.failures[reason] = self.stats.failures.get(reason, 0) + 1
        pod = self.book.pods().get(uid)
        is_news = pod is None or pod.failure != reason
        level = logging.WARNING if is_news else logging.DEBUG
        event(log, level, "pod.failed", uid=uid, reason=reason, error=error)
        self.book.failed(uid, reason, self.clock.monotonic_s())
