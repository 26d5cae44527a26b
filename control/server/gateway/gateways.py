"""Objects and the mesh → everything that waypoints are told, kept up to date by changes. Pure.

    routes, grants ──→ attachments ─┐
    services, gateways ─────────────┼→ fronts ─→ tables, by waypoint
    policies with targets ──────────┘             ↑
    workloads ──→ members ──→ backends ───────────┤
              └─→ pods, with fronts of their own ─┘

A change costs what depends on it: a pod's the backends of its services. Same objects, same routes:
nothing shows how they came to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from control.kit.slices import portions
from control.model.route import Backend, Waypoint, WaypointDelta, WaypointKey
from control.model.workload import Service, Workload
from control.server.compile.delta import MeshDelta
from control.server.compile.policies import PolicyStatus
from control.server.compile.services import service_key
from control.server.compile.settings import Settings
from control.server.compile.waypoint_labels import allows, is_waypoint, key_of
from control.server.gateway.attachments import Attachments
from control.server.gateway.fronts import fronts_of
from control.server.gateway.members import Members
from control.server.gateway.names import port_name, waypoint_of
from control.server.gateway.notes import notes_of
from control.server.gateway.pods import PodFronts
from control.server.gateway.statuses import RouteStatus, RouteVerdict
from control.server.gateway.tables import Shown, WaypointTables
from control.server.gateway.targets import Target, TargetedPolicies, targets_of
from control.server.sources.objects import (
    AnyObject,
    AuthorizationPolicy,
    Gateway,
    Key,
    Labels,
    Namespace,
    PodObject,
    ReferenceGrant,
    RouteObject,
    ServiceObject,
)
from control.server.sources.problem import Problem

_NONE: Mapping[Key, RouteVerdict] = MappingProxyType({})

SERVICES_A_STEP = 32  # their backends are looked up


class Gateways:
    def __init__(self, settings: Settings) -> None:
        self.revision = 0  # grows with whatever may have changed something
        self._settings = settings
        self._gateways: dict[WaypointKey, Gateway] = {}
        self._spaces: dict[str, Labels] = {}
        self._services: dict[str, Service] = {}  # by names on the wire, as all that follows
        self._sources: dict[str, ServiceObject] = {}
        self._behind: dict[WaypointKey, set[str]] = {}  # services, by the waypoint that they name
        self._shown: dict[
            str, tuple[Shown, Mapping[Key, RouteVerdict]]
        ] = {}  # with routes left out
        self._members = Members()
        self._policies = TargetedPolicies(settings)
        self._tables = WaypointTables(settings)
        self._attachments = Attachments(
            settings,
            self._services,
            self._sources,
            lambda service: self._gateway_of(service) is not None,
        )
        self._pods = PodFronts(settings)
        self._stale_fronts: set[str] = set()
        self._stale_pods: set[str] = set()
        self._stale_members: set[str] = set()

    # News

    def apply(
        self, changed: Mapping[Key, AnyObject | None], delta: MeshDelta
    ) -> dict[WaypointKey, WaypointDelta]:
        """As `steps` and `take_delta`."""
        for _ in self.steps(changed, delta):
            pass
        return self.take_delta()

    def steps(self, changed: Mapping[Key, AnyObject | None], delta: MeshDelta) -> Iterator[None]:
        """Take over objects, and what a mesh has made of them, in steps of some ten microseconds:
        nothing may be asked before the last."""
        for key, value in changed.items():
            self._put(key, value)
            yield
        for name, service in delta.services.items():
            self._put_service(name, service)
            yield
        for uid, workload in delta.workloads.items():
            self._stale_members.update(self._members.put(uid, workload))
            if self._pods.put_workload(uid, workload):
                self._stale_pods.add(uid)
            yield
        yield from self._settle()
        self.revision += 1

    def _put(self, key: Key, value: AnyObject | None) -> None:
        match key.kind:
            case "Gateway":
                assert value is None or isinstance(value, Gateway)
                self._put_gateway(key, value)
            case "Pod":
                assert value is None or isinstance(value, PodObject)
                if uid := self._pods.put_pod(key, value):
                    self._stale_pods.add(uid)
            case "Namespace":
                assert value is None or isinstance(value, Namespace)
                self._put_namespace(key.name, value)
            case "Service":
                assert value is None or isinstance(value, ServiceObject)
                self._put_source(service_key(key, self._settings), value)
            case "HTTPRoute" | "GRPCRoute" | "TCPRoute":
                assert value is None or isinstance(value, RouteObject)
                self._attachments.put_route(key, value)
            case "ReferenceGrant":
                assert value is None or isinstance(value, ReferenceGrant)
                self._attachments.put_grant(key, value)
            case "AuthorizationPolicy":
                assert value is None or isinstance(value, AuthorizationPolicy)
                for target in self._policies.put(key, value):
                    self._aim(target)

    def _put_gateway(self, key: Key, value: Gateway | None) -> None:
        place = WaypointKey(key.namespace, key.name)
        before = self._gateways.pop(place, None)
        after = value if value is not None and is_waypoint(value) else None
        if after is not None:
            self._gateways[place] = after
        if before != after:
            self._tables.put_waypoint(place, after is not None)
            self._concern(self._behind.get(place, ()))
            self._stale_pods.update(self._pods.behind(place))

    def _put_namespace(self, name: str, value: Namespace | None) -> None:
        before = self._spaces.pop(name, None)
        if value is not None:
            self._spaces[name] = value.meta.labels
        if before != self._spaces.get(name):
            for services in self._behind.values():
                self._concern(each for each in services if self._services[each].namespace == name)

    def _put_source(self, name: str, value: ServiceObject | None) -> None:
        self._sources.pop(name, None)
        if value is not None:
            self._sources[name] = value
        self._attachments.concern(name)

    def _put_service(self, name: str, value: Service | None) -> None:
        before = self._services.pop(name, None)
        if value is not None:
            self._services[name] = value
        was, now = (
            None if each is None else waypoint_of(each.waypoint, self._settings)
            for each in (before, value)
        )
        if was != now:
            if was is not None:
                self._behind[was].discard(name)
                if not self._behind[was]:
                    del self._behind[was]
            if now is not None:
                self._behind.setdefault(now, set()).add(name)
        self._stale_members.add(name)
        self._concern((name,))

    def _concern(self, services: Iterable[str]) -> None:
        for name in services:
            self._stale_fronts.add(name)
            self._attachments.concern(name)

    def _aim(self, target: Target) -> None:
        """Policies for this target are others than before."""
        kind, namespace, name = target
        if kind == "Service":
            self._stale_fronts.add(service_key(Key(kind, namespace, name), self._settings))
            return
        for waypoint, gateway in self._gateways.items():
            is_one = waypoint == (namespace, name) if kind == "Gateway" else True
            if is_one and (kind == "Gateway" or gateway.class_name == name):
                self._stale_fronts.update(self._behind.get(waypoint, ()))
                self._stale_pods.update(self._pods.behind(waypoint))

    # Results

    def _settle(self) -> Iterator[None]:
        judged: set[Key] = set()
        yield from self._attachments.settle(self._stale_fronts, judged)
        fronts, self._stale_fronts = self._stale_fronts, set()
        needed: set[str] = set()
        for name in sorted(fronts):
            needed.update(self._show_fronts(name, judged))
            yield
        for key in judged:
            self._attachments.judge(key, self._left_out)
            yield
        pods, self._stale_pods = self._stale_pods, set()
        for uid in sorted(pods):
            self._show_pod(uid)
            yield
        members, self._stale_members = self._stale_members, set()
        for some in portions(members, SERVICES_A_STEP):
            for name in some:
                needed.update(self._needed_of(self._services.get(name)))
            yield
        for backend in sorted(needed):
            self._show_backend(backend)
            yield

    def _needed_of(self, service: Service | None) -> Iterator[str]:
        """Backends of a service that a waypoint has."""
        if service is not None:
            names = (port_name(service, each.service_port) for each in service.ports)
            yield from filter(self._tables.is_needed, names)

    def _show_fronts(self, name: str, judged: set[Key]) -> list[str]:
        """Backends that its waypoint has not had."""
        before, was_left = self._shown.pop(name, (None, _NONE))
        service = self._services.get(name)
        gateway = None if service is None else self._gateway_of(service)
        after, left = None, _NONE
        if service is not None and gateway is not None:
            targets = targets_of(gateway, self._settings, service)
            found = fronts_of(
                service,
                self._attachments.at(name),
                lambda layer: self._policies.of(targets, layer),
            )
            after, left = Shown(key_of(gateway), found.fronts, found.backends), found.left_out
            self._shown[name] = after, left
        if was_left != left:
            judged.update((*was_left, *left))
        return self._tables.replace(before, after)

    def _left_out(self, service: str) -> Mapping[Key, RouteVerdict]:
        return self._shown[service][1] if service in self._shown else _NONE

    def _show_pod(self, uid: str) -> None:
        before, after = self._pods.shown.pop(uid, None), None
        workload, backends = self._pods.get(uid), list[Backend]()
        gateway = None if workload is None else self._gateway_of(workload)
        if gateway is not None:
            targets = targets_of(gateway, self._settings)
            after, backends = self._pods.make(
                uid, key_of(gateway), lambda layer: self._policies.of(targets, layer)
            )
            self._pods.shown[uid] = after
        self._tables.replace(before, after)
        for each in backends:
            self._tables.put_backend(each)

    def _show_backend(self, name: str) -> None:
        if not self._tables.is_needed(name):
            return
        place, _, number = name.rpartition(":")
        service = self._services[service_key(Key("Service", *place.split("/")), self._settings)]
        port = next(each for each in service.ports if each.service_port == int(number))
        self._tables.put_backend(self._members.backend(service, port))

    def _gateway_of(self, owner: Service | Workload) -> Gateway | None:
        """The waypoint that a service or a pod names, if it is there and lets that use it."""
        key = waypoint_of(owner.waypoint, self._settings)
        gateway = None if key is None else self._gateways.get(key)
        if gateway is None:
            return None
        labels = self._spaces.get(owner.namespace, {})
        return gateway if allows(gateway, owner.namespace, labels) else None

    def take_delta(self) -> dict[WaypointKey, WaypointDelta]:
        """Differences since this was asked last, by waypoint."""
        return self._tables.take_delta()

    @property
    def waypoints(self) -> dict[WaypointKey, Waypoint]:
        """All of them, whole."""
        return self._tables.waypoints()

    @property
    def statuses(self) -> tuple[RouteStatus, ...]:
        found = self._attachments.statuses
        return tuple(each for key in sorted(found) for each in found[key])

    @property
    def policy_statuses(self) -> dict[Key, PolicyStatus]:
        """Those of policies that have targets."""
        return self._policies.statuses(self._is_served)

    @property
    def notes(self) -> tuple[Problem, ...]:
        """Notes on all of these."""
        found = self.policy_statuses
        return tuple(notes_of((found[key] for key in sorted(found)), self.statuses))

    def _is_served(self, target: Target) -> bool:
        kind, namespace, name = target
        if kind == "Service":
            return service_key(Key(kind, namespace, name), self._settings) in self._shown
        if kind == "Gateway":
            return WaypointKey(namespace, name) in self._gateways
        return any(each.class_name == name for each in self._gateways.values())

    def keys(self) -> Iterator[Key]:
        """Objects that mean something here and nothing to a mesh."""
        return self._attachments.keys()
