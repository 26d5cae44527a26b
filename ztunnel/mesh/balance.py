"""The choice of a service's endpoint: health, locality, weighted chance. No I/O."""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import blake2b

from control.model.address import Address
from control.model.workload import (
    BalancingMode,
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    Scope,
    Service,
    Workload,
)
from ztunnel.mesh.groups import Group

_DEFAULT = LoadBalancing()


class Hint(Enum):
    """The kernel's draw, when it has drawn; behind a foreign agent it never has."""

    NONE = 0
    LOCAL = 1
    ELSEWHERE = 2


@dataclass(frozen=True, slots=True)
class Lot:
    """Endpoints that are alike and could take the connection, at `port` of theirs."""

    group: Group
    uids: tuple[str, ...]
    port: int
    has_address: bool  # False behind a network gateway


Endpoints = Iterable[tuple[Group, tuple[str, ...]]]
Chosen = tuple[str, int]  # uid, and the port there


def is_healthy(group: Group) -> bool:
    return group.is_healthy


def is_last_resort(group: Group) -> bool:
    """Terminating, but it answers: for new connections only where nobody is healthy."""
    return group.is_last_resort


def candidates(
    service: Service,
    endpoints: Endpoints,
    source: Workload,
    port: int,
    family_bytes: int,
    is_wanted: Callable[[Group], bool] = is_healthy,
) -> list[Lot]:
    """Endpoints that are healthy enough, have the port, and can be reached by an address or a
    gateway. `family_bytes` (4 or 16) is the family the client used."""
    balancing = service.load_balancing or _DEFAULT
    takes_all = balancing.health_policy is HealthPolicy.ALLOW_ALL
    found: list[Lot] = []
    for group, uids in endpoints:
        if not (is_wanted(group) or takes_all):
            continue
        for target in target_ports(service, group.ports, port):
            lot = Lot(group, uids, target, _has_address(service, group, family_bytes))
            if _is_reachable(lot, source):
                found.append(lot)
    return found


def tunnels(
    service: Service, endpoints: Endpoints, source: Workload, port: int, family_bytes: int
) -> list[Lot]:
    """The endpoints of a waypoint, whose tunnel port need not be among the service's."""
    lots = (
        Lot(group, uids, port, _has_address(service, group, family_bytes))
        for group, uids in endpoints
        if group.is_healthy
    )
    return [each for each in lots if _is_reachable(each, source)]


def _has_address(service: Service, group: Group, family_bytes: int) -> bool:
    """True when `pod_address` finds one."""
    match service.ip_families:
        case IpFamilies.IPV4_ONLY:
            return 4 in group.families
        case IpFamilies.IPV6_ONLY:
            return 16 in group.families
        case _:
            return bool(group.families)


def _is_reachable(lot: Lot, source: Workload) -> bool:
    return lot.has_address if lot.group.network == source.network else lot.group.has_gateway


def is_by_name(group: Group, source: Workload) -> bool:
    """True for healthy endpoints of which nothing but a DNS name is known: istiod has them from a
    ServiceEntry, and leaves the name to the ztunnel."""
    return group.is_healthy and not group.families and group.network == source.network


def target_ports(service: Service, own: Iterable[tuple[int, int]], port: int) -> tuple[int, ...]:
    """The endpoint's ports for a service port: its own, else the service's, else none."""
    found = tuple([target for service_port, target in own if service_port == port and target])
    if found:
        return found
    for each in service.ports:
        if each.service_port == port and each.target_port:
            return (each.target_port,)
    return ()


def target_port(service: Service, own: Iterable[tuple[int, int]], port: int) -> int | None:
    """The first of `target_ports`."""
    return next(iter(target_ports(service, own, port)), None)


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


def nearest(found: Sequence[Lot], source: Workload, balancing: LoadBalancing | None) -> list[Lot]:
    """The candidates that locality leaves: all of the best rank (FAILOVER), only those that match
    every scope (STRICT), or all of them."""
    if balancing is None or not balancing.routing_preference or not found:
        return list(found)
    preference = balancing.routing_preference
    if balancing.mode is BalancingMode.STRICT:
        return [
            each for each in found if all(_same(scope, source, each.group) for scope in preference)
        ]
    if balancing.mode is not BalancingMode.FAILOVER:
        return list(found)
    ranks = [rank(preference, source, each.group) for each in found]
    best = max(ranks)
    return [each for each, its in zip(found, ranks, strict=True) if its == best]


