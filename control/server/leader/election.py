"""Takes part in the election by Lease: one replica writes to the API, all of them serve."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any, Final

import msgspec

from control.kit.clock import Clock
from control.kit.errors import MeshError
from control.kit.log import event
from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import LEASES
from control.server.leader.lease import RETRY_S, LeaseCandidate, LeaseRecord

log = logging.getLogger("leader")

NAME: Final = "tulle-control"
RELEASE_S: Final = 2.0  # a stop takes no longer for it
CALL_S: Final = 5.0  # an answer that comes later is of no use: the lease may be another's


class LeaseMeta(msgspec.Struct):
    version: str = msgspec.field(default="", name="resourceVersion")


class LeaseSpec(msgspec.Struct, rename="camel", omit_defaults=True):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class LeaseObject(msgspec.Struct):
    metadata: LeaseMeta
    spec: LeaseSpec = msgspec.field(default_factory=LeaseSpec)

    @property
    def record(self) -> LeaseRecord:
        spec = self.spec
        return LeaseRecord(
            self.metadata.version,
            spec.holder_identity or "",
            spec.lease_duration_seconds or 0,
            spec.acquire_time or "",
            spec.renew_time or "",
            spec.lease_transitions or 0,
        )


class Election:
    """`run` until cancelled, then `release`. `holds` says if this replica may write now."""

    def __init__(
        self, client: KubeClient, namespace: str, identity: str, clock: Clock, name: str = NAME
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._clock = clock
        self._candidate = LeaseCandidate(identity)
        self._path = LEASES.path(namespace, name)
        self._was_leader = False
        self._trouble = ""

    def holds(self) -> bool:
        return self._candidate.holds(self._clock.monotonic_s())

    @property
    def leader(self) -> str:
        """Identity of the holder as it was seen last."""
        return self._candidate.holder

    async def run(self) -> None:
        while True:
            await self.step()
            await asyncio.sleep(RETRY_S * random.uniform(0.8, 1.2))

    async def step(self) -> None:
        """One look at the Lease, and one write if it is due."""
        try:
            async with asyncio.timeout(CALL_S):
                await self._step()
            self._tell_trouble("")
        except (MeshError, TimeoutError) as exc:
            if isinstance(exc, ApiError) and exc.is_conflict:
                self._candidate.lost()
            else:
                self._tell_trouble(str(exc) or "no answer in time")
        self._tell_leader()

    async def _step(self) -> None:
        found = await self._read()
        asked_s = self._clock.monotonic_s()
        wanted = self._candidate.next(found, asked_s, self._clock.now())
        if wanted is None:
            return
        if found is None:
            path = LEASES.path(self._namespace)
            answer = await self._client.create(path, self._body(wanted), LeaseObject)
        else:
            answer = await self._client.put(self._path, self._body(wanted), LeaseObject)
        self._candidate.written(answer.record, asked_s)

    async def _read(self) -> LeaseRecord | None:
        try:
            return (await self._client.get(self._path, LeaseObject)).record
        except ApiError as exc:
            if exc.code == 404:
                return None
            raise

    def _body(self, record: LeaseRecord) -> dict[str, Any]:
        metadata = {"name": self._name, "namespace": self._namespace}
        if record.version:
            metadata["resourceVersion"] = record.version
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": metadata,
            "spec": LeaseSpec(
                record.holder,
                record.duration_s,
                record.acquired or None,
                record.renewed or None,
                record.transitions,
            ),
        }

    async def release(self) -> None:
        """Give the Lease back, so that another replica need not wait for its end."""
        if not self._candidate.holds(self._clock.monotonic_s()):
            return
        try:
            async with asyncio.timeout(RELEASE_S):
                found = await self._read()
                given_back = None if found is None else self._candidate.released(found)
                if given_back is not None:
                    await self._client.put(self._path, self._body(given_back), LeaseObject)
        except (MeshError, TimeoutError) as exc:
            event(
                log, logging.WARNING, "leader.not_released", error=str(exc) or "no answer in time"
            )
        self._candidate.lost()

    def _tell_leader(self) -> None:
        is_leader = self.holds()
        if is_leader != self._was_leader:
            self._was_leader = is_leader
            name = "leader.elected" if is_leader else "leader.lost"
            event(log, logging.INFO, name, lease=f"{self._namespace}/{self._name}")

    def _tell_trouble(self, why: str) -> None:
        if why and why != self._trouble:
            event(log, logging.WARNING, "leader.trouble", error=why)
        self._trouble = why
