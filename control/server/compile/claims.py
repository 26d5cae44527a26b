"""Decides who has an address when several objects claim it. Pure; one rule for every kind.

The stronger rank has the address, then the older object, then a service with a selector before one
without, then the first by uid and name. A pod or a cluster IP has all ports of its address,
addresses of load balancers and external ones go by port, a host's ports may lead to its pods, and a
slice that names an address has
nothing. An address that a node reports for a pod without one is that pod's only if no object but
a slice claims it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from control.model.address import Address, parse_block
from control.server.compile.pods import is_captured
from control.server.sources.objects import (
    EndpointSlice,
    Key,
    Meta,
    NodeObject,
    PodObject,
    ServiceObject,
)

# No service and no endpoint has an address of these, as in Kubernetes' own validation: each host
# means another one by it, or the metadata service of its cloud.
_SPECIAL = tuple(
    map(
        parse_block,
        (
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/4",
            "255.255.255.255",
            "::/127",  # unspecified and loopback
            "fe80::/10",
            "ff00::/8",
        ),
    )
)

Claimant: TypeAlias = PodObject | NodeObject | ServiceObject | EndpointSlice
_Age: TypeAlias = tuple[bool, bool, str, bool, str]


class Rank(IntEnum):
    """Strength of a claim; the lowest number has the address."""

    CAPTURED_POD = 1
    POD = 2
    NODE = 3  # a host's own address, which pods on the host's network share
    CLUSTER_IP = 4
    HOST_PORT = 5  # a port of a host that leads to a pod
    LOAD_BALANCER = 6
    EXTERNAL_IP = 7
    ENDPOINT = 8  # a slice names the address, and no pod
    REPORTED_POD = 9  # a node says so, and the pod's object has no address yet

    @property
    def noun(self) -> str:
        return _NOUNS[self]


_NOUNS = {
    Rank.CAPTURED_POD: "address",
    Rank.POD: "address",
    Rank.NODE: "node address",
    Rank.CLUSTER_IP: "cluster IP",
    Rank.HOST_PORT: "host port",
    Rank.LOAD_BALANCER: "load balancer address",
    Rank.EXTERNAL_IP: "external IP",
    Rank.ENDPOINT: "endpoint",
    Rank.REPORTED_POD: "reported address",
}
# Slices of other namespaces that may name a pod by address: each makes the pod's message longer.
STRANGERS_MAX = 64
POD_RANKS = (Rank.CAPTURED_POD, Rank.POD, Rank.REPORTED_POD)
_BY_PORT = (Rank.HOST_PORT, Rank.LOAD_BALANCER, Rank.EXTERNAL_IP)


@dataclass(frozen=True, slots=True)
class AddressClaim:
    """One object's claim to one address. `ports` is for ranks that go by port."""

    address: Address
    rank: Rank
    owner: Key
    age: _Age = (False, True, "", False, "")
    ports: tuple[int, ...] = ()

    @property
    def order(self) -> tuple[Rank, _Age, Key]:
        return (self.rank, self.age, self.owner)


@dataclass(frozen=True, slots=True)
class Lost:
    """A claim that has no effect, or none on `ports`. `to` is None for a special address."""

    claim: AddressClaim
    to: AddressClaim | None
    ports: tuple[int, ...] = ()


@dataclass(slots=True)
class Decision:
    """Holders of one address, and the claims to it without effect."""

    first: AddressClaim | None = None  # holds every port
    by_port: dict[int, AddressClaim] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)
    left_out: set[Key] = field(default_factory=set)  # slices beyond STRANGERS_MAX
    _lost_by_owner: dict[Key, list[Lost]] | None = None

    @property
    def lost_by_owner(self) -> Mapping[Key, Sequence[Lost]]:
        """Made when it is asked for: most claims are never lost."""
        if self._lost_by_owner is None:
            self._lost_by_owner = {}
            for each in self.lost:
                self._lost_by_owner.setdefault(each.claim.owner, []).append(each)
        return self._lost_by_owner

    def is_as(self, other: Decision) -> bool:
        """True if everybody holds the same by it."""
        return (
            self.first == other.first
            and self.by_port == other.by_port
            and self.left_out == other.left_out
        )


