"""Objects → everything that nodes receive, kept up to date by changes. Pure.

A change costs what depends on it, however large the mesh is. Same objects, same mesh: nothing shows
how it came to be.

    namespaces, pods, reports → residents ─┬→ destinations → workloads, services
    policies of every kind ──→ rulebook ───┤     ↑
    nodes, services, slices ───────────────┼─────┘
                                           └→ notebook

Residents come first, since the others ask who is there; destinations last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from control.kit.slices import emptied
from control.model.intent import Intent, NamespaceIntent
from control.model.policy import Policy
from control.model.workload import Service, Workload
from control.server.compile.delta import MeshDelta
from control.server.compile.destinations import Destinations
from control.server.compile.labels import LabelNotes
from control.server.compile.notebook import Notebook
from control.server.compile.notes import notes_on
from control.server.compile.pods import probe_notes
from control.server.compile.policies import PolicyStatus
from control.server.compile.residents import Move, Reports, Residents
from control.server.compile.rulebook import Rulebook
from control.server.compile.settings import Settings
from control.server.sources.objects import (
    AnyObject,
    AuthorizationPolicy,
    EndpointSlice,
    Gateway,
    Key,
    Namespace,
    NodeObject,
    Objects,
    PeerAuthentication,
    PodObject,
    ServiceObject,
)
from control.server.sources.problem import Problem

Changed = Mapping[Key, AnyObject | None]  # None: it is gone


class Mesh:
    """Its mappings are live: they change with it."""

    def __init__(self, settings: Settings, reports: Reports) -> None:
        self.settings = settings
        self.revision = 0  # grows with whatever may have changed something
        self.notebook = Notebook()
        self.residents = Residents(settings, reports)
        self.rulebook = Rulebook(settings, self.residents)
        self._destinations = Destinations(settings, self.residents, self.rulebook, self.notebook)
        self._label_notes = LabelNotes(self.notebook)

    def apply(self, changed: Changed, reported: Iterable[str] = ()) -> MeshDelta:
        """`reported`: the uids of pods that nodes have said something of."""
        for _ in (*self.steps(changed, reported), *self.remark()):
            pass
        return self.take_delta()

    def steps(self, changed: Changed, reported: Iterable[str] = ()) -> Iterator[None]:
        """As `apply`, in steps of some ten microseconds: nothing may be asked before the last."""
        self.revision += 1
        others: list[tuple[Key, AnyObject | None]] = []
        for key, value in changed.items():
            if key.kind == "Namespace":
                self._put_namespace(key, value)
            elif key.kind == "Pod":
                assert value is None or isinstance(value, PodObject)
                self.residents.put_pod(key, value)
            elif key.kind == "Gateway":
                assert value is None or isinstance(value, Gateway)
                self.residents.put_gateway(key, value)
                self._destinations.put_gateway(key, value)
            else:
                others.append((key, value))
            yield
        yield from self.residents.report(reported)
        for move in self.residents.settle():
            if move is not None:
                self._moved(move)
            yield
        for key, value in others:
            self._put(key, value)
            yield
        yield from emptied(others)
        yield from self.rulebook.count()
        statuses, concerned = yield from self.rulebook.settle()
        for key in statuses:
            self.notebook.put("status", key, notes_on(self.rulebook.statuses.get(key)))
            yield
        self._destinations.concern(concerned)
        del concerned  # each group goes once it was walked
        yield from self._destinations.settle()
        yield from self._label_notes.settle()
        self.revision += 1

    def remark(self) -> Iterator[None]:
        """Bring the remarks on addresses up to date, in steps as well."""
        return self._destinations.remark()

    @property
    def has_remarks(self) -> bool:
        """True while they are not."""
        return self._destinations.has_remarks

    def let_go(self) -> None:
        """A mesh that is leaving does not keep its pods any longer."""
        self.settings = replace(self.settings, keeps_pods=False)
        self.residents.let_go(self.settings)

    def keys(self) -> Iterator[Key]:
        """All objects that it was given and that mean something to it."""
        yield from self.residents.keys()
        yield from self.rulebook.keys()
        yield from self._destinations.keys()

    def _put_namespace(self, key: Key, value: AnyObject | None) -> None:
        assert value is None or isinstance(value, Namespace)
        self.residents.put_namespace(key.name, value)
        self._destinations.put_namespace(key, None if value is None else value.meta)
        self._label_notes.put_namespace(key, None if value is None else value.meta)

    def _moved(self, move: Move) -> None:
        self.rulebook.moved(move)
        self._destinations.moved(move)
        after = move.after
        is_there = after is not None and after.intent is not None
        self._label_notes.put_pod(move.key, after.pod.meta if after and is_there else None)
        enrolled = after.pod if after is not None and after.is_enrolled else None
        self.notebook.put("probe", move.key, [] if enrolled is None else probe_notes(enrolled))

    def _put(self, key: Key, value: AnyObject | None) -> None:
        match key.kind:
            case "Node":
                assert value is None or isinstance(value, NodeObject)
                self._destinations.put_node(key, value)
            case "Service":
                assert value is None or isinstance(value, ServiceObject)
                self._destinations.put_service(key, value)
            case "EndpointSlice":
                assert value is None or isinstance(value, EndpointSlice)
                self._destinations.put_slice(key, value)
            case "AuthorizationPolicy" if not self.settings.release_all:
                assert value is None or isinstance(value, AuthorizationPolicy)
                self.rulebook.put_authorization(key, value)
            # Pods leave one after the other, and those that are out have no identity any more: to
            # the others they would be strangers.
            case "PeerAuthentication" if not self.settings.release_all:
                assert value is None or isinstance(value, PeerAuthentication)
                self.rulebook.put_peer(key, value)

    def take_delta(self) -> MeshDelta:
        """Differences since this was asked last."""
        return MeshDelta(
            workloads=self._destinations.workloads.take_changed(),
            services=self._destinations.services.take_changed(),
            policies=self.rulebook.policies.take_changed(),
            pods=self.residents.pods.take_changed(),
            namespaces=self.residents.namespaces.take_changed(),
        )

    # Each mapping is keyed by the resource's name on the wire.

    @property
    def workloads(self) -> Mapping[str, Workload]:
        return self._destinations.workloads.current

    @property
    def services(self) -> Mapping[str, Service]:
        return self._destinations.services.current

    @property
    def policies(self) -> Mapping[str, Policy]:
        return self.rulebook.policies.current

    @property
    def pods(self) -> Mapping[str, Intent]:
        return self.residents.pods.current

    @property
    def namespaces(self) -> Mapping[str, NamespaceIntent]:
        return self.residents.namespaces.current

    @property
    def statuses(self) -> tuple[PolicyStatus, ...]:
        found = self.rulebook.statuses
        return tuple(found[key] for key in sorted(found))

    @property
    def identities(self) -> Collection[tuple[str, str, str]]:
        """(node, namespace, service account) of every pod that has not ended: the certificates that
        a node may ask for."""
        return self.residents.identities.keys()

    @property
    def notes(self) -> tuple[Problem, ...]:
        return self.notebook.all()


@dataclass(frozen=True, slots=True)
class CompiledMesh:
    """A mesh at one moment."""

    workloads: Mapping[str, Workload]
    services: Mapping[str, Service]
    policies: Mapping[str, Policy]
    pods: Mapping[str, Intent]
    statuses: tuple[PolicyStatus, ...]
    identities: frozenset[tuple[str, str, str]]
    namespaces: Mapping[str, NamespaceIntent] = field(default_factory=dict)
    notes: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class KnownCaptures:
    """Reports of pods by uid, without addresses."""

    uids: frozenset[str]

    def placed(self, uid: str, pod: PodObject) -> PodObject:
        return pod

    def is_captured(self, intent: Intent) -> bool:
        return intent.uid in self.uids

    def gone(self, uid: str) -> None:
        """Nothing to forget."""


def compile_mesh(found: Objects, settings: Settings, captured: frozenset[str]) -> CompiledMesh:
    """From nothing. `captured` are the uids of pods whose nodes say so."""
    mesh = Mesh(settings, KnownCaptures(captured))
    mesh.apply(found.by_key())
    return state_of(mesh)


def state_of(mesh: Mesh) -> CompiledMesh:
    return CompiledMesh(
        workloads=dict(mesh.workloads),
        services=dict(mesh.services),
        policies=dict(mesh.policies),
        pods=dict(mesh.pods),
        statuses=mesh.statuses,
        identities=frozenset(mesh.identities),
        namespaces=dict(mesh.namespaces),
        notes=mesh.notes,
    )
