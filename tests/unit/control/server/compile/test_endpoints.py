"""Slices: they lead connections, and never say who somebody is."""

from __future__ import annotations

from itertools import permutations

import pytest

from control.model.address import parse_address
from control.model.workload import (
    Locality,
    NetworkMode,
    Port,
    TunnelProtocol,
    Workload,
    WorkloadStatus,
)
from control.server.compile.mesh import CompiledMesh, compile_mesh
from control.server.compile.settings import Settings
from tests.support import manifests
from tests.support.manifests import pod, policy
from tests.support.routes import routes, state_of, way

KEY = "shop/web.shop.svc.cluster.local"
PLACE = "Kubernetes/discovery.k8s.io/EndpointSlice"
CLIENT = pod("client", "demo", address="10.1.0.9")
NODE = """
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/zone: z}}
"""


def service(spec: str = "ports: [{name: p, port: 80}]", namespace: str = "shop") -> str:
    meta = f"{{name: web, namespace: {namespace}}}"
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {meta}\n"
        f"spec: {{clusterIP: 10.9.0.1, {spec}}}\n"
    )


def endpoint_slice(
    endpoint: str, name: str = "web-1", port: int = 80, part: str = "p", namespace: str = "shop"
) -> str:
    meta = f"name: {name}, namespace: {namespace}, labels: {{kubernetes.io/service-name: web}}"
    return (
        f"---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{{meta}}}\n"
        f"addressType: IPv4\nports: [{{name: {part}, port: {port}}}]\nendpoints: [{{{endpoint}}}]\n"
    )


def compiled(*texts: str) -> CompiledMesh:
    """Every pod is captured."""
    objects = manifests.objects(CLIENT + "".join(texts))
    uids = compile_mesh(objects, Settings(), frozenset()).pods
    return compile_mesh(objects, Settings(), frozenset(uids))


def named(mesh: CompiledMesh, name: str) -> Workload:
    (found,) = (each for each in mesh.workloads.values() if each.name == name)
    return found


BY_ADDRESS = [
    "addresses: [10.1.0.1]",
    "addresses: ['::ffff:10.1.0.1']",
    "addresses: [10.1.0.1], targetRef: {kind: Pod, name: db, namespace: other}",
    "addresses: [10.1.0.1], targetRef: {kind: Node, name: n9}",
    "addresses: [10.1.0.1], nodeName: n9",
]


@pytest.mark.parametrize(
    ("endpoint", "namespace"),
    [
        *((each, namespace) for each in BY_ADDRESS for namespace in ("shop", "plain")),
        ("addresses: [10.1.0.1], targetRef: {kind: Pod, name: db}", "shop"),
        ("addresses: [10.1.0.1], targetRef: {kind: Pod, name: db, namespace: shop}", "plain"),
    ],
)
def test_a_slice_with_a_pods_address_means_that_pod(endpoint: str, namespace: str) -> None:
    texts = [pod("db"), service(namespace=namespace)]
    texts.append(endpoint_slice(endpoint, namespace=namespace))
    mesh = compiled(*texts)
    assert sorted(mesh.workloads) == ["Kubernetes//Pod/demo/client", "Kubernetes//Pod/shop/db"]
    for backwards in (False, True):
        state = state_of(mesh, backwards=backwards)
        assert way(state, "demo/client", "10.9.0.1:80") == "hbone 10.1.0.1:80 shop/default"
        assert way(state, "demo/client", "10.1.0.1:80") == "hbone 10.1.0.1:80 shop/default"


def test_a_named_pod_goes_before_the_address() -> None:
    found = endpoint_slice("addresses: [10.1.0.8], targetRef: {kind: Pod, name: db}")
    mesh = compiled(pod("db"), pod("other", address="10.1.0.8"), service(), found)
    assert named(mesh, "db").services == {KEY: (Port(80, 80),)}
    assert named(mesh, "other").services == {}


def test_an_address_of_no_pod_is_a_place_without_node_and_identity() -> None:
    mesh = compiled(NODE, service(), endpoint_slice("addresses: [192.0.2.7], nodeName: n1"))
    place = mesh.workloads[f"{PLACE}/shop/web-1/192.0.2.7"]
    assert (place.node, place.service_account) == ("", "")
    assert place.network_mode is NetworkMode.HOST_NETWORK
    assert place.tunnel_protocol is TunnelProtocol.NONE
    assert place.locality == Locality("", "z")
    state = state_of(mesh)
    assert state.workload_at("", parse_address("192.0.2.7")) is None
    assert way(state, "demo/client", "10.9.0.1:80") == "plain 192.0.2.7:80"


