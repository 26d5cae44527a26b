"""Writes for the mesh while this replica leads: only what differs, at a bounded rate.

What is there is looked at when the lead begins and every few minutes, so that a hand that changed
or deleted it does not stay unnoticed; in between our own writes are what we know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from control.kit.clock import Clock
from control.kit.errors import MeshError
from control.kit.log import event
from control.kube.errors import ApiError
from control.server.callers.budget import Pace, Paces, Tenant
from control.server.leader.election import Election
from control.server.leader.ledger import RETRY_S_MAX, Target, WriteLedger
from control.server.metrics import Metrics

log = logging.getLogger("leader")

TICK_S: Final = 1.0  # news waits for so long at most, and is written together
LOOK_S: Final = 300.0
LOOK_AGAIN_S: Final = 10.0  # after a look that failed
# All of a large cluster's policies at a start take a minute or two; a rollout that changes numbers
# of workloads all the time costs the API server little.
WRITES: Final = Pace(None, per_s=10, burst=20)
_ALL: Final = Tenant("cluster", "writes")


class Duty(Protocol):
    """One kind of thing that the leader keeps right at the API server."""

    ledger: WriteLedger[Any]

    def wanted(self) -> Mapping[Target, Any]:
        """All that should be there, from the state of now."""

    async def look(self) -> Mapping[Target, Any]:
        """All that is there. Raises MeshError."""

    async def write(self, target: Target, value: Any) -> None:
        """Make it so; a value of None: take it away. Raises MeshError."""


class Writer:
    def __init__(
        self, election: Election, duties: Sequence[Duty], metrics: Metrics, clock: Clock
    ) -> None:
        self._election = election
        self._duties = duties
        self._metrics = metrics
        self._clock = clock
        self._pace = Paces(WRITES)
        self._look_s = [float("-inf")] * len(duties)  # when each duty is to be looked at next
        self._led = False

    async def run(self) -> None:
        while True:
            await self.step()
            await asyncio.sleep(TICK_S)

    async def step(self) -> None:
        """Write all that is due now."""
        leads = self._election.holds()
        if leads and not self._led:
            self._look_s = [float("-inf")] * len(self._duties)
        self._led = leads
        self._metrics.leads.set(leads)
        if not leads:
            return
        for number, duty in enumerate(self._duties):
            if await self._looked(number, duty):
                duty.ledger.want(duty.wanted())
                await self._write(duty)

    async def _looked(self, number: int, duty: Duty) -> bool:
        """True once it is known what is there."""
        now_s = self._clock.monotonic_s()
        if now_s < self._look_s[number]:
            return True
        is_first = self._look_s[number] == float("-inf")
        try:
            duty.ledger.saw(await duty.look())
        except MeshError as exc:
            # 403 is one's own doing: RBAC that grants less. It costs one line, not the others.
            if is_first:
                what = type(duty).__name__
                event(log, logging.WARNING, "leader.not_looked", duty=what, error=exc)
            self._look_s[number] = now_s + LOOK_AGAIN_S
            return not is_first
        self._look_s[number] = now_s + LOOK_S
        return True

    async def _write(self, duty: Duty) -> None:
        for target, value in duty.ledger.due(self._clock.monotonic_s()):
            wait_s = self._pace.spend(_ALL, 1, self._clock.monotonic_s())
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if not self._election.holds():
                return
            await self._write_one(duty, target, value)

    async def _write_one(self, duty: Duty, target: Target, value: Any) -> None:
        kind = target.kind
        try:
            await duty.write(target, value)
        except MeshError as exc:
            self._metrics.writes.labels(kind, "failed").inc()
            wait_s = _wait_s(exc)
            if duty.ledger.failed(target, value, self._clock.monotonic_s(), wait_s):
                event(log, logging.WARNING, "leader.not_written", object=target, error=exc)
        else:
            self._metrics.writes.labels(kind, "written").inc()
            duty.ledger.done(target, value)


def _wait_s(exc: MeshError) -> float:
    """Pause before the same again: long where the answer will hardly be another."""
    if not isinstance(exc, ApiError):
        return 0.0
    if exc.code in (400, 403, 404, 409, 415, 422):
        return RETRY_S_MAX
    return exc.retry_after_s or 0.0
