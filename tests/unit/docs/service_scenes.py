"""Manifests of small scenes around one service, and the ways that a client's connections go."""

from __future__ import annotations

from control.server.compile.mesh import compile_mesh
from control.server.compile.settings import Settings
from tests.support import manifests
from tests.support.routes import routes, state_of

Field = tuple[str, str]  # kind, path

# Scenes: a client on n1, two pods `web`, a service of theirs

NODES = "".join(
    f"---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: "
    f"{{topology.kubernetes.io/region: r, topology.kubernetes.io/zone: {zone}}}}}\n"
    for name, zone in (("n1", "z1"), ("n2", "z2"))
)
VIP, V6 = "10.9.0.1:80", "[fd00:9::1]:80"
ONE, TWO = "hbone 10.1.0.1:80 shop/web", "hbone 10.1.0.2:80 shop/web"
BOTH = {ONE, TWO}


def pod(
    name: str,
    address: str,
    node: str,
    meta: str = "labels: {app: web}",
    spec: str = "serviceAccountName: web",
    status: str = "",
    namespace: str = "shop",
) -> str:
    status = status or f"phase: Running, podIPs: [{{ip: {address}}}, {{ip: 'fd00::{address[-1]}'}}]"
    return (
        f"---\napiVersion: v1\nkind: Pod\n"
        f"metadata: {{name: {name}, namespace: {namespace}, uid: {name}, {meta}}}\n"
        f"spec: {{nodeName: {node}, {spec}}}\nstatus: {{{status}}}\n"
    )


def on_host(port: str, status: str) -> str:
    """An enrolled pod whose container port may be a host port as well."""
    return pod(
        "web-1",
        "10.1.0.1",
        "n1",
        "labels: {app: web, istio.io/dataplane-mode: ambient}",
        NAMED % f"{{containerPort: 80, {port}}}",
        f"phase: Running, podIP: 10.1.0.1, {status}",
    )


def service(spec: str = "", port: str = "port: 80", status: str = "", meta: str = "") -> str:
    fields = {"clusterIPs": "[10.9.0.1, 'fd00:9::1']", "selector": "{app: web}"}
    more = ", ".join(f"{key}: {value}" for key, value in fields.items() if f"{key}:" not in spec)
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop, {meta}}}\n"
        f"spec: {{ports: [{{{port}}}], {', '.join(each for each in (more, spec) if each)}}}\n"
        f"status: {{{status}}}\n"
    )


def endpoint_slice(
    endpoint: str, port: str = "port: 80", labels: str = "kubernetes.io/service-name: web",
    more: str = "addressType: IPv4", name: str = "s",
) -> str:  # fmt: skip
    return (
        f"---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        f"metadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}\n{more}\n"
        f"ports: [{{{port}}}]\nendpoints: [{{{endpoint}}}]\n"
    )


CLIENT = pod("client", "10.1.0.9", "n1", "labels: {app: client}", namespace="other")
FIRST, SECOND = pod("web-1", "10.1.0.1", "n1"), pod("web-2", "10.1.0.2", "n2")
PODS = FIRST + SECOND
PLACE = "addresses: [192.0.2.7]"
OUT = "plain 192.0.2.7:80"
TO_FIRST = "addresses: [10.1.0.1]"


def ways(text: str, destination: str = VIP) -> set[str]:
    objects = manifests.objects(NODES + CLIENT + text)
    uids = frozenset(compile_mesh(objects, Settings(), frozenset()).pods)
    state = state_of(compile_mesh(objects, Settings(), uids))
    return set(routes(state, "other/client", destination, 60))


BASE = PODS + service()
BALANCER = "loadBalancer: {ingress: [{ip: 192.0.2.1%s}]}"
OUTER, BEHIND = "192.0.2.1:80", "192.0.2.9:8000"
CLOSED, NOBODY = {"refused no_service_port"}, {"refused no_healthy_upstream"}
NAMED = "serviceAccountName: web, containers: [{ports: [%s]}]"
BY_NAME = service(port="port: 80, targetPort: http")
INIT = "serviceAccountName: web, initContainers: [{%s ports: [{name: http, containerPort: 80}]}]"
TWO_PORTS = "port: 80, name: a}, {port: 81, name: b, targetPort: 80"
NEAR = "trafficDistribution: PreferClose"
READY = "phase: Running, podIP: 10.1.0.2, conditions: [{type: Ready, status: '%s'}]"
