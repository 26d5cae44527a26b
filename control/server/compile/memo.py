"""Results of the compilation before, for pods that are as they were. Pure.

A workload is made from its pod, from who captured it, from what slices say of it, from its claims,
and from the services, nodes and policies of the whole mesh. It is taken over only if none of these
has changed; whoever shares an address with another object is always made anew. So a change costs
what it changes, and a compilation with a memo finds what one without finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import is_

from control.model.intent import Intent
from control.model.workload import Workload
from control.server.compile.endpoints import Member, SliceMemo
from control.server.compile.pods import intent_of, pod_uid
from control.server.compile.policies import PolicyMemo
from control.server.compile.settings import Settings
from control.server.compile.workloads import Compiler
from control.server.sources.objects import Key, Meta, Objects, PodObject


@dataclass(frozen=True, slots=True)
class _Made:
    pod: PodObject
    reported: bool
    members: Sequence[Member]
    workload: Workload


@dataclass(frozen=True, slots=True)
class _World:
    """Everything that a workload may depend on and that is not the pod's own."""

    found: Objects
    settings: Settings
    partial: dict[str, frozenset[int]]

    def is_as(self, other: _World) -> bool:
        ours, theirs = self.found, other.found
        return (
            self.settings == other.settings
            and same(ours.services, theirs.services)
            and same(ours.nodes, theirs.nodes)
            and same(ours.authorization_policies, theirs.authorization_policies)
            and same(ours.peer_authentications, theirs.peer_authentications)
            and self.partial == other.partial
        )


def same(ours: Sequence[object], theirs: Sequence[object]) -> bool:
    """True for the same objects, not for equal ones."""
    return ours is theirs or (len(ours) == len(theirs) and all(map(is_, ours, theirs)))


@dataclass(slots=True)
class MeshMemo:
    policies: PolicyMemo = field(default_factory=PolicyMemo)
    slices: SliceMemo = field(default_factory=dict)
    _world: _World | None = None
    _workloads: dict[Key, _Made] = field(default_factory=dict)
    _intents: dict[Key, tuple[PodObject, Meta | None, Intent]] = field(default_factory=dict)
    _settings: Settings | None = None

    def workloads(
        self, found: Objects, compiler: Compiler, names: Callable[[PodObject], tuple[str, ...]]
    ) -> list[Workload]:
        """Workloads of all pods; `names` gives a pod's policies."""
        world = _World(found, compiler.settings, dict(compiler.endpoints.partial))
        is_same = self._world is not None and world.is_as(self._world)
        before = self._workloads if is_same else {}
        self._world, self._workloads = world, {}
        by_pod = compiler.endpoints.by_pod
        made = []
        for pod in found.pods:
            if not compiler.has_workload(pod):
                continue
            meta = pod.meta
            key = meta.key
            reported = pod_uid(meta) in compiler.captured
            members = by_pod.get((key.namespace, key.name), ())
            alone = compiler.is_alone(pod)
            known = before.get(key)
            if (
                alone
                and known is not None
                and known.pod is pod
                and known.reported == reported
                and known.members == members
            ):
                self._workloads[key] = known
                made.append(known.workload)
                continue
            workload = compiler.workload(pod, names(pod))
            made.append(workload)
            if alone:
                self._workloads[key] = _Made(pod, reported, members, workload)
        return made

    def intents(self, found: Objects, settings: Settings) -> list[Intent]:
        """Intents of all pods that have not ended."""
        before = self._intents if self._settings == settings else {}
        self._intents, self._settings = {}, settings
        namespaces = {each.meta.name: each.meta for each in found.namespaces}
        return list(self._intents_of(found.pods, namespaces, before, settings))

    def _intents_of(
        self,
        pods: Iterable[PodObject],
        namespaces: dict[str, Meta],
        before: dict[Key, tuple[PodObject, Meta | None, Intent]],
        settings: Settings,
    ) -> Iterable[Intent]:
        for pod in pods:
            if pod.is_terminal:
                continue
            key = pod.meta.key
            namespace = namespaces.get(key.namespace)
            known = before.get(key)
            if known is None or known[0] is not pod or known[1] is not namespace:
                known = (pod, namespace, intent_of(pod, namespace, settings))
            self._intents[key] = known
            yield known[2]
