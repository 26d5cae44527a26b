"""Objects of an installation: their place on the API server, their order, and their server-side
apply, one outcome each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.cli.cluster.session import MANAGER, ClusterError, words_of
from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import Resource

Object = dict[str, Any]

# Each kind needs those before it; an unknown kind comes last. Removal goes backwards.
ORDER = (
    "Namespace",
    "CustomResourceDefinition",
    "PriorityClass",
    "ResourceQuota",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Deployment",
    "DaemonSet",
)


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """An object by its kind and name."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"

    def as_json(self) -> list[str]:
        return [self.api_version, self.kind, self.namespace, self.name]


@dataclass(frozen=True, slots=True)
class Applied:
    ref: ObjectRef
    done: str  # created, configured, unchanged, removed


Told = Callable[[Applied], None]


def ref_of(value: Object) -> ObjectRef:
    meta = value["metadata"]
    return ObjectRef(value["apiVersion"], value["kind"], meta.get("namespace", ""), meta["name"])


def in_order(objects: Iterable[Object]) -> list[Object]:
    ranks = {kind: rank for rank, kind in enumerate(ORDER)}
    return sorted(objects, key=lambda each: ranks.get(each["kind"], len(ORDER)))


class _Served(msgspec.Struct):
    name: str
    kind: str
    namespaced: bool = True


class _ServedList(msgspec.Struct):
    resources: list[_Served] = []


class Kinds:
    """Kinds that the cluster serves, asked once for each group and version."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._known: dict[str, dict[str, Resource]] = {}

    async def find(self, api_version: str, kind: str) -> Resource | None:
        if api_version not in self._known:
            self._known[api_version] = await self._ask(api_version)
        return self._known[api_version].get(kind)

    async def get(self, api_version: str, kind: str) -> Resource:
        found = await self.find(api_version, kind)
        if found is None:
            raise ClusterError(
                f"the cluster has no {kind} of {api_version}: install what brings it, "
                "or leave the setting out that makes one"
            )
        return found

    def forget(self, api_version: str) -> None:
        """Ask again: a definition has just been put there."""
        self._known.pop(api_version, None)

    async def _ask(self, api_version: str) -> dict[str, Resource]:
        group, _, version = api_version.rpartition("/")
        path = f"/apis/{api_version}" if group else f"/api/{api_version}"
        try:
            served = await self._client.get(path, _ServedList)
        except ApiError as exc:
            if exc.code == 404:
                return {}
            raise
        return {
            each.kind: Resource(group, version, each.name, each.kind, each.namespaced)
            for each in served.resources
            if "/" not in each.name
        }


class Applier:
    """Server-side apply with our field manager. `force` takes over fields of other managers."""

    def __init__(self, client: KubeClient, *, force: bool = False, dry_run: bool = False) -> None:
        self._client = client
        self._kinds = Kinds(client)
        self._force = force
        self._dry_run = dry_run
        self._made: set[str] = set()  # namespaces of a dry run that are not there

    async def apply(self, objects: Iterable[Object], told: Told) -> list[Applied]:
        """In order, each told when it is done. ClusterError names the object and, in a conflict,
        who has the fields."""
        outcomes = []
        for value in in_order(objects):
            outcomes.append(await self._one(value))
            told(outcomes[-1])
        return outcomes

    async def _one(self, value: Object) -> Applied:
        ref = ref_of(value)
        if ref.namespace in self._made or (self._dry_run and await self._is_defined_here(ref)):
            return Applied(ref, "created")
        resource = await self._kinds.get(ref.api_version, ref.kind)
        path = resource.path(ref.namespace, ref.name)
        before = await get_or_none(self._client, path)
        try:
            after = await self._client.apply(
                path, value, Object, manager=MANAGER, force=self._force, dry_run=self._dry_run
            )
        except ApiError as exc:
            raise ClusterError(f"{ref}: {_refused(exc)}") from exc
        if before is None and ref.kind == "Namespace" and self._dry_run:
            self._made.add(ref.name)
        if before is None:
            return Applied(ref, "created")
        return Applied(ref, "unchanged" if _content(before) == _content(after) else "configured")

    async def _is_defined_here(self, ref: ObjectRef) -> bool:
        """A kind whose definition a dry run would only have made."""
        group = ref.api_version.rpartition("/")[0]
        return "istio" in group and await self._kinds.find(ref.api_version, ref.kind) is None


def _refused(exc: ApiError) -> str:
    if exc.is_conflict and exc.causes:
        fields = "; ".join(exc.causes)
        return f"fields of it are somebody else's: {fields} (--force-conflicts takes them over)"
    return words_of(exc)


def _content(value: Object) -> Object:
    """Everything but what changes with each write."""
    left_out = ("resourceVersion", "managedFields", "generation")
    meta = {key: each for key, each in value["metadata"].items() if key not in left_out}
    return {**{key: each for key, each in value.items() if key != "status"}, "metadata": meta}


async def get_or_none(client: KubeClient, path: str) -> Object | None:
    try:
        return await client.get(path, Object)
    except ApiError as exc:
        if exc.code == 404:
            return None
        raise


async def remove(client: KubeClient, refs: Iterable[ObjectRef], told: Told) -> list[Applied]:
    """Delete in the opposite order; what is not there any more is done."""
    kinds = Kinds(client)
    ranks = {kind: rank for rank, kind in enumerate(ORDER)}
    outcomes = []
    for ref in sorted(refs, key=lambda each: ranks.get(each.kind, len(ORDER)), reverse=True):
        resource = await kinds.find(ref.api_version, ref.kind)
        if resource is None:
            continue
        try:
            await client.delete(resource.path(ref.namespace, ref.name), propagation="Background")
        except ApiError as exc:
            if exc.code != 404:
                raise ClusterError(f"{ref}: {words_of(exc)}") from exc
            continue
        outcomes.append(Applied(ref, "removed"))
        told(outcomes[-1])
    return outcomes