def decide(claims: Iterable[AddressClaim]) -> Decision:
    """The rule, for the claims to one address."""
    decision = Decision()
    strangers = 0
    ordered = sorted(claims, key=lambda one: one.order)
    for each in ordered:
        first = decision.first
        if first is None:
            # A slice that names the address does not keep a new pod from having it.
            if each.rank <= Rank.CLUSTER_IP or (is_reported(each) and _only_named(ordered[0])):
                decision.first = each
            elif is_reported(each):
                decision.lost.append(Lost(each, ordered[0]))
            elif each.rank in _BY_PORT:
                _share_ports(decision, each)
        elif first.rank is Rank.NODE and each.rank is Rank.HOST_PORT:
            _share_ports(decision, each)
        elif first.owner != each.owner and not _go_together(first, each):
            decision.lost.append(Lost(each, first))
            if each.rank is Rank.ENDPOINT and each.owner.namespace != first.owner.namespace:
                strangers += 1
                if strangers > STRANGERS_MAX:
                    decision.left_out.add(each.owner)
    return decision


def is_reported(claim: AddressClaim) -> bool:
    return claim.rank is Rank.REPORTED_POD


def _only_named(strongest: AddressClaim) -> bool:
    return strongest.rank in (Rank.ENDPOINT, Rank.REPORTED_POD)


def _go_together(first: AddressClaim, other: AddressClaim) -> bool:
    """Host-network pods share their node's address, and endpoints may lie on it."""
    return first.rank is Rank.NODE and other.rank in (Rank.NODE, Rank.ENDPOINT)


def _share_ports(decision: Decision, claim: AddressClaim) -> None:
    taken: dict[Key, tuple[AddressClaim, list[int]]] = {}
    for port in claim.ports:
        holder = decision.by_port.setdefault(port, claim)
        if holder.owner != claim.owner:
            taken.setdefault(holder.owner, (holder, []))[1].append(port)
    decision.lost += [Lost(claim, holder, tuple(ports)) for holder, ports in taken.values()]


def claims_of(value: Claimant, reported: bool = False) -> Iterator[AddressClaim]:
    """The claims that one object makes."""
    age = _age(value)
    owner = value.meta.key
    match value:
        case PodObject() if value.is_terminal:
            return
        case PodObject():
            rank = Rank.CAPTURED_POD if is_captured(value, reported) else Rank.POD
            rank = Rank.NODE if value.host_network else rank
            rank = Rank.REPORTED_POD if value.is_placed_by_node else rank
            yield from (AddressClaim(each, rank, owner, age) for each in value.addresses)
            yield from _of_host_ports(value, owner, age)
        case NodeObject():
            yield from (AddressClaim(each, Rank.NODE, owner, age) for each in value.addresses)
        case ServiceObject() if value.type != "ExternalName":
            yield from _of_service(value, owner, age)
        case EndpointSlice():
            named = dict.fromkeys(
                address
                for endpoint in value.endpoints
                if endpoint.pod is None
                for address in endpoint.addresses
            )
            yield from (AddressClaim(each, Rank.ENDPOINT, owner, age) for each in named)


def _of_host_ports(value: PodObject, owner: Key, age: _Age) -> Iterator[AddressClaim]:
    for address in dict.fromkeys(each.address for each in value.host_ports):
        ports = dict.fromkeys(each.port for each in value.host_ports if each.address == address)
        yield AddressClaim(address, Rank.HOST_PORT, owner, age, tuple(ports))


def _of_service(value: ServiceObject, owner: Key, age: _Age) -> Iterator[AddressClaim]:
    ports = tuple(dict.fromkeys(each.port for each in value.ports if each.protocol == "TCP"))
    yield from (AddressClaim(each, Rank.CLUSTER_IP, owner, age) for each in value.addresses)
    for rank, found in (
        (Rank.LOAD_BALANCER, value.balancer_addresses),
        (Rank.EXTERNAL_IP, value.external_addresses),
    ):
        yield from (AddressClaim(each, rank, owner, age, ports) for each in found if ports)


def _age(value: Claimant) -> _Age:
    meta: Meta = value.meta
    is_leaving = isinstance(value, PodObject) and value.is_leaving
    # A service with no pods of its own to lead to is more likely to want those of others.
    selects_nobody = isinstance(value, ServiceObject) and not value.selector
    return (is_leaving, not meta.created, meta.created, selects_nobody, meta.uid)


def is_special(claim: AddressClaim) -> bool:
    """True if the address could not be a service's or an endpoint's."""
    return claim.rank >= Rank.CLUSTER_IP and any(claim.address in block for block in _SPECIAL)
