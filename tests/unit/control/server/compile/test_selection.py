"""A selector that selects nothing is told of, as long as it selects nothing."""

from __future__ import annotations

import pytest

from tests.support.manifests import mesh, pod, policy

WEB = "selector: {matchLabels: {app: web}}"
DENY = f"{{action: DENY, {WEB}, rules: [{{}}]}}"
STRICT = f"{{{WEB}, mtls: {{mode: STRICT}}}}"

POLICIES = {
    "AuthorizationPolicy": policy(DENY),
    "PeerAuthentication": policy(STRICT, kind="PeerAuthentication"),
}


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize(
    ("pods", "told"),
    [
        ("", True),
        (pod(labels="app: web"), False),
        (pod(labels="app: web, v: two"), False),
        (pod(labels="app: webb"), True),
        (pod(labels="App: web"), True),
        (pod(labels="app: web", namespace="other"), True),
    ],
    ids=["no pod", "its pod", "more labels", "a typo", "another key", "another namespace"],
)
def test_who_selects_nobody_says_so(kind: str, pods: str, told: bool) -> None:
    notes = mesh(POLICIES[kind] + pods).notes
    assert bool(notes) is told
    for each in notes:
        assert each.object == f"{kind} shop/p"
        assert each.reason == "Unmatched"
        assert each.message == "its selector (app=web) selects no pod of namespace shop"


def test_every_label_has_to_be_on_one_pod() -> None:
    both = policy("{action: DENY, selector: {matchLabels: {app: web, v: one}}, rules: [{}]}")
    apart = pod("a", labels="app: web") + pod("b", labels="v: one", address="10.1.0.2")
    (note,) = mesh(both + apart).notes
    assert "app=web, v=one" in note.message
    assert mesh(both + pod(labels="app: web, v: one")).notes == ()


def test_the_root_namespace_selects_everywhere() -> None:
    root = policy(DENY, namespace="istio-system")
    (note,) = mesh(root).notes
    assert note.message.endswith("selects no pod of the mesh")
    assert mesh(root + pod(labels="app: web")).notes == ()
    peer = policy(STRICT, kind="PeerAuthentication", namespace="istio-system")
    (note,) = mesh(peer).notes
    assert note.message == "a selector in the root namespace has no effect"


def test_a_pod_that_has_no_address_yet_counts_and_a_finished_one_does_not() -> None:
    starting = pod(labels="app: web", address="''")
    assert mesh(POLICIES["AuthorizationPolicy"] + starting).notes == ()
    finished = pod(labels="app: web").replace("Running", "Succeeded")
    assert len(mesh(POLICIES["AuthorizationPolicy"] + finished).notes) == 1


def test_who_selects_nothing_and_who_is_for_waypoints_are_not_asked() -> None:
    target = "{action: DENY, targetRefs: [{kind: Service, name: web}], rules: [{}]}"
    text = policy("{action: DENY, rules: [{}]}", name="all") + policy(target, name="waypoint")
    assert [each.message for each in mesh(text).notes] == []
