"""Nothing that another namespace may write moves a connection to the addresses of this one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from control.server.compile.mesh import CompiledMesh, compile_mesh
from control.server.compile.settings import Settings
from tests.support import manifests
from tests.support.routes import routes, state_of

OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
VICTIM = f"""
apiVersion: v1
kind: Pod
metadata: {{name: db, namespace: shop, uid: db, labels: {{app: db}}, creationTimestamp: "{NEW}"}}
spec: {{nodeName: n1, serviceAccountName: db}}
status: {{phase: Running, podIPs: [{{ip: 10.1.0.1}}, {{ip: "fd00::1"}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client, namespace: shop, uid: client}}
spec: {{nodeName: n1}}
status: {{phase: Running, podIPs: [{{ip: 10.1.0.9}}, {{ip: "fd00::9"}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: db, namespace: shop, creationTimestamp: "{OLD}"}}
spec: {{clusterIPs: [10.9.0.1, "fd00:9::1"], selector: {{app: db}}, ports: [{{port: 80}}]}}
status: {{loadBalancer: {{ingress: [{{ip: 192.0.2.1}}]}}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: shop}}
spec: {{mtls: {{mode: STRICT}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: thief, namespace: aaa, uid: thief}}
spec: {{nodeName: n1, serviceAccountName: thief}}
status: {{phase: Running, podIP: 10.1.0.6}}
"""
ADDRESSES = ("10.1.0.1", "fd00::1", "10.9.0.1", "fd00:9::1", "192.0.2.1")
SPELT = st.sampled_from([*ADDRESSES, "::ffff:10.1.0.1", "::ffff:10.9.0.1", "fd00:0::1"])
DIALLED = [f"[{each}]:80" if ":" in each else f"{each}:80" for each in ADDRESSES]


@st.composite
def hostile(draw: st.DrawFn) -> str:
    name, address = draw(st.sampled_from(["a", "db", "thief"])), draw(SPELT)
    meta = f'name: {name}, namespace: aaa, creationTimestamp: "{NEW}"'
    if draw(st.booleans()):
        target = draw(
            st.sampled_from(
                [
                    "",
                    ", targetRef: {kind: Pod, name: thief}",
                    ", targetRef: {kind: Pod, name: db, namespace: shop}",
                    ", nodeName: n1",
                    ", conditions: {ready: false}",
                ]
            )
        )
        return (
            f"---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{{meta}, "
            f"labels: {{kubernetes.io/service-name: {draw(st.sampled_from(['a', 'db']))}}}}}\n"
            "addressType: IPv4\nports: [{port: 80}]\n"
            f'endpoints: [{{addresses: ["{address}"]{target}}}]\n'
        )
    field = draw(st.sampled_from(["clusterIP", "clusterIPs", "externalIPs", "selector"]))
    if field.startswith("clusterIP") and address == "192.0.2.1":
        address = "10.9.0.1"  # a load balancer's address yields to a cluster IP, by the rule
    value = f'"{address}"' if field == "clusterIP" else f'["{address}"]'
    value = "{app: db}" if field == "selector" else value
    ingress = f'{{ip: "{draw(SPELT)}"}}' if draw(st.booleans()) else ""
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{{meta}}}\n"
        f"spec: {{{field}: {value}, ports: [{{port: 80}}, {{port: 81, name: b}}]}}\n"
        f"status: {{loadBalancer: {{ingress: [{ingress}]}}}}\n"
    )


def compiled(text: str) -> CompiledMesh:
    found = manifests.load(text).objects  # a second object of one key is a problem, not in force
    return compile_mesh(found, Settings(), frozenset({"db", "client", "thief"}))


BEFORE = compiled(VICTIM)
STATE = state_of(BEFORE)
WAYS = {each: routes(STATE, "shop/client", each, 5) for each in DIALLED}


def test_the_victims_addresses_lead_to_it() -> None:
    assert {way for found in WAYS.values() for way in found} == {
        "hbone 10.1.0.1:80 shop/db",
        "hbone [fd00::1]:80 shop/db",
    }


@settings(max_examples=300)
@given(st.lists(hostile(), min_size=1, max_size=6), st.booleans())
def test_no_set_of_objects_of_another_namespace_moves_them(
    objects: list[str], backwards: bool
) -> None:
    mesh = compiled(VICTIM + "".join(objects))
    before, after = (
        {name: each for name, each in one.workloads.items() if each.namespace == "shop"}
        for one in (BEFORE, mesh)
    )
    assert before.keys() == after.keys()
    for name, each in before.items():
        now = after[name]
        assert (now.addresses, now.tunnel_protocol) == (each.addresses, each.tunnel_protocol)
        assert now.authorization_policies == each.authorization_policies
    key = "shop/db.shop.svc.cluster.local"
    assert mesh.services[key] == BEFORE.services[key]
    state = state_of(mesh, backwards=backwards)
    for each, found in WAYS.items():
        assert routes(state, "shop/client", each, 5) == found
    local = state.local_workload("shop", "db", "db")
    assert local is not None
    assert local.uid == "Kubernetes//Pod/shop/db"
    assert state.policies_for(local) == STATE.policies_for(local)
