"""Decides what the kernel may carry by itself: pairs of pods, and the share of a service on this
node. No I/O.

Both answers only ever take work off the tunnel. Whatever is not certain to have the same outcome is
a no, and a no means the tunnel, which decides for itself.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from control.model.address import Address, Endpoint
from control.model.workload import (
    HBONE_PORT,
    BalancingMode,
    NetworkMode,
    Service,
    TunnelProtocol,
    Workload,
)
from control.wire.direct import SLOTS_MAX, U32_MAX, ShareSlot
from ztunnel.mesh.authorize import Admit, admit_connect
from ztunnel.mesh.balance import is_local, pod_address
from ztunnel.mesh.roles import Accepted, Asked
from ztunnel.mesh.route import ToTunnel, endpoints, route
from ztunnel.mesh.state import State

# A pod has one or two addresses; with more, asking about every pair would no longer be quick.
ADDRESSES_MAX: Final = 4
_NO_DRAW: Final = random.Random(0)  # routes to a pod address leave nothing to chance


class ServedPod(Protocol):
    """A pod of this node that this worker serves."""

    @property
    def uid(self) -> str: ...

    def workload(self, state: State) -> Workload | None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Node and trust domain of this ztunnel. Without a node name nothing is local."""

    node: str
    trust_domain: str


def verdict(
    state: State, place: Place, source: ServedPod, destination: ServedPod, port: int
) -> bool:
    """True if every connection from `source` to this port of `destination` would be routed straight
    to it and admitted, whichever of their addresses it uses."""
    client, server = source.workload(state), destination.workload(state)
    if not state.synced or client is None or server is None or client.uid == server.uid:
        return False
    if not (_is_ordinary(place, client) and _is_ordinary(place, server)):
        return False
    if client.network != server.network or server.waypoint is not None:
        return False
    if any(state.policy(name) is None for name in server.authorization_policies):
        return False  # not arrived yet, or gone and only obeyed until the mesh is settled
    pairs = [
        (one, other)
        for one, other in itertools.product(client.addresses, server.addresses)
        if len(one) == len(other)
    ]
    return bool(pairs) and all(
        _leads_to(state, client, server, Endpoint(there, port))
        and _admits(state, client, server, here, Endpoint(there, port))
        for here, there in pairs
    )


def _is_ordinary(place: Place, workload: Workload) -> bool:
    """A pod with a network of its own, captured, on this node, in our trust domain."""
    return (
        workload.node == place.node != ""
        and workload.trust_domain == place.trust_domain
        and workload.network_mode is NetworkMode.STANDARD
        and workload.tunnel_protocol is TunnelProtocol.HBONE
        and not workload.native_tunnel
        and workload.application_tunnel is None
        and len(workload.addresses) <= ADDRESSES_MAX
    )


def _leads_to(state: State, client: Workload, server: Workload, target: Endpoint) -> bool:
    network, namespace = client.network, client.namespace
    if state.service_at(network, target.address, namespace, target.port) is not None:
        return False
    match route(state, client, Asked(target), _NO_DRAW):
        case ToTunnel(dial=dial, target=meant, workload=Workload(uid=uid)):
            own = Endpoint(target.address, HBONE_PORT)
            return (dial, meant, uid) == (own, target, server.uid)
        case _:
            return False


def _admits(
    state: State, client: Workload, server: Workload, client_address: Address, target: Endpoint
) -> bool:
    accepted = Accepted(Endpoint(target.address, HBONE_PORT))
    answer = admit_connect(state, server, accepted, str(target), client.identity, client_address)
    return isinstance(answer, Admit) and answer.target == target


@dataclass(frozen=True, slots=True)
class Share:
    """Endpoints of a service on this node. `total` counts the chances of all endpoints anywhere."""

    total: int
    slots: tuple[ShareSlot, ...]


def local_share(
    state: State,
    served: Callable[[Workload], ServedPod | None],
    source: Workload,
    service: Service,
    asked: Asked,
) -> Share | None:
    """Endpoints that the kernel may draw from for connections of `source` to `asked`, an address
    of `service`. None: there are none here, or the kernel cannot express the choice."""
    if service.waypoint is not None or service.weighted_waypoints:
        return None
    balancing = service.load_balancing
    if balancing is not None and balancing.mode is BalancingMode.PASSTHROUGH:
        return None
    if service.affinity_s:
        return None  # the kernel draws by chance alone
    draw = endpoints(state, source, service, asked)
    slots: list[ShareSlot] = []
    for lot, weight in zip(draw.lots, draw.weights, strict=True):
        if not lot.has_address or lot.group.network != source.network:
            return None
        if not is_local(source, lot.group):
            continue
        for uid in lot.uids if weight else ():
            slot = _slot(state, served, service, uid, Endpoint(asked.address, lot.port), weight)
            if slot is None or len(slots) == SLOTS_MAX:
                return None
            slots.append(slot)
    if not slots or draw.total > U32_MAX:  # the kernel counts chances in 32 bits
        return None
    return Share(draw.total, tuple(slots))


def _slot(
    state: State,
    served: Callable[[Workload], ServedPod | None],
    service: Service,
    uid: str,
    like: Endpoint,
    weight: int,
) -> ShareSlot | None:
    """Slot for one pod. `like` gives the port, and the family of the client's address."""
    workload = state.workload(uid)
    pod = None if workload is None else served(workload)
    if workload is None or pod is None:
        return None
    family_bytes = len(like.address)
    address = pod_address(workload.addresses, service.ip_families, family_bytes)
    if address is None or len(address) != family_bytes:
        return None
    return ShareSlot(weight, pod.uid, Endpoint(address, like.port))
