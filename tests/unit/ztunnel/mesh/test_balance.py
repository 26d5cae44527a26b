"""Choosing an endpoint, step by step: usable, near, narrowed by the kernel's draw, drawn."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from control.model.workload import (
    BalancingMode,
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    Locality,
    Port,
    Scope,
)
from tests.support.engine.meshes import at, pod, service
from ztunnel.mesh.balance import (
    Hint,
    Lot,
    candidates,
    draw,
    is_last_resort,
    is_local,
    narrowed,
    nearest,
    pod_address,
    rank,
    reachable,
    target_port,
    target_ports,
    tunnels,
)
from ztunnel.mesh.groups import Group

GROUP = Group(True, "", False, (4,), "n1", "c1", "r", "z", "s", 1, True, ())
SOURCE = pod("client", node="n1", cluster_id="c1", locality=Locality("r", "z", "s"))
WEB = service("web", "10.1.0.1")


def group(**fields: Any) -> Group:
    return GROUP._replace(**fields)


def lot(*uids: str, port: int = 8080, has_address: bool = True, **fields: Any) -> Lot:
    return Lot(group(**fields), uids or ("one",), port, has_address)


def usable(*groups: Group, web: Any = WEB, port: int = 80, family: int = 4) -> list[Lot]:
    endpoints = [(each, (f"u{number}",)) for number, each in enumerate(groups)]
    return candidates(web, endpoints, SOURCE, port, family)


# Usable


def test_an_endpoint_is_used_at_the_services_port() -> None:
    assert usable(GROUP) == [Lot(GROUP, ("u0",), 8080, True)]
    assert usable(GROUP, port=81) == [], "a port that the service has not"


def test_the_sick_only_where_the_service_takes_all() -> None:
    sick = group(is_healthy=False)
    assert usable(sick) == []
    takes_all = service("web", load_balancing=LoadBalancing(health_policy=HealthPolicy.ALLOW_ALL))
    assert len(usable(sick, web=takes_all)) == 1


@pytest.mark.parametrize(
    ("families", "own", "is_usable"),
    [
        (IpFamilies.DUAL, (16,), True),  # the client's family is a wish
        (IpFamilies.IPV4_ONLY, (16,), False),
        (IpFamilies.IPV6_ONLY, (4, 16), True),
        (IpFamilies.DUAL, (), False),
    ],
)
def test_an_address_of_a_family_that_the_service_has(
    families: IpFamilies, own: tuple[int, ...], is_usable: bool
) -> None:
    web = service("web", ip_families=families)
    assert bool(usable(group(families=own), web=web)) is is_usable


def test_another_network_needs_a_gateway_and_no_address() -> None:
    far = {"network": "far", "families": ()}
    assert usable(group(**far)) == []
    (found,) = usable(group(**far, has_gateway=True))
    assert not found.has_address
    assert usable(group(families=(), has_gateway=True)) == [], "here a gateway is of no use"


def test_a_waypoint_is_reached_at_its_tunnel_port_which_no_service_has() -> None:
    endpoints = [(GROUP, ("one",)), (group(is_healthy=False), ("sick",))]
    gate = service("gate", ports=())
    assert tunnels(gate, endpoints, SOURCE, 15008, 4) == [Lot(GROUP, ("one",), 15008, True)]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (((80, 9090),), 9090),  # a named port: each pod's own
        (((81, 9090),), 8080),
        (((80, 0),), 8080),
        ((), 8080),
    ],
)
def test_a_pods_own_port_goes_before_the_services(
    own: tuple[tuple[int, int], ...], expected: int
) -> None:
    assert target_port(WEB, own, 80) == expected


def test_a_port_without_a_target_is_none() -> None:
    assert target_port(service("web", ports=(Port(80, 0),)), (), 80) is None


@pytest.mark.parametrize(
    ("addresses", "families", "family", "expected"),
    [
        (("10.0.0.1", "fd00::1"), IpFamilies.DUAL, 4, "10.0.0.1"),
        (("10.0.0.1", "fd00::1"), IpFamilies.DUAL, 16, "fd00::1"),
        (("fd00::1",), IpFamilies.DUAL, 4, "fd00::1"),
        (("10.0.0.1", "fd00::1"), IpFamilies.IPV6_ONLY, 4, "fd00::1"),
        (("10.0.0.1",), IpFamilies.IPV6_ONLY, 4, None),
        (("fd00::1",), IpFamilies.IPV4_ONLY, 16, None),
        ((), IpFamilies.DUAL, 4, None),
    ],
)
def test_the_address_to_dial(
    addresses: tuple[str, ...], families: IpFamilies, family: int, expected: str | None
) -> None:
    found = pod_address([at(each) for each in addresses], families, family)
    assert found == (at(expected) if expected else None)


# Near


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({}, 3),
        ({"subzone": "x"}, 2),
        ({"zone": "x"}, 1),
        ({"region": "x"}, 0),
        ({"region": "x", "zone": "z"}, 0),  # what comes after the first difference is nothing
    ],
)
def test_scopes_count_until_the_first_that_differs(other: dict[str, str], expected: int) -> None:
    preference = (Scope.REGION, Scope.ZONE, Scope.SUBZONE)
    assert rank(preference, SOURCE, group(**other)) == expected


def test_the_own_network_in_the_first_place_outweighs_all_the_rest() -> None:
    preference = (Scope.NETWORK, Scope.REGION, Scope.ZONE)
    own_but_distant = rank(preference, SOURCE, group(region="x"))
    other_but_near = rank(preference, SOURCE, group(network="far"))
    assert own_but_distant > other_but_near > 0


def test_a_scope_that_nobody_knows_matches_nothing() -> None:
    assert rank((Scope.UNSPECIFIED, Scope.REGION), SOURCE, GROUP) == 0


NEAR, REGION, DISTANT = lot("near"), lot("region", zone="x"), lot("distant", region="x")


@pytest.mark.parametrize(
    ("mode", "found", "expected"),
    [
        (BalancingMode.FAILOVER, [NEAR, REGION, DISTANT], [NEAR]),
        (BalancingMode.FAILOVER, [REGION, DISTANT], [REGION]),
        (BalancingMode.FAILOVER, [DISTANT], [DISTANT]),
        (BalancingMode.STRICT, [NEAR, REGION, DISTANT], [NEAR]),
        (BalancingMode.STRICT, [REGION, DISTANT], []),
        (BalancingMode.FAILOVER, [], []),
    ],
)
def test_locality_leaves_the_best_or_only_equals(
    mode: BalancingMode, found: list[Lot], expected: list[Lot]
) -> None:
    balancing = LoadBalancing((Scope.REGION, Scope.ZONE), mode)
    assert nearest(found, SOURCE, balancing) == expected


@pytest.mark.parametrize("balancing", [None, LoadBalancing(), LoadBalancing((Scope.ZONE,))])
def test_without_a_preference_or_a_mode_all_are_left(balancing: LoadBalancing | None) -> None:
    assert nearest([NEAR, DISTANT], SOURCE, balancing) == [NEAR, DISTANT]


def test_behind_a_gateway_is_the_last_choice() -> None:
    far = lot("far", network="far")
    assert reachable([far, NEAR], SOURCE) == [NEAR]
    assert reachable([far], SOURCE) == [far]


# Narrowed


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"node": "n2"}, False),
        ({"is_direct": False}, False),
        ({"network": "far"}, False),
    ],
)
def test_local_is_what_the_kernel_might_reach_itself(
    fields: dict[str, Any], expected: bool
) -> None:
    assert is_local(SOURCE, group(**fields)) is expected


def test_pods_of_unknown_nodes_are_not_local_to_each_other() -> None:
    assert not is_local(pod("client"), group(node=""))


def test_a_hint_narrows_unless_that_leaves_nobody() -> None:
    here, there = lot("here"), lot("there", node="n2")
    assert narrowed([here, there], SOURCE, Hint.NONE) == [here, there]
    assert narrowed([here, there], SOURCE, Hint.LOCAL) == [here]
    assert narrowed([here, there], SOURCE, Hint.ELSEWHERE) == [there]
    assert narrowed([there], SOURCE, Hint.LOCAL) == [there]


# Drawn


class Points(random.Random):
    """Draws every number once, in order."""

    def __init__(self) -> None:
        super().__init__(0)
        self.taken = 0

    def randrange(self, *_: int) -> int:  # type: ignore[override]  # the bound is the test's
        self.taken += 1
        return self.taken - 1


def all_drawn(*lots: Lot) -> Counter[str]:
    """Uids over all numbers that may be drawn."""
    made, points = draw(lots), Points()
    chosen = [made.choose(points) for _ in range(made.total)]
    return Counter(one[0] for one in chosen if one is not None)


@pytest.mark.parametrize(
    ("capacities", "expected"),
    [
        ((1, 1), {"a": 1, "b": 1, "c": 1}),
        ((3, 2), {"a": 3, "b": 2, "c": 2}),
        ((3, 0), {"a": 3}),
        ((0, 0), {"a": 1, "b": 1, "c": 1}),  # nobody has any: equal chances
        ((7, 7), {"a": 1, "b": 1, "c": 1}),
    ],
)
def test_chances_follow_the_capacity_of_each_endpoint(
    capacities: tuple[int, int], expected: dict[str, int]
) -> None:
    first, second = capacities
    assert all_drawn(lot("a", capacity=first), lot("b", "c", capacity=second)) == expected


@pytest.mark.parametrize("lost", ["a", "b", "c", "nobody"])
@pytest.mark.parametrize("capacities", [(1, 1), (3, 2), (3, 0), (0, 3), (0, 0)])
def test_without_one_endpoint_the_others_keep_their_proportions(
    capacities: tuple[int, int], lost: str
) -> None:
    first, second = capacities
    lots = lot("a", capacity=first), lot("b", "c", capacity=second)
    others, points = draw(lots).without({lost}), Points()
    chosen = [others.choose(points) for _ in range(others.total)]
    left = {uid: number for uid, number in all_drawn(*lots).items() if uid != lost}
    counted = Counter(one[0] for one in chosen if one is not None)
    assert counted == (left or all_drawn(*lots)), "one alone that has a chance stays"


def test_an_only_endpoint_cannot_be_left_out() -> None:
    only = draw([lot("only")])
    assert only.without({"only"}) is only
    assert draw([]).without({"x"}).total == 0


def test_no_choice_takes_no_number() -> None:
    points = Points()
    assert draw([lot("only", port=9)]).choose(points) == ("only", 9)
    assert draw([]).choose(points) is None
    assert points.taken == 0
    assert draw([]).total == 0


# A client that stays


def clients(count: int) -> list[str]:
    return [f"Kubernetes//Pod/shop/client-{number}" for number in range(count)]


def test_a_client_stays_with_one_endpoint_in_every_process() -> None:
    chances = draw([lot("a", "b", "c", "d")])
    found = {each: chances.pinned(each) for each in clients(2000)}
    assert all(chances.pinned(each) == found[each] for each in found)
    shares = Counter(each[0] for each in found.values() if each)
    assert set(shares) == {"a", "b", "c", "d"}
    assert all(400 < share < 600 for share in shares.values()), shares
    # Python's own hash differs from process to process; this must not.
    assert chances.pinned("client") == ("b", 8080)


def test_it_follows_capacity_and_ports() -> None:
    chances = draw([lot("big", capacity=3), lot("small", port=9), lot("none", capacity=0)])
    shares = Counter(chances.pinned(each) for each in clients(2000))
    assert set(shares) == {("big", 8080), ("small", 9)}
    assert 1400 < shares["big", 8080] < 1600
    assert draw([]).pinned("client") is None


def test_only_clients_of_an_endpoint_that_goes_move_and_one_that_comes_gets_its_part() -> None:
    before = draw([lot("a", "b", "c", "d")])
    less, more = draw([lot("a", "b", "d")]), draw([lot("d", "a"), lot("e", "c", "b")])
    moved = 0
    for each in clients(1000):
        old, then, new = before.pinned(each), less.pinned(each), more.pinned(each)
        assert old
        assert then == old or old[0] == "c"
        assert new in (old, ("e", 8080))
        moved += new != old
    assert 120 < moved < 280, "about a fifth"


# The last resort


def test_who_terminates_and_serves_is_asked_for_apart() -> None:
    going = group(is_healthy=False, is_last_resort=True)
    endpoints = [(each, (name,)) for name, each in (("up", GROUP), ("going", going))]
    for wanted, name in ((None, "up"), (is_last_resort, "going")):
        more = () if wanted is None else (wanted,)
        (found,) = candidates(WEB, endpoints, SOURCE, 80, 4, *more)
        assert found.uids == (name,)
    down = group(is_healthy=False)
    assert candidates(WEB, [(down, ("down",))], SOURCE, 80, 4, is_last_resort) == []


def test_an_endpoint_may_have_several_ports_for_one_of_the_services() -> None:
    assert target_ports(WEB, ((80, 1), (81, 3), (80, 2)), 80) == (1, 2)
    assert target_port(WEB, ((80, 1), (81, 3), (80, 2)), 80) == 1
    found = usable(group(ports=((80, 1), (80, 2))))
    assert [each.port for each in found] == [1, 2]
