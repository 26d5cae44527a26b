"""Conditions of policies, from manifests as people write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from control.server.leader.conditions import Conditions
from control.server.leader.ledger import Target
from control.server.leader.views import Views
from tests.support.gateways import gateway, service
from tests.support.manifests import pod, policy
from tests.support.published import PublishedMesh

AMBIENT = "istio.io/dataplane-mode: ambient"
SHOP = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{{AMBIENT}}}}}\n"
WEB = 'app: "web"'


def wanted(text: str) -> Mapping[Target, Conditions]:
    with TemporaryDirectory() as folder:
        mesh = PublishedMesh(Path(folder))
        mesh.publish(text)
    return Views(mesh.publisher, "tulle-system").conditions()


def conditions(text: str) -> dict[str, Conditions]:
    return {str(target): each for target, each in wanted(text).items()}


def said(text: str, name: str = "AuthorizationPolicy shop/p") -> list[tuple[bool, str, str]]:
    return [(each.is_true, each.reason, each.message) for each in conditions(text)[name]]


def test_a_good_policy_is_accepted_and_counts_pods_of_the_mesh() -> None:
    pods = pod("a", labels=WEB) + pod("b", labels=WEB, address="10.1.0.2")
    out = pod("c", labels=f"{WEB}, istio.io/dataplane-mode: none", address="10.1.0.3")
    other = pod("d", address="10.1.0.4")
    text = SHOP + pods + out + other + policy("{selector: {matchLabels: {app: web}}}")
    assert said(text) == [
        (True, "Accepted", ""),
        (True, "Attached", "applies to 2 workloads in the mesh"),
    ]
    assert said(SHOP + pods + out + other + policy("{}"))[1][2].startswith("applies to 3 ")
    everywhere = policy("{}", namespace="istio-system")
    found = said(SHOP + other + everywhere, "AuthorizationPolicy istio-system/p")
    assert found[1] == (True, "Attached", "applies to 1 workload in the mesh")


def test_every_label_of_a_selector_counts_in_every_namespace_that_it_is_for() -> None:
    both = pod("a", labels='app: "web", tier: "x"') + pod("b", labels=WEB, address="10.1.0.2")
    blog = "---\n" + SHOP.replace("shop", "blog")
    blog += pod("a", namespace="blog", labels='app: "web", tier: "x"', address="10.1.0.3")
    spec = "{selector: {matchLabels: {app: web, tier: x}}}"
    assert said(SHOP + both + blog + policy(spec))[1][2].startswith("applies to 1 ")
    text = SHOP + both + blog + policy(spec, namespace="istio-system")
    found = said(text, "AuthorizationPolicy istio-system/p")
    assert found[1][2].startswith("applies to 2 ")


def test_a_policy_for_nobody_says_so() -> None:
    found = said(SHOP + pod() + policy("{selector: {matchLabels: {app: gone}}}"))
    assert found[0][:2] == (True, "Unmatched")
    assert found[1] == (False, "NoWorkloads", "applies to 0 workloads in the mesh")


def test_a_policy_that_cannot_be_read_is_invalid_in_the_words_of_its_problem() -> None:
    found = said(SHOP + pod() + policy("{rules: [{oops: 1}]}"))
    assert found[0][:2] == (False, "Invalid")
    assert "oops" in found[0][2]


def test_a_condition_says_which_text_of_its_policy_it_is_about() -> None:
    for spec in ("{}", "{rules: [{oops: 1}]}"):
        (found,) = conditions(policy(spec, generation="7")).values()
        assert {each.generation for each in found} == {7}


def test_a_policy_that_cannot_be_read_is_known_by_its_uid() -> None:
    (target,) = wanted(policy("{rules: [{oops: 1}]}", uid="0f-1"))
    assert target.uid == "0f-1"


def test_peer_authentication_has_them_too() -> None:
    text = SHOP + pod() + policy("{mtls: {mode: STRICT}}", "PeerAuthentication")
    found = said(text, "PeerAuthentication shop/p")
    assert [each[:2] for each in found] == [(True, "Accepted"), (True, "Attached")]


def test_a_policy_with_targets_is_attached_where_a_waypoint_enforces_it() -> None:
    text = gateway() + service("web", labels="istio.io/use-waypoint: way")
    target = "{targetRefs: [{kind: Service, name: %s}], rules: [{}]}"
    assert said(text + policy(target % "web")) == [
        (True, "Accepted", ""),
        (True, "Attached", "a waypoint enforces it"),
    ]
    nobody = "no waypoint enforces it for Service shop/db"
    assert said(text + policy(target % "db")) == [
        (False, "Unmatched", nobody),
        (False, "NotDelivered", "no waypoint enforces it"),
    ]
