"""Keeps one certificate in force for every identity that has a pod on this node.

One task per identity: ask, check, publish, sleep until half of the certificate's life is over, ask
again. While asking fails the old certificate is used as long as it is valid. Keys live in this
process and, through its pipes, in the workers; never on disk.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from control.kit.backoff import Backoff
from control.kit.clock import Clock
from control.kit.errors import ControlError
from control.kit.log import event
from control.model.identity import SpiffeId
from ztunnel.identity.csr import Issued, check_chain, make_csr, make_key
from ztunnel.identity.signer import Signer

log = logging.getLogger("certificates")

IN_FLIGHT_MAX = 8  # requests to the signer at one time: a node's start must not flood it
IDENTITIES_MAX = 4096  # on one node: far more than its pods
RETRY_INITIAL_S = 1.0
RETRY_MAX_S = 150.0
RENEWAL_JITTER = 0.1  # share of the time to half life: spreads a node's renewals
RENEWAL_S_MIN = 1.0  # a signer of very short lives must not make us spin


class Priority(IntEnum):
    WAITING = 0  # a connection waits for it
    PREFETCH = 1
    RENEWAL = 2


class PrioritySlots:
    """Semaphore that serves the most urgent waiter first; a waiter may become more urgent."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, str, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def hold(self, key: str, priority: Priority) -> AsyncIterator[None]:
        await self._acquire(key, priority)
        try:
            yield
        finally:
            self._free += 1
            self._wake()

    async def _acquire(self, key: str, priority: Priority) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), key, turn))
        self._wake()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._free += 1  # the slot arrived together with the cancellation
                self._wake()
            raise

    def promote(self, key: str) -> None:
        """Raise a waiter's priority: a connection waits for it now."""
        for priority, _, name, turn in self._waiting:
            if name == key and priority != Priority.WAITING and not turn.done():
                entry = (int(Priority.WAITING), next(self._order), key, turn)
                heapq.heappush(self._waiting, entry)
                return

    def _wake(self) -> None:
        while self._free and self._waiting:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._free -= 1
                turn.set_result(None)


@dataclass(slots=True)
class _Kept:
    identity: SpiffeId
    holders: set[str]
    issued: Issued | None = None
    failure: str = ""
    renew_now: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    waiting: bool = False


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
    ) -> None:
        self._signer = signer
        self._clock = clock
        self._workers = workers
        self._ttl_s = ttl_s
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
                await asyncio.Event().wait()
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
            kept = self._kept[identity] = _Kept(identity, set())
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

    def need(self, identity: SpiffeId, *, waiting: bool) -> None:
        """Answer a worker that has no certificate: now, or when the request under way has ended."""
        kept = self._kept.get(identity)
        if kept is None:
            self._workers.publish_failure(identity, "not_on_this_node")
        elif kept.issued is not None and kept.issued.not_after > self._clock.now():
            self._workers.publish_certificate(kept.issued)
        elif kept.failure:
            self._workers.publish_failure(identity, kept.failure)
        elif waiting:
            kept.waiting = True
            self._slots.promote(str(identity))

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
        backoff = Backoff(RETRY_INITIAL_S, RETRY_MAX_S, random=self._rng)
        priority = Priority.PREFETCH
        while True:
            kept.renew_now.clear()
            if await self._ask(kept, priority):
                backoff.reset()
                delay_s = self._until_renewal_s(kept)
            else:
                delay_s = backoff.next_s()
            priority = Priority.RENEWAL if kept.issued else Priority.PREFETCH
            try:
                async with asyncio.timeout(delay_s):
                    await kept.renew_now.wait()
            except TimeoutError:
                continue

    async def _ask(self, kept: _Kept, priority: Priority) -> bool:
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
            return False
        kept.issued, kept.failure, kept.waiting = issued, "", False
        event(
            log,
            logging.INFO,
            "certificate.issued",
            identity=kept.identity,
            serial=f"{issued.serial:x}",
            not_after=issued.not_after.isoformat(),
        )
        self._workers.publish_certificate(issued)
        return True

    def _failed(self, kept: _Kept, exc: ControlError) -> None:
        kept.waiting = False
        kept.failure = exc.reason
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

    def _until_renewal_s(self, kept: _Kept) -> float:
        if kept.issued is None:
            return RENEWAL_S_MIN
        left_s = (kept.issued.half_life - self._clock.now()).total_seconds()
        return max(RENEWAL_S_MIN, left_s * self._rng.uniform(1 - RENEWAL_JITTER, 1))
