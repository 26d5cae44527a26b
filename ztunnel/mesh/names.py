"""Names that a decision about an outbound connection rests on, where addresses come on demand.
No I/O.

A service comes with its endpoints, so its address or its hostname is enough. The address of a pod
of this node needs no question: such a pod has it before everyone else, and comes unasked.
"""

from __future__ import annotations

from collections.abc import Iterator

from control.model.address import Address
from control.model.workload import GatewayAddress, NamespacedHostname, Service, Workload
from ztunnel.mesh.known import address_name
from ztunnel.mesh.roles import Asked
from ztunnel.mesh.state import State


def missing(state: State, source: Workload, destination: Asked) -> tuple[str, ...]:
    """Names to ask for before `route` may decide. Once they are known there may be others."""
    if not state.known.on_demand:
        return ()
    names = rests_on(state, source, destination)
    return tuple(dict.fromkeys(each for each in names if each not in state.known))


def rests_on(state: State, source: Workload, destination: Asked) -> Iterator[str]:
    """Names of the destination and of its waypoints, as far as the state leads to them."""
    network, address = source.network, destination.address
    if not state.is_local(network, address):
        name = address_name(network, address)
        yield name
        if name not in state.known:
            return
    service = state.service_at(network, address, source.namespace, destination.port)
    workload = state.workload_at(network, address)
    for each in _gateways(service, workload):
        target = each.destination
        if isinstance(target, NamespacedHostname):
            yield str(target)
        elif not state.is_local(target.network, target.address):
            yield address_name(target.network, target.address)


def peer_name(state: State, network: str, address: Address) -> str | None:
    """The name of a peer, for its labels in the telemetry; None if there is nothing to ask."""
    if not state.known.on_demand or state.is_local(network, address):
        return None
    name = address_name(network, address)
    return None if name in state.known else name


def _gateways(service: Service | None, workload: Workload | None) -> Iterator[GatewayAddress]:
    if service is not None:
        yield from (each.destination for each in service.weighted_waypoints)
        if service.waypoint is not None:
            yield service.waypoint
    if workload is not None and workload.waypoint is not None:
        yield workload.waypoint
