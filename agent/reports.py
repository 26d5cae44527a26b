"""Tells the control plane, all replicas of it, which captures are in force.

The intents come from one replica, and the node's ztunnel and its peers may be connected to others.
What those know of the captures decides about mTLS, and about a pod that has no address in its
object yet. So each replica hears each report, and hears it once: by its answers it is known which
addresses are one replica's, and which one has the stream. None keeps another one waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from agent.enrol.enroller import Enroller
from agent.enrol.facts import Pulse
from agent.intents import (
    RECONNECT_FIRST_S,
    RECONNECT_MAX_S,
    CaptureReport,
    CaptureReporter,
    Intents,
)
from agent.whereabouts import Whereabouts, resolve
from control.kit.backoff import Backoff
from control.kit.clock import Clock
from control.kit.errors import MeshError
from control.kit.log import event
from control.kit.memory import release

log = logging.getLogger("intents")

# Between two looks at the name, and between two reports of the same: a replica may have restarted
# at its address, without its memory.
LOOK_S = 5.0
RENEW_S = 30.0
# An address is taken for the replica that answered there for so long without asking there again.
KNOWN_S = 600.0

# Memory is given back so long after a report.
RELEASE_AFTER_S = 2.0

# The answer to a report; ControlError: it was not accepted.
SendTo = Callable[[str, bytes], Awaitable[bytes]]
Resolve = Callable[[str], Awaitable[list[str]]]  # HOST:PORT → ADDRESS:PORT of each; OSError


async def report_captures(enroller: Enroller, intents: Intents, reporter: CaptureReporter) -> None:
    """Report to the replica that sends the intents; what it accepts is what the plan goes by."""
    backoff = Backoff(RECONNECT_FIRST_S, RECONNECT_MAX_S)
    later: asyncio.TimerHandle | None = None
    while True:
        news = enroller.facts.pulse.next()
        captured = enroller.facts.book.report()
        if not reporter.is_due(intents.connects, captured):
            await news.wait()
            continue
        enroller.reporting(frozenset(captured))
        try:
            await reporter.report(intents.connects, captured)
        except (MeshError, OSError) as exc:
            event(log, logging.WARNING, "report.failed", error=exc)
            await asyncio.sleep(backoff.next_s())
            continue
        backoff.reset()
        enroller.reported(frozenset(captured))
        if later is not None:
            later.cancel()
        later = asyncio.get_running_loop().call_later(RELEASE_AFTER_S, release)


@dataclass(slots=True)
class _Replica:
    reporter: CaptureReporter
    next_s: float = 0.0  # no try before
    backoff: Backoff = field(default_factory=lambda: Backoff(RECONNECT_FIRST_S, RECONNECT_MAX_S))
    error: str = ""
    known_until_s: float = 0.0  # until then whoever answered here is taken to be here
    is_asked: bool = False  # a report is on its way

    def name(self, now_s: float) -> str:
        """Its own name for itself; empty: it has not said so lately."""
        return self.reporter.replica if now_s < self.known_until_s else ""


class Replicas:
    def __init__(
        self,
        node: str,
        where: Whereabouts,
        send: SendTo,
        clock: Clock,
        *,
        streaming: Callable[[], str] = lambda: "",
        resolve: Resolve = resolve,
    ) -> None:
        """`streaming` gives the name of the replica that hears by the stream; empty: there is
        none."""
        self._streaming = streaming
        self._node = node
        self._where = where
        self._send = send
        self._clock = clock
        self._resolve = resolve
        self._look_s = 0.0  # no look before
        self._is_looking = False
        self._replicas: dict[str, _Replica] = {}

    async def run(self, captured: Callable[[], CaptureReport], pulse: Pulse) -> None:
        """`pulse` beats when `captured`, or where replicas are, may have changed."""
        async with asyncio.TaskGroup() as tasks:
            under_way: set[asyncio.Task[None]] = set()
            while True:
                changed = tasks.create_task(pulse.next().wait(), name="replicas.news")
                under_way.update(tasks.create_task(each) for each in self.steps(captured()))
                after_s = max(0.0, self._next_s() - self._clock.monotonic_s())
                first = asyncio.FIRST_COMPLETED
                done, _ = await asyncio.wait(
                    {changed, *under_way}, timeout=after_s, return_when=first
                )
                under_way -= done
                changed.cancel()

    def steps(self, captured: CaptureReport) -> Iterator[Coroutine[Any, Any, None]]:
        """All that is due now. None waits for another one: a resolver, or a replica, that does not
        answer takes many seconds."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._look_s and not self._is_looking:
            self._is_looking = True
            yield self._look()
        self._follow()
        for address, each in list(self._spoken_to(now_s)):
            is_free = now_s >= each.next_s and not each.is_asked
            if is_free and each.reporter.is_due(self._turn(now_s), captured):
                each.is_asked = True
                yield self._report(address, each, captured)

    def _next_s(self) -> float:
        """The time of the next step, if nothing happens before."""
        now_s = self._clock.monotonic_s()
        waiting = [each.next_s for each in self._replicas.values() if each.next_s > now_s]
        return min([max(self._look_s, now_s + LOOK_S * self._is_looking), *waiting])

    def _follow(self) -> None:
        """Have an entry for each address, and for no other."""
        found = self._where.all()
        for address in self._replicas.keys() - set(found):
            del self._replicas[address]
        for address in found:
            if address not in self._replicas:

                async def send(data: bytes, address: str = address) -> bytes:
                    return await self._send(address, data)

                reporter = CaptureReporter(self._node, send, self._where.said)
                self._replicas[address] = _Replica(reporter)

    def _spoken_to(self, now_s: float) -> Iterator[tuple[str, _Replica]]:
        """One address of each replica that does not hear by the stream: the first that answers."""
        told = {self._streaming()}
        for address, each in self._replicas.items():
            name = each.name(now_s)
            if name and name in told:
                each.reporter.forget()
                continue
            if not each.error:
                told.add(name)
            yield address, each

    def _turn(self, now_s: float) -> int:
        """A number that changes when everything is to be reported again."""
        return 1 + int(now_s / RENEW_S)

    async def _look(self) -> None:
        """Look the name up, however long that takes."""
        try:
            self._where.named(await self._resolve(self._where.name))
        except OSError as exc:
            event(log, logging.DEBUG, "replicas.unresolved", name=self._where.name, error=exc)
            self._where.named(None)
        finally:
            self._is_looking = False
            self._look_s = self._clock.monotonic_s() + LOOK_S

    async def _report(self, address: str, replica: _Replica, captured: CaptureReport) -> None:
        now_s = self._clock.monotonic_s()
        try:
            await replica.reporter.report(self._turn(now_s), captured)
        except (MeshError, OSError) as exc:
            replica.next_s = self._clock.monotonic_s() + replica.backoff.next_s()
            replica.reporter.forget()
            if not replica.error:
                event(log, logging.WARNING, "replica.not_told", address=address, error=exc)
            replica.error = str(exc)
            return
        finally:
            replica.is_asked = False
        replica.next_s, replica.error = 0.0, ""
        replica.known_until_s = now_s + KNOWN_S
        replica.backoff.reset()
