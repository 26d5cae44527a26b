"""Pods, services and slices → workloads and services."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from control.model.workload import (
    Locality,
    NetworkMode,
    Port,
    Service,
    TunnelProtocol,
    Workload,
    WorkloadStatus,
    WorkloadType,
)
from control.server.compile.settings import Settings
from control.server.compile.waypoints import Waypoints
from control.server.compile.workloads import Compiler
from tests.support.manifests import mesh, pod, policy

WEB_KEY = "shop/web.shop.svc.cluster.local"


def service(spec: str, meta: str = "") -> str:
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop, {meta}}}\n"
        f"spec: {{{spec}}}\n"
    )


def one_workload(text: str, **kwargs: object) -> Workload:
    (found,) = mesh(text, **kwargs).workloads.values()  # type: ignore[arg-type]  # test shorthand
    return found


def one_service(text: str) -> Service:
    (found,) = mesh(text).services.values()
    return found


@pytest.mark.parametrize(
    ("kind", "name", "labels", "expected"),
    [
        ("ReplicaSet", "web-5d9", "pod-template-hash: 5d9", (WorkloadType.DEPLOYMENT, "web")),
        ("ReplicaSet", "web-5d9", "a: b", (WorkloadType.POD, "web-5d9")),
        ("Job", "backup-28000000", "", (WorkloadType.CRONJOB, "backup")),
        ("Job", "import", "", (WorkloadType.JOB, "import")),
        ("StatefulSet", "db", "", (WorkloadType.POD, "db")),
        ("DaemonSet", "log", "", (WorkloadType.POD, "log")),
    ],
)
def test_the_owner_that_a_person_made(
    kind: str, name: str, labels: str, expected: tuple[WorkloadType, str]
) -> None:
    owner = f"ownerReferences: [{{kind: {kind}, name: {name}, controller: true}}]"
    text = pod("p", labels=labels).replace("namespace: shop,", f"namespace: shop, {owner},")
    found = one_workload(text)
    assert (found.workload_type, found.workload_name) == expected
    assert found.canonical_name == expected[1]


def test_status_and_mode() -> None:
    assert one_workload(pod()).status is WorkloadStatus.HEALTHY
    late = pod().replace("phase: Running", "phase: Running, conditions: [{type: Ready}]")
    assert one_workload(late).status is WorkloadStatus.UNHEALTHY
    host = one_workload(pod(spec="hostNetwork: true"), captured=frozenset({"x"}))
    assert host.network_mode is NetworkMode.HOST_NETWORK
    assert host.tunnel_protocol is TunnelProtocol.NONE


def test_finished_pods_and_those_without_address_are_no_workloads() -> None:
    for text in (
        pod().replace("Running", "Succeeded"),
        pod().replace("Running", "Failed"),
        pod().replace(", podIP: 10.1.0.1", ""),
    ):
        assert mesh(text).workloads == {}


AMBIENT = """
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
"""
SERVED = """
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.9.0.1, selector: {app: web}, ports: [{port: 80}]}
"""


def test_a_pod_that_starts_in_the_mesh_is_known_before_its_address() -> None:
    """The kubelet says where it is after its hooks; its ztunnel asks who it is before them."""
    start = pod(labels="app: web", address="")
    strict = policy("{mtls: {mode: STRICT}}", kind="PeerAuthentication")
    found = mesh(AMBIENT + SERVED + start + strict)
    (workload,) = found.workloads.values()
    assert (workload.node, workload.service_account, workload.addresses) == ("n1", "default", ())
    assert workload.authorization_policies, "its policies are there as well"
    assert workload.services == {}, "nobody can connect to it"
    placed = mesh(AMBIENT + SERVED + pod(labels="app: web") + strict)
    (there,) = placed.workloads.values()
    assert replace(workload, addresses=there.addresses, services=there.services) == there


@pytest.mark.parametrize(
    "text",
    [
        pod(address=""),  # nobody enrolled it
        AMBIENT + pod(address="").replace("nodeName: n1,", ""),
        AMBIENT + pod(address="", spec="hostNetwork: true"),
        AMBIENT + pod(address="").replace("Running", "Failed"),
    ],
)
def test_other_pods_without_address_are_no_workloads(text: str) -> None:
    assert mesh(text).workloads == {}


def test_captured_means_hbone_by_annotation_or_by_report() -> None:
    uid = pod().replace("namespace: shop", "uid: u-1, namespace: shop")
    assert one_workload(uid).tunnel_protocol is TunnelProtocol.NONE
    assert one_workload(uid, captured=frozenset({"u-1"})).tunnel_protocol is TunnelProtocol.HBONE
    note = "annotations: {ambient.istio.io/redirection: %s}, namespace: shop"
    enabled = pod().replace("namespace: shop", note % "enabled")
    assert one_workload(enabled).tunnel_protocol is TunnelProtocol.HBONE
    pending = pod().replace("namespace: shop", note % "pending")
    assert one_workload(pending).tunnel_protocol is TunnelProtocol.NONE


def test_settings_are_on_every_workload() -> None:
    found = one_workload(pod(), cluster_id="c1", network="n", trust_domain="td")
    assert found.uid == "c1//Pod/shop/web"
    assert (found.network, str(found.identity)) == ("n", "spiffe://td/ns/shop/sa/default")


def test_locality_is_the_nodes() -> None:
    node = (
        "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: "
        "{failure-domain.beta.kubernetes.io/region: r, topology.kubernetes.io/zone: z}}\n"
    )
    assert one_workload(pod() + node).locality == Locality("r", "z", "")


def test_a_named_port_that_the_pod_lacks_is_left_out() -> None:
    ports = "ports: [{port: 80, targetPort: http}, {port: 81}]"
    found = one_workload(pod(labels="app: web") + service(f"selector: {{app: web}}, {ports}"))
    assert found.services == {WEB_KEY: (Port(81, 81),)}


def test_a_named_port_needs_the_same_protocol() -> None:
    container = "containers: [{ports: [{name: x, containerPort: 1, protocol: UDP}]}]"
    text = pod(labels="app: web", spec=container)
    text += service("selector: {app: web}, ports: [{port: 80, targetPort: x}]")
    assert one_workload(text).services == {WEB_KEY: ()}


def test_a_service_without_selector_selects_nobody() -> None:
    assert one_workload(pod(labels="app: web") + service("ports: [{port: 80}]")).services == {}


SLICE = """
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.1.0.1], targetRef: {kind: Pod, name: web}}
- {addresses: [192.0.2.7], conditions: {ready: false}}
"""


def test_slices_win_over_the_selector() -> None:
    spec = "selector: {app: other}, ports: [{name: http, port: 80}]"
    found = mesh(pod() + pod("b", labels="app: other") + service(spec) + SLICE)
    assert found.workloads["Kubernetes//Pod/shop/web"].services == {WEB_KEY: (Port(80, 8080),)}
    assert found.workloads["Kubernetes//Pod/shop/b"].services == {}
    by_hand = found.workloads["Kubernetes/discovery.k8s.io/EndpointSlice/shop/web-1/192.0.2.7"]
    assert by_hand.status is WorkloadStatus.UNHEALTHY
    assert by_hand.services == {WEB_KEY: (Port(80, 8080),)}


def test_a_slice_of_no_service_is_nothing() -> None:
    assert mesh(SLICE).workloads == {}


def test_labels_that_are_gone_lend_their_policies_to_no_others() -> None:
    """Pods are alike by where their labels are, and another's may come to be there."""

    class Pod:
        def __init__(self, app: str) -> None:
            labels = MappingProxyType({"app": app})
            self.meta = SimpleNamespace(namespace="shop", labels=labels)
            self.owner, self.ports = None, ()

    rulebook = SimpleNamespace(policies_of=lambda _namespace, labels: (labels["app"],))
    nothing = SimpleNamespace(of=lambda _namespace, _labels: ())
    unused: Any = None
    parts: Any = (rulebook, unused, unused, unused, nothing, {}, Waypoints(Settings()))
    compiler = Compiler(Settings(), *parts)
    for number in range(100):
        passing: Any = Pod(f"app-{number}")
        assert compiler._likeness(passing).policies == (f"app-{number}",)
        del passing
