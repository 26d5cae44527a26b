"""Services and slices: the API server's defaults, what is refused, and what is told."""

from __future__ import annotations

import pytest

from control.model.address import format_address
from tests.support.manifests import load, objects

SERVICE = "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {%s}\n"
SLICE = (
    "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
    "metadata: {name: s-1, namespace: shop, labels: {kubernetes.io/service-name: s}}\n"
    "addressType: IPv4\nports: [%s]\nendpoints: [{%s}]\n"
)


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
    "text",
    [
        SERVICE % "ports: [{port: 0}]",
        SERVICE % "ports: [{port: 80, protocol: HTTP}]",
        SERVICE % "ports: [{port: 80, targetPort: 70000}]",
        SERVICE % "clusterIP: x",
        SERVICE % "selector: [a]",
        SERVICE % "externalIPs: [x]",
        SERVICE % "sessionAffinity: ClientIP, "
        "sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}",
        SLICE % ("", "addresses: [db.example]"),
        SLICE % ("", "addresses: [10.1.0.1/32]"),
        SLICE % ("{port: 0}", "addresses: []"),
        SLICE % ("{port: 80, protocol: HTTP}", "addresses: []"),
        SLICE % ("", "addresses: [10.1.0.1], conditions: {ready: 'yes'}"),
        SLICE % ("", "addresses: [10.1.0.1], targetRef: x"),
    ],
)
def test_what_cannot_be_is_refused(text: str) -> None:
    found = load(text)
    assert [each.reason for each in found.problems] == ["invalid"]
    assert found.objects.services == ()
    assert found.objects.slices == ()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("kind: Pod, name: a", ("shop", "a")),
        ("kind: Pod, name: a, namespace: shop", ("shop", "a")),
        ("kind: Pod, name: a, namespace: other", None),
        ("kind: Node, name: a", None),
        ("name: a", None),
    ],
)
def test_a_slice_names_pods_of_its_namespace_only(
    target: str, expected: tuple[str, str] | None
) -> None:
    text = SLICE % ("", f"addresses: [10.1.0.1], targetRef: {{{target}}}")
    assert objects(text).slices[0].endpoints[0].pod == expected


def test_ports_of_a_slice_are_those_of_tcp() -> None:
    ports = "{name: a, port: 1}, {name: b, port: 2, protocol: UDP}, {name: c}"
    assert objects(SLICE % (ports, "addresses: []")).slices[0].ports == {"a": 1}


def test_values_that_are_not_followed_are_told() -> None:
    text = SERVICE % "type: Fancy, trafficDistribution: PreferFar, sessionAffinity: ClientIP"
    assert objects(text).services[0].not_followed == (
        "type Fancy is unknown here and has no effect",
        "trafficDistribution PreferFar is unknown here and has no effect",
    )


@pytest.mark.parametrize(("ports", "most"), [(1, 2048), (100, 20), (3000, 0)])
def test_outer_addresses_are_bounded(ports: int, most: int) -> None:
    """Each address takes an entry for each port in each node's memory."""
    ips = [f"198.51.{at // 256}.{at % 256}" for at in range(2100)]
    spec = f"externalIPs: [{', '.join(ips)}], "
    spec += f"ports: [{', '.join(f'{{port: {at}}}' for at in range(1, 1 + ports))}]"
    text = SERVICE % spec + "status: {loadBalancer: {ingress: [%s]}}\n"
    (found,) = objects(text % ", ".join(f"{{ip: {each}}}" for each in ips)).services
    assert [format_address(each) for each in found.external_addresses] == ips[:most]
    assert [format_address(each) for each in found.balancer_addresses] == ips[:most]
    assert [each.partition(":")[0] for each in found.not_followed] == [
        "status.loadBalancer.ingress",
        "externalIPs",
    ]
