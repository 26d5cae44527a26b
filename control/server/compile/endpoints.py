"""Slices → the services that pods answer for, and endpoints that are no pods.

A slice never says who a pod is: an address that a pod has is that pod, with its identity and its
policies, and any other address is a place without a node and without an identity.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from control.model.address import Address, format_address
from control.model.workload import Locality, NetworkMode, Port, Workload, WorkloadStatus
from control.server.compile.holdings import Holdings
from control.server.compile.localities import Localities
from control.server.compile.services import service_key, slice_ports
from control.server.compile.settings import Settings
from control.server.sources import objects
from control.server.sources.objects import Key, PodObject

PodServices = dict[str, tuple[Port, ...]]
_Target: TypeAlias = tuple[str, str] | Address  # a pod's namespace and name, or an address alone


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint in a slice, for the service that the slice belongs to."""

    service: str  # its key
    ports: tuple[Port, ...]
    slice: Key
    said: objects.SliceEndpoint
    takes_all: bool  # the service publishes addresses that are not ready

    def includes(self, pod: PodObject) -> bool:
        """False where the slice says that this pod is not ready. While the pod goes, it is the
        pod's own state that makes it a last resort."""
        said = self.said
        return said.ready or self.takes_all or (said.last_resort and pod.is_leaving)


_Named = Mapping[_Target, tuple[Member, ...]]
_BySlice = dict[Key, tuple[Member, ...]]


@dataclass(frozen=True, slots=True)
class _Said:
    """All that one slice says. `lacking`: ports of the service that it has not."""

    owner: Key
    lacking: frozenset[int]
    members: _Named


@dataclass(slots=True)
class NewlyNamed:
    """Those who are an endpoint in another way than before, or not any more."""

    pods: set[tuple[str, str]] = field(default_factory=set)  # namespace and name
    addresses: set[Address] = field(default_factory=set)


