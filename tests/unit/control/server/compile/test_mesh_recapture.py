"""The mesh as a whole: a report changes what a compilation from scratch would change."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from control.server.compile.mesh import noted, recapture
from control.server.compile.pods import pod_uid
from control.server.compile.settings import Settings
from tests.support.manifests import mesh, objects, pod

NAMES = ("a", "b", "c", "d", "host", "noted")
TEXT = (
    "".join(pod(name).replace("10.1.0.1", f"10.1.0.{at}") for at, name in enumerate(NAMES[:4]))
    + pod("host", spec="hostNetwork: true")
    + pod("noted").replace(
        "labels:", "annotations: {ambient.istio.io/redirection: enabled}, labels:"
    )
)
SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.9.0.1, selector: {app: web}, ports: [{port: 80}]}
"""
FOUND = objects(TEXT + SERVICE)
UIDS = {pod_uid(each.meta): each for each in FOUND.pods}
SETS = st.frozensets(st.sampled_from(sorted(UIDS)))


@given(SETS, SETS)
def test_recapture_is_what_a_whole_compilation_finds(
    before: frozenset[str], after: frozenset[str]
) -> None:
    old, new = mesh(TEXT + SERVICE, before), mesh(TEXT + SERVICE, after)
    pods = [UIDS[uid] for uid in before ^ after]
    changed = recapture(old, pods, Settings(), after)
    assert replace(noted(old), workloads={**old.workloads, **changed}) == new
    assert all(old.workloads[name] != new.workloads[name] for name in changed)


CLAIMED = "".join(
    pod(name, namespace, address=f"10.5.0.{at}").replace("labels:", f"uid: {name}{at}, labels:")
    for at in (1, 2)
    for name, namespace in ((f"a{at}", "shop"), (f"b{at}", "mine"), (f"c{at}", "mine"))
)
SLICE = """
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [10.5.0.1, 10.5.0.2]}]
"""
CLAIMANTS = objects(CLAIMED)
CLAIMED_UIDS = {pod_uid(each.meta): each for each in CLAIMANTS.pods}
CLAIMED_SETS = st.frozensets(st.sampled_from(sorted(CLAIMED_UIDS)))


@given(CLAIMED_SETS, CLAIMED_SETS)
def test_pods_that_claim_one_address_change_hands_as_a_whole_compilation_finds(
    before: frozenset[str], after: frozenset[str]
) -> None:
    """A report may give an address to another pod, and with it the endpoints that a slice names
    by address."""
    text = CLAIMED + SERVICE + SLICE
    old, new = mesh(text, before), mesh(text, after)
    changed = recapture(old, [CLAIMED_UIDS[uid] for uid in before ^ after], Settings(), after)
    assert replace(noted(old), workloads={**old.workloads, **changed}) == new
