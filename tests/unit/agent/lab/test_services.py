"""Names and virtual addresses that follow from the working copy."""

from __future__ import annotations

import pytest

from agent.cli.manifests import split
from agent.lab import objects, services
from agent.lab.manifests import Manifests
from tests.unit.agent.lab.example import placed_pod

TEXT = """\
kind: Service
metadata: {name: web, namespace: a}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}, {port: 53, protocol: UDP}]}
---
kind: Service
metadata: {name: direct, namespace: a}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
kind: Service
metadata: {name: fixed, namespace: b}
spec: {clusterIP: 172.20.0.10, ports: [{port: 1}]}
---
kind: EndpointSlice
metadata: {name: fixed-1, namespace: b, labels: {kubernetes.io/service-name: fixed}}
ports: [{port: 7}]
endpoints: [{addresses: [10.1.1.1]}, {addresses: [10.1.1.2], conditions: {ready: false}}]
"""


@pytest.fixture
def manifests() -> Manifests:
    found = Manifests({"x.yaml": split(TEXT, "x.yaml")})
    for number, (name, ready) in enumerate([("one", True), ("two", True), ("late", False)]):
        found.put(placed_pod(name, ready, number), "pods.yaml")
    objects.allocate_services(found)
    return found


def test_only_ready_pods_are_behind_a_service(manifests: Manifests) -> None:
    found = {
        (item.address, item.protocol, item.port): item for item in services.virtuals(manifests)
    }
    assert found["172.20.0.11", "tcp", 80].endpoints == (("10.71.1.2", 8080), ("10.71.1.3", 8080))
    assert found["fd72::b", "tcp", 80].endpoints == (("fd71:1::2", 8080), ("fd71:1::3", 8080))
    assert found["172.20.0.11", "udp", 53].endpoints[0] == ("10.71.1.2", 53)
    assert found["172.20.0.10", "tcp", 1].endpoints == (("10.1.1.1", 7),)


def test_rules_choose_at_random_and_let_a_pod_reach_itself(manifests: Manifests) -> None:
    text = services.nft_text(services.virtuals(manifests))
    assert (
        "ip daddr 172.20.0.11 tcp dport 80 dnat ip to numgen random mod 2 map "
        "{ 0 : 10.71.1.2 . 8080, 1 : 10.71.1.3 . 8080 }" in text
    )
    assert "ip daddr 172.20.0.10 tcp dport 1 dnat ip to 10.1.1.1:7" in text
    assert "ct status dnat ip6 saddr fd71:1::2 ip6 daddr fd71:1::2 masquerade" in text
    assert "late" not in text


def test_hosts_have_short_names_only_in_the_same_namespace(manifests: Manifests) -> None:
    text = services.hosts_text(manifests, manifests.of_kind("Pod")[0])
    assert "10.71.1.2 one\n" in text
    assert "172.20.0.11 web.a.svc.cluster.local web.a.svc web.a web\n" in text
    assert "172.20.0.10 fixed.b.svc.cluster.local fixed.b.svc fixed.b\n" in text
    assert "10.71.1.3 direct.a.svc.cluster.local direct.a.svc direct.a direct\n" in text
