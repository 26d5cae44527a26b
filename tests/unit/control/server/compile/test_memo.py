"""A compilation with a memo finds what one without finds, and makes only what has changed."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from control.model.address import parse_address
from control.server.compile.holdings import Holdings
from control.server.compile.memo import MeshMemo
from control.server.compile.mesh import CompiledMesh, compile_mesh
from control.server.compile.pods import pod_uid
from control.server.compile.settings import Settings
from control.server.sources.objects import AnyObject, Objects, collect
from tests.support.manifests import objects, pod, policy

SETTINGS = Settings()
STEPS = 12


def service(name: str, port: int, more: str = "") -> str:
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: {port}}}]{more}}}
"""


def slice_of(name: str, endpoints: str, owner: str = "web") -> str:
    return f"""
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: {owner}}}}}
addressType: IPv4
ports: [{{port: 8080}}]
endpoints: [{endpoints}]
"""


def node(zone: str) -> str:
    return f"""
---
apiVersion: v1
kind: Node
metadata: {{name: n1, labels: {{topology.kubernetes.io/zone: {zone}}}}}
"""


def namespace(labels: str) -> str:
    return f"""
---
apiVersion: v1
kind: Namespace
metadata: {{name: shop, labels: {{{labels}}}}}
"""


TARGET = "targetRef: {kind: Pod, name: a}"
# Each object in several versions, of which one is there at a time, or none.
VERSIONS = [
    [pod("a", labels="app: web"), pod("a", labels="app: db"), pod("a", address="10.1.0.2")],
    [pod("b", address="10.1.0.2"), pod("b", address="10.1.0.3", labels="app: web")],
    [pod("c", address=""), pod("c", address="10.1.0.4", spec="hostNetwork: true")],
    [service("web", 8080), service("web", 8081), service("web", 8080, ", clusterIP: 10.1.0.3")],
    [service("db", 5432), service("db", 5432, ", publishNotReadyAddresses: true")],
    [
        slice_of("s", f"{{addresses: [10.1.0.1], {TARGET}}}"),
        slice_of("s", f"{{addresses: [10.1.0.1], {TARGET}, conditions: {{ready: false}}}}"),
        slice_of("s", "{addresses: [10.1.0.2]}, {addresses: [10.9.9.9]}"),
        slice_of("s", f"{{addresses: [10.1.0.1], {TARGET}, conditions: {{ready: false}}}}", "db"),
    ],
    [slice_of("t", "{addresses: [10.1.0.3]}")],
    [node("a"), node("b")],
    [namespace(""), namespace("istio.io/dataplane-mode: ambient")],
    [
        policy("{selector: {matchLabels: {app: web}}}"),
        policy("{selector: {matchLabels: {app: db}}}"),
    ],
    [policy("{mtls: {mode: STRICT}}", kind="PeerAuthentication")],
]
FOUND: list[list[AnyObject]] = []
for texts in VERSIONS:
    FOUND.append([])
    for text in texts:
        read = objects(text)
        FOUND[-1] += [each for kind in read.__slots__ for each in getattr(read, kind)]
UIDS = sorted({pod_uid(each.meta) for several in FOUND[:3] for each in several})


def gathered(chosen: list[AnyObject]) -> Objects:
    return collect({each.meta.key: each for each in chosen})


def compared(
    found: Objects, captured: frozenset[str], kept: tuple[Holdings, MeshMemo]
) -> CompiledMesh:
    with_memo = compile_mesh(found, SETTINGS, captured, *kept)
    assert with_memo == compile_mesh(found, SETTINGS, captured)
    return with_memo


@given(st.integers(0, 2**32))
def test_nothing_of_the_past_shows_in_the_present(seed: int) -> None:
    draw = random.Random(seed)
    kept = Holdings(), MeshMemo()
    chosen: list[AnyObject | None] = [draw.choice([*each, None]) for each in FOUND]
    captured: set[str] = set()
    for _ in range(STEPS):
        for _ in range(draw.randint(0, 2)):
            at = draw.randrange(len(FOUND))
            chosen[at] = draw.choice([*FOUND[at], None])
        if draw.random() < 0.3:
            captured ^= {draw.choice(UIDS)}
        compared(gathered([each for each in chosen if each]), frozenset(captured), kept)


def test_what_is_as_it_was_is_taken_over() -> None:
    many = [
        objects(pod(f"p{at}", labels="app: web", address=f"10.2.0.{at}")).pods[0]
        for at in range(1, 20)
    ]
    world = [FOUND[3][0], FOUND[5][0], FOUND[7][0], FOUND[8][1], FOUND[9][0]]
    kept = Holdings(), MeshMemo()
    first = compared(gathered([*many, *world]), frozenset(), kept)
    changed = [replace(many[0], ready=False), *many[1:]]
    second = compared(gathered([*changed, *world]), frozenset(), kept)
    for kind in ("workloads", "pods"):
        before, after = getattr(first, kind), getattr(second, kind)
        assert sum(before[name] is not after[name] for name in after) == 1
    third = compared(gathered([*changed, FOUND[3][1], *world[1:]]), frozenset(), kept)
    assert not any(third.workloads[name] is each for name, each in second.workloads.items())
    assert all(third.pods[name] is each for name, each in second.pods.items())


def test_a_pod_that_a_node_placed_is_made_anew() -> None:
    """Its object is another one at each compilation."""
    (bare,) = objects(pod(address="")).pods
    kept = Holdings(), MeshMemo()
    for at in (1, 2, 2):
        address = parse_address(f"10.3.0.{at}")
        placed = replace(bare, addresses=(address,), is_placed_by_node=True)
        found = compared(gathered([placed]), frozenset({pod_uid(bare.meta)}), kept)
        assert [each.addresses for each in found.workloads.values()] == [(address,)]
