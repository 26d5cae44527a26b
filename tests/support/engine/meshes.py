"""Small meshes for the tests of the pure parts: workloads, services and policies by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from control.model.address import Address, parse_address
from control.model.identity import SpiffeId
from control.model.policy import Policy
from control.model.workload import (
    NetworkAddress,
    Port,
    Service,
    TunnelProtocol,
    Workload,
)
from control.wire.convert import resource_to_wire
from control.wire.convert_policy import policy_to_wire
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.state import State


def at(text: str) -> Address:
    return parse_address(text)


def pod(
    name: str, *addresses: str, services: Mapping[str, Any] | None = None, **fields: Any
) -> Workload:
    """An HBONE pod `name` in namespace `shop` unless `fields` say otherwise."""
    base = Workload(
        uid=f"Kubernetes//Pod/{fields.get('namespace', 'shop')}/{name}",
        name=name,
        namespace="shop",
        addresses=tuple(at(each) for each in addresses),
        tunnel_protocol=TunnelProtocol.HBONE,
        service_account=name,
        services={key: tuple(ports) for key, ports in (services or {}).items()},
    )
    return replace(base, **fields)


def vip(text: str, network: str = "") -> NetworkAddress:
    head, slash, length = text.partition("/")
    return NetworkAddress(network, at(head), int(length) if slash else None)


def service(
    name: str, *vips: str, ports: Iterable[Port] = (Port(80, 8080),), **fields: Any
) -> Service:
    namespace = fields.get("namespace", "shop")
    base = Service(
        name=name,
        namespace="shop",
        hostname=f"{name}.{namespace}.svc.cluster.local",
        addresses=tuple(vip(each) for each in vips),
        ports=tuple(ports),
        canonical=True,
    )
    return replace(base, **fields)


def key(name: str, namespace: str = "shop") -> str:
    return f"{namespace}/{name}.{namespace}.svc.cluster.local"


def entry(value: Workload | Service | Policy) -> Entry:
    if isinstance(value, Policy):
        return Entry(Op.POLICY, value.key, policy_to_wire(value).SerializeToString())
    name = value.uid if isinstance(value, Workload) else value.key
    return Entry(Op.ADDRESS, name, resource_to_wire(value).SerializeToString())


def mesh(*values: Workload | Service | Policy, **fields: Any) -> State:
    state = State(**fields)
    state.apply([*(entry(each) for each in values), Entry(Op.SNAPSHOT)])
    return state


def spiffe(service_account: str, namespace: str = "shop") -> SpiffeId:
    return SpiffeId("cluster.local", namespace, service_account)


def endpoints_of(state: State, service_key: str) -> tuple[Workload, ...]:
    """Every endpoint of the service, decoded."""
    uids = [uid for _, alike in state.endpoints(service_key) for uid in alike]
    return tuple(each for uid in uids if (each := state.workload(uid)) is not None)
