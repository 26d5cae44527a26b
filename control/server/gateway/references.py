"""Backends that routes name: whether they are there, and may be named. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control.model.workload import Service
from control.server.compile.settings import Settings
from control.server.gateway.grants import Grants
from control.server.gateway.names import port_name, service_name
from control.server.gateway.parents import is_service
from control.server.gateway.statuses import RESOLVED, RouteVerdict
from control.server.sources.objects import Key
from control.server.sources.route_specs import GATEWAY_GROUP, BackendRef

INVALID_KIND = "InvalidKind"
NOT_PERMITTED = "RefNotPermitted"
NOT_FOUND = "BackendNotFound"
UNSUPPORTED_FILTER = "UnsupportedValue"


@dataclass(frozen=True, slots=True)
class Resolved:
    """`backend` is empty for one that cannot be had."""

    backend: str
    verdict: RouteVerdict = RESOLVED


@dataclass(frozen=True, slots=True)
class References:
    """`services` are those of the mesh, by name on the wire."""

    settings: Settings
    services: Mapping[str, Service]
    grants: Grants

    def resolve(self, route: Key, found: BackendRef) -> Resolved:
        """The backend that a route means."""
        ref = found.ref
        name = f"{ref.namespace}/{ref.name}"
        if not is_service(ref):
            return _refused(INVALID_KIND, f"a backend is a Service, not a {ref.kind} ({name})")
        if not self.grants.allow(route, GATEWAY_GROUP, ref):
            return _refused(NOT_PERMITTED, f"no ReferenceGrant lets the route name service {name}")
        service = self.services.get(service_name(ref.namespace, ref.name, self.settings))
        if service is None:
            return _refused(NOT_FOUND, f"there is no service {name}")
        if all(each.service_port != found.port for each in service.ports):
            return _refused(NOT_FOUND, f"service {name} has no port {found.port}")
        if found.refusal:
            return _refused(UNSUPPORTED_FILTER, f"backend {name}: {found.refusal}")
        return Resolved(port_name(service, found.port))


def _refused(reason: str, message: str) -> Resolved:
    return Resolved("", RouteVerdict(False, reason, message))
