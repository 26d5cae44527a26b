"""Choosing among groups of endpoints gives everybody the chance that choosing among decoded
workloads would give, and decodes only the one that is drawn."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.model.address import Endpoint
from control.model.workload import (
    BalancingMode,
    GatewayAddress,
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    Locality,
    NetworkMode,
    Port,
    Scope,
    Service,
    TunnelProtocol,
    Workload,
    WorkloadStatus,
)
from control.wire import workload_pb2
from tests.support.engine.meshes import at, entry, key, mesh, pod, service, vip
from ztunnel.mesh.balance import Draw, Hint, pod_address
from ztunnel.mesh.route import ToTunnel, endpoints, route
from ztunnel.mesh.table import Table

WEB = key("web")
PORTS = ((), (Port(80, 8081),), (Port(80, 0), Port(81, 9)))
GATEWAY = GatewayAddress(vip("1.2.3.4"), 15009)
LOCALITIES = (Locality(), Locality("r", "z"), Locality("r", "y", "s"))
SOURCE = pod("client", "10.9.9.9", node="n1", locality=Locality("r", "z"))


ADDRESSES = (("10.0.0.1",), ("fd00::1",), ("10.0.0.1", "fd00::1"), ())

# Differences between pods of one service. Far networks and lost capacity are rarer than the rest:
# drawn evenly they would leave next to nothing to choose from.
CHOICES: dict[str, tuple[object, ...]] = {
    "status": tuple(WorkloadStatus),
    "network": ("", "", "far"),
    "network_gateway": (None, GATEWAY),
    "node": ("", "n1", "n2"),
    "locality": LOCALITIES,
    "capacity": (0, 1, 1, 3),
    "tunnel_protocol": tuple(TunnelProtocol),
    "network_mode": tuple(NetworkMode),
}


def any_pod(pick: random.Random, name: str) -> Workload:
    """A pod of the service that differs from the others in everything that may matter."""
    fields = {field: pick.choice(values) for field, values in CHOICES.items()}
    return pod(name, *pick.choice(ADDRESSES), services={WEB: pick.choice(PORTS)}, **fields)


def any_balancing(pick: random.Random) -> LoadBalancing | None:
    return pick.choice(
        (
            None,
            *[
                LoadBalancing(
                    tuple(pick.sample(list(Scope), pick.randrange(4))),
                    pick.choice((BalancingMode.STRICT, BalancingMode.FAILOVER)),
                    pick.choice(list(HealthPolicy)),
                )
            ]
            * 3,
        )
    )


def plainly(
    found: list[Workload], web: Service, family_bytes: int, hint: Hint
) -> dict[tuple[str, int], int]:
    """(uid, port) → weight, worked out workload by workload."""
    balancing = web.load_balancing or LoadBalancing()
    takes_all = balancing.health_policy is HealthPolicy.ALLOW_ALL
    usable = []
    for each in found:
        own = {p.service_port: p.target_port for p in each.services[WEB]}
        port = own.get(80) or {p.service_port: p.target_port for p in web.ports}.get(80)
        address = pod_address(each.addresses, web.ip_families, family_bytes)
        there = each.network_gateway if each.network != SOURCE.network else address
        if (each.status is WorkloadStatus.HEALTHY or takes_all) and port and there is not None:
            usable.append((each, port))
    usable = [one for one in usable if one[0].network == SOURCE.network] or usable
    scopes = balancing.routing_preference
    if scopes and balancing.mode is BalancingMode.STRICT:
        usable = [one for one in usable if all(same(scope, one[0]) for scope in scopes)]
    elif scopes and usable:
        best = max(score(scopes, each) for each, _ in usable)
        usable = [one for one in usable if score(scopes, one[0]) == best]
    if hint is not Hint.NONE:
        wanted = hint is Hint.LOCAL
        usable = [one for one in usable if is_here(one[0]) is wanted] or usable
    weights = {(each.uid, port): each.capacity for each, port in usable}
    if len(set(weights.values())) <= 1:
        return dict.fromkeys(weights, 1)
    return {one: weight for one, weight in weights.items() if weight}


def same(scope: Scope, other: Workload) -> bool:
    mine, its = SOURCE.locality, other.locality
    return {
        Scope.UNSPECIFIED: False,
        Scope.REGION: mine.region == its.region,
        Scope.ZONE: mine.zone == its.zone,
        Scope.SUBZONE: mine.subzone == its.subzone,
        Scope.NODE: SOURCE.node == other.node,
        Scope.CLUSTER: SOURCE.cluster_id == other.cluster_id,
        Scope.NETWORK: SOURCE.network == other.network,
    }[scope]


def score(scopes: tuple[Scope, ...], other: Workload) -> int:
    points = 0
    for index, scope in enumerate(scopes):
        is_first_network = index == 0 and scope is Scope.NETWORK
        if same(scope, other):
            points += len(scopes) if is_first_network else 1
        elif not is_first_network:
            break
    return points


def is_here(each: Workload) -> bool:
    return (
        each.node == SOURCE.node
        and each.network == SOURCE.network
        and each.network_mode is NetworkMode.STANDARD
        and each.tunnel_protocol is TunnelProtocol.HBONE
    )


class Point(random.Random):
    """Dice with a fixed sequence."""

    def __init__(self, point: int) -> None:
        super().__init__(0)
        self._point = point

    def randrange(self, *_: int) -> int:  # type: ignore[override]  # one number is all it knows
        return self._point


def chances(found: Draw) -> dict[tuple[str, int], int]:
    """Outcomes over all numbers that may be drawn."""
    drawn = Counter(found.choose(Point(point)) for point in range(found.total))
    return {one: number for one, number in drawn.items() if one is not None}


# The seed is all that is drawn: drawing each part of a pod took longer than the test itself.
@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=True))
def test_groups_give_the_chances_of_a_plain_computation(pick: random.Random) -> None:
    found = [any_pod(pick, f"p{number}") for number in range(pick.randrange(13))]
    balancing, families = any_balancing(pick), pick.choice(list(IpFamilies))
    asked, hint = pick.choice(("10.1.0.1", "fd00:1::1")), pick.choice(list(Hint))
    web = service("web", "10.1.0.1", load_balancing=balancing, ip_families=families)
    state = mesh(web, *found)
    destination = Endpoint(at(asked), 80)
    seen = chances(endpoints(state, SOURCE, web, destination, hint))
    expected = plainly(found, web, len(destination.address), hint)
    if len(seen) == 1 == len(expected):  # nothing to choose: its weight says nothing
        assert seen.keys() == expected.keys()
    else:
        assert seen == expected, (web, asked, hint, found)


def test_only_the_one_that_is_drawn_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    decode = Table._decoded

    def watch(table: Table[Workload], raw: bytes) -> Workload:
        message = workload_pb2.Address.FromString(raw)
        if message.HasField("workload"):
            decoded.append(message.workload.uid)
        return decode(table, raw)

    monkeypatch.setattr(Table, "_decoded", watch)
    pods = [pod(f"p{n}", f"10.0.{n // 250}.{n % 250}", services={WEB: ()}) for n in range(1000)]
    state = mesh(service("web", "10.1.0.1"), *pods)
    went = route(state, SOURCE, Endpoint(at("10.1.0.1"), 80), random.Random(5))
    assert isinstance(went, ToTunnel)
    assert went.workload is not None
    assert decoded == [went.workload.uid]
    state.apply([entry(replace(pods[0], status=WorkloadStatus.UNHEALTHY))])
    route(state, SOURCE, Endpoint(at("10.1.0.1"), 80), random.Random(5))
    assert len(decoded) <= 2


def test_groups_come_and_go_with_their_endpoints() -> None:
    one, other = (pod(name, "10.0.0.2", services={WEB: ()}) for name in ("one", "other"))
    state = mesh(one, other)
    assert [uids for _, uids in state.endpoints(WEB)] == [(one.uid, other.uid)]
    state.apply([entry(replace(other, node="n7"))])
    assert {(group.node, uids) for group, uids in state.endpoints(WEB)} == {
        ("", (one.uid,)),
        ("n7", (other.uid,)),
    }
