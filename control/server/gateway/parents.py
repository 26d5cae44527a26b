"""Ports of services that a route is attached to. Pure."""

from __future__ import annotations

from control.model.workload import AppProtocol, Port, Service
from control.server.gateway.statuses import TAKEN, RouteVerdict
from control.server.sources.objects import RouteObject, ServiceObject
from control.server.sources.route_specs import ParentRef, TargetRef
from control.server.sources.tcp_routes import TCP_ROUTE

NO_PARENT = "NoMatchingParent"
UNSUPPORTED = "UnsupportedValue"
PENDING = "Pending"
TOO_MANY = "TooManyMatches"
CONFLICTED = "Conflicted"

# A port that is said to be one of these has no HTTP to be read; one that is said to be HTTP is no
# TCPRoute's.
_NO_HTTP = frozenset({AppProtocol.TCP, AppProtocol.TLS})
HTTP_PROTOCOLS = frozenset({AppProtocol.HTTP11, AppProtocol.HTTP2, AppProtocol.GRPC})


def is_service(ref: TargetRef) -> bool:
    return ref.group in ("", "core") and ref.kind == "Service"


def attached_ports(
    route: RouteObject,
    parent: ParentRef,
    service: Service | None,
    source: ServiceObject | None,
    is_behind: bool,
) -> tuple[tuple[Port, ...], RouteVerdict]:
    """Ports of the service that the route is for; none, and why. `source` has their names.
    `is_behind`: a waypoint stands before it."""
    name = f"{parent.ref.namespace}/{parent.ref.name}"
    if service is None or source is None:
        return (), RouteVerdict(False, NO_PARENT, f"there is no service {name}")
    if route.meta.namespace != parent.ref.namespace:
        return (), RouteVerdict(
            False,
            UNSUPPORTED,
            f"a route for the clients of one namespace (service {name} is in another one)"
            " is not supported",
        )
    ports = [each for each in service.ports if _is_meant(each, parent, source)]
    if not ports:
        return (), RouteVerdict(False, NO_PARENT, f"service {name} has no such port")
    is_tcp = route.meta.key.kind == TCP_ROUTE
    closed = HTTP_PROTOCOLS if is_tcp else _NO_HTTP
    ports = [each for each in ports if each.app_protocol not in closed]
    if not ports:
        words = "HTTP" if is_tcp else "not HTTP"
        return (), RouteVerdict(False, NO_PARENT, f"service {name} says that the port is {words}")
    if not is_behind:
        return (), RouteVerdict(False, PENDING, f"no waypoint stands before service {name}")
    return tuple(ports), TAKEN


def _is_meant(port: Port, parent: ParentRef, source: ServiceObject) -> bool:
    if parent.port and parent.port != port.service_port:
        return False
    if not parent.section:
        return True
    return any(
        each.name == parent.section and each.port == port.service_port and each.protocol == "TCP"
        for each in source.ports
    )
