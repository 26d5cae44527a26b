"""Kubernetes objects as the compiler reads them: only the fields it needs, defaults filled in.

Values only; sources of every kind (a folder now, an API server later) produce exactly these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from control.model.address import Address, CidrBlock
from control.server.sources.probes import NO_PROBES, Probes
from control.server.sources.route_specs import (
    GatewayListener,
    GrantFrom,
    GrantTo,
    RouteSpec,
    TargetRef,
)

Labels = Mapping[str, str]


class Key(NamedTuple):
    """Key of an object, unique by kind. `namespace` is empty for kinds without one. A tuple, since
    it is looked up some ten times for each object of a compilation."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}".replace(" /", " ")


@dataclass(frozen=True, slots=True)
class Meta:
    key: Key
    file: str
    line: int
    labels: Labels
    annotations: Labels
    uid: str = ""
    created: str = ""  # RFC 3339 in UTC, so text order is time order; "" when never said
    generation: int = 0  # for policies: whoever reports on one says which text it read

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def namespace(self) -> str:
        return self.key.namespace

    @property
    def age_key(self) -> tuple[bool, str, str]:
        """Sort key: oldest first, objects without a creation time last; then by name."""
        return (not self.created, self.created, self.name)


@dataclass(frozen=True, slots=True)
class Namespace:
    meta: Meta


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    meta: Meta


@dataclass(frozen=True, slots=True)
class NodeObject:
    meta: Meta
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Owner:
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class ContainerPort:
    name: str
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class HostPort:
    """A node's address and port that lead to a port of a pod on it."""

    address: Address
    port: int
    target: int


@dataclass(frozen=True, slots=True)
class PodObject:
    meta: Meta
    service_account: str
    node: str
    host_network: bool
    owner: Owner | None
    ports: tuple[ContainerPort, ...]
    phase: str
    addresses: tuple[Address, ...]
    ready: bool
    # Being deleted, and answers still: an endpoint where nobody else is one.
    last_resort: bool = False
    is_leaving: bool = False
    probes: Probes = NO_PROBES
    host_ports: tuple[HostPort, ...] = ()
    is_placed_by_node: bool = False  # the object lacks these; they are its node's word
    stated_addresses: tuple[Address, ...] = ()  # and these are the object's

    @property
    def is_terminal(self) -> bool:
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class ServicePort:
    name: str
    protocol: str
    port: int
    target: int | str  # a number, or the name of a container's port
    app_protocol: str


@dataclass(frozen=True, slots=True)
class ServiceObject:
    meta: Meta
    type: str
    selector: Labels
    addresses: tuple[Address, ...]  # cluster IPs
    balancer_addresses: tuple[Address, ...]  # its load balancer leaves them to the nodes
    external_addresses: tuple[Address, ...]
    ports: tuple[ServicePort, ...]
    ip_families: tuple[str, ...]
    internal_traffic_policy: str
    traffic_distribution: str
    publish_not_ready: bool
    affinity_s: int = 0  # a client's connections stay with one endpoint; 0: they do not
    not_followed: tuple[str, ...] = ()  # fields without the effect one would expect


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    addresses: tuple[Address, ...]
    ready: bool
    last_resort: bool  # not ready, but it serves while it terminates
    node: str
    zone: str
    # Namespace and name of the pod it stands for; None when its addresses say that.
    pod: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    meta: Meta
    service: str
    endpoints: tuple[SliceEndpoint, ...]
    ports: Mapping[str, int]  # name of a TCP port → number
    has_hints: bool = False


class PolicyAction(Enum):
    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"
    CUSTOM = "CUSTOM"


@dataclass(frozen=True, slots=True)
class PolicySource:
    """`from[].source`; strings still carry their `*`. `beyond_l4` names fields L4 cannot see."""

    principals: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    not_service_accounts: tuple[str, ...] = ()
    ip_blocks: tuple[CidrBlock, ...] = ()
    not_ip_blocks: tuple[CidrBlock, ...] = ()
    beyond_l4: tuple[str, ...] = ()
    request_principals: tuple[str, ...] = ()
    not_request_principals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    ports: tuple[int, ...] = ()
    not_ports: tuple[int, ...] = ()
    beyond_l4: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """`values` are already parsed for the key: strings, `namespace/account`, blocks or ports."""

    key: str
    values: tuple[str | CidrBlock | int, ...] = ()
    not_values: tuple[str | CidrBlock | int, ...] = ()
    beyond_l4: bool = False