def test_a_slice_named_like_a_pod_is_not_that_pod() -> None:
    """A node asks for its pods by name and account; the slice has both, and the node's name."""
    texts = [pod("victim"), service(), policy("{action: DENY, rules: [{}], selector: {}}")]
    texts.append(endpoint_slice("addresses: [10.1.0.8], nodeName: n1", "victim"))
    mesh = compiled(*texts)
    for backwards in (False, True):
        for node in ("n1", "n2"):
            state = state_of(mesh, node, backwards)
            local = state.local_workload("shop", "victim", "default")
            assert local is not None
            assert local.uid == "Kubernetes//Pod/shop/victim"
            assert [each.key for each in state.policies_for(local)] == ["shop/p"]


@pytest.mark.parametrize(
    ("conditions", "status", "last_resort"),
    [
        ("", WorkloadStatus.HEALTHY, False),
        ("ready: true", WorkloadStatus.HEALTHY, False),
        ("ready: false", WorkloadStatus.UNHEALTHY, False),
        ("ready: false, serving: true", WorkloadStatus.UNHEALTHY, False),
        ("ready: false, serving: true, terminating: true", WorkloadStatus.UNHEALTHY, True),
        ("ready: false, serving: false, terminating: true", WorkloadStatus.UNHEALTHY, False),
        ("ready: true, serving: true, terminating: true", WorkloadStatus.HEALTHY, False),
    ],
)
def test_conditions_of_a_place(conditions: str, status: WorkloadStatus, last_resort: bool) -> None:
    endpoint = f"addresses: [192.0.2.7], conditions: {{{conditions}}}"
    mesh = compiled(service(), endpoint_slice(endpoint))
    place = mesh.workloads[f"{PLACE}/shop/web-1/192.0.2.7"]
    assert (place.status, place.last_resort) == (status, last_resort)


@pytest.mark.parametrize("target", ["", ", targetRef: {kind: Pod, name: db}"])
@pytest.mark.parametrize(
    ("conditions", "more", "leaving", "expected"),
    [
        ("ready: true", "", False, True),
        ("ready: false", "", False, False),
        ("ready: false, serving: true, terminating: true", "", False, False),
        ("ready: false, serving: true, terminating: true", "", True, True),
        ("ready: false, terminating: true", "", True, False),
        ("ready: false", "publishNotReadyAddresses: true, ", False, True),
    ],
)
def test_a_slice_may_say_that_a_pod_is_not_ready(
    conditions: str, more: str, leaving: bool, expected: bool, target: str
) -> None:
    one = pod("db")
    if leaving:
        one = one.replace("name: db,", "name: db, deletionTimestamp: x,")
    endpoint = f"addresses: [10.1.0.1], conditions: {{{conditions}}}{target}"
    mesh = compiled(one, service(f"{more}ports: [{{name: p, port: 80}}]"), endpoint_slice(endpoint))
    assert (KEY in named(mesh, "db").services) is expected


def test_each_port_leads_to_the_slices_that_have_it() -> None:
    texts = [
        pod("db"),
        pod("stats", address="10.1.0.2"),
        service("ports: [{name: p, port: 80}, {name: q, port: 90}]"),
        endpoint_slice("addresses: [10.1.0.1], targetRef: {kind: Pod, name: db}", "s-a"),
        endpoint_slice("addresses: [10.1.0.2]", "s-b", 9090, "q"),
    ]
    for order in permutations(texts):
        state = state_of(compiled(*order))
        assert way(state, "demo/client", "10.9.0.1:80") == "hbone 10.1.0.1:80 shop/default"
        assert way(state, "demo/client", "10.9.0.1:90") == "hbone 10.1.0.2:9090 shop/default"


def test_a_port_that_no_slice_has_leads_nowhere() -> None:
    ports = "ports: [{name: p, port: 80}, {name: q, port: 90, targetPort: 9}]"
    mesh = compiled(pod("db"), service(ports), endpoint_slice("addresses: [10.1.0.1]"))
    state = state_of(mesh)
    assert way(state, "demo/client", "10.9.0.1:90") == "refused no_healthy_upstream"


