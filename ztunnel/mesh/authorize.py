"""Admission of inbound connections, and the port of the pod that they reach. No I/O.

The peer's claim (the authority) is checked against this node's own facts: the address on which the
connection was accepted, and the workload that owns it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from control.model.address import Address, Endpoint, parse_endpoint
from control.model.identity import SpiffeId
from control.model.policy import Connection, Deny, Permit, WouldDeny
from control.model.workload import GatewayAddress, NamespacedHostname, Service, Workload
from ztunnel.mesh.balance import target_port
from ztunnel.mesh.dialled import own_ports, service_dialled
from ztunnel.mesh.roles import Accepted, Target
from ztunnel.mesh.route import TUNNEL_PORT
from ztunnel.mesh.state import State
from ztunnel.refusals import Reason

_HOSTNAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_DOTTED_DIGITS = re.compile(r"[0-9.]+")
AUTHORITY_CHARS_MAX = 300  # a DNS name, a colon, a port


@dataclass(frozen=True, slots=True)
class Admit:
    """Dial `target`, with `permit` as the proof of the policy's yes."""

    target: Target
    permit: Permit
    service: Service | None
    workload: Workload
    would_deny: WouldDeny | None = None  # answer of the dry-run policies; nothing is enforced


@dataclass(frozen=True, slots=True)
class Refusal:
    """`status` answers a CONNECT; a plaintext connection is closed. `reason` is a stable word."""

    status: int
    reason: Reason
    detail: str
    target: Target | None = None  # where it would have gone, as far as that was known
    service: Service | None = None


def admit_connect(
    state: State,
    local: Workload,
    accepted: Accepted,
    authority: str,
    peer: SpiffeId,
    peer_address: Address,
    said: str | None = None,
) -> Admit | Refusal:
    """Admit or refuse an HBONE CONNECT that arrived at `accepted`, from a peer with the
    certificate of `peer`. `said`: the service that it says was dialled, for the telemetry alone."""
    if not state.synced:
        return _not_synced()
    try:
        asked = parse_authority(authority)
    except ValueError as exc:
        return Refusal(400, Reason.BAD_AUTHORITY, str(exc))
    if local.application_tunnel is not None and local.application_tunnel.proxy:
        return Refusal(503, Reason.APPLICATION_TUNNEL_UNSUPPORTED, "the workload asks for PROXY v2")
    if isinstance(asked, Endpoint):
        if not _may_ask_for(state, local, accepted, asked):
            detail = f"authority {asked} is not what listens at {accepted}"
            return Refusal(400, Reason.DESTINATION_MISMATCH, detail)
        target, service = _tunnelled(local, accepted.address, asked.port), None
    else:
        resolved = _resolve(state, local, accepted, asked, peer)
        if isinstance(resolved, Refusal):
            return resolved
        target, service = resolved
    if service is None:
        service = service_dialled(state, local, target.port, said, peer.namespace)
    return _admit(state, local, target, service, Connection(peer, peer_address, *_of(target)))


def admit_plaintext(
    state: State, local: Workload, accepted: Accepted, peer_address: Address
) -> Admit | Refusal:
    """Admit or refuse a plain TCP connection for `accepted`, whose caller has no identity."""
    if not state.synced:
        return _not_synced()
    target = Target(accepted)
    service = service_dialled(state, local, target.port, None, local.namespace)
    return _admit(state, local, target, service, Connection(None, peer_address, *_of(target)))


def recheck(state: State, local: Workload, connection: Connection) -> Permit | Deny:
    """Decide an open connection again, after the policies changed. One is not cut for a policy that
    may still come."""
    missing = state.missing_policies(local)
    if missing and not state.may_still_come(missing):
        return Deny(missing[0])
    return _decide(state, local, connection)


def _decide(state: State, local: Workload, connection: Connection) -> Permit | Deny:
    """While an update may be half here, what was refused before it is refused: between a policy
    and the workloads that name it, both may be in force nowhere."""
    verdict = state.in_force(local).verdict(connection)
    if state.settled or isinstance(verdict, Deny):
        return verdict
    before = state.before(local).verdict(connection)
    return before if isinstance(before, Deny) else verdict


