"""Shares of a service that the kernel may draw, and what makes them stale."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from control.model.address import Endpoint, parse_endpoint
from control.model.workload import (
    BalancingMode,
    LoadBalancing,
    Port,
    Scope,
    Service,
    TunnelProtocol,
    WeightedWaypoint,
    Workload,
    WorkloadStatus,
)
from control.wire.direct import SLOTS_MAX, ShareSlot
from tests.support.engine.meshes import key, mesh, pod
from tests.unit.ztunnel.direct.verdicts_rig import CLIENT, GATE, SERVICE, WEB, Served
from ztunnel.direct.verdicts import Share, local_share
from ztunnel.mesh.balance import Hint
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.route import ToTunnel, route
from ztunnel.supervisor.stale import makes_stale

VIP = parse_endpoint("10.1.0.1:80")


def near(number: int, *more: str, **fields: Any) -> Workload:
    return pod(f"near{number}", f"10.0.1.{number}", *more, node="n1", services=WEB, **fields)


def far(number: int, **fields: Any) -> Workload:
    return pod(f"far{number}", f"10.0.2.{number}", node="n2", services=WEB, **fields)


def share(*values: Workload | Service, asked: Endpoint = VIP, served: bool = True) -> Share | None:
    with_service = [each for each in values if isinstance(each, Service)] or [SERVICE]
    pods = [each for each in values if isinstance(each, Workload)]
    state = mesh(CLIENT, *with_service, *pods)
    found = state.service_at("", asked.address, "shop")
    assert found is not None
    return local_share(
        state, lambda each: Served(each.uid) if served else None, CLIENT, found, asked
    )


def slot(number: int, weight: int = 1, port: int = 8080) -> ShareSlot:
    return ShareSlot(weight, f"pod-near{number}", parse_endpoint(f"10.0.1.{number}:{port}"))


def test_those_here_have_their_chances_among_all() -> None:
    assert share(near(1), far(1), near(2), far(2)) == Share(4, (slot(1), slot(2)))


def test_capacity_is_the_weight() -> None:
    found = share(near(1, capacity=5), far(1, capacity=2), near(2, capacity=0))
    assert found == Share(7, (slot(1, 5),))


def test_nobody_here_is_nothing_to_draw_from() -> None:
    assert share(far(1)) is None


def test_an_unhealthy_pod_takes_no_part() -> None:
    sick = near(1, status=WorkloadStatus.UNHEALTHY)
    assert share(sick, near(2), far(1)) == Share(2, (slot(2),))


def test_locality_leaves_whom_it_leaves() -> None:
    balancing = LoadBalancing((Scope.NODE,), BalancingMode.FAILOVER)
    local = replace(SERVICE, load_balancing=balancing)
    assert share(local, near(1), far(1)) == Share(1, (slot(1),))


def test_a_named_port_leads_to_each_pods_own() -> None:
    named = replace(SERVICE, ports=(Port(80, 0),))
    own = replace(near(1), services={key("web"): (Port(80, 9090),)})
    assert share(named, own) == Share(1, (slot(1, port=9090),))


def test_a_pod_outside_the_mesh_is_part_of_the_rest() -> None:
    plain = near(2, tunnel_protocol=TunnelProtocol.NONE)
    assert share(near(1), plain) == Share(2, (slot(1),))


@pytest.mark.parametrize(
    "other",
    [
        replace(SERVICE, waypoint=GATE),
        replace(SERVICE, weighted_waypoints=(WeightedWaypoint(GATE, 1),)),
        replace(SERVICE, load_balancing=LoadBalancing(mode=BalancingMode.PASSTHROUGH)),
        replace(SERVICE, affinity_s=60),
    ],
)
def test_a_service_with_a_way_of_its_own_is_not_offered(other: Service) -> None:
    assert share(other, near(1)) is None


def test_the_family_of_the_kernels_connection_cannot_change() -> None:
    assert share(near(1), asked=parse_endpoint("[fd01::1]:80")) is None
    both = share(near(1, "fd00::11"), asked=parse_endpoint("[fd01::1]:80"))
    assert both is not None
    assert str(both.slots[0].target) == "[fd00::11]:8080"


def test_a_pod_that_is_not_served_here_keeps_its_service_in_the_tunnel() -> None:
    assert share(near(1), far(1), served=False) is None


def test_more_pods_than_slots_are_not_offered() -> None:
    assert share(*(near(number) for number in range(1, SLOTS_MAX + 1))) is not None
    assert share(*(near(number) for number in range(1, SLOTS_MAX + 2))) is None


def test_chances_that_the_kernel_cannot_count_are_not_offered() -> None:
    assert share(near(1, capacity=1), far(1, capacity=2**32 - 1)) is None


def test_the_hints_halves_are_the_shares_halves() -> None:
    """The kernel draws from the same endpoints as the ztunnel does for LOCAL."""
    state = mesh(CLIENT, SERVICE, near(1), far(1), near(2, tunnel_protocol=TunnelProtocol.NONE))
    found = local_share(state, lambda each: Served(each.uid), CLIENT, SERVICE, VIP)
    assert found is not None
    rng = random.Random(1)
    for _ in range(20):
        decision = route(state, CLIENT, VIP, rng, Hint.LOCAL)
        assert isinstance(decision, ToTunnel)
        assert decision.target in {each.target for each in found.slots}


SERVED = {("shop", "server"), ("shop", "client")}


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (Entry(Op.POLICY, "shop/p"), True),
        (Entry(Op.REMOVE_POLICY, "shop/p"), True),
        (Entry(Op.REJECTED_POLICY, "shop/p"), True),
        (Entry(Op.ADDRESS, "Kubernetes//Pod/shop/server"), True),
        (Entry(Op.REMOVE_ADDRESS, "Kubernetes//Pod/shop/server"), True),
        (Entry(Op.ADDRESS, "other-cluster//Pod/shop/server"), True),
        (Entry(Op.ADDRESS, "K/networking.istio.io/WorkloadEntry/shop/server"), True),
        (Entry(Op.ADDRESS, "Kubernetes//Pod/other/server"), False),
        (Entry(Op.ADDRESS, "Kubernetes//Pod/shop/server-2"), False),
        (Entry(Op.REMOVE_ADDRESS, "Kubernetes//Pod/shop/far"), False),
        (Entry(Op.ADDRESS, "shop/web.shop.svc.cluster.local"), True),
        (Entry(Op.REMOVE_ADDRESS, "shop/web.shop.svc.cluster.local"), True),
        (Entry(Op.SNAPSHOT), False),
    ],
)
def test_what_may_change_a_verdict(change: Entry, stale: bool) -> None:
    harmless = Entry(Op.ADDRESS, "Kubernetes//Pod/shop/far")
    assert makes_stale([harmless, change], SERVED) is stale


def test_thousands_of_pods_elsewhere_change_nothing() -> None:
    batch = [Entry(Op.ADDRESS, f"Kubernetes//Pod/load/pod-{number}") for number in range(10_000)]
    assert not makes_stale(batch, SERVED)
