"""Model values ↔ protobuf messages. Total and checked: WireError for anything not understood.

Defaults that the wire leaves out are filled in here and left out again on the way back, so that a
message made from a value equals what Istio's control plane would send.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from types import MappingProxyType
from typing import TypeVar, cast

from control.kit.errors import WireError
from control.model import workload as model
from control.model.address import Address, canonical
from control.model.workload import (
    DEFAULT_CLUSTER,
    DEFAULT_SERVICE_ACCOUNT,
    DEFAULT_TRUST_DOMAIN,
    GatewayAddress,
    LoadBalancing,
    NamespacedHostname,
    NetworkAddress,
    Port,
    Service,
    WeightedWaypoint,
    Workload,
)
from control.wire import extensions
from control.wire import workload_pb2 as pb


class UnknownTunnelProtocol(WireError):
    reason = "unknown_tunnel_protocol"


def address_from_wire(packed: bytes) -> Address:
    try:
        return canonical(packed)
    except ValueError as exc:
        raise WireError(str(exc)) from exc


def workload_from_wire(message: pb.Workload) -> Workload:
    if not message.uid:
        raise WireError("a workload without uid")
    if message.tunnel_protocol not in (pb.NONE, pb.HBONE):
        raise UnknownTunnelProtocol(f"tunnel protocol {message.tunnel_protocol} of {message.uid}")
    last_resort, endpoint_node = extensions.read_workload(message.extensions)
    return Workload(
        uid=message.uid,
        name=message.name,
        namespace=message.namespace,
        addresses=tuple(address_from_wire(each) for each in message.addresses),
        hostname=message.hostname,
        network=message.network,
        tunnel_protocol=model.TunnelProtocol(message.tunnel_protocol),
        trust_domain=message.trust_domain or DEFAULT_TRUST_DOMAIN,
        service_account=message.service_account or DEFAULT_SERVICE_ACCOUNT,
        waypoint=_gateway(message, "waypoint"),
        network_gateway=_gateway(message, "network_gateway"),
        node=message.node,
        canonical_name=message.canonical_name,
        canonical_revision=message.canonical_revision,
        workload_type=_known(model.WorkloadType, message.workload_type),
        workload_name=message.workload_name,
        native_tunnel=message.native_tunnel,
        application_tunnel=_application_tunnel(message),
        authorization_policies=tuple(message.authorization_policies),
        status=_known(model.WorkloadStatus, message.status),
        cluster_id=message.cluster_id or DEFAULT_CLUSTER,
        services=MappingProxyType(
            {key: _ports_from_wire(value.ports) for key, value in message.services.items()}
        ),
        locality=model.Locality(
            message.locality.region, message.locality.zone, message.locality.subzone
        ),
        network_mode=_known(model.NetworkMode, message.network_mode),
        capacity=message.capacity.value if message.HasField("capacity") else 1,
        last_resort=last_resort,
        endpoint_node=endpoint_node,
    )


def workload_to_wire(value: Workload) -> pb.Workload:
    message = pb.Workload(
        uid=value.uid,
        name=value.name,
        namespace=value.namespace,
        addresses=value.addresses,
        hostname=value.hostname,
        network=value.network,
        tunnel_protocol=value.tunnel_protocol.name,
        trust_domain=_elide(value.trust_domain, DEFAULT_TRUST_DOMAIN),
        service_account=value.service_account,
        waypoint=_gateway_to_wire(value.waypoint),
        network_gateway=_gateway_to_wire(value.network_gateway),
        node=value.node,
        canonical_name=value.canonical_name,
        canonical_revision=value.canonical_revision,
        workload_type=value.workload_type.name,
        workload_name=value.workload_name,
        native_tunnel=value.native_tunnel,
        authorization_policies=value.authorization_policies,
        status=value.status.name,
        cluster_id=value.cluster_id,
        services={key: _ports_to_wire(ports) for key, ports in value.services.items()},
        network_mode=value.network_mode.name,
        extensions=extensions.workload_extensions(value.last_resort, value.endpoint_node),
    )
    if value.application_tunnel is not None:
        message.application_tunnel.protocol = (
            pb.ApplicationTunnel.PROXY
            if value.application_tunnel.proxy
            else pb.ApplicationTunnel.NONE
        )
        message.application_tunnel.port = value.application_tunnel.port
    if value.locality != model.Locality():
        message.locality.region = value.locality.region
        message.locality.zone = value.locality.zone
        message.locality.subzone = value.locality.subzone
    if value.capacity != 1:
        message.capacity.value = value.capacity
    return message


def service_from_wire(message: pb.Service) -> Service:
    if not message.namespace or not message.hostname:
        raise WireError(f"a service without namespace or hostname: {message.name!r}")
    outer_addresses, affinity_s = extensions.read_service(message.extensions)
    return Service(
        name=message.name,
        namespace=message.namespace,
        hostname=message.hostname,
        addresses=tuple(_network_address(each) for each in message.addresses),
        ports=_ports_from_wire(message.ports),
        subject_alt_names=tuple(message.subject_alt_names),
        waypoint=_gateway(message, "waypoint"),
        weighted_waypoints=tuple(
            WeightedWaypoint(gateway_from_wire(each.destination), each.weight)
            for each in message.weighted_waypoints
        ),
        load_balancing=_load_balancing(message),
        ip_families=_known(model.IpFamilies, message.ip_families),
        canonical=message.canonical,
        ingress_use_waypoint=message.ingress_use_waypoint,
        visibility=_known(model.Visibility, message.visibility),
        outer_addresses=outer_addresses,
        affinity_s=affinity_s,
    )


def service_to_wire(value: Service) -> pb.Service:
    message = pb.Service(
        name=value.name,
        namespace=value.namespace,
        hostname=value.hostname,
        addresses=[_network_address_to_wire(each) for each in value.addresses],
        ports=_ports_to_wire(value.ports).ports,
        subject_alt_names=value.subject_alt_names,
        waypoint=_gateway_to_wire(value.waypoint),
        weighted_waypoints=[
            pb.WeightedWaypoint(destination=_gateway_to_wire(each.destination), weight=each.weight)
            for each in value.weighted_waypoints
        ],
        ip_families=value.ip_families.name,
        canonical=value.canonical,
        ingress_use_waypoint=value.ingress_use_waypoint,
        visibility=value.visibility.name,
        extensions=extensions.service_extensions(value.outer_addresses, value.affinity_s),
    )
    if (balancing := value.load_balancing) is not None:
        message.load_balancing.routing_preference.extend(
            cast("pb.LoadBalancing.Scope", each.value) for each in balancing.routing_preference
        )
        message.load_balancing.mode = cast("pb.LoadBalancing.Mode", balancing.mode.value)
        health = cast("pb.LoadBalancing.HealthPolicy", balancing.health_policy.value)
        message.load_balancing.health_policy = health
    return message


def resource_from_wire(message: pb.Address) -> Workload | Service:
    """Raises WireError when the message holds neither."""
    match message.WhichOneof("type"):
        case "workload":
            return workload_from_wire(message.workload)
        case "service":
            return service_from_wire(message.service)
        case _:
            raise WireError("an address that is neither workload nor service")


def resource_to_wire(value: Workload | Service) -> pb.Address:
    if isinstance(value, Workload):
        return pb.Address(workload=workload_to_wire(value))
    return pb.Address(service=service_to_wire(value))


def gateway_from_wire(message: pb.GatewayAddress) -> GatewayAddress:
    match message.WhichOneof("destination"):
        case "hostname":
            name = NamespacedHostname(message.hostname.namespace, message.hostname.hostname)
            return GatewayAddress(name, message.hbone_mtls_port)
        case "address":
            return GatewayAddress(_network_address(message.address), message.hbone_mtls_port)
        case _:
            raise WireError("a gateway without destination")


def _gateway(message: pb.Workload | pb.Service, name: str) -> GatewayAddress | None:
    return gateway_from_wire(getattr(message, name)) if message.HasField(name) else None


def _gateway_to_wire(value: GatewayAddress | None) -> pb.GatewayAddress | None:
    if value is None:
        return None
    port = value.hbone_port
    if isinstance(value.destination, NamespacedHostname):
        name = pb.NamespacedHostname(
            namespace=value.destination.namespace, hostname=value.destination.hostname
        )
        return pb.GatewayAddress(hostname=name, hbone_mtls_port=port)
    address = _network_address_to_wire(value.destination)
    return pb.GatewayAddress(address=address, hbone_mtls_port=port)


def _application_tunnel(message: pb.Workload) -> model.ApplicationTunnel | None:
    if not message.HasField("application_tunnel"):
        return None
    tunnel = message.application_tunnel
    return model.ApplicationTunnel(tunnel.protocol == pb.ApplicationTunnel.PROXY, tunnel.port)


def _load_balancing(message: pb.Service) -> LoadBalancing | None:
    if not message.HasField("load_balancing"):
        return None
    balancing = message.load_balancing
    return LoadBalancing(
        tuple(_known(model.Scope, each) for each in balancing.routing_preference),
        _known(model.BalancingMode, balancing.mode),
        _known(model.HealthPolicy, balancing.health_policy),
    )


def _network_address(message: pb.NetworkAddress) -> NetworkAddress:
    length = message.length if message.HasField("length") else None
    address = address_from_wire(message.address)
    if length is not None and length > 8 * len(address):
        raise WireError(f"prefix length {length} of a VIP")
    return NetworkAddress(message.network, address, length)


def _network_address_to_wire(value: NetworkAddress) -> pb.NetworkAddress:
    return pb.NetworkAddress(network=value.network, address=value.address, length=value.length)


def _ports_from_wire(messages: Iterable[pb.Port]) -> tuple[Port, ...]:
    return tuple(
        Port(_port(each.service_port), _port(each.target_port), _protocol(each))
        for each in messages
    )


def _protocol(message: pb.Port) -> model.AppProtocol:
    return _known(model.AppProtocol, message.app_protocol)


def _port(number: int) -> int:
    if number > 65535:
        raise WireError(f"port {number} out of range")
    return number


def _ports_to_wire(ports: Iterable[Port]) -> pb.PortList:
    return pb.PortList(
        ports=[
            pb.Port(
                service_port=each.service_port,
                target_port=each.target_port,
                app_protocol=each.app_protocol.name,
            )
            for each in ports
        ]
    )


def _elide(value: str, default: str) -> str:
    return "" if value == default else value


_AnyEnum = TypeVar("_AnyEnum", bound=Enum)


def _known(kind: type[_AnyEnum], number: int) -> _AnyEnum:
    """An unknown value, from a newer peer, reads as the first, which is the default."""
    try:
        return kind(number)
    except ValueError:
        return kind(0)