@dataclass(frozen=True, slots=True)
class PolicyRule:
    sources: tuple[PolicySource, ...] = ()
    operations: tuple[Operation, ...] = ()
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class AuthorizationPolicy:
    """`broken` is the reason why a denying stand-in is here, in place of a policy not
    understood. `targets`: for the waypoints of these, and not for layer 4."""

    meta: Meta
    action: PolicyAction | None  # None: unknown, only in a stand-in
    selector: Labels
    rules: tuple[PolicyRule, ...]
    targets: tuple[TargetRef, ...] = ()
    broken: str = ""

    @property
    def has_target_refs(self) -> bool:
        return bool(self.targets)


class MtlsMode(Enum):
    UNSET = "UNSET"
    DISABLE = "DISABLE"
    PERMISSIVE = "PERMISSIVE"
    STRICT = "STRICT"


@dataclass(frozen=True, slots=True)
class PeerAuthentication:
    """`may_select`: a broken one that has no selector as far as it can be read, and may have had
    any."""

    meta: Meta
    selector: Labels
    mode: MtlsMode
    port_modes: Mapping[int, MtlsMode]
    broken: str = ""
    may_select: bool = False


@dataclass(frozen=True, slots=True)
class GatewayClass:
    meta: Meta
    controller: str


@dataclass(frozen=True, slots=True)
class Gateway:
    """`listeners` are read for the classes that are ours alone."""

    meta: Meta
    class_name: str
    listeners: tuple[GatewayListener, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteObject:
    """An HTTPRoute, a GRPCRoute in terms of HTTP, or a TCPRoute, whose rule has backends alone; its
    key says which."""

    meta: Meta
    spec: RouteSpec


@dataclass(frozen=True, slots=True)
class ReferenceGrant:
    """Objects of its namespace that others may name."""

    meta: Meta
    froms: tuple[GrantFrom, ...]
    tos: tuple[GrantTo, ...]


AnyObject = (
    Namespace
    | ServiceAccount
    | NodeObject
    | PodObject
    | ServiceObject
    | EndpointSlice
    | AuthorizationPolicy
    | PeerAuthentication
    | GatewayClass
    | Gateway
    | RouteObject
    | ReferenceGrant
)


@dataclass(frozen=True, slots=True)
class Objects:
    """Everything a source knows at one moment, each kind sorted by key."""

    namespaces: tuple[Namespace, ...] = ()
    service_accounts: tuple[ServiceAccount, ...] = ()
    nodes: tuple[NodeObject, ...] = ()
    pods: tuple[PodObject, ...] = ()
    services: tuple[ServiceObject, ...] = ()
    slices: tuple[EndpointSlice, ...] = ()
    authorization_policies: tuple[AuthorizationPolicy, ...] = ()
    peer_authentications: tuple[PeerAuthentication, ...] = ()
    gateway_classes: tuple[GatewayClass, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    http_routes: tuple[RouteObject, ...] = ()
    grpc_routes: tuple[RouteObject, ...] = ()
    tcp_routes: tuple[RouteObject, ...] = ()
    reference_grants: tuple[ReferenceGrant, ...] = ()

    def by_key(self) -> dict[Key, AnyObject]:
        kinds: tuple[tuple[AnyObject, ...], ...] = tuple(
            getattr(self, kind) for kind in self.__slots__
        )
        return {each.meta.key: each for kind in kinds for each in kind}

    def counts(self) -> dict[str, int]:
        return {kind: len(getattr(self, field)) for kind, field in KIND_FIELDS.items()}

    def __iter__(self) -> Iterator[AnyObject]:
        for field in KIND_FIELDS.values():
            yield from getattr(self, field)

    def __len__(self) -> int:
        return sum(self.counts().values())

    @classmethod
    def of(cls, kinds: Mapping[str, tuple[AnyObject, ...]]) -> Objects:
        """`kinds` has the objects of each, sorted."""
        found: dict[str, Any] = {field: kinds[kind] for kind, field in KIND_FIELDS.items()}
        return cls(**found)


KIND_FIELDS = {
    "Namespace": "namespaces",
    "ServiceAccount": "service_accounts",
    "Node": "nodes",
    "Pod": "pods",
    "Service": "services",
    "EndpointSlice": "slices",
    "AuthorizationPolicy": "authorization_policies",
    "PeerAuthentication": "peer_authentications",
    "GatewayClass": "gateway_classes",
    "Gateway": "gateways",
    "HTTPRoute": "http_routes",
    "GRPCRoute": "grpc_routes",
    "TCPRoute": "tcp_routes",
    "ReferenceGrant": "reference_grants",
}


def collect(found: Mapping[Key, AnyObject]) -> Objects:
    """Sort a bag of objects into kinds."""
    kinds: dict[str, list[AnyObject]] = {kind: [] for kind in KIND_FIELDS}
    for key in sorted(found):
        kinds[key.kind].append(found[key])
    return Objects.of({kind: tuple(each) for kind, each in kinds.items()})
