"""Workloads (pods) and services as every process of the mesh knows them. Values only.

Field meanings and numbers: Istio's workload discovery, package `istio.workload`. Defaults that the
wire leaves out (trust domain, service account, cluster, capacity) are filled in here, so readers
never meet an empty one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from types import MappingProxyType

from control.model.address import Address
from control.model.identity import SpiffeId

DEFAULT_TRUST_DOMAIN = "cluster.local"
DEFAULT_SERVICE_ACCOUNT = "default"
DEFAULT_CLUSTER = "Kubernetes"
HBONE_PORT = 15008
IDENTITIES_KEPT_MAX = 4096  # service accounts that a busy node talks to; others are built again


@lru_cache(maxsize=IDENTITIES_KEPT_MAX)
def _identity(trust_domain: str, namespace: str, service_account: str) -> SpiffeId:
    """The identity; cached, because each connection asks several times and keeps it."""
    return SpiffeId(trust_domain, namespace, service_account)


class TunnelProtocol(Enum):
    NONE = 0
    HBONE = 1


class WorkloadType(Enum):
    DEPLOYMENT = 0
    CRONJOB = 1
    POD = 2
    JOB = 3


class WorkloadStatus(Enum):
    HEALTHY = 0
    UNHEALTHY = 1


class NetworkMode(Enum):
    STANDARD = 0
    HOST_NETWORK = 1


class AppProtocol(Enum):
    UNKNOWN = 0
    HTTP11 = 1
    HTTP2 = 2
    GRPC = 3
    TCP = 4
    TLS = 5


class Scope(Enum):
    """Distance between client and endpoint: one step of a routing preference."""

    UNSPECIFIED = 0
    REGION = 1
    ZONE = 2
    SUBZONE = 3
    NODE = 4
    CLUSTER = 5
    NETWORK = 6


class BalancingMode(Enum):
    UNSPECIFIED = 0
    STRICT = 1
    FAILOVER = 2
    PASSTHROUGH = 3


class HealthPolicy(Enum):
    ONLY_HEALTHY = 0
    ALLOW_ALL = 1


class IpFamilies(Enum):
    AUTOMATIC = 0
    IPV4_ONLY = 1
    IPV6_ONLY = 2
    DUAL = 3


class Visibility(Enum):
    PUBLIC = 0
    NAMESPACE = 1


@dataclass(frozen=True, slots=True)
class Locality:
    region: str = ""
    zone: str = ""
    subzone: str = ""


@dataclass(frozen=True, slots=True)
class NetworkAddress:
    """A VIP. `length` is set for a block of addresses (a CIDR VIP)."""

    network: str
    address: Address
    length: int | None = None


# Pairs of address and port that lead to one service from outside its VIPs: a node has an entry for
# each. Real services have a handful.
OUTER_PORTS_MAX = 4096


@dataclass(frozen=True, slots=True)
class OuterAddress:
    """An address that leads to a service at these ports only: a load balancer's, an external one,
    or a node's. It never shadows a VIP or an address of a workload's own."""

    network: str
    address: Address
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NamespacedHostname:
    namespace: str
    hostname: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.hostname}"


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Destination of a waypoint or a network gateway: a service by name, or an address."""

    destination: NamespacedHostname | NetworkAddress
    hbone_port: int


@dataclass(frozen=True, slots=True)
class Port:
    """`target_port` 0 means a named port: each workload's own port list has the number."""

    service_port: int
    target_port: int = 0
    app_protocol: AppProtocol = AppProtocol.UNKNOWN


@dataclass(frozen=True, slots=True)
class LoadBalancing:
    routing_preference: tuple[Scope, ...] = ()
    mode: BalancingMode = BalancingMode.UNSPECIFIED
    health_policy: HealthPolicy = HealthPolicy.ONLY_HEALTHY


@dataclass(frozen=True, slots=True)
class WeightedWaypoint:
    destination: GatewayAddress
    weight: int


@dataclass(frozen=True, slots=True)
class ApplicationTunnel:
    """The workload wants inbound traffic with a PROXY v2 header on `port` (0: the same port)."""

    proxy: bool
    port: int = 0


def _no_services() -> Mapping[str, tuple[Port, ...]]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Workload:
    uid: str
    name: str = ""
    namespace: str = ""
    addresses: tuple[Address, ...] = ()
    hostname: str = ""
    network: str = ""
    tunnel_protocol: TunnelProtocol = TunnelProtocol.NONE
    trust_domain: str = DEFAULT_TRUST_DOMAIN
    service_account: str = DEFAULT_SERVICE_ACCOUNT
    waypoint: GatewayAddress | None = None
    network_gateway: GatewayAddress | None = None
    node: str = ""
    canonical_name: str = ""
    canonical_revision: str = ""
    workload_type: WorkloadType = WorkloadType.DEPLOYMENT
    workload_name: str = ""
    native_tunnel: bool = False
    application_tunnel: ApplicationTunnel | None = None
    authorization_policies: tuple[str, ...] = ()  # "namespace/name" of selector policies
    status: WorkloadStatus = WorkloadStatus.HEALTHY
    cluster_id: str = DEFAULT_CLUSTER
    # "namespace/hostname" of each service that selects this workload → its ports here.
    services: Mapping[str, tuple[Port, ...]] = field(default_factory=_no_services)
    locality: Locality = Locality()
    network_mode: NetworkMode = NetworkMode.STANDARD
    capacity: int = 1
    last_resort: bool = False  # not healthy, but it answers: taken where no other endpoint is
    endpoint_node: str = (
        ""  # where `node` is empty: the node that a slice says, for balancing alone
    )

    @property
    def identity(self) -> SpiffeId:
        return _identity(self.trust_domain, self.namespace, self.service_account)


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    namespace: str
    hostname: str
    addresses: tuple[NetworkAddress, ...] = ()
    ports: tuple[Port, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
    waypoint: GatewayAddress | None = None
    weighted_waypoints: tuple[WeightedWaypoint, ...] = ()
    load_balancing: LoadBalancing | None = None
    ip_families: IpFamilies = IpFamilies.AUTOMATIC
    canonical: bool = False
    ingress_use_waypoint: bool = False
    visibility: Visibility = Visibility.PUBLIC
    outer_addresses: tuple[OuterAddress, ...] = ()
    affinity_s: int = 0  # a client stays with one endpoint for so long; 0: it does not

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.hostname}"
