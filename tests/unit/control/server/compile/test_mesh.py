"""Everything that nodes receive, compiled from one set of objects, agrees."""

from __future__ import annotations

import random

import pytest

from control.server.compile.mesh import compile_mesh
from control.server.compile.settings import Settings
from tests.support import manifests
from tests.support.manifests import mesh, pod, policy
from tests.support.mesh_cache import EMPTY

STRICT = "{mtls: {mode: STRICT}}"
SELECTS_WEB = "{selector: {matchLabels: {app: web}}, rules: [{}]}"
UID = "Kubernetes//Pod/shop/web"


def test_no_objects_are_an_empty_mesh() -> None:
    assert mesh("") == EMPTY


def test_each_mapping_is_keyed_by_the_name_on_the_wire() -> None:
    service = (
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n"
        "spec: {ports: [{port: 80}]}\n"
    )
    found = mesh(pod() + service + policy("{rules: [{}]}"))
    assert [each.uid for each in found.workloads.values()] == list(found.workloads) == [UID]
    assert [each.key for each in found.services.values()] == list(found.services)
    assert [each.key for each in found.policies.values()] == list(found.policies) == ["shop/p"]
    assert [each.uid for each in found.pods.values()] == list(found.pods)


@pytest.mark.parametrize(
    ("labels", "namespace", "named"),
    [
        ("app: web", "shop", True),
        ("app: web", "istio-system", True),  # the root namespace's reach everywhere
        ("app: web", "other", False),
        ("app: db", "shop", False),
    ],
)
def test_a_pod_names_the_policies_that_select_it(labels: str, namespace: str, named: bool) -> None:
    found = mesh(pod(labels=labels) + policy(SELECTS_WEB, namespace=namespace))
    names = found.workloads[UID].authorization_policies
    assert names == ((f"{namespace}/p",) if named else ())
    assert set(names) <= set(found.policies)


def test_names_are_in_one_order_and_strict_is_among_them() -> None:
    text = pod(labels="app: web")
    text += policy(SELECTS_WEB, name="b") + policy(SELECTS_WEB, name="a")
    text += policy("{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}}",
                   kind="PeerAuthentication", name="strict")  # fmt: skip
    found = mesh(text)
    names = found.workloads[UID].authorization_policies
    assert list(names) == sorted(names)
    assert len(names) == 3
    assert set(names) <= set(found.policies)


def test_whoever_runs_here_may_ask_for_its_identity_and_nobody_else() -> None:
    running = pod(spec="serviceAccountName: web")
    ended = pod("done", spec="serviceAccountName: job").replace("Running", "Succeeded")
    homeless = pod("new", spec="serviceAccountName: new").replace("nodeName: n1, ", "")
    found = mesh(running + ended + homeless)
    assert found.identities == {("n1", "shop", "web")}


def test_every_policy_has_a_status_the_useless_ones_too() -> None:
    text = policy("{rules: [{}]}", name="good")
    text += policy("{action: CUSTOM, rules: [{}]}", name="custom")
    text += policy(STRICT, kind="PeerAuthentication", name="default")
    found = mesh(text)
    assert len(found.statuses) == 3
    assert "shop/good" in found.policies
    assert "shop/custom" not in found.policies


def test_the_order_of_objects_does_not_matter() -> None:
    parts = [pod(), pod("b", labels="app: web"), policy(SELECTS_WEB)]
    parts.append(policy(STRICT, kind="PeerAuthentication", name="default"))
    found = mesh("".join(parts))
    for seed in range(5):
        shuffled = random.Random(seed).sample(parts, len(parts))
        again = mesh("".join(shuffled))
        assert (again.workloads, again.policies, again.pods) == (
            found.workloads,
            found.policies,
            found.pods,
        )


def test_a_report_changes_the_captured_pod_alone() -> None:
    objects = manifests.objects(pod() + pod("b", address="10.1.0.2"))
    before = compile_mesh(objects, Settings(), frozenset())
    (uid,) = (each for each in before.pods if before.pods[each].name == "web")
    after = compile_mesh(objects, Settings(), frozenset({uid}))
    changed = {key for key, value in after.workloads.items() if value != before.workloads[key]}
    assert changed == {UID}
