"""The route of outbound connections, decided here alone. No I/O.

The order is that of Istio's ambient mode. Where the mesh knows a destination but cannot reach it
as it should, the connection is refused: plaintext is never a fallback.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from control.model.address import Address, Endpoint, is_loopback
from control.model.identity import SpiffeId, parse_spiffe_id
from control.model.workload import (
    HBONE_PORT,
    BalancingMode,
    GatewayAddress,
    NamespacedHostname,
    Service,
    TunnelProtocol,
    WeightedWaypoint,
    Workload,
)
from ztunnel.mesh.balance import (
    Chosen,
    Draw,
    Hint,
    Lot,
    candidates,
    draw,
    is_by_name,
    is_healthy,
    is_last_resort,
    narrowed,
    nearest,
    pod_address,
    reachable,
    tunnels,
)
from ztunnel.mesh.names import missing
from ztunnel.mesh.roles import Asked, NextHop, Target
from ztunnel.mesh.state import State
from ztunnel.refusals import Reason

# A pod's own traffic to it would only come round again. Every other port is the app's; listeners
# at fixed ports (`--fixed-ports`) are known to `connections`, by their sockets.
TUNNEL_PORT = 15008


@dataclass(frozen=True, slots=True)
class ToTunnel:
    """HBONE: dial `dial`, accept only `expected` there, ask for `authority`.

    `target` is the client's destination after translation; `workload` answers at `dial`.
    """

    dial: NextHop
    authority: str
    expected: tuple[SpiffeId, ...]
    target: Target
    workload: Workload | None
    service: Service | None


@dataclass(frozen=True, slots=True)
class Passthrough:
    """Plain TCP: the destination is outside the mesh, or does not speak HBONE."""

    target: Target
    workload: Workload | None = None
    service: Service | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    reason: Reason
    service: Service | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be decided before the control plane has answered these names."""

    names: tuple[str, ...]
    service: Service | None = None


Decision = ToTunnel | Passthrough | Refuse | Wait


def route(
    state: State,
    source: Workload,
    destination: Asked,
    rng: random.Random,
    hint: Hint = Hint.NONE,
    lost: frozenset[str] = frozenset(),
) -> Decision:
    """Decide for a connection that `source` opened to `destination`. `hint` is the kernel's draw
    among a service's endpoints; it changes shares, never permissions. `lost` are the uids of
    endpoints that are left out if there are others."""
    if not state.synced:
        return Refuse(Reason.NOT_SYNCED)
    if _comes_back(source, destination):
        return Refuse(Reason.RECURSION)
    lacking = missing(state, source, destination)
    if lacking:
        return Wait(lacking)
    service = state.service_at(
        source.network, destination.address, source.namespace, destination.port
    )
    if service is not None:
        decision = _through_service(state, source, destination, service, rng, hint, lost)
        if decision is not None:
            return decision
    return _by_address(state, source, destination, service, rng)


def _comes_back(source: Workload, destination: Asked) -> bool:
    if destination.port != TUNNEL_PORT:
        return False
    return is_loopback(destination.address) or destination.address in source.addresses


def _through_service(
    state: State,
    source: Workload,
    destination: Asked,
    service: Service,
    rng: random.Random,
    hint: Hint,
    lost: frozenset[str],
) -> Decision | None:
    """None: the service passes its traffic on as addressed."""
    waypoint = _pick_waypoint(service, rng)
    if waypoint is not None and not _is_gateway(state, source, waypoint):
        return _to_waypoint(state, source, destination, waypoint, rng, service=service)
    if _passes_through(service):
        return None
    drawn = endpoints(state, source, service, destination, hint)
    if lost:
        others = drawn.without(lost)
        found = others.pinned(source.uid) if service.affinity_s else others.choose(rng)
    elif service.affinity_s:
        found = _pinned(state, source, service, destination, drawn)
    else:
        found = drawn.choose(rng)
    candidate = _candidate(state, service, found, len(destination.address))
    if candidate is None:
        return Refuse(_why_nowhere(state, source, service, destination.port), service)
    if candidate.address is None or candidate.workload.network != source.network:
        return Refuse(Reason.NETWORK_GATEWAY_UNSUPPORTED, service)
    target = Target(Endpoint(candidate.address, candidate.port))
    return _direct(candidate.workload, target, service)


