"""Slices → the services that pods answer for, and endpoints that are no pods.

A slice never says who a pod is: an address that a pod has is that pod, with its identity and its
policies, and any other address is a place without a node and without an identity.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from control.model.address import Address, format_address
from control.model.workload import Locality, NetworkMode, Port, Workload, WorkloadStatus
from control.server.compile.holdings import Holdings
from control.server.compile.services import service_key, slice_ports
from control.server.compile.settings import Settings
from control.server.sources import objects
from control.server.sources.objects import Key, Meta, PodObject

PodServices = dict[str, tuple[Port, ...]]


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint in a slice, for the service that the slice belongs to."""

    service: str  # its key
    ports: tuple[Port, ...]
    meta: Meta  # the slice's
    said: objects.SliceEndpoint
    takes_all: bool  # the service publishes addresses that are not ready

    def includes(self, pod: PodObject) -> bool:
        """False where the slice says that this pod is not ready. While the pod goes, it is the
        pod's own state that makes it a last resort."""
        said = self.said
        return said.ready or self.takes_all or (said.last_resort and pod.is_leaving)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Everything that slices say. Only services that some slice belongs to are in it."""

    partial: Mapping[str, frozenset[int]]  # key → ports of the service that a slice may lack
    by_pod: Mapping[tuple[str, str], list[Member]]  # the slice names the pod
    by_address: Mapping[Address, list[Member]]  # the slice names an address alone

    def of(self, pod: PodObject, holdings: Holdings) -> PodServices:
        """Services of a pod, with the ports that slices give them here."""
        meta = pod.meta
        found = list(self.by_pod.get((meta.namespace, meta.name), ()))
        if self.by_address:
            for address in pod.addresses:
                if holdings.pod_at(address) == meta.key:
                    found += (
                        each
                        for each in self.by_address.get(address, ())
                        if not holdings.is_left_out(each.meta.key, address)
                    )
        services: PodServices = {}
        for each in found:
            if each.includes(pod):
                both = (*services.get(each.service, ()), *each.ports)
                services[each.service] = tuple(dict.fromkeys(both))
        return services


# Key of a slice → the slice, its service, and what they say. For those that are as they were.
SliceMemo = dict[Key, tuple[objects.EndpointSlice, objects.ServiceObject, "_Said"]]


@dataclass(frozen=True, slots=True)
class _Said:
    """All that one slice says."""

    ports: frozenset[int]  # those of the service that it has
    members: tuple[Member, ...]


def read_slices(
    found: Iterable[objects.EndpointSlice],
    owners: Mapping[tuple[str, str], objects.ServiceObject],
    settings: Settings,
    memo: SliceMemo | None = None,
) -> Endpoints:
    """`owners` are the services by namespace and name. `memo` is that of the time before, with the
    same settings."""
    partial: dict[str, frozenset[int]] = {}
    by_pod: dict[tuple[str, str], list[Member]] = defaultdict(list)
    by_address: dict[Address, list[Member]] = defaultdict(list)
    before = dict(memo or {})
    if memo is not None:
        memo.clear()
    for each in found:
        owner = owners.get((each.meta.namespace, each.service))
        if owner is None:
            continue
        known = before.get(each.meta.key)
        if known is None or known[0] is not each or known[1] is not owner:
            known = each, owner, _read_slice(each, owner, settings)
        if memo is not None:
            memo[each.meta.key] = known
        said, key = known[2], service_key(owner, settings)
        lacking = partial.setdefault(key, frozenset())
        if each.endpoints:
            wanted = {port.port for port in owner.ports if port.protocol == "TCP"}
            partial[key] = lacking | (wanted - said.ports)
        for member in said.members:
            if member.said.pod is not None:
                by_pod[member.said.pod].append(member)
            else:
                for address in member.said.addresses:
                    by_address[address].append(member)
    return Endpoints(partial, by_pod, by_address)


def _read_slice(
    found: objects.EndpointSlice, owner: objects.ServiceObject, settings: Settings
) -> _Said:
    key, ports = service_key(owner, settings), slice_ports(owner, found)
    return _Said(
        ports=frozenset(port.service_port for port in ports),
        members=tuple(
            Member(key, ports, found.meta, said, owner.publish_not_ready)
            for said in found.endpoints
        ),
    )


def places(
    endpoints: Endpoints, holdings: Holdings, localities: Mapping[str, Locality], settings: Settings
) -> list[Workload]:
    """Workloads for addresses that only slices name."""
    zones = {localities[name].zone: localities[name] for name in sorted(localities, reverse=True)}
    found: list[Workload] = []
    for address, members in endpoints.by_address.items():
        by_service: dict[str, list[Member]] = defaultdict(list)
        for each in members:
            if holdings.is_place(each.meta.key, address):
                by_service[each.service].append(each)
        for several in by_service.values():
            said = several[0].said
            near = localities.get(said.node) or zones.get(said.zone) or Locality(zone=said.zone)
            found.append(_place(several, address, near, settings))
    return found


def _place(
    members: Sequence[Member], address: Address, locality: Locality, settings: Settings
) -> Workload:
    """One address of one service, which several slices may name. HOST_NETWORK, because a look-up
    by address passes over such workloads."""
    ready = [each for each in members if each.said.ready]
    meta, said = members[0].meta, members[0].said
    ports = dict.fromkeys(port for each in ready or members for port in each.ports)
    name = f"{meta.namespace}/{meta.name}/{format_address(address)}"
    return Workload(
        uid=f"{settings.cluster_id}/discovery.k8s.io/EndpointSlice/{name}",
        name=meta.name,
        namespace=meta.namespace,
        addresses=(address,),
        network=settings.network,
        trust_domain=settings.trust_domain,
        service_account="",
        status=WorkloadStatus.HEALTHY if ready else WorkloadStatus.UNHEALTHY,
        cluster_id=settings.cluster_id,
        services=MappingProxyType({members[0].service: tuple(ports)}),
        locality=locality,
        network_mode=NetworkMode.HOST_NETWORK,
        last_resort=not ready and any(each.said.last_resort for each in members),
        endpoint_node=said.node,
    )
