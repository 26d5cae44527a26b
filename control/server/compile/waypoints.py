"""Services and pods that a waypoint stands before. Pure.

Labels ask for one: a service's or a pod's own, else the namespace's. A name that no waypoint has
stays asked for, so that callers are refused and nothing passes without the policies of layer 7.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from control.model.route import WaypointKey
from control.model.workload import HBONE_PORT, GatewayAddress, NamespacedHostname
from control.server.compile.services import hostname
from control.server.compile.settings import Settings
from control.server.compile.waypoint_labels import (
    SWITCHED_OFF,
    USE_LABEL,
    allows,
    is_for_services,
    is_for_workloads,
    is_waypoint,
    wish_of,
)
from control.server.sources.objects import Gateway, Key, Labels, Meta, ServiceObject
from control.server.sources.problem import Problem

WAYPOINT_MISSING = "waypoint_missing"
WAYPOINT_UNUSED = "waypoint_unused"


class Waypoints:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._gateways: dict[WaypointKey, Gateway] = {}  # those that are waypoints
        self._spaces: dict[str, Meta] = {}
        self._services: dict[str, dict[Key, ServiceObject]] = {}  # by namespace
        self._askers: dict[WaypointKey, set[Key]] = {}  # namespaces and services

    # News; the owners whose waypoint may be another one by now

    def put_gateway(self, key: Key, value: Gateway | None) -> Collection[Key]:
        place = WaypointKey(key.namespace, key.name)
        before = self._gateways.pop(place, None)
        if value is not None and is_waypoint(value):
            self._gateways[place] = value
        if before == self._gateways.get(place):
            return ()
        return {*self._askers.get(place, ()), Key("Service", key.namespace, key.name)}

    def put_namespace(self, key: Key, meta: Meta | None) -> Collection[Key]:
        before = self._spaces.pop(key.name, None)
        if meta is not None:
            self._spaces[key.name] = meta
        labels = [None if each is None else each.labels for each in (before, meta)]
        if labels[0] == labels[1]:
            return ()
        self._ask(key, before, meta)
        return (key,)

    def put_service(self, key: Key, value: ServiceObject | None) -> None:
        services = self._services.setdefault(key.namespace, {})
        before = services.pop(key, None)
        if value is not None:
            services[key] = value
        elif not services:
            del self._services[key.namespace]
        metas = [None if each is None else each.meta for each in (before, value)]
        self._ask(key, *metas)

    def _ask(self, key: Key, before: Meta | None, after: Meta | None) -> None:
        space = key.namespace or key.name
        was = None if before is None else wish_of(before.labels, space)
        now = None if after is None else wish_of(after.labels, space)
        if was == now:
            return
        if was is not None:
            self._askers[was].discard(key)
            if not self._askers[was]:
                del self._askers[was]
        if now is not None:
            self._askers.setdefault(now, set()).add(key)

    # Answers

    def keys(self) -> Iterator[Key]:
        """Gateways that are waypoints."""
        return (Key("Gateway", *each) for each in self._gateways)

    def services_in(self, namespace: str) -> Collection[Key]:
        return list(self._services.get(namespace, ()))

    def of_service(self, key: Key) -> WaypointKey | None:
        """None for a service that is a waypoint's own, or has no address of its own: clients dial
        the pods of that one, and no service is in between."""
        service = self._services.get(key.namespace, {}).get(key)
        if service is None or not service.addresses or self._settings.release_all:
            return None
        if WaypointKey(key.namespace, key.name) in self._gateways:
            return None
        wish = self._wish(service.meta.labels, key.namespace)
        gateway = None if wish is None else self._gateways.get(wish)
        return None if gateway is not None and not is_for_services(gateway) else wish

    def of_workload(self, namespace: str, labels: Labels) -> WaypointKey | None:
        """Only one that is for workloads; a name that nobody has may be meant for services."""
        if not self._gateways or self._settings.release_all:
            return None
        wish = self._wish(labels, namespace)
        gateway = None if wish is None else self._gateways.get(wish)
        return wish if gateway is not None and is_for_workloads(gateway) else None

    def _wish(self, labels: Labels, namespace: str) -> WaypointKey | None:
        wish = wish_of(labels, namespace)
        if wish is None and namespace in self._spaces:
            wish = wish_of(self._spaces[namespace].labels, namespace)
        return None if wish == SWITCHED_OFF else wish

    def address(self, key: WaypointKey | None) -> GatewayAddress | None:
        if key is None:
            return None
        name = hostname(key.name, key.namespace, self._settings)
        return GatewayAddress(NamespacedHostname(key.namespace, name), HBONE_PORT)

    def notes(self, key: Key) -> list[Problem]:
        """Notes on the labels of a namespace or a service."""
        space = key.namespace or key.name
        service = self._services.get(space, {}).get(key) if key.namespace else None
        meta = self._spaces.get(space) if service is None else service.meta
        if meta is None or meta.key != key:
            return []
        wish = wish_of(meta.labels, space)
        if wish in (None, SWITCHED_OFF) or self._settings.release_all:
            return []
        return [
            Problem(meta.file, meta.line, str(key), reason, f"label {USE_LABEL}: {said}")
            for reason, said in self._complaints(wish, space, service)
        ]

    def _complaints(
        self, wish: WaypointKey | None, space: str, service: ServiceObject | None
    ) -> Iterator[tuple[str, str]]:
        gateway = None if wish is None else self._gateways.get(wish)
        if gateway is None:
            yield WAYPOINT_MISSING, f"there is no waypoint {wish}: callers are refused"
            return
        spaces = self._spaces.get(space)
        if not allows(gateway, space, {} if spaces is None else spaces.labels):
            said = f"waypoint {wish} does not allow namespace {space}: callers are refused"
            yield WAYPOINT_MISSING, said
        if service is not None and not is_for_services(gateway):
            yield WAYPOINT_UNUSED, f"waypoint {wish} is not for services: it is not used"
        elif service is not None and not service.addresses:
            said = "a service without an address is not behind a waypoint: clients dial its pods"
            yield WAYPOINT_UNUSED, said
