"""Keeps one certificate in force for every identity that has a pod on this node.

One task per identity: ask, check, publish, sleep until half of the certificate's life is over, ask
again. While asking fails the old certificate is used as long as it is valid; the pauses between
tries grow, and end at once when a connection waits, when the control plane is back, or when a clock
has jumped. Keys live in this process and, through its pipes, in the workers; never on disk.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from control.kit.backoff import Backoff
from control.kit.clock import Clock
from control.kit.errors import ControlError
from control.kit.log import event
from control.model.identity import SpiffeId
from ztunnel.identity.csr import Issued, check_chain, make_csr, make_key
from ztunnel.identity.renewal import ClockWatch, is_valid, renewal_pause_s
from ztunnel.identity.signer import Signer
from ztunnel.identity.slots import Priority, PrioritySlots

log = logging.getLogger("certificates")

IN_FLIGHT_MAX = 8  # requests to the signer at one time: a node's start must not flood it
IDENTITIES_MAX = 4096  # on one node: far more than its pods
RETRY_INITIAL_S = 1.0
RETRY_MAX_S = 150.0
# One identity that connections wait for is asked for this often at most while asking fails.
WANTED_EVERY_S = 1.0
# A node that has its control plane back asks for what it lacks within this time, not all at once.
RECOVERY_S = 2.0
CLOCK_LOOK_S = 5.0


@dataclass(slots=True)
class _Kept:
    identity: SpiffeId
    holders: set[str]
    backoff: Backoff
    issued: Issued | None = None
    renew_at: datetime | None = None  # by the wall clock, for when it jumps
    failure: str = ""
    failed_s: float = -math.inf
    answered: asyncio.Event = field(default_factory=asyncio.Event)  # the first request was
    renew_now: asyncio.Event = field(default_factory=asyncio.Event)
    alarm: asyncio.Timeout | None = None  # while it sleeps
    task: asyncio.Task[None] | None = None
    waiting: bool = False

    def hurry(self, delay_s: float) -> None:
        """Ask again within this time; without effect on a request that is under way."""
        alarm = self.alarm
        if alarm is None or alarm.expired():
            return
        due_s = asyncio.get_running_loop().time() + delay_s
        when_s = alarm.when()
        if when_s is None or due_s < when_s:
            alarm.reschedule(due_s)

    def is_due(self, now: datetime) -> bool:
        """True for what should be asked for by now, by the wall clock."""
        if self.issued is None or self.failure or self.renew_at is None:
            return True
        return now >= self.renew_at or not is_valid(self.issued, now)


class KeyHolders(Protocol):
    """The workers, which get each outcome from the loop."""

    def publish_certificate(self, issued: Issued) -> None: ...

    def publish_failure(self, identity: SpiffeId, reason: str) -> None: ...

    def publish_forgotten(self, identity: SpiffeId) -> None: ...


class Certificates:
    """One entry for each identity that has a pod here, with the task that keeps it valid."""

    def __init__(
        self,
        signer: Signer,
        clock: Clock,
        workers: KeyHolders,
        *,
        ttl_s: float,
        rng: random.Random | None = None,
        on_recovered: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_recovered`: the control plane signs again, after a failure."""
        self._signer = signer
        self._clock = clock
        self._workers = workers
        self._ttl_s = ttl_s
        self._on_recovered = on_recovered
        self._rng = rng or random.Random()
        self._slots = PrioritySlots(IN_FLIGHT_MAX)
        self._kept: dict[SpiffeId, _Kept] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Run until cancelled. Starts the identities that `hold()` named earlier."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for kept in self._kept.values():
                    self._start(kept)
                watch = ClockWatch(self._clock)
                while True:
                    await asyncio.sleep(CLOCK_LOOK_S)
                    self.look_at_clocks(watch)
        finally:
            self._tasks = None
            async with asyncio.timeout(1.0):
                await self._signer.close()

    def hold(self, identity: SpiffeId, holder: str) -> None:
        """Hold an identity that has a pod here: its certificate is there before it is needed."""
        kept = self._kept.get(identity)
        if kept is None:
            if len(self._kept) >= IDENTITIES_MAX:
                event(log, logging.ERROR, "certificate.refused", reason="too_many_identities")
                return
            backoff = Backoff(RETRY_INITIAL_S, RETRY_MAX_S, random=self._rng)
            kept = self._kept[identity] = _Kept(identity, set(), backoff)
            self._start(kept)
        kept.holders.add(holder)

    def release(self, identity: SpiffeId, holder: str) -> None:
        """Let go of a pod. With its last pod an identity is forgotten, key and all, here and in
        the workers; nothing is published for it any more unless a pod comes back."""
        kept = self._kept.get(identity)
        if kept is None:
            return
        kept.holders.discard(holder)
        if kept.holders:
            return
        del self._kept[identity]
        if kept.task is not None:
            kept.task.cancel()
        self._workers.publish_forgotten(identity)
        event(log, logging.INFO, "certificate.forgotten", identity=identity)

    async def answer(self, identity: SpiffeId) -> None:
        """Wait until the first request for an identity that is held has come to something, be it a
        failure. The caller bounds it."""
        kept = self._kept.get(identity)
        if kept is not None:
            await kept.answered.wait()

    def need(self, identity: SpiffeId, *, waiting: bool) -> None:
        """Answer a worker that has no certificate: now, or when the request under way has ended."""
        kept = self._kept.get(identity)
        if kept is None:
            self._workers.publish_failure(identity, "not_on_this_node")
            return
        if kept.issued is not None and kept.issued.not_after > self._clock.now():
            self._workers.publish_certificate(kept.issued)
            return
        since_s = self._clock.monotonic_s() - kept.failed_s
        if kept.failure and since_s < WANTED_EVERY_S:
            self._workers.publish_failure(identity, kept.failure)
            kept.hurry(WANTED_EVERY_S - since_s)
        elif waiting:
            kept.waiting = True
            kept.hurry(0.0)
            self._slots.promote(str(identity))

    def reachable(self) -> None:
        """The control plane is back: nothing that fails waits for its pause to end."""
        self._signer.reconnect()
        self._hurry_due()

    def look_at_clocks(self, watch: ClockWatch) -> None:
        """Renew what is due by a wall clock that was set, or that went on while the host slept."""
        jump_s = watch.jump_s()
        if jump_s:
            event(log, logging.WARNING, "clock.jumped", seconds=round(jump_s))
            self._hurry_due()

    def _hurry_due(self) -> None:
        now = self._clock.now()
        for kept in self._kept.values():
            if kept.is_due(now):
                kept.backoff.reset()
                kept.hurry(self._rng.uniform(0, RECOVERY_S))

    def rotate(self, identity: SpiffeId | None = None) -> list[SpiffeId]:
        """Renew one identity now, or all; returns those that are renewed."""
        chosen = [each for each in self._kept.values() if identity in (None, each.identity)]
        for each in chosen:
            each.renew_now.set()
        return [each.identity for each in chosen]

    def all(self) -> list[tuple[SpiffeId, Issued | None, str]]:
        """Identity, certificate in force and last failure of each, for the pages."""
        return [(each.identity, each.issued, each.failure) for each in self._kept.values()]

    def in_force(self) -> list[Issued]:
        """Certificates in force, for a worker that has just started."""
        return [each.issued for each in self._kept.values() if each.issued is not None]

    def _start(self, kept: _Kept) -> None:
        if self._tasks is not None:
            name = f"certificate {kept.identity}"
            kept.task = self._tasks.create_task(self._maintain(kept), name=name)

    async def _maintain(self, kept: _Kept) -> None:
        priority = Priority.PREFETCH
        while True:
            kept.renew_now.clear()
            issued = await self._ask(kept, priority)
            if issued is not None:
                kept.backoff.reset()
                delay_s = renewal_pause_s(issued, self._clock.now(), self._rng)
                kept.renew_at = self._clock.now() + timedelta(seconds=delay_s)
            else:
                delay_s = kept.backoff.next_s()
            priority = Priority.RENEWAL if kept.issued else Priority.PREFETCH
            try:
                async with asyncio.timeout(delay_s) as kept.alarm:
                    await kept.renew_now.wait()
            except TimeoutError:
                continue
            finally:
                kept.alarm = None

    async def _ask(self, kept: _Kept, priority: Priority) -> Issued | None:
        if kept.waiting:
            priority = Priority.WAITING
        key = make_key()
        csr = make_csr(key, kept.identity)
        try:
            async with self._slots.hold(str(kept.identity), priority):
                chain = await self._signer.sign(kept.identity, csr, self._ttl_s)
            issued = check_chain(kept.identity, key, chain, self._clock.now())
        except ControlError as exc:
            self._failed(kept, exc)
            return None
        recovered = bool(kept.failure)
        kept.issued, kept.failure, kept.waiting = issued, "", False
        kept.answered.set()
        event(
            log,
            logging.INFO,
            "certificate.issued",
            identity=kept.identity,
            serial=f"{issued.serial:x}",
            not_after=issued.not_after.isoformat(),
        )
        self._workers.publish_certificate(issued)
        if recovered:
            self._hurry_due()  # the others may fare as well now
            self._on_recovered()
        return issued

    def _failed(self, kept: _Kept, exc: ControlError) -> None:
        kept.waiting = False
        kept.answered.set()
        kept.failure, kept.failed_s = exc.reason, self._clock.monotonic_s()
        event(
            log,
            logging.WARNING,
            "certificate.failed",
            identity=kept.identity,
            reason=exc.reason,
            error=exc,
        )
        if kept.issued is None or kept.issued.not_after <= self._clock.now():
            self._workers.publish_failure(kept.identity, exc.reason)
