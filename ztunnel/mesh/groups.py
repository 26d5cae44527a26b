"""Endpoints of a service that are the same to every choice but the last one; values only.

A service may have ten thousand endpoints, and to decode them all takes 0.2 s, in which every
connection of a worker would wait. So the facts that a choice needs are recorded when a workload
arrives; endpoints that agree in all of them form one group, and only the drawn one gets decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from control.model.address import Address
from control.model.workload import DEFAULT_CLUSTER
from control.wire import workload_pb2 as pb
from control.wire.extensions import read_workload

_NOWHERE = ("", "", "")
_UNHEALTHY, _HBONE, _HOST_NETWORK = pb.UNHEALTHY, pb.HBONE, pb.HOST_NETWORK


class Group(NamedTuple):
    """The facts of one group. A tuple, so that it hashes fast: it is the key of an index."""

    is_healthy: bool
    network: str
    has_gateway: bool  # to its network
    families: tuple[int, ...]  # lengths of its addresses, in their order
    node: str
    cluster_id: str
    region: str
    zone: str
    subzone: str
    capacity: int
    is_direct: bool  # the kernel of its node might reach it without a tunnel
    ports: tuple[tuple[int, int], ...]  # the pod's own ports: of the service, of the pod
    is_last_resort: bool = False  # not healthy, but taken where no other endpoint is


def groups_of(message: pb.Workload, addresses: Sequence[Address]) -> dict[str, Group]:
    """Groups of a workload, by service. Made for thousands in a row: each field is read once,
    and a test for the default, which most have, costs less than its parts."""
    services = message.services
    if not services:
        return {}
    last, elsewhere = read_workload(message.extensions) if message.extensions else (False, "")
    locality = message.locality if message.HasField("locality") else None
    common = (
        message.status != _UNHEALTHY,
        message.network,
        message.HasField("network_gateway"),
        tuple(map(len, addresses)),
        message.node or elsewhere,
        message.cluster_id or DEFAULT_CLUSTER,
        *((locality.region, locality.zone, locality.subzone) if locality else _NOWHERE),
        message.capacity.value if message.HasField("capacity") else 1,
        message.tunnel_protocol == _HBONE and message.network_mode != _HOST_NETWORK,
    )
    return {
        service: Group._make((*common, _ports(value.ports), last))
        for service, value in services.items()
    }


def _ports(own: Iterable[pb.Port]) -> tuple[tuple[int, int], ...]:
    return tuple([(each.service_port, each.target_port) for each in own])
