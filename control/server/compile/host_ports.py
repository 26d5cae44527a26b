"""Host ports → services with one endpoint each, so that a captured client reaches the pod by mTLS.

The container runtime would translate the address on the pod's node, after the client's mesh had let
the connection pass as one to a host. Only enrolled pods: others are left to the runtime.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from control.model.address import Address
from control.model.workload import HealthPolicy, LoadBalancing, OuterAddress, Port, Service
from control.server.compile.holdings import Holdings
from control.server.compile.settings import Settings
from control.server.sources.objects import PodObject
from control.server.sources.problem import Problem

HOST_PORT_STRICT = "host_port_strict"


@dataclass(frozen=True, slots=True)
class HostPortService:
    """A pod's host ports. The runtime sends connections to a pod that is not ready as well."""

    service: Service
    ports: tuple[Port, ...]


def host_port_service(
    pod: PodObject, settings: Settings, holdings: Holdings
) -> HostPortService | None:
    """None without a host port that no other object has. Of one port with two targets, at different
    addresses of the node, the first counts."""
    targets: dict[int, int] = {}
    at: dict[Address, list[int]] = defaultdict(list)
    held: dict[Address, tuple[int, ...]] = {}
    for each in pod.host_ports:
        if each.address not in held:
            held[each.address] = holdings.ports_of(pod.meta.key, each.address)
        is_ours = each.port in held[each.address]
        if is_ours and targets.setdefault(each.port, each.target) == each.target:
            at[each.address].append(each.port)
    if not targets:
        return None
    meta = pod.meta
    ports = tuple(Port(port, target) for port, target in sorted(targets.items()))
    service = Service(
        name=meta.name,
        namespace=meta.namespace,
        hostname=f"{meta.name}.{meta.namespace}.hostport.{settings.domain_suffix}",
        ports=ports,
        load_balancing=LoadBalancing(health_policy=HealthPolicy.ALLOW_ALL),
        outer_addresses=tuple(
            OuterAddress(settings.network, address, tuple(sorted(set(numbers))))
            for address, numbers in at.items()
        ),
    )
    return HostPortService(service, ports)


def host_port_note(pod: PodObject) -> Problem:
    """For an enrolled pod whose callers from outside the mesh STRICT refuses."""
    meta = pod.meta
    ports = ", ".join(str(port) for port in sorted({each.port for each in pod.host_ports}))
    said = f"STRICT: only clients in the mesh reach host port {ports} of {pod.node}"
    return Problem(meta.file, meta.line, str(meta.key), HOST_PORT_STRICT, said)