@dataclass(frozen=True, slots=True)
class NamedTarget:
    hostname: str
    port: int


def parse_authority(authority: str) -> Endpoint | NamedTarget:
    """`ip:port`, `[v6]:port` or `hostname:port`; ValueError otherwise."""
    if len(authority) > AUTHORITY_CHARS_MAX:
        raise ValueError("the authority is too long")
    host, _, port_text = authority.rpartition(":")
    if host.startswith("[") or _DOTTED_DIGITS.fullmatch(host):
        return parse_endpoint(authority)
    if not _HOSTNAME.fullmatch(host):
        raise ValueError(f"not address:port or hostname:port: {authority!r}")
    if not port_text.isascii() or not port_text.isdigit() or len(port_text) > 5:
        raise ValueError(f"no port in {authority!r}")
    port = int(port_text)
    if not 0 < port < 65536:
        raise ValueError(f"port out of range in {authority!r}")
    return NamedTarget(host.lower(), port)


def _admit(
    state: State,
    local: Workload,
    target: Target,
    service: Service | None,
    connection: Connection,
) -> Admit | Refusal:
    if target.port == TUNNEL_PORT:
        return Refusal(503, Reason.RECURSION, f"port {target.port} would come back to the tunnel")
    missing = state.missing_policies(local)
    if missing:
        detail = f"the workload names a policy that has not arrived: {missing[0]}"
        return Refusal(401, Reason.UNKNOWN_POLICY, detail, target, service)
    match _decide(state, local, connection):
        case Permit() as permit:
            dry_run = state.in_force(local).would_deny(connection)
            return Admit(target, permit, service, local, dry_run)
        case Deny() as deny:
            return Refusal(401, Reason.POLICY, str(deny), target, service)


def _of(target: Target) -> tuple[Address, int]:
    return target.address, target.port


def _not_synced() -> Refusal:
    return Refusal(503, Reason.NOT_SYNCED, "the mesh's state is not known yet")


def _may_ask_for(state: State, local: Workload, accepted: Accepted, asked: Endpoint) -> bool:
    """True for the pod's own address and, at a waypoint, for an address whose waypoint it is."""
    if asked.address == accepted.address or local.application_tunnel is not None:
        return True
    service = state.service_at(local.network, asked.address, local.namespace, asked.port)
    if service is not None:
        gateways = (service.waypoint, *(each.destination for each in service.weighted_waypoints))
    else:
        workload = state.workload_at(local.network, asked.address)
        gateways = (None if workload is None else workload.waypoint,)
    return any(each is not None and _is_gateway(state, local, each) for each in gateways)


def _is_gateway(state: State, local: Workload, gateway: GatewayAddress) -> bool:
    destination = gateway.destination
    if isinstance(destination, NamespacedHostname):
        return str(destination) in local.services
    if destination.network != local.network:
        return False
    if destination.address in local.addresses:
        return True
    service = state.service_at(destination.network, destination.address, local.namespace)
    return service is not None and service.key in local.services


def _tunnelled(local: Workload, address: Address, port: int) -> Target:
    tunnel = local.application_tunnel
    return Target(Endpoint(address, port if tunnel is None or not tunnel.port else tunnel.port))


def _resolve(
    state: State, local: Workload, accepted: Accepted, asked: NamedTarget, peer: SpiffeId
) -> tuple[Target, Service] | Refusal:
    service = state.service_named(asked.hostname, peer.namespace)
    if service is None:
        return Refusal(503, Reason.UNKNOWN_HOSTNAME, f"no service is named {asked.hostname}")
    if service.key not in local.services:
        detail = f"this workload is not an endpoint of {service.key}"
        return Refusal(400, Reason.DESTINATION_MISMATCH, detail)
    port = target_port(service, own_ports(local, service), asked.port)
    if port is None:
        return Refusal(503, Reason.UNKNOWN_PORT, f"{service.key} has no port {asked.port} here")
    return _tunnelled(local, accepted.address, port), service
