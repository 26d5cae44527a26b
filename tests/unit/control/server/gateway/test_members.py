"""Backends: the workloads of a service, at one of its ports."""

from __future__ import annotations

import pytest

from control.model.address import format_address
from control.model.workload import Locality
from control.server.gateway.members import Members
from tests.support.gateways import Bench, gateway, service
from tests.support.manifests import pod

USE = "istio.io/use-waypoint: way"
NOT_READY = "conditions: [{type: Ready, status: 'False'}]"


def endpoints(text: str, backend: str = "shop/web:80") -> list[tuple[str, int]]:
    found = Bench(gateway() + text).waypoint().backends[backend].endpoints
    return [(format_address(each.address), each.port) for each in found]


def unready(text: str) -> str:
    return text.replace("podIP:", f"{NOT_READY}, podIP:")


def test_pods_of_the_service_in_one_order() -> None:
    text = service("web", labels=USE)
    text += pod("b", labels="app: web", address="10.1.0.2") + pod("a", labels="app: web")
    text += pod("c", labels="app: db", address="10.1.0.3")
    assert endpoints(text) == [("10.1.0.1", 8080), ("10.1.0.2", 8080)]


def test_a_named_port_is_each_pods_own() -> None:
    ports = "{port: 80, name: http, targetPort: w}"
    named = "containers: [{name: c, ports: [{name: w, containerPort: 8%s}]}]"
    text = service("web", labels=USE, ports=ports)
    text += pod("a", labels="app: web", spec=named % 1)
    text += pod("b", labels="app: web", spec=named % 2, address="10.1.0.2")
    text += pod("c", labels="app: web", address="10.1.0.3")
    assert endpoints(text) == [("10.1.0.1", 81), ("10.1.0.2", 82)]


def test_only_those_that_are_ready_unless_the_service_wants_all() -> None:
    text = service("web", labels=USE) + pod("a", labels="app: web")
    text += unready(pod("b", labels="app: web", address="10.1.0.2"))
    assert endpoints(text) == [("10.1.0.1", 8080)]
    everybody = text.replace("clusterIP:", "publishNotReadyAddresses: true, clusterIP:")
    assert len(endpoints(everybody)) == 2


@pytest.mark.parametrize("is_leaving", [True, False])
def test_those_that_leave_are_taken_where_nobody_else_is(is_leaving: bool) -> None:
    leaving = pod("a", labels="app: web").replace(
        "metadata: {", "metadata: {deletionTimestamp: '2026-01-01T00:00:00Z', "
    )
    text = service("web", labels=USE) + (leaving if is_leaving else unready(leaving))
    assert len(endpoints(text)) == is_leaving


def test_places_are_told_with_their_locality() -> None:
    node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {%s: z}}\n"
    text = gateway() + service("web", labels=USE) + pod("a", labels="app: web")
    bench = Bench(text + node % "topology.kubernetes.io/zone")
    (found,) = bench.waypoint().backends["shop/web:80"].endpoints
    assert found.locality == Locality("", "z", "")


def test_nothing_is_kept_of_a_workload_that_has_gone() -> None:
    members = Members()
    (workload,) = Bench(service("web") + pod("a", labels="app: web")).mesh.workloads.values()
    assert list(members.put("a", workload)) == ["shop/web.shop.svc.cluster.local"]
    assert list(members.put("a", None)) == ["shop/web.shop.svc.cluster.local"]
    assert list(members.put("a", None)) == []
