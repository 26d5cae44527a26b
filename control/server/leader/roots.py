"""Publishes the CA's roots where pods can read them: a ConfigMap in every enrolled namespace and in
our own, and a ClusterTrustBundle where the API server has them.

Nothing of anybody else is touched: an object of that name without our label stays as it is, and
Istio's own `istio-ca-root-cert` is never looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from control.kit.errors import ControlError
from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import CONFIG_MAPS, TRUST_BUNDLES
from control.server.leader.ledger import Target, WriteLedger

NAME: Final = "tulle-ca-root-cert"
KEY: Final = "root-cert.pem"
LABEL: Final = ("app.kubernetes.io/managed-by", "tulle-control")
MANAGER: Final = "tulle-control"


class NotOurs(ControlError):
    """An object of our name that somebody else made."""

    reason = "not_ours"


class RootMeta(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None

    @property
    def is_ours(self) -> bool:
        return (self.labels or {}).get(LABEL[0]) == LABEL[1]


class RootMap(msgspec.Struct):
    metadata: RootMeta
    data: dict[str, str] | None = None


class RootMaps(msgspec.Struct):
    items: list[RootMap] | None = None


class BundleSpec(msgspec.Struct):
    bundle: str = msgspec.field(default="", name="trustBundle")


class RootBundle(msgspec.Struct):
    metadata: RootMeta
    spec: BundleSpec = msgspec.field(default_factory=BundleSpec)


class RootsDuty:
    """`namespaces` are those that should have it, `roots` the bundle in PEM. `on_first` hears of a
    namespace that has it now and had none."""

    def __init__(
        self,
        client: KubeClient,
        namespaces: Callable[[], frozenset[str]],
        roots: Callable[[], str],
        on_first: Callable[[str, str], None] = lambda namespace, pem: None,
    ) -> None:
        self.ledger: WriteLedger[str] = WriteLedger(removes=True)
        self._client = client
        self._namespaces = namespaces
        self._roots = roots
        self._on_first = on_first
        self._has_bundles = False
        self._foreign: frozenset[Target] = frozenset()
        self._there: set[Target] = set()

    def wanted(self) -> Mapping[Target, str]:
        pem = self._roots()
        found = {Target(CONFIG_MAPS.kind, each, NAME): pem for each in self._namespaces()}
        if self._has_bundles:
            found[Target(TRUST_BUNDLES.kind, "", NAME)] = pem
        return found

    async def look(self) -> Mapping[Target, str]:
        parameters = {"fieldSelector": f"metadata.name={NAME}"}
        listed = await self._client.get(CONFIG_MAPS.path(), RootMaps, parameters)
        found, foreign = {}, set()
        for each in listed.items or []:
            target = Target(CONFIG_MAPS.kind, each.metadata.namespace, NAME)
            if each.metadata.is_ours:
                found[target] = (each.data or {}).get(KEY, "")
            else:
                foreign.add(target)
        self._foreign = frozenset(foreign)
        bundle = await self._bundle()
        if bundle is not None:
            found[Target(TRUST_BUNDLES.kind, "", NAME)] = bundle
        self._there = set(found)
        return found

    async def _bundle(self) -> str | None:
        try:
            found = await self._client.get(TRUST_BUNDLES.path(name=NAME), RootBundle)
        except ApiError as exc:
            if exc.code not in (403, 404):
                raise
            # A Status with the name: the kind is served, this one is not there.
            self._has_bundles = exc.code == 404 and NAME in exc.message
            return None
        self._has_bundles = found.metadata.is_ours
        return found.spec.bundle if found.metadata.is_ours else None

    async def write(self, target: Target, value: str | None) -> None:
        if target in self._foreign and value is not None:
            raise NotOurs(f"{target} is not ours: it has no label {'='.join(LABEL)}")
        resource = CONFIG_MAPS if target.kind == CONFIG_MAPS.kind else TRUST_BUNDLES
        path = resource.path(target.namespace, target.name)
        if value is None:
            await self._remove(path)
            self._there.discard(target)
            return
        metadata = {"name": target.name, "labels": dict([LABEL])}
        if target.namespace:
            metadata["namespace"] = target.namespace
        body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": metadata,
            **({"data": {KEY: value}} if target.namespace else {"spec": {"trustBundle": value}}),
        }
        # By force: it has our label, and a root that somebody changed by hand trusts strangers.
        await self._client.apply(path, body, msgspec.Raw, manager=MANAGER, force=True)
        if target.namespace and target not in self._there:
            self._on_first(target.namespace, value)
        self._there.add(target)

    async def _remove(self, path: str) -> None:
        try:
            found = await self._client.get(path, RootMap)
            if found.metadata.is_ours:
                await self._client.delete(path, uid=found.metadata.uid)
        except ApiError as exc:
            if exc.code != 404:
                raise