def _why_nowhere(state: State, source: Workload, service: Service, port: int) -> Reason:
    """Reason why no endpoint can be dialled."""
    if all(each.service_port != port for each in service.ports):
        return Reason.NO_SERVICE_PORT
    if any(is_by_name(group, source) for group, _ in state.endpoints(service.key)):
        return Reason.HOSTNAME_UNSUPPORTED
    return Reason.NO_HEALTHY_UPSTREAM


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A workload that could take the connection. `address` is None behind a network gateway."""

    workload: Workload
    address: Address | None
    port: int


def _pinned(
    state: State, source: Workload, service: Service, destination: Asked, chances: Draw
) -> Chosen | None:
    """The endpoint that this client stays with; looked for again when an endpoint changes."""
    port, family_bytes = destination.port, len(destination.address)
    question = (service.key, port, family_bytes, "client", source.uid)
    known = state.recall(question)
    if isinstance(known, tuple):
        return known
    found = chances.pinned(source.uid)
    if found is not None:
        state.remember(question, found)
    return found


def _candidate(
    state: State, service: Service, found: Chosen | None, family_bytes: int
) -> _Candidate | None:
    workload = None if found is None else state.workload(found[0])
    if found is None or workload is None:
        return None
    address = pod_address(workload.addresses, service.ip_families, family_bytes)
    return _Candidate(workload, address, found[1])


def endpoints(
    state: State,
    source: Workload,
    service: Service,
    destination: Asked,
    hint: Hint = Hint.NONE,
) -> Draw:
    """The draw among a service's endpoints; found once for all pods of this node, until an
    address changes."""
    port, family_bytes = destination.port, len(destination.address)
    place = (source.network, source.locality, source.node, source.cluster_id)
    question = (service.key, port, family_bytes, place, hint.value)
    known = state.recall(question)
    if isinstance(known, Draw):
        return known
    best: list[Lot] = []
    for is_wanted in (is_healthy, is_last_resort):
        members = state.endpoints(service.key)
        found = candidates(service, members, source, port, family_bytes, is_wanted)
        best = nearest(reachable(found, source), source, service.load_balancing)
        if best:
            break
    answer = draw(narrowed(best, source, hint))
    state.remember(question, answer)
    return answer


def _by_address(
    state: State,
    source: Workload,
    destination: Asked,
    service: Service | None,
    rng: random.Random,
) -> Decision:
    workload = state.workload_at(source.network, destination.address)
    if workload is None:
        return Passthrough(Target(destination), None, service)
    waypoint = workload.waypoint
    if waypoint is not None and not _is_gateway(state, source, waypoint):
        return _to_waypoint(state, source, destination, waypoint, rng, service=service)
    return _direct(workload, Target(destination), service)


def _direct(workload: Workload, target: Target, service: Service | None) -> Decision:
    if workload.tunnel_protocol is not TunnelProtocol.HBONE:
        return Passthrough(target, workload, service)
    return ToTunnel(
        dial=NextHop(Endpoint(target.address, HBONE_PORT)),
        authority=str(target),
        expected=expected_identities(workload, service),
        target=target,
        workload=workload,
        service=service,
    )


def _to_waypoint(
    state: State,
    source: Workload,
    destination: Asked,
    waypoint: GatewayAddress,
    rng: random.Random,
    *,
    service: Service | None,
) -> Decision:
    """HBONE to the waypoint; it gets the destination as the client addressed it."""
    gateway = _gateway_service(state, source, waypoint)
    candidate = _waypoint_pod(state, source, waypoint, gateway, len(destination.address), rng)
    if candidate is None:
        return Refuse(Reason.WAYPOINT_UNAVAILABLE, service)
    if candidate.address is None or candidate.workload.network != source.network:
        return Refuse(Reason.NETWORK_GATEWAY_UNSUPPORTED, service)
    return ToTunnel(
        dial=NextHop(Endpoint(candidate.address, candidate.port)),
        authority=str(destination),
        expected=expected_identities(candidate.workload, gateway),
        target=Target(destination),
        workload=candidate.workload,
        service=service,
    )


def _waypoint_pod(
    state: State,
    source: Workload,
    waypoint: GatewayAddress,
    gateway: Service | None,
    family_bytes: int,
    rng: random.Random,
) -> _Candidate | None:
    port = waypoint.hbone_port or HBONE_PORT
    if gateway is not None:
        found = tunnels(gateway, state.endpoints(gateway.key), source, port, family_bytes)
        best = nearest(reachable(found, source), source, gateway.load_balancing)
        return _candidate(state, gateway, draw(best).choose(rng), family_bytes)
    if isinstance(waypoint.destination, NamespacedHostname):
        return None
    address = waypoint.destination.address
    workload = state.workload_at(waypoint.destination.network, address)
    return None if workload is None else _Candidate(workload, address, port)


def _gateway_service(state: State, source: Workload, gateway: GatewayAddress) -> Service | None:
    destination = gateway.destination
    if isinstance(destination, NamespacedHostname):
        return state.service(str(destination))
    return state.service_at(destination.network, destination.address, source.namespace)


def _is_gateway(state: State, source: Workload, gateway: GatewayAddress) -> bool:
    """True when the caller is that waypoint itself, which has done its part."""
    destination = gateway.destination
    if not isinstance(destination, NamespacedHostname) and (
        destination.network == source.network and destination.address in source.addresses
    ):
        return True
    service = _gateway_service(state, source, gateway)
    return service is not None and service.key in source.services


def _pick_waypoint(service: Service, rng: random.Random) -> GatewayAddress | None:
    weighted: tuple[WeightedWaypoint, ...] = service.weighted_waypoints
    if weighted and any(each.weight for each in weighted):
        weights = [each.weight for each in weighted]
        return rng.choices(weighted, weights)[0].destination
    return service.waypoint


def _passes_through(service: Service) -> bool:
    balancing = service.load_balancing
    return balancing is not None and balancing.mode is BalancingMode.PASSTHROUGH


def expected_identities(workload: Workload, service: Service | None) -> tuple[SpiffeId, ...]:
    """Identities that may answer: the workload's, or names that the service vouches for."""
    names = () if service is None else service.subject_alt_names
    vouched = (each for name in names if (each := _identity(name)) is not None)
    return tuple(dict.fromkeys((workload.identity, *vouched)))


def _identity(name: str) -> SpiffeId | None:
    """Identities among the names; a name that is no SPIFFE id of our form cannot be one."""
    try:
        return parse_spiffe_id(name)
    except ValueError:
        return None