class Endpoints:
    """Everything that slices say. Only services that some slice belongs to are in it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._slices: dict[Key, objects.EndpointSlice] = {}
        self._of_service: dict[Key, set[Key]] = {}
        self._owners: dict[Key, objects.ServiceObject] = {}
        self._said: dict[Key, _Said] = {}
        self._members: dict[_Target, _BySlice] = {}

    def put_service(self, key: Key, value: objects.ServiceObject | None) -> NewlyNamed:
        """None for one that is not there, or not in the mesh."""
        self._owners.pop(key, None)
        if value is not None:
            self._owners[key] = value
        named = NewlyNamed()
        for each in self._of_service.get(key, ()):
            self._read(each, named)
        return named

    def put_slice(self, key: Key, value: objects.EndpointSlice | None) -> NewlyNamed:
        before = self._slices.pop(key, None)
        if before is not None:
            several = self._of_service[owner_of(before)]
            several.discard(key)
            if not several:
                del self._of_service[owner_of(before)]
        if value is not None:
            self._slices[key] = value
            self._of_service.setdefault(owner_of(value), set()).add(key)
        named = NewlyNamed()
        self._read(key, named)
        return named

    def _read(self, key: Key, named: NewlyNamed) -> None:
        """Take over what a slice says by now; `named` gets those whom it says something new of."""
        known, found = self._said.pop(key, None), self._slices.get(key)
        owner = None if found is None else self._owners.get(owner_of(found))
        before: _Named = {} if known is None else known.members
        after: _Named = {}
        if found is not None and owner is not None:
            said = self._said[key] = _read_slice(found, owner, self._settings)
            after = said.members
        for target in before.keys() | after.keys():
            members = after.get(target, ())
            if members == before.get(target, ()):
                continue
            by_slice = self._members.setdefault(target, {})
            by_slice.pop(key, None)
            if members:
                by_slice[key] = members
            elif not by_slice:
                del self._members[target]
            if isinstance(target, tuple):
                named.pods.add(target)
            else:
                named.addresses.add(target)

    # Answers

    def slices_of(self, service: Key) -> list[Key]:
        return sorted(self._of_service.get(service, ()))

    def named_by(self, service: Key) -> NewlyNamed:
        """Everybody whom the slices of a service name."""
        found = NewlyNamed()
        for key in self._of_service.get(service, ()):
            said = self._said.get(key)
            for target in () if said is None else said.members:
                if isinstance(target, tuple):
                    found.pods.add(target)
                else:
                    found.addresses.add(target)
        return found

    def slice(self, key: Key) -> objects.EndpointSlice | None:
        return self._slices.get(key)

    def lacking(self, service: Key) -> frozenset[int] | None:
        """Ports of the service that a slice of it may lack; None if it has no slice."""
        slices = self._of_service.get(service)
        if not slices or service not in self._owners:
            return None
        return frozenset().union(*(self._said[each].lacking for each in slices))

    def at(self, address: Address) -> Iterator[Member]:
        """The endpoints that slices name by this address alone, in one order."""
        return self._of(address)

    def addresses(self) -> Iterator[Address]:
        """Those that slices name alone."""
        return (each for each in self._members if not isinstance(each, tuple))

    def _of(self, target: _Target) -> Iterator[Member]:
        by_slice = self._members.get(target, {})
        return (member for key in sorted(by_slice) for member in by_slice[key])

    def of(self, pod: PodObject, holdings: Holdings) -> PodServices:
        """Services of a pod, with the ports that slices give them here."""
        meta = pod.meta
        found = list(self._of((meta.namespace, meta.name)))
        for address in pod.addresses:
            if address in self._members and holdings.pod_at(address) == meta.key:
                found += (
                    each
                    for each in self.at(address)
                    if not holdings.is_left_out(each.slice, address)
                )
        services: PodServices = {}
        for each in found:
            if each.includes(pod):
                both = (*services.get(each.service, ()), *each.ports)
                services[each.service] = tuple(dict.fromkeys(both))
        return services


def owner_of(found: objects.EndpointSlice) -> Key:
    """The service that a slice belongs to."""
    return Key("Service", found.meta.namespace, found.service)


def _read_slice(
    found: objects.EndpointSlice, owner: objects.ServiceObject, settings: Settings
) -> _Said:
    key, ports = service_key(owner.meta.key, settings), slice_ports(owner, found)
    members: dict[_Target, list[Member]] = defaultdict(list)
    for said in found.endpoints:
        member = Member(key, ports, found.meta.key, said, owner.publish_not_ready)
        for target in said.addresses if said.pod is None else (said.pod,):
            members[target].append(member)
    wanted = {port.port for port in owner.ports if port.protocol == "TCP"}
    lacking = wanted - {port.service_port for port in ports} if found.endpoints else ()
    return _Said(
        owner.meta.key, frozenset(lacking), {each: tuple(some) for each, some in members.items()}
    )


def places(
    address: Address,
    endpoints: Endpoints,
    holdings: Holdings,
    localities: Localities,
    settings: Settings,
) -> Iterator[Workload]:
    """Workloads for an address that only slices name: one for each service."""
    by_service: dict[str, list[Member]] = defaultdict(list)
    for each in endpoints.at(address):
        if holdings.is_place(each.slice, address):
            by_service[each.service].append(each)
    for several in by_service.values():
        near = localities.near(several[0].said.node, several[0].said.zone)
        yield _place(several, address, near, settings)


def _place(
    members: Sequence[Member], address: Address, locality: Locality, settings: Settings
) -> Workload:
    """One address of one service, which several slices may name. HOST_NETWORK, because a look-up
    by address passes over such workloads."""
    ready = [each for each in members if each.said.ready]
    key, said = members[0].slice, members[0].said
    ports = dict.fromkeys(port for each in ready or members for port in each.ports)
    name = f"{key.namespace}/{key.name}/{format_address(address)}"
    return Workload(
        uid=f"{settings.cluster_id}/discovery.k8s.io/EndpointSlice/{name}",
        name=key.name,
        namespace=key.namespace,
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