@pytest.mark.parametrize("target", ["", ", targetRef: {kind: Pod, name: db}"])
def test_a_pod_in_several_slices_keeps_all_its_ports(target: str) -> None:
    texts = [
        pod("db"),
        service("ports: [{name: p, port: 80}, {name: q, port: 90}]"),
        endpoint_slice(f"addresses: [10.1.0.1]{target}", "s-a", 5432),
        endpoint_slice("addresses: [10.1.0.1]", "s-b", 6432),
        endpoint_slice("addresses: [10.1.0.1]", "s-c", 9090, "q"),
    ]
    for order in permutations(texts):
        state = state_of(compiled(*order))
        found = routes(state, "demo/client", "10.9.0.1:80", 200)
        assert set(found) == {f"hbone 10.1.0.1:{port} shop/default" for port in (5432, 6432)}
        assert min(found.values()) > 60
        assert way(state, "demo/client", "10.9.0.1:90") == "hbone 10.1.0.1:9090 shop/default"


def test_a_slice_cannot_lead_to_the_virtual_address_of_a_service() -> None:
    other = service(namespace="other").replace("10.9.0.1", "10.9.0.2")
    mesh = compiled(service(), other, endpoint_slice("addresses: [10.9.0.2]"))
    assert way(state_of(mesh), "demo/client", "10.9.0.1:80") == "refused no_healthy_upstream"
    (said,) = mesh.notes
    assert "is the cluster IP of Service other/web" in said.message


def test_a_udp_port_of_a_slice_is_not_the_tcp_port_of_that_name() -> None:
    text = endpoint_slice("addresses: [10.1.0.1]").replace("port: 80", "port: 80, protocol: UDP")
    mesh = compiled(pod("db"), service(), text)
    assert way(state_of(mesh), "demo/client", "10.9.0.1:80") == "refused no_healthy_upstream"


def test_strangers_do_not_make_a_pods_message_long() -> None:
    """A message beyond what a node takes would cut the pod off."""
    texts = [pod("db"), service(), endpoint_slice("addresses: [10.1.0.1]")]
    for at in range(100):
        texts.append(service(namespace=f"x{at}").replace("10.9.0.1", f"10.9.1.{at}"))
        texts.append(endpoint_slice("addresses: [10.1.0.1]", namespace=f"x{at}"))
    mesh = compiled(*texts)
    found = named(mesh, "db").services
    assert KEY in found
    assert len(found) == 1 + 64
    left_out = [each for each in mesh.notes if each.message.endswith("it is left out")]
    assert (len(mesh.notes), len(left_out)) == (100, 36)


def test_an_address_in_several_slices_of_a_service_is_one_endpoint() -> None:
    """The controller moves endpoints between slices, and names them in both meanwhile."""
    ports = "ports: [{name: p, port: 80}, {name: q, port: 90}]"
    texts = [
        service(ports),
        endpoint_slice("addresses: [192.0.2.7]", "s-a"),
        endpoint_slice("addresses: [192.0.2.7], conditions: {ready: false}", "s-b"),
        endpoint_slice("addresses: [192.0.2.7]", "s-c", 9090, "q"),
        endpoint_slice("addresses: [192.0.2.8]", "s-d"),
    ]
    for order in permutations(texts):
        mesh = compiled(*order)
        found = [each for each in mesh.workloads.values() if not each.node]
        assert [each.uid for each in found] == [
            f"{PLACE}/shop/s-a/192.0.2.7",
            f"{PLACE}/shop/s-d/192.0.2.8",
        ]
        assert found[0].status is WorkloadStatus.HEALTHY
        assert found[0].services == {KEY: (Port(80, 80), Port(90, 9090))}


def test_an_address_on_a_node_is_near_its_clients_and_still_nobody() -> None:
    near = "internalTrafficPolicy: Local, ports: [{name: p, port: 80}]"
    for node, expected in (("n1", "plain 192.0.2.7:80"), ("n2", "refused no_healthy_upstream")):
        mesh = compiled(service(near), endpoint_slice(f"addresses: [192.0.2.7], nodeName: {node}"))
        (place,) = (each for each in mesh.workloads.values() if not each.node)
        assert place.endpoint_node == node
        assert way(state_of(mesh), "demo/client", "10.9.0.1:80") == expected
