"""Two objects claim one address: every pair of kinds, in one and in two namespaces, ends alike."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from control.model.address import parse_address
from control.server.compile.claims import AddressClaim, Rank, decide
from control.server.compile.mesh import CompiledMesh, compile_mesh
from control.server.compile.settings import Settings
from control.server.sources.objects import Key
from tests.support import manifests
from tests.support.routes import state_of, way

# The rule in short, from the strongest on. A test of its own: the code has ranks instead.
STRENGTH = ("captured", "pod", "host", "node", "cluster", "balancer", "external", "slice")
PORT = 80
OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
CLIENT = """
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: other, uid: client}
spec: {nodeName: n1, serviceAccountName: client}
status: {phase: Running, podIPs: [{ip: 10.1.0.9}, {ip: "fd00::9"}]}
"""


@dataclass(frozen=True)
class Claimant:
    kind: str
    name: str
    namespace: str
    created: str = ""

    @property
    def meta(self) -> str:
        created = f", creationTimestamp: {self.created}" if self.created else ""
        return f"name: {self.name}, namespace: {self.namespace}{created}"

    @property
    def backend(self) -> str:
        return {"a": "10.1.0.1", "b": "10.1.0.2"}[self.name]

    def manifest(self, address: str) -> str:
        match self.kind:
            case "captured" | "pod" | "host":
                return self._pod(self.name, self.kind == "host", address)
            case "node":
                return (
                    f"---\napiVersion: v1\nkind: Node\nmetadata: {{name: {self.name}}}\n"
                    f'status: {{addresses: [{{type: InternalIP, address: "{address}"}}]}}\n'
                )
            case "slice":
                service = self._service("clusterIP: None", "")
                return service + self._slice(f'addresses: ["{address}"]')
        spec = {"cluster": f'clusterIP: "{address}"', "external": f'externalIPs: ["{address}"]'}
        status = f'status: {{loadBalancer: {{ingress: [{{ip: "{address}"}}]}}}}\n'
        service = self._service(
            spec.get(self.kind, "type: LoadBalancer"), status if self.kind == "balancer" else ""
        )
        named = f"addresses: [{self.backend}], targetRef: {{kind: Pod, name: back-{self.name}}}"
        return service + self._slice(named) + self._pod(f"back-{self.name}", False, self.backend)

    def _pod(self, name: str, host: bool, address: str) -> str:
        return (
            f"---\napiVersion: v1\nkind: Pod\nmetadata: {{{self.meta}, uid: u-{name}}}\n".replace(
                f"name: {self.name},", f"name: {name},", 1
            )
            + f"spec: {{nodeName: n2, serviceAccountName: {self.name}, "
            + f"hostNetwork: {str(host).lower()}}}\n"
            + f'status: {{phase: Running, podIP: "{address}"}}\n'
        )

    def _service(self, spec: str, status: str) -> str:
        return (
            f"---\napiVersion: v1\nkind: Service\nmetadata: {{{self.meta}}}\n"
            f"spec: {{{spec}, ports: [{{name: p, port: {PORT}}}]}}\n{status}"
        )

    def _slice(self, endpoint: str) -> str:
        meta = self.meta + f", labels: {{kubernetes.io/service-name: {self.name}}}"
        return (
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
            f"metadata: {{{meta}}}\naddressType: IPv4\n"
            f"ports: [{{name: p, port: {PORT}}}]\nendpoints: [{{{endpoint}}}]\n"
        )

    @property
    def ref(self) -> str:
        kinds = {"captured": "Pod", "pod": "Pod", "host": "Pod", "slice": "EndpointSlice"}
        if self.kind == "node":
            return f"Node {self.name}"
        return f"{kinds.get(self.kind, 'Service')} {self.namespace}/{self.name}"

    def way(self, address: str) -> str:
        """The way of connections to an address that this object has."""
        host = f"[{address}]" if ":" in address else address
        match self.kind:
            case "captured":
                return f"hbone {host}:{PORT} {self.namespace}/{self.name}"
            case "pod" | "host" | "node" | "slice":
                return f"plain {host}:{PORT}"
        return f"hbone {self.backend}:{PORT} {self.namespace}/{self.name}"


def compiled(first: Claimant, second: Claimant, address: str, alias: str) -> CompiledMesh:
    text = CLIENT + first.manifest(address) + second.manifest(alias)
    captured = {"client", "u-back-a", "u-back-b"}
    captured |= {f"u-{each.name}" for each in (first, second) if each.kind == "captured"}
    return compile_mesh(manifests.objects(text), Settings(), frozenset(captured))


def answer(mesh: CompiledMesh, address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    found = {
        way(state_of(mesh, backwards=order), "other/client", f"{host}:{PORT}")
        for order in (False, True)
    }
    assert len(found) == 1, "the order of arrival decides nothing"
    return found.pop()


PAIRS = list(itertools.product(STRENGTH, STRENGTH))


@pytest.mark.parametrize("namespace", ["shop", "mine"])
@pytest.mark.parametrize(("kind", "other"), PAIRS, ids=lambda value: value)
@pytest.mark.parametrize(
    ("address", "alias"), [("10.5.0.1", "::ffff:10.5.0.1"), ("fd00::5", "fd00:0::5")]
)
def test_the_stronger_claim_has_the_address(
    kind: str, other: str, namespace: str, address: str, alias: str
) -> None:
    strong, weak = sorted((kind, other), key=STRENGTH.index)
    # Between equal ones the older; the weaker kind is the older object, which must not help it.
    a = Claimant(strong, "a", "shop", OLD if kind == other else NEW)
    b = Claimant(weak, "b", namespace, NEW if kind == other else OLD)
    for first, second in ((a, b), (b, a)):
        mesh = compiled(first, second, address, alias)
        assert answer(mesh, address) == a.way(address)
        said = [each for each in mesh.notes if each.object == b.ref]
        if _may_go_together(strong, weak):
            assert mesh.notes == ()
        elif weak == "slice" and strong in ("captured", "pod") and namespace == "shop":
            assert mesh.notes == (), "a slice may name a pod of its own namespace"
        else:
            assert len(mesh.notes) == len(said) == 1
            assert a.ref in said[0].message


def _may_go_together(strong: str, weak: str) -> bool:
    on_a_host = strong in ("host", "node") and weak in ("host", "node", "slice")
    # An endpoint outside the cluster is nobody's: whoever balances to it may name it.
    return on_a_host or (weak == "slice" and strong in ("balancer", "external", "slice"))


@pytest.mark.parametrize("other", STRENGTH)
@pytest.mark.parametrize("namespace", ["shop", "mine"])
def test_nobody_takes_a_captured_pod_out_of_the_mesh(other: str, namespace: str) -> None:
    pod = Claimant("captured", "a", "shop", NEW)
    rival = Claimant(other, "b", namespace, NEW)
    workload = compiled(pod, rival, "10.5.0.1", "10.5.0.1").workloads["Kubernetes//Pod/shop/a"]
    alone = manifests.objects(CLIENT + pod.manifest("10.5.0.1"))
    before = compile_mesh(alone, Settings(), frozenset({"client", "u-a"})).workloads[workload.uid]
    assert workload.addresses == before.addresses
    assert workload.tunnel_protocol is before.tunnel_protocol
    assert workload.authorization_policies == before.authorization_policies


@pytest.mark.parametrize("kind", ["captured", "pod", "cluster", "balancer", "external"])
def test_equal_claims_go_by_age_then_uid_then_name(kind: str) -> None:
    rank = {"captured": 1, "pod": 2, "cluster": 4, "balancer": 5, "external": 6}[kind]

    def claim(name: str, created: str = "", uid: str = "") -> AddressClaim:
        age = (False, not created, created, False, uid)
        key = Key("Service", "shop", name)
        return AddressClaim(parse_address("10.5.0.1"), Rank(rank), key, age, (80,))

    for first, second in (
        (claim("z", OLD), claim("a", NEW)),
        (claim("z", NEW), claim("a")),  # one that never said is the younger
        (claim("z", OLD, "1"), claim("a", OLD, "2")),
        (claim("a", OLD, "1"), claim("b", OLD, "1")),
    ):
        for order in ([first, second], [second, first]):
            decision = decide(order)
            assert (decision.first or decision.by_port[80]) == first
            assert [(each.claim, each.to) for each in decision.lost] == [(second, first)]


@pytest.mark.parametrize("kind", ["cluster", "balancer", "external"])
def test_a_service_without_a_selector_loses_to_one_with_that_is_not_younger(kind: str) -> None:
    other = Claimant(kind, "b", "shop").manifest("10.5.0.1")
    selects = other.replace(
        "ports: [{name: p, port: 80}]}", "selector: {a: b}, ports: [{port: 80}]}", 1
    )
    for created, holder in (("", "b"), (OLD, "a")):
        text = Claimant(kind, "a", "aaa", created).manifest("10.5.0.1") + selects
        found = manifests.mesh(text).services.values()
        assert [each.name for each in found if each.addresses or each.outer_addresses] == [holder]


def test_a_pod_that_goes_loses_to_the_one_that_stays() -> None:
    going = Claimant("pod", "a", "shop", OLD)
    text = going.manifest("10.5.0.1").replace("uid:", "deletionTimestamp: x, uid:")
    text += Claimant("pod", "b", "mine", NEW).manifest("10.5.0.1")
    mesh = manifests.mesh(text)
    found = {each.name: each.addresses for each in mesh.workloads.values()}
    assert found == {"a": (), "b": (parse_address("10.5.0.1"),)}


def shared(name: str, ports: str, kind: str = "balancer", namespace: str = "shop") -> str:
    claimant = Claimant(kind, name, namespace)
    return claimant.manifest("10.5.0.1").replace(f"ports: [{{name: p, port: {PORT}}}]}}", ports, 1)


@pytest.mark.parametrize("kind", ["balancer", "external"])
def test_services_may_share_an_outer_address_by_port(kind: str) -> None:
    one = "ports: [{name: p, port: 80}, {name: u, port: 53, protocol: UDP}]}"
    two = "ports: [{name: p, port: 53}]}"
    text = CLIENT + shared("a", one, kind) + shared("b", two, kind, "mine")
    mesh = compile_mesh(
        manifests.objects(text), Settings(), frozenset({"client", "u-back-a", "u-back-b"})
    )
    state = state_of(mesh)
    assert way(state, "other/client", "10.5.0.1:80") == "hbone 10.1.0.1:80 shop/a"
    assert way(state, "other/client", "10.5.0.1:53") == "hbone 10.1.0.2:80 mine/b"
    assert way(state, "other/client", "10.5.0.1:22") == "plain 10.5.0.1:22", "nobody's port"
    assert mesh.notes == ()


def test_a_port_that_both_have_is_the_stronger_ones_and_the_rest_stays() -> None:
    one = "ports: [{name: p, port: 80}, {name: q, port: 443}]}"
    two = "ports: [{name: p, port: 80}, {name: q, port: 1883}]}"
    text = shared("a", one, "balancer", "shop") + shared("b", two, "external", "mine")
    mesh = manifests.mesh(text)
    found = {each.name: each.outer_addresses[0].ports for each in mesh.services.values()}
    assert found == {"a": (80, 443), "b": (1883,)}
    (said,) = mesh.notes
    assert "port 80 is the load balancer address of Service shop/a" in said.message


@pytest.mark.parametrize("kind", ["cluster", "balancer", "external", "slice"])
@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "::1", "fe80::1", "ff02::1"]
)
def test_an_address_that_means_another_host_everywhere_is_nobodys(kind: str, address: str) -> None:
    mesh = manifests.mesh(Claimant(kind, "a", "shop").manifest(address))
    (service,) = mesh.services.values()
    assert (service.addresses, service.outer_addresses) == ((), ())
    assert all(parse_address(address) not in each.addresses for each in mesh.workloads.values())
    (said,) = mesh.notes
    assert said.reason == "address_unusable"
