"""The mesh as a whole: a report changes what a compilation from scratch would change."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from control.server.compile.mesh import recapture
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
    assert replace(old, workloads={**old.workloads, **changed}) == new
    assert all(old.workloads[name] != new.workloads[name] for name in changed)
