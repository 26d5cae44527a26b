"""Pods that a waypoint stands before, whoever dials them: each of their ports is a front. Pure.

Ports are those that a pod's containers declare, and those that services lead to. Another port has
no front: the waypoint refuses it, as it does whatever it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from control.model.http_policy import HttpPolicy
from control.model.route import Backend, Front, Layer, WaypointKey
from control.model.workload import AppProtocol, Workload
from control.server.compile.services import protocol_by_name
from control.server.compile.settings import Settings
from control.server.compile.workloads import workload_uid
from control.server.gateway.fronts import layer_of
from control.server.gateway.members import SPOKEN, endpoint_of
from control.server.gateway.names import pod_port_name, waypoint_of
from control.server.gateway.tables import Shown
from control.server.sources.objects import ContainerPort, Key, PodObject

PORTS_MAX: Final = 256  # on one pod; the lowest


class PodFronts:
    """Pods by the uids of their workloads."""

    def __init__(self, settings: Settings) -> None:
        self.shown: dict[str, Shown] = {}
        self._settings = settings
        self._declared: dict[Key, tuple[ContainerPort, ...]] = {}
        self._found: dict[str, Workload] = {}  # those that name a waypoint
        self._behind: dict[WaypointKey, set[str]] = {}

    def put_pod(self, key: Key, value: PodObject | None) -> str:
        """Its uid, if it has a front."""
        self._declared.pop(key, None)
        if value is not None and value.ports:
            self._declared[key] = value.ports
        if not self._found:
            return ""  # nearly always
        uid = workload_uid(key, self._settings)
        return uid if uid in self._found else ""

    def put_workload(self, uid: str, value: Workload | None) -> bool:
        """True if its fronts may be others than before."""
        before = self._found.pop(uid, None)
        if value is not None and value.waypoint is not None:
            self._found[uid] = value
        was, now = (self.waypoint(each) for each in (before, self._found.get(uid)))
        if was is not None and was != now:
            self._behind[was].discard(uid)
            if not self._behind[was]:
                del self._behind[was]
        if now is not None:
            self._behind.setdefault(now, set()).add(uid)
        return was is not None or now is not None

    def waypoint(self, workload: Workload | None) -> WaypointKey | None:
        return None if workload is None else waypoint_of(workload.waypoint, self._settings)

    def get(self, uid: str) -> Workload | None:
        return self._found.get(uid)

    def behind(self, waypoint: WaypointKey) -> Iterable[str]:
        return self._behind.get(waypoint, ())

    def waypoints(self) -> Iterable[WaypointKey]:
        """Those that some pod names."""
        return self._behind.keys()

    def make(
        self, uid: str, waypoint: WaypointKey, policies: Callable[[Layer], tuple[HttpPolicy, ...]]
    ) -> tuple[Shown, list[Backend]]:
        """Fronts of a pod, and its backends: itself."""
        workload = self._found[uid]
        fronts: dict[str, Front] = {}
        backends = []
        for port, protocol in self._ports(workload):
            name = pod_port_name(workload.namespace, workload.name, port)
            endpoint, layer = endpoint_of(workload, port), layer_of(protocol)
            if endpoint is not None:
                backends.append(Backend(name, "", SPOKEN[protocol], (endpoint,)))
                fronts[name] = Front(
                    name=name,
                    service="",
                    hostname="",
                    addresses=workload.addresses,
                    port=port,
                    layer=layer,
                    backend=name,
                    policies=policies(layer),
                )
        return Shown(waypoint, fronts, frozenset(fronts)), backends

    def _ports(self, workload: Workload) -> Iterator[tuple[int, AppProtocol]]:
        found = {
            each.target_port: AppProtocol.UNKNOWN
            for ports in workload.services.values()
            for each in ports
        }
        found |= {
            each.port: protocol_by_name(each.name, each.port)
            for each in self._declared.get(Key("Pod", workload.namespace, workload.name), ())
            if each.protocol == "TCP"
        }
        return islice(sorted(found.items(), key=lambda each: each[0]), PORTS_MAX)