def reachable(found: list[Lot], source: Workload) -> list[Lot]:
    """Only this network's endpoints as long as there are any: gateways to other networks are
    refused today, so an endpoint behind one is the last choice."""
    return [each for each in found if each.group.network == source.network] or found


def rank(preference: Sequence[Scope], source: Workload, group: Group) -> int:
    """Number of scopes that match before the first that does not. NETWORK in the first place is
    special: another network only skips it, the same one outweighs all the rest.
    """
    score = 0
    for index, scope in enumerate(preference):
        first_network = index == 0 and scope is Scope.NETWORK
        if _same(scope, source, group):
            score += len(preference) if first_network else 1
        elif not first_network:
            break
    return score


@dataclass(frozen=True, slots=True)
class Draw:
    """Candidates with their chances, ready to be drawn from many times."""

    lots: tuple[Lot, ...]
    weights: tuple[int, ...]  # chance of one endpoint of each
    cumulative: tuple[int, ...]  # chances of all endpoints up to here

    @property
    def total(self) -> int:
        return self.cumulative[-1] if self.cumulative else 0

    def without(self, uids: Container[str]) -> Draw:
        """The draw among the others; the same one if none of them has a chance."""
        left = [
            (replace(lot, uids=rest), weight)
            for lot, weight in zip(self.lots, self.weights, strict=True)
            if (rest := tuple(each for each in lot.uids if each not in uids))
        ]
        widths = [len(lot.uids) * weight for lot, weight in left]
        if not any(widths):
            return self
        lots, weights = zip(*left, strict=True)
        return Draw(lots, weights, tuple(itertools.accumulate(widths)))

    def choose(self, rng: random.Random) -> Chosen | None:
        """By chance; no number is drawn where there is no choice."""
        if not self.lots:
            return None
        if len(self.lots) == 1 and len(self.lots[0].uids) == 1:
            return self.lots[0].uids[0], self.lots[0].port
        point = rng.randrange(self.cumulative[-1])
        index = bisect.bisect_right(self.cumulative, point)
        lot, left = self.lots[index], self.cumulative[index] - point
        return lot.uids[(left - 1) // self.weights[index]], lot.port

    def pinned(self, client: str) -> Chosen | None:
        """The same one each time for the same client, in the same proportions. When an endpoint
        goes its clients alone move; when one comes it gets its part of everybody's."""
        key = blake2b(client.encode(), digest_size=16).digest()
        best: Chosen | None = None
        best_score = -math.inf
        for lot, weight in zip(self.lots, self.weights, strict=True):
            for uid in lot.uids if weight else ():
                score = math.log(_luck(key, uid, lot.port)) / weight
                if best is None or (score, uid) > (best_score, best[0]):
                    best, best_score = (uid, lot.port), score
        return best


def _luck(client: bytes, uid: str, port: int) -> float:
    """A number in (0, 1] that depends on these alone, in every process of every node. Python's
    own hash differs from process to process."""
    digest = blake2b(f"{uid} {port}".encode(), digest_size=8, key=client).digest()
    return (int.from_bytes(digest, "big") + 1) / 2**64


def draw(found: Sequence[Lot]) -> Draw:
    """Chance in proportion to capacity; when nobody has any, equal chances."""
    weights = [each.group.capacity for each in found]
    if not any(weights) or all(weight == weights[0] for weight in weights):
        weights = [1] * len(found)
    widths = (weight * len(each.uids) for weight, each in zip(weights, found, strict=True))
    return Draw(tuple(found), tuple(weights), tuple(itertools.accumulate(widths)))


def is_local(source: Workload, group: Group) -> bool:
    """Pods of the caller's node that the kernel might reach without a tunnel: the meaning of
    `LOCAL`."""
    return group.is_direct and group.node == source.node != "" and group.network == source.network


def narrowed(found: list[Lot], source: Workload, hint: Hint) -> list[Lot]:
    """The candidates on the side of the kernel's draw; all of them when that side is empty."""
    if hint is Hint.NONE:
        return found
    wanted = hint is Hint.LOCAL
    return [each for each in found if is_local(source, each.group) is wanted] or found


def _same(scope: Scope, source: Workload, other: Group) -> bool:
    match scope:
        case Scope.REGION:
            return source.locality.region == other.region
        case Scope.ZONE:
            return source.locality.zone == other.zone
        case Scope.SUBZONE:
            return source.locality.subzone == other.subzone
        case Scope.NODE:
            return source.node == other.node
        case Scope.CLUSTER:
            return source.cluster_id == other.cluster_id
        case Scope.NETWORK:
            return source.network == other.network
        case Scope.UNSPECIFIED:
            return False
