"""The CA of a cluster, kept in a Secret: made once, whoever is first, and followed when it changes.

Without a name given, Istio's `cacerts` is taken when it is there, else a Secret of our own. Several
replicas may start together: each makes a CA, the API server takes one, and all read that one. A
change that cannot be used is told and not taken; a Secret of our own that is deleted is put back.
A new root signs only after all nodes can have learned of it (`rotation`); the record of that is in
a Secret of ours. A copy on disk serves a start without the API server.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar, Final

from control.kit.clock import Clock, PassedTime
from control.kit.errors import ControlError, MeshError
from control.kit.log import event
from control.kube.client import KubeClient
from control.kube.errors import ApiError, nobody_answers
from control.kube.resources import SECRETS
from control.server.ca.authorities import Authorities
from control.server.ca.authority import Authority, new_authority
from control.server.ca.copy import AuthorityCopy, CopiedAuthority
from control.server.ca.records import RotationRecords
from control.server.ca.rotation import BLANK, Rotation, RotationStep, step
from control.server.ca.secret import BadCaSecret, SecretObject, data_of

log = logging.getLogger("ca")

OWN: Final = "tulle-ca"
ISTIO_NAME: Final = "cacerts"
LOOK_S = 10.0  # a change of the CA is trusted by nodes minutes later in any case
RETRY_S = 2.0
AWAY_S = 2.0  # an API server that is away so long at a start is not waited for
WAITING_LINE_S = 10.0
WRITES_MAX: Final = 3  # tries at a record that other replicas write too


class HiddenSecret(ControlError):
    """Nobody can tell how it is: another replica may see it and use it."""

    reason: ClassVar[str] = "ca_hidden"


@dataclass(slots=True)
class StoredAuthority:
    """`name` is the operator's choice; empty: `cacerts` or our own. `carried`: the longest life of
    a leaf. `is_leaving`: the mesh is uninstalled, so the next one need not be announced to it."""

    client: KubeClient
    namespace: str
    name: str
    trust_domain: str
    clock: Clock
    carried: timedelta
    copy: AuthorityCopy
    records: RotationRecords
    is_leaving: bool = False
    _left: Rotation | None = None  # the record before it was blanked
    _found: str = ""  # name of the Secret in use
    _ready_at: datetime | None = None  # told: the CA that is wanted signs from then on
    _told: str = ""
    _told_s: float = float("-inf")
    _passed: PassedTime = field(init=False)

    def __post_init__(self) -> None:
        self._passed = PassedTime(self.clock)

    async def first(self) -> Authority:
        """The CA to begin with, as soon as there is one. Raises BadCaSecret."""
        started_s = self.clock.monotonic_s()
        while True:
            try:
                found = await self._look()
            except BadCaSecret:
                raise
            except MeshError as exc:
                self._wait(str(exc))
                is_late = self.clock.monotonic_s() - started_s >= AWAY_S
                if is_late and nobody_answers(exc) and (copied := self._copied(exc)) is not None:
                    return copied
            else:
                if found is not None:
                    event(log, logging.INFO, "ca.read", secret=self._where)
                    return found
                self._wait("it is not there yet")
            await asyncio.sleep(RETRY_S)

    async def follow(self, authorities: Authorities) -> None:
        """Take over changes, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._step(authorities)
            except MeshError as exc:
                self._tell("ca.not_followed", str(exc))
            else:
                self._told = ""

    async def _step(self, authorities: Authorities) -> None:
        name, secret = await self._chosen()
        if secret is None:
            if name == OWN and not self.name:
                await self._create(authorities.given)
                event(log, logging.WARNING, "ca.put_back", secret=self._where)
                return
            raise BadCaSecret(f"{self._where} is gone; its CA stays in force until we restart")
        authorities.replace(await self._taken(name, secret))

    async def _chosen(self) -> tuple[str, SecretObject | None]:
        """The Secret that counts now. `cacerts` may come later, and a replica that starts then
        takes it, so all of them have to."""
        if self._found == OWN and not self.name:
            theirs = await self._get(ISTIO_NAME)
            if theirs is not None:
                return ISTIO_NAME, theirs
        return self._found, await self._get(self._found)

    @property
    def _where(self) -> str:
        return f"Secret {self.namespace}/{self._found or self.name or OWN}"

    async def _look(self) -> Authority | None:
        for name in (self.name,) if self.name else (ISTIO_NAME, OWN):
            secret = await self._get(name)
            if secret is not None:
                return await self._taken(name, secret)
        if self.name:
            return None
        made = new_authority(self.trust_domain, self.clock.now())
        if await self._create(made):
            event(log, logging.INFO, "ca.made", secret=self._where)
        secret = await self._get(OWN)  # another replica may have been first
        return None if secret is None else await self._taken(OWN, secret)

    async def _taken(self, name: str, secret: SecretObject) -> Authority:
        """The CA to sign with while this is the Secret that is wanted."""
        where, data = f"Secret {self.namespace}/{name}", secret.data or {}
        found = await self._stepped(data, where)
        self._found = name
        self.copy.save(CopiedAuthority(name, data, found.record))
        self._tell_ready(found.ready_at)
        return found.authority

    async def _stepped(self, data: dict[str, str], where: str) -> RotationStep:
        for _ in range(WRITES_MAX):
            kept = await self.records.read()
            known = self._left if self.is_leaving and kept == BLANK else kept
            now, passed = self.clock.now(), self._passed.now()
            found = step(known, data, where, now=now, carried=self.carried, passed=passed)
            self._left = found.record
            record = BLANK if self.is_leaving else found.record
            if record == kept or await self.records.write(record):
                return found
        raise HiddenSecret(f"{where}: other replicas change the record of it all the time")

    def _tell_ready(self, ready_at: datetime | None) -> None:
        if ready_at is not None and ready_at != self._ready_at:
            moment = ready_at.isoformat(timespec="seconds")
            event(log, logging.WARNING, "ca.announced", secret=self._where, signs_at=moment)
        self._ready_at = ready_at

    def _copied(self, why: MeshError) -> Authority | None:
        """The CA as it was when the API server could be asked last."""
        copied = self.copy.load()
        if copied is None or (self.name and copied.name != self.name):
            return None
        record: Rotation | None = copied.record
        where = f"{self.copy.path} (Secret {self.namespace}/{copied.name})"
        now, passed = self.clock.now(), self._passed.now()
        try:
            found = step(record, copied.data, where, now=now, carried=self.carried, passed=passed)
        except BadCaSecret as exc:
            self._tell("ca.copy_unusable", str(exc))
            return None
        self._found = copied.name
        event(log, logging.WARNING, "ca.copied", secret=self._where, error=why)
        return found.authority

    async def _get(self, name: str) -> SecretObject | None:
        try:
            return await self.client.get(SECRETS.path(self.namespace, name), SecretObject)
        except ApiError as exc:
            if exc.code == 404:
                return None
            if exc.code == 403 and not self.name:
                raise HiddenSecret(
                    f"Secret {self.namespace}/{name} may not be read, so nobody can tell if the "
                    f"CA is there: allow `get` on it, or name the CA's with --ca-secret; {exc}"
                ) from exc
            raise

    async def _create(self, authority: Authority) -> bool:
        """False when another one was first."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {
                "name": OWN,
                "labels": {"app.kubernetes.io/managed-by": "tulle-control"},
            },
            "data": data_of(authority),
        }
        try:
            await self.client.create(SECRETS.path(self.namespace), body, SecretObject)
        except ApiError as exc:
            if exc.is_conflict:
                return False
            raise
        return True

    def _wait(self, why: str) -> None:
        now_s = self.clock.monotonic_s()
        if now_s - self._told_s >= WAITING_LINE_S:
            self._told_s = now_s
            event(log, logging.WARNING, "ca.waiting", secret=self._where, error=why)

    def _tell(self, name: str, why: str) -> None:
        """Once for each reason."""
        if why != self._told:
            self._told = why
            event(log, logging.ERROR, name, secret=self._where, error=why)
