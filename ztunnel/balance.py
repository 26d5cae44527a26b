"""Which endpoint of a service takes a connection: health, locality, weighted chance. No I/O."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from control.model.address import Address
from control.model.workload import (
    BalancingMode,
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    NetworkMode,
    Scope,
    Service,
    TunnelProtocol,
    Workload,
    WorkloadStatus,
)

_DEFAULT = LoadBalancing()


class Hint(Enum):
    """Where the kernel's draw fell, when it has drawn. Kernels of others never have."""

    NONE = 0
    LOCAL = 1
    ELSEWHERE = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """A workload that could take the connection. `address` is None behind a network gateway."""

    workload: Workload
    address: Address | None
    port: int


def candidates(
    service: Service,
    endpoints: Iterable[Workload],
    source: Workload,
    port: int,
    family_bytes: int,
) -> list[Candidate]:
    """Endpoints that are healthy enough, have the port, and can be reached by an address or a
    gateway. `family_bytes` (4 or 16) is the family the client used."""
    balancing = service.load_balancing or _DEFAULT
    found: list[Candidate] = []
    for workload in endpoints:
        healthy = workload.status is WorkloadStatus.HEALTHY
        if not healthy and balancing.health_policy is not HealthPolicy.ALLOW_ALL:
            continue
        target = target_port(service, workload, port)
        if target is None:
            continue
        address = pod_address(workload.addresses, service.ip_families, family_bytes)
        if workload.network != source.network:
            if workload.network_gateway is not None:
                found.append(Candidate(workload, address, target))
        elif address is not None:
            found.append(Candidate(workload, address, target))
    return found


def target_port(service: Service, workload: Workload, port: int) -> int | None:
    """The workload's own port for a service port; None: it has none, or the service has not."""
    own = workload.services.get(service.key, ())
    for each in own:
        if each.service_port == port and each.target_port:
            return each.target_port
    for each in service.ports:
        if each.service_port == port and each.target_port:
            return each.target_port
    return None


def pod_address(
    addresses: Sequence[Address], families: IpFamilies, family_bytes: int
) -> Address | None:
    """The address to dial: the family the service is limited to, else the client's if there is
    one, else any."""
    if families is IpFamilies.IPV4_ONLY:
        return next((each for each in addresses if len(each) == 4), None)
    if families is IpFamilies.IPV6_ONLY:
        return next((each for each in addresses if len(each) == 16), None)
    same = next((each for each in addresses if len(each) == family_bytes), None)
    return same if same is not None else next(iter(addresses), None)


def nearest(
    found: Sequence[Candidate], source: Workload, balancing: LoadBalancing | None
) -> list[Candidate]:
    """The candidates that locality leaves: all of the best rank (FAILOVER), only those that match
    every scope (STRICT), or all of them."""
    if balancing is None or not balancing.routing_preference or not found:
        return list(found)
    preference = balancing.routing_preference
    if balancing.mode is BalancingMode.STRICT:
        return [
            each
            for each in found
            if all(_same(scope, source, each.workload) for scope in preference)
        ]
    if balancing.mode is not BalancingMode.FAILOVER:
        return list(found)
    ranks = [rank(preference, source, each.workload) for each in found]
    best = max(ranks)
    return [each for each, its in zip(found, ranks, strict=True) if its == best]


def rank(preference: Sequence[Scope], source: Workload, workload: Workload) -> int:
    """How many scopes match before the first that does not.

    NETWORK in the first place is special: another network only skips it, the same one outweighs
    all the rest.
    """
    score = 0
    for index, scope in enumerate(preference):
        first_network = index == 0 and scope is Scope.NETWORK
        if _same(scope, source, workload):
            score += len(preference) if first_network else 1
        elif not first_network:
            break
    return score


@dataclass(frozen=True, slots=True)
class Draw:
    """Candidates with their chances, ready to be drawn from many times."""

    found: tuple[Candidate, ...]
    cumulative: tuple[int, ...] | None  # None: equal chances

    def choose(self, rng: random.Random) -> Candidate | None:
        if len(self.found) < 2:
            return self.found[0] if self.found else None
        if self.cumulative is None:
            return self.found[rng.randrange(len(self.found))]
        return rng.choices(self.found, cum_weights=self.cumulative)[0]


def draw(found: Sequence[Candidate]) -> Draw:
    """Chance in proportion to capacity; when nobody has any, equal chances."""
    weights = [each.workload.capacity for each in found]
    if not any(weights) or all(weight == weights[0] for weight in weights):
        return Draw(tuple(found), None)
    return Draw(tuple(found), tuple(itertools.accumulate(weights)))


def is_local(source: Workload, workload: Workload) -> bool:
    """A pod of the caller's node that the kernel might reach without a tunnel: what a draw's
    `LOCAL` is about."""
    return (
        workload.node == source.node != ""
        and workload.network == source.network
        and workload.network_mode is NetworkMode.STANDARD
        and workload.tunnel_protocol is TunnelProtocol.HBONE
    )


def narrowed(found: list[Candidate], source: Workload, hint: Hint) -> list[Candidate]:
    """Those that the kernel's draw left; all of them when that would be none."""
    if hint is Hint.NONE:
        return found
    wanted = hint is Hint.LOCAL
    return [each for each in found if is_local(source, each.workload) is wanted] or found


def _same(scope: Scope, source: Workload, other: Workload) -> bool:
    match scope:
        case Scope.REGION:
            return source.locality.region == other.locality.region
        case Scope.ZONE:
            return source.locality.zone == other.locality.zone
        case Scope.SUBZONE:
            return source.locality.subzone == other.locality.subzone
        case Scope.NODE:
            return source.node == other.node
        case Scope.CLUSTER:
            return source.cluster_id == other.cluster_id
        case Scope.NETWORK:
            return source.network == other.network
        case Scope.UNSPECIFIED:
            return False
