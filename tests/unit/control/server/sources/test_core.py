"""Core kinds: the API server's defaults, and what is refused."""

from __future__ import annotations

import pytest

from control.model.address import format_address
from tests.support.manifests import load, objects, pod

SERVICE = "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {%s}\n"


def test_defaults_of_a_pod() -> None:
    (found,) = objects(
        pod(spec="containers: [{ports: [{containerPort: 80}]}]").replace("namespace: shop,", "")
    ).pods
    assert (found.meta.namespace, found.service_account) == ("default", "default")
    assert found.ports[0].protocol == "TCP"
    assert found.ready


def test_defaults_of_a_service() -> None:
    (found,) = objects(SERVICE % "ports: [{port: 80}], clusterIP: 10.9.0.1").services
    assert (found.type, found.internal_traffic_policy) == ("ClusterIP", "Cluster")
    assert (found.ports[0].target, found.ports[0].protocol) == (80, "TCP")
    assert [format_address(each) for each in found.addresses] == ["10.9.0.1"]


def test_a_load_balancers_addresses_are_the_services_but_no_cluster_ips() -> None:
    text = SERVICE % "clusterIPs: [10.9.0.1], type: LoadBalancer"
    text += "status: {loadBalancer: {ingress: [{ip: 192.0.2.1}, {hostname: x}, "
    text += "{ip: 192.0.2.2, ipMode: VIP}, {ip: 192.0.2.3, ipMode: Proxy}]}}\n"
    (found,) = objects(text).services
    assert [format_address(each) for each in found.addresses] == ["10.9.0.1"]
    balancer = [format_address(each) for each in found.balancer_addresses]
    assert balancer == ["192.0.2.1", "192.0.2.2"], "a proxy's traffic has to pass it"


def test_external_addresses() -> None:
    (found,) = objects(SERVICE % "externalIPs: [192.0.2.1, '2001:db8::1', 192.0.2.1]").services
    addresses = [format_address(each) for each in found.external_addresses]
    assert addresses == ["192.0.2.1", "2001:db8::1"]


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ("", 0),
        ("sessionAffinity: None", 0),
        ("sessionAffinity: ClientIP", 10800),
        (
            "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}",
            60,
        ),
        ("sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}", 0),
    ],
)
def test_session_affinity(spec: str, seconds: int) -> None:
    assert objects(SERVICE % spec).services[0].affinity_s == seconds


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ("{phase: Running}", True),
        ("{phase: Pending}", False),
        ("{phase: Running, conditions: [{type: Ready, status: 'False'}]}", False),
        ("{phase: Running, conditions: [{type: Initialized, status: 'True'}]}", False),
        ("{phase: Running, conditions: [{type: Ready, status: 'True'}]}", True),
    ],
)
def test_readiness(status: str, ready: bool) -> None:
    text = pod().replace("{phase: Running, podIP: 10.1.0.1}", status)
    assert objects(text).pods[0].ready is ready


def test_a_pod_being_deleted_is_not_ready() -> None:
    text = pod().replace("namespace: shop", "namespace: shop, deletionTimestamp: x")
    assert not objects(text).pods[0].ready


@pytest.mark.parametrize(
    "text",
    [
        pod().replace("10.1.0.1", "10.1.0"),
        pod(spec="hostNetwork: 'true'"),
        pod(spec="containers: [{ports: [{containerPort: 70000}]}]"),
        pod(spec="containers: [{ports: [{}]}]"),
        pod(spec="containers: [{ports: [{containerPort: true}]}]"),
        pod(labels="a: true"),
        pod().replace("namespace: shop", "namespace: shop, creationTimestamp: yesterday"),
        pod().replace("namespace: shop", "namespace: shop, uid: a/b"),
        SERVICE % "ports: [{port: 0}]",
        SERVICE % "ports: [{port: 80, protocol: HTTP}]",
        SERVICE % "ports: [{port: 80, targetPort: 70000}]",
        SERVICE % "clusterIP: x",
        SERVICE % "selector: [a]",
        SERVICE % "externalIPs: [x]",
        SERVICE % "sessionAffinity: ClientIP, "
        "sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}",
    ],
)
def test_what_cannot_be_is_refused(text: str) -> None:
    found = load(text)
    assert [each.reason for each in found.problems] == ["invalid"]
    assert found.objects.pods == ()
    assert found.objects.services == ()
