"""Names of fronts and backends, and the waypoint that a service names. Pure."""

from __future__ import annotations

from control.model.route import WaypointKey
from control.model.workload import GatewayAddress, NamespacedHostname, Service
from control.server.compile.services import service_key
from control.server.compile.settings import Settings
from control.server.sources.objects import Key


def port_name(service: Service, port: int) -> str:
    """Name of one port of a service, as a front and as a backend."""
    return f"{service.namespace}/{service.name}:{port}"


def service_name(namespace: str, name: str, settings: Settings) -> str:
    """Name of a service on the wire."""
    return service_key(Key("Service", namespace, name), settings)


def pod_port_name(namespace: str, pod: str, port: int) -> str:
    """Name of one port of a pod; no service has a name with a dot in it."""
    return f"{namespace}/{pod}.pod:{port}"


def waypoint_of(address: GatewayAddress | None, settings: Settings) -> WaypointKey | None:
    """Read back from the address that clients of a service or a workload are told."""
    if address is None:
        return None
    destination = address.destination
    assert isinstance(destination, NamespacedHostname)  # all that `compile` makes
    tail = f".{destination.namespace}.svc.{settings.domain_suffix}"
    return WaypointKey(destination.namespace, destination.hostname.removesuffix(tail))
