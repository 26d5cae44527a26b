"""The CA of a cluster, kept in a Secret: made once, whoever is first, and followed when it changes.

Without a name given, Istio's `cacerts` is taken when it is there, else a Secret of our own. Several
replicas may start together: each makes a CA, the API server takes one, and all read that one. A
change that cannot be used is told and not taken; a Secret of our own that is deleted is put back.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

import msgspec

from control.kit.clock import Clock
from control.kit.errors import MeshError
from control.kit.log import event
from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import SECRETS
from control.server.ca.authorities import Authorities
from control.server.ca.authority import Authority, new_authority
from control.server.ca.secret import BadCaSecret, authority_of, data_of

log = logging.getLogger("ca")

OWN: Final = "tulle-ca"
ISTIO_NAME: Final = "cacerts"
LOOK_S = 10.0  # a change of the CA is trusted by nodes minutes later in any case
RETRY_S = 2.0
WAITING_LINE_S = 10.0


class _SecretMeta(msgspec.Struct):
    version: str = msgspec.field(default="", name="resourceVersion")


class CaSecret(msgspec.Struct):
    metadata: _SecretMeta = msgspec.field(default_factory=_SecretMeta)
    data: dict[str, str] | None = None


@dataclass(slots=True)
class StoredAuthority:
    """`name` is the operator's choice; empty: `cacerts` or our own."""

    client: KubeClient
    namespace: str
    name: str
    trust_domain: str
    clock: Clock
    _found: str = ""  # name of the Secret in use
    _seen: str = ""  # its version when it was read last
    _told: str = ""
    _told_s: float = float("-inf")

    async def first(self) -> Authority:
        """The CA to begin with, as soon as there is one. Raises BadCaSecret."""
        while True:
            try:
                found = await self._look()
            except BadCaSecret:
                raise
            except MeshError as exc:
                self._wait(str(exc))
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
        if (name, secret.metadata.version) == (self._found, self._seen):
            return
        where = f"Secret {self.namespace}/{name}"
        authorities.replace(authority_of(secret.data or {}, where, self.clock.now()))
        self._found, self._seen = name, secret.metadata.version

    async def _chosen(self) -> tuple[str, CaSecret | None]:
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
            found = await self._read(name)
            if found is not None:
                return found
        if self.name:
            return None
        made = new_authority(self.trust_domain, self.clock.now())
        if await self._create(made):
            event(log, logging.INFO, "ca.made", secret=self._where)
        return await self._read(OWN)  # another replica may have been first

    async def _read(self, name: str) -> Authority | None:
        secret = await self._get(name)
        if secret is None:
            return None
        self._found, self._seen = name, secret.metadata.version
        return authority_of(secret.data or {}, self._where, self.clock.now())

    async def _get(self, name: str) -> CaSecret | None:
        try:
            return await self.client.get(SECRETS.path(self.namespace, name), CaSecret)
        except ApiError as exc:
            # RBAC names the Secrets that may be read: `cacerts` may be none of them.
            if exc.code == 404 or (exc.code == 403 and name == ISTIO_NAME and not self.name):
                return None
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
            await self.client.create(SECRETS.path(self.namespace), body, CaSecret)
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
