"""Host ports of enrolled pods, as services that lead to them."""

from __future__ import annotations

from control.model.address import parse_address
from control.model.workload import HealthPolicy, Port
from control.server.compile.mesh import CompiledMesh
from tests.support.manifests import mesh, policy

NODE = """
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.0.5}]}
"""
AMBIENT = """
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
"""
PROXY = """
---
apiVersion: v1
kind: Pod
metadata: {name: proxy, namespace: kube-system}
spec: {nodeName: n1, hostNetwork: true}
status: {phase: Running, podIP: 192.168.0.5}
"""
KEY = "shop/web.shop.hostport.cluster.local"


def pod(
    name: str = "web",
    address: str = "10.1.0.1",
    port: int = 8080,
    uid: str = "u1",
    created: str = "2026-01-01T00:00:00Z",
    ready: str = "True",
) -> str:
    return f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, uid: {uid}, creationTimestamp: "{created}"}}
spec:
  nodeName: n1
  containers: [{{name: app, ports: [{{containerPort: 80, hostPort: {port}}}]}}]
status:
  phase: Running
  podIP: {address}
  hostIPs: [{{ip: 192.168.0.5}}]
  conditions: [{{type: Ready, status: "{ready}"}}]
"""


def outer(found: CompiledMesh, key: str = KEY) -> tuple[tuple[int, ...], ...]:
    return tuple(each.ports for each in found.services[key].outer_addresses)


def test_the_nodes_address_leads_to_the_pod_at_that_port_alone() -> None:
    found = mesh(NODE + AMBIENT + PROXY + pod())
    service = found.services[KEY]
    assert service.ports == (Port(8080, 80),)
    (address,) = service.outer_addresses
    assert (address.address, address.ports) == (parse_address("192.168.0.5"), (8080,))
    assert not service.addresses
    web = found.workloads["Kubernetes//Pod/shop/web"]
    assert web.services == {KEY: (Port(8080, 80),)}
    proxy = found.workloads["Kubernetes//Pod/kube-system/proxy"]
    assert proxy.addresses == (parse_address("192.168.0.5"),)  # it keeps its own
    assert found.notes == ()


def test_a_pod_that_is_not_ready_is_served_as_by_the_runtime() -> None:
    balancing = mesh(NODE + AMBIENT + pod(ready="False")).services[KEY].load_balancing
    assert balancing is not None
    assert balancing.health_policy is HealthPolicy.ALLOW_ALL


def test_pods_outside_the_mesh_are_left_to_the_runtime() -> None:
    found = mesh(NODE + pod())
    assert found.services == {}
    assert found.workloads["Kubernetes//Pod/shop/web"].services == {}


def test_of_two_pods_with_one_port_the_older_has_it_and_both_are_named() -> None:
    younger = pod("late", "10.1.0.2", uid="u2", created="2026-01-02T00:00:00Z")
    other = pod("other", "10.1.0.3", 9090, uid="u3")
    found = mesh(NODE + AMBIENT + younger + pod() + other)
    assert outer(found) == ((8080,),)
    assert "shop/late.shop.hostport.cluster.local" not in found.services
    assert outer(found, "shop/other.shop.hostport.cluster.local") == ((9090,),)
    (note,) = found.notes
    assert note.object == "Pod shop/late"
    assert "host port 192.168.0.5 port 8080 is the host port of Pod shop/web" in note.message


def test_a_pods_own_address_is_not_shadowed() -> None:
    """Nor by a status that says so."""
    thief = pod("thief", "10.1.0.9", uid="u9").replace("ip: 192.168.0.5", "ip: 10.1.0.2")
    victim = pod("victim", "10.1.0.2", 9090, uid="u2")
    found = mesh(NODE + AMBIENT + victim + thief)
    assert "shop/thief.shop.hostport.cluster.local" not in found.services
    assert any("thief" in each.object for each in found.notes)


def test_a_report_of_the_capture_keeps_the_services() -> None:
    found = mesh(NODE + AMBIENT + pod(), frozenset({"u1"}))
    assert found.workloads["Kubernetes//Pod/shop/web"].services == {KEY: (Port(8080, 80),)}


def test_a_host_port_under_strict_is_noted() -> None:
    strict = policy("{mtls: {mode: STRICT}}", "PeerAuthentication")
    (note,) = mesh(NODE + AMBIENT + pod() + strict).notes
    assert (note.object, note.reason) == ("Pod shop/web", "host_port_strict")
    assert note.message == "STRICT: only clients in the mesh reach host port 8080 of n1"
    outside = mesh(NODE + pod() + strict).notes
    assert "host_port_strict" not in {each.reason for each in outside}
    assert mesh(NODE + AMBIENT + pod().replace(", hostPort: 8080", "") + strict).notes == ()
