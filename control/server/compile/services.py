"""Kubernetes services → services of the mesh, and the ports that one pod gives to one service."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from control.model.address import Address
from control.model.workload import (
    AppProtocol,
    BalancingMode,
    GatewayAddress,
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    NetworkAddress,
    OuterAddress,
    Port,
    Scope,
    Service,
)
from control.server.compile.holdings import Holdings
from control.server.compile.settings import Settings
from control.server.sources import objects

_PROTOCOLS = {
    "http": AppProtocol.HTTP11,
    "http2": AppProtocol.HTTP2,
    "grpc": AppProtocol.GRPC,
    "grpc-web": AppProtocol.GRPC,
    "tcp": AppProtocol.TCP,
    "tls": AppProtocol.TLS,
    "https": AppProtocol.TLS,
    "kubernetes.io/h2c": AppProtocol.HTTP2,
    "kubernetes.io/ws": AppProtocol.HTTP11,
    "kubernetes.io/wss": AppProtocol.TLS,
}
# Servers that speak first, so nobody may sniff: SMTP, DNS over TCP, MySQL, MongoDB.
_PLAIN_TCP_PORTS = frozenset({25, 53, 3306, 27017})
_NEAR = (Scope.NETWORK, Scope.REGION, Scope.ZONE)
_PREFERENCES = {
    "PreferClose": _NEAR,
    "PreferSameZone": _NEAR,
    "PreferSameNode": (*_NEAR, Scope.SUBZONE, Scope.NODE),
}


def is_in_mesh(service: objects.ServiceObject) -> bool:
    """An ExternalName is an alias in DNS: there is nothing to balance or to protect."""
    return service.type != "ExternalName"


def hostname(name: str, namespace: str, settings: Settings) -> str:
    return f"{name}.{namespace}.svc.{settings.domain_suffix}"


def service_key(key: objects.Key, settings: Settings) -> str:
    """Name of a service on the wire."""
    return f"{key.namespace}/{hostname(key.name, key.namespace, settings)}"


def compile_service(
    service: objects.ServiceObject,
    settings: Settings,
    holdings: Holdings,
    left_to_endpoints: Collection[int] = (),
    waypoint: GatewayAddress | None = None,
) -> Service:
    """`left_to_endpoints` are ports that only some of the service's endpoints have."""
    meta = service.meta
    return Service(
        name=meta.name,
        namespace=meta.namespace,
        hostname=hostname(meta.name, meta.namespace, settings),
        addresses=tuple(
            NetworkAddress(settings.network, each)
            for each in service.addresses
            if holdings.has(meta.key, each)
        ),
        ports=tuple(
            Port(each.port, _target(each, left_to_endpoints), _protocol(each))
            for each in _ports(service)
        ),
        waypoint=waypoint,
        load_balancing=_load_balancing(service),
        ip_families=_ip_families(service.ip_families),
        canonical=True,
        outer_addresses=_outer_addresses(service, settings, holdings),
        affinity_s=service.affinity_s,
    )


def _outer_addresses(
    service: objects.ServiceObject, settings: Settings, holdings: Holdings
) -> tuple[OuterAddress, ...]:
    found: dict[Address, tuple[int, ...]] = {
        each: holdings.ports_of(service.meta.key, each)
        for each in (*service.balancer_addresses, *service.external_addresses)
    }
    return tuple(
        OuterAddress(settings.network, address, ports) for address, ports in found.items() if ports
    )


def _ports(service: objects.ServiceObject) -> Sequence[objects.ServicePort]:
    """The service's ports; of one number that TCP and UDP share, only TCP's: that is what a
    connection means."""
    if all(each.protocol == "TCP" for each in service.ports):
        return service.ports
    tcp = {each.port for each in service.ports if each.protocol == "TCP"}
    return [each for each in service.ports if each.protocol == "TCP" or each.port not in tcp]


def _target(port: objects.ServicePort, left_to_endpoints: Collection[int]) -> int:
    if isinstance(port.target, int) and port.port not in left_to_endpoints:
        return port.target
    return 0


def pod_ports(service: objects.ServiceObject, pod: objects.PodObject) -> tuple[Port, ...]:
    """The service's ports on this pod; a named one that the pod does not have is left out."""
    found = []
    for each in _ports(service):
        number = each.target if isinstance(each.target, int) else _named(each, pod)
        if number:
            found.append(Port(each.port, number))
    return tuple(found)


def _named(port: objects.ServicePort, pod: objects.PodObject) -> int:
    for each in pod.ports:
        if each.name == port.target and each.protocol == port.protocol:
            return each.port
    return 0


def slice_ports(
    service: objects.ServiceObject, endpoint_slice: objects.EndpointSlice
) -> tuple[Port, ...]:
    """The service's ports as an EndpointSlice gives them: matched by name."""
    found = []
    for each in service.ports:
        if each.protocol != "TCP":
            continue
        number = endpoint_slice.ports.get(each.name)
        if number is not None:
            found.append(Port(each.port, number))
    return tuple(found)


def _protocol(port: objects.ServicePort) -> AppProtocol:
    if port.protocol != "TCP":
        return AppProtocol.UNKNOWN
    if port.app_protocol:
        return _PROTOCOLS.get(port.app_protocol.lower(), AppProtocol.UNKNOWN)
    return protocol_by_name(port.name, port.port)


def protocol_by_name(name: str, number: int) -> AppProtocol:
    """Protocol of a port that says it by its name alone."""
    name = name.lower()
    if name.startswith("grpc-web"):
        return AppProtocol.GRPC
    found = _PROTOCOLS.get(name.partition("-")[0], AppProtocol.UNKNOWN)
    if found is AppProtocol.UNKNOWN and number in _PLAIN_TCP_PORTS:
        return AppProtocol.TCP
    return found


def _load_balancing(service: objects.ServiceObject) -> LoadBalancing | None:
    health = HealthPolicy.ALLOW_ALL if service.publish_not_ready else HealthPolicy.ONLY_HEALTHY
    if service.internal_traffic_policy == "Local":
        return LoadBalancing((Scope.NODE,), BalancingMode.STRICT, health)
    wish = service.traffic_distribution
    if wish in _PREFERENCES:
        return LoadBalancing(_PREFERENCES[wish], BalancingMode.FAILOVER, health)
    if service.publish_not_ready:
        return LoadBalancing(health_policy=health)
    return None


def _ip_families(families: tuple[str, ...]) -> IpFamilies:
    match families:
        case ("IPv4",):
            return IpFamilies.IPV4_ONLY
        case ("IPv6",):
            return IpFamilies.IPV6_ONLY
        case (_, _):
            return IpFamilies.DUAL
        case _:
            return IpFamilies.AUTOMATIC
