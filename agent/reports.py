"""Tells the control plane, all replicas of it, which captures are in force.

The intents come from one replica, and the node's ztunnel and its peers may be connected to others.
What those know of the captures decides about mTLS, and about a pod that has no address in its
object yet. So each replica behind the name of a headless service hears each report, and hears it
once: by its answers it is known which addresses are one replica's, and which one has the stream.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from agent.enrol.enroller import Enroller
from agent.intents import (
    RECONNECT_FIRST_S,
    RECONNECT_MAX_S,
    CaptureReport,
    CaptureReporter,
    Intents,
)
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
REPLICAS_MAX = 16  # addresses, of both families
# An address is taken for the replica that answered there for so long without asking there again.
KNOWN_S = 600.0

# Memory is given back so long after a report.
RELEASE_AFTER_S = 2.0

# The answer to a report; ControlError: it was not accepted.
SendTo = Callable[[str, bytes], Awaitable[bytes]]
Resolve = Callable[[str], Awaitable[list[str]]]  # HOST:PORT → ADDRESS:PORT of each; OSError


async def resolve(name: str) -> list[str]:
    """Addresses behind HOST:PORT, in a stable order."""
    host, _, port = name.rpartition(":")
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    hosts = sorted({str(each[4][0]) for each in found})
    return [f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in hosts]


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

    def name(self, now_s: float) -> str:
        """Its own name for itself; empty: it has not said so lately."""
        return self.reporter.replica if now_s < self.known_until_s else ""


class Replicas:
    def __init__(
        self,
        node: str,
        name: str,
        send: SendTo,
        clock: Clock,
        *,
        streaming: Callable[[], str] = lambda: "",
        resolve: Resolve = resolve,
        on_look: Callable[[bool], None] = lambda are_known: None,
    ) -> None:
        """`name` is HOST:PORT of the headless service. `streaming` gives the name of the replica
        that hears by the stream; empty: there is none. `on_look` hears if it is known who the
        replicas are."""
        self._streaming = streaming
        self._on_look = on_look
        self._node = node
        self._name = name
        self._send = send
        self._clock = clock
        self._resolve = resolve
        self._looked_s = -LOOK_S
        self._replicas: dict[str, _Replica] = {}

    async def run(
        self, captured: Callable[[], CaptureReport], news: Callable[[], asyncio.Event]
    ) -> None:
        """`news` gives an event that is set when `captured` may have changed."""
        while True:
            changed = news()
            due_s = await self.step(captured())
            try:
                async with asyncio.timeout(max(0.0, due_s - self._clock.monotonic_s())):
                    await changed.wait()
            except TimeoutError:
                pass

    async def step(self, captured: CaptureReport) -> float:
        """Report where it is due; returns the time of the next step."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._looked_s + LOOK_S:
            await self._look()
            self._looked_s = now_s
        due = [
            (address, each)
            for address, each in self._spoken_to(now_s)
            if now_s >= each.next_s and each.reporter.is_due(self._turn(now_s), captured)
        ]
        async with asyncio.TaskGroup() as tasks:
            for address, each in due:
                tasks.create_task(self._report(address, each, captured))
        waiting = [each.next_s for each in self._replicas.values() if each.next_s > now_s]
        return min([self._looked_s + LOOK_S, *waiting])

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
        try:
            found = (await self._resolve(self._name))[:REPLICAS_MAX]
        except OSError as exc:
            event(log, logging.DEBUG, "replicas.unresolved", name=self._name, error=exc)
            self._on_look(False)
            return  # those that are known stay
        self._on_look(True)
        for address in self._replicas.keys() - set(found):
            del self._replicas[address]
        for address in found:
            if address not in self._replicas:

                async def send(data: bytes, address: str = address) -> bytes:
                    return await self._send(address, data)

                self._replicas[address] = _Replica(CaptureReporter(self._node, send))

    async def _report(self, address: str, replica: _Replica, captured: CaptureReport) -> None:
        now_s = self._clock.monotonic_s()
        try:
            await replica.reporter.report(self._turn(now_s), captured)
        except (MeshError, OSError) as exc:
            replica.next_s = now_s + replica.backoff.next_s()
            replica.reporter.forget()
            if not replica.error:
                event(log, logging.WARNING, "replica.not_told", address=address, error=exc)
            replica.error = str(exc)
            return
        replica.next_s, replica.error = 0.0, ""
        replica.known_until_s = now_s + KNOWN_S
        replica.backoff.reset()
