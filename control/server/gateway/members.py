"""Workloads by the services that they answer for, and the backends made of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from control.model.route import Backend, BackendEndpoint, Spoken
from control.model.workload import (
    AppProtocol,
    HealthPolicy,
    Port,
    Service,
    TunnelProtocol,
    Workload,
    WorkloadStatus,
)
from control.server.gateway.names import port_name

ENDPOINTS_MAX = 10_000  # in one backend; the first by name

SPOKEN = {
    AppProtocol.HTTP11: Spoken.HTTP1,
    AppProtocol.HTTP2: Spoken.HTTP2,
    AppProtocol.GRPC: Spoken.HTTP2,
    AppProtocol.TCP: Spoken.TCP,
    AppProtocol.TLS: Spoken.TCP,
    AppProtocol.UNKNOWN: Spoken.ANY,
}


class Members:
    def __init__(self) -> None:
        self._of: dict[str, dict[str, Workload]] = {}  # service → uid → workload
        self._services: dict[str, tuple[str, ...]] = {}  # by uid

    def put(self, uid: str, value: Workload | None) -> Iterator[str]:
        """The services whose members have changed."""
        before = self._services.pop(uid, ())
        after = () if value is None else tuple(value.services)
        for name in before:
            if name not in after:
                del self._of[name][uid]
                if not self._of[name]:
                    del self._of[name]
                yield name
        if value is None or not after:
            return
        self._services[uid] = after
        for name in after:
            self._of.setdefault(name, {})[uid] = value
            yield name

    def backend(self, service: Service, port: Port) -> Backend:
        """All endpoints of one port of a service."""
        workloads = [each for _, each in sorted(self._of.get(service.key, {}).items())]
        found = (_endpoint(each, service, port) for each in _serving(workloads, service))
        endpoints = tuple(each for each in found if each is not None)
        return Backend(
            name=port_name(service, port.service_port),
            service=service.key,
            spoken=SPOKEN[port.app_protocol],
            endpoints=endpoints[:ENDPOINTS_MAX],
        )


def _serving(workloads: list[Workload], service: Service) -> list[Workload]:
    """Those that answer, as a ztunnel would choose."""
    wish = service.load_balancing
    if wish is not None and wish.health_policy is HealthPolicy.ALLOW_ALL:
        return workloads
    healthy = [each for each in workloads if each.status is WorkloadStatus.HEALTHY]
    return healthy or [each for each in workloads if each.last_resort]


def _endpoint(workload: Workload, service: Service, port: Port) -> BackendEndpoint | None:
    for each in workload.services.get(service.key, ()):
        if each.service_port == port.service_port:
            return endpoint_of(workload, each.target_port)
    return None


def endpoint_of(workload: Workload, port: int) -> BackendEndpoint | None:
    """The pod's first address: the waypoint is the client, whatever family its own client has."""
    if not port or not workload.addresses:
        return None
    is_tunnelled = workload.tunnel_protocol is TunnelProtocol.HBONE
    return BackendEndpoint(
        address=workload.addresses[0],
        port=port,
        identity=workload.identity if is_tunnelled else None,
        locality=workload.locality,
        weight=max(1, workload.capacity),
    )
