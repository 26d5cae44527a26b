"""Routes through a service: the last resort, and clients that stay with one endpoint."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from control.model.address import parse_endpoint
from control.model.workload import BalancingMode, LoadBalancing, Scope, Workload, WorkloadStatus
from tests.support.engine.meshes import key, mesh, pod, service
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.roles import Asked
from ztunnel.mesh.route import ToTunnel, route

CLIENT = pod("client", "10.0.0.1", "fd00::1", node="n1")
DOWN = WorkloadStatus.UNHEALTHY


@pytest.mark.parametrize("healthy_elsewhere", [True, False])
def test_terminating_endpoints_are_taken_where_no_other_is_left(healthy_elsewhere: bool) -> None:
    going = pod("going", "10.0.0.5", services={key("web"): ()}, status=DOWN, last_resort=True)
    down = pod("down", "10.0.0.6", services={key("web"): ()}, status=DOWN)
    up = pod("up", "10.0.0.7", services={key("web"): ()})
    values = [CLIENT, service("web", "10.1.0.1"), going, down, *([up] if healthy_elsewhere else [])]
    state = mesh(*values)
    asked = Asked(parse_endpoint("10.1.0.1:80"))
    for _ in range(20):
        decision = route(state, CLIENT, asked, random.Random(1))
        assert isinstance(decision, ToTunnel)
        assert decision.workload == (up if healthy_elsewhere else going)


def test_locality_is_kept_among_the_last() -> None:
    """`internalTrafficPolicy: Local`: an endpoint of this node that terminates, not a healthy one
    of another."""
    local = LoadBalancing((Scope.NODE,), BalancingMode.STRICT)
    client = replace(CLIENT, node="n1")
    here = pod("h", "10.0.0.5", services={key("web"): ()}, node="n1", status=DOWN, last_resort=True)
    there = pod("there", "10.0.0.6", services={key("web"): ()}, node="n2")
    state = mesh(client, service("web", "10.1.0.1", load_balancing=local), here, there)
    decision = route(state, client, Asked(parse_endpoint("10.1.0.1:80")), random.Random(1))
    assert isinstance(decision, ToTunnel)
    assert decision.workload == here


def test_with_affinity_a_client_stays_until_its_endpoint_goes() -> None:
    web = service("web", "10.1.0.1", affinity_s=60)
    pods = [pod(f"w{at}", f"10.0.0.{at}", services={key("web"): ()}) for at in range(1, 9)]
    clients = [pod(f"c{at}", f"10.0.1.{at}") for at in range(1, 33)]
    state = mesh(web, *pods, *clients)
    asked, rng = Asked(parse_endpoint("10.1.0.1:80")), random.Random(1)

    def endpoint(client: Workload) -> str:
        decision = route(state, client, asked, rng)
        assert isinstance(decision, ToTunnel)
        assert decision.workload is not None
        return decision.workload.uid

    before = {each.uid: endpoint(each) for each in clients}
    assert len(set(before.values())) > 4
    for each in clients:
        assert {endpoint(each) for _ in range(5)} == {before[each.uid]}
    gone = before[clients[0].uid]
    state.apply([Entry(Op.REMOVE_ADDRESS, gone)])
    for each in clients:
        now = endpoint(each)
        assert (now == before[each.uid]) is (before[each.uid] != gone)


@pytest.mark.parametrize("affinity_s", [0, 60])
def test_a_lost_endpoint_is_left_out_and_a_pinned_client_keeps_its_own(affinity_s: int) -> None:
    web = service("web", "10.1.0.1", affinity_s=affinity_s)
    pods = [pod(f"w{at}", f"10.0.0.{at}", services={key("web"): ()}) for at in range(1, 4)]
    client = pod("c", "10.0.1.1")
    state = mesh(web, *pods, client)
    asked, rng = Asked(parse_endpoint("10.1.0.1:80")), random.Random(1)

    def endpoint(lost: str = "") -> str:
        decision = route(state, client, asked, rng, lost=frozenset((lost,)))
        assert isinstance(decision, ToTunnel)
        assert decision.workload is not None
        return decision.workload.uid

    for each in pods:
        elsewhere = {endpoint(each.uid) for _ in range(100)}
        assert each.uid not in elsewhere
        assert len(elsewhere) == (1 if affinity_s else 2)
    if affinity_s:
        assert endpoint() == endpoint("nobody")
