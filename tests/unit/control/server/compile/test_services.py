"""Kubernetes services as services of the mesh: ports, protocols, families, and who is near."""

from __future__ import annotations

import pytest

from control.model.workload import (
    AppProtocol,
    BalancingMode,
    HealthPolicy,
    IpFamilies,
    NetworkAddress,
    Port,
    Scope,
    Service,
)
from control.server.compile.services import service_key, slice_ports
from control.server.compile.settings import Settings
from tests.support import manifests
from tests.support.manifests import mesh


def service(spec: str, meta: str = "") -> str:
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop, {meta}}}\n"
        f"spec: {{{spec}}}\n"
    )


def one_service(text: str, **settings: object) -> Service:
    (found,) = mesh(text, **settings).services.values()
    return found


def test_names_and_addresses() -> None:
    spec = "clusterIPs: [10.1.0.1, 'fd00::1'], ports: [{port: 80, targetPort: 8080}]"
    found = one_service(service(spec), network="net", domain_suffix="example")
    assert found.hostname == "web.shop.svc.example"
    assert found.key == "shop/web.shop.svc.example"
    assert [type(each) for each in found.addresses] == [NetworkAddress, NetworkAddress]
    assert {each.network for each in found.addresses} == {"net"}
    assert found.ports == (Port(80, 8080),)
    assert found.canonical


def test_the_key_is_the_one_that_pods_name_it_by() -> None:
    (found,) = manifests.objects(service("ports: [{port: 80}]")).services
    settings = Settings(domain_suffix="example")
    assert service_key(found.meta.key, settings) == "shop/web.shop.svc.example"


def test_a_headless_service_has_no_address() -> None:
    assert one_service(service("clusterIP: None, ports: [{port: 80}]")).addresses == ()


def test_a_named_port_is_left_to_each_pod() -> None:
    assert one_service(service("ports: [{port: 80, targetPort: http}]")).ports == (Port(80, 0),)


def test_a_slice_gives_its_own_number_to_each_port_it_names() -> None:
    slice_text = (
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        "metadata: {name: s, namespace: shop, labels: {kubernetes.io/service-name: web}}\n"
        "addressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints: []\n"
    )
    spec = "ports: [{name: http, port: 80}, {name: admin, port: 81}]"
    found = manifests.objects(service(spec) + slice_text)
    assert slice_ports(found.services[0], found.slices[0]) == (Port(80, 8080),)


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ("name: http-web, port: 80", AppProtocol.HTTP11),
        ("name: http2, port: 80", AppProtocol.HTTP2),
        ("name: grpc-web-x, port: 80", AppProtocol.GRPC),
        ("name: https, port: 80", AppProtocol.TLS),
        ("name: tcp-x, port: 80", AppProtocol.TCP),
        ("name: web, port: 80", AppProtocol.UNKNOWN),
        ("name: web, port: 3306", AppProtocol.TCP),
        ("name: http, port: 80, protocol: UDP", AppProtocol.UNKNOWN),
        ("name: tcp, port: 80, appProtocol: kubernetes.io/h2c", AppProtocol.HTTP2),
        ("name: tcp, port: 80, appProtocol: postgres", AppProtocol.UNKNOWN),
    ],
)
def test_application_protocol(port: str, expected: AppProtocol) -> None:
    assert one_service(service(f"ports: [{{{port}}}]")).ports[0].app_protocol is expected


NEAR = (Scope.NETWORK, Scope.REGION, Scope.ZONE)


@pytest.mark.parametrize(
    ("spec", "meta", "preference", "mode"),
    [
        ("internalTrafficPolicy: Local", "", (Scope.NODE,), BalancingMode.STRICT),
        ("trafficDistribution: PreferClose", "", NEAR, BalancingMode.FAILOVER),
        ("trafficDistribution: PreferSameZone", "", NEAR, BalancingMode.FAILOVER),
        (
            "trafficDistribution: PreferSameNode",
            "",
            (*NEAR, Scope.SUBZONE, Scope.NODE),
            BalancingMode.FAILOVER,
        ),
        (
            "type: ClusterIP",
            "annotations: {networking.istio.io/traffic-distribution: PreferClose}",
            NEAR,
            BalancingMode.FAILOVER,
        ),
    ],
)
def test_load_balancing(
    spec: str, meta: str, preference: tuple[Scope, ...], mode: BalancingMode
) -> None:
    found = one_service(service(spec, meta)).load_balancing
    assert found is not None
    assert (found.routing_preference, found.mode) == (preference, mode)
    assert found.health_policy is HealthPolicy.ONLY_HEALTHY


def test_not_ready_addresses_may_be_asked_for() -> None:
    assert one_service(service("")).load_balancing is None
    found = one_service(service("publishNotReadyAddresses: true")).load_balancing
    assert found is not None
    assert found.health_policy is HealthPolicy.ALLOW_ALL


@pytest.mark.parametrize(
    ("families", "expected"),
    [
        ("[]", IpFamilies.AUTOMATIC),
        ("[IPv4]", IpFamilies.IPV4_ONLY),
        ("[IPv6]", IpFamilies.IPV6_ONLY),
        ("[IPv6, IPv4]", IpFamilies.DUAL),
    ],
)
def test_ip_families(families: str, expected: IpFamilies) -> None:
    assert one_service(service(f"ipFamilies: {families}")).ip_families is expected


def test_an_external_name_is_nothing() -> None:
    found = mesh(service("type: ExternalName, externalName: x.example, selector: {a: b}"))
    assert found.services == {}
