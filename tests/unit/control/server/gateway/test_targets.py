"""Targets of policies: a service, a waypoint, a class of them."""

from __future__ import annotations

import pytest

from control.model.route import Layer
from control.server.compile.settings import Settings
from control.server.gateway.targets import POLICIES_MAX, TOO_MANY, TargetedPolicies
from tests.support.manifests import objects, policy

WEB = ("Service", "shop", "web")
GROUP = "gateway.networking.k8s.io"


def put(*texts: str) -> TargetedPolicies:
    found = TargetedPolicies(Settings())
    for each in objects("".join(texts)).authorization_policies:
        found.put(each.meta.key, each)
    return found


@pytest.mark.parametrize(
    ("target", "namespace", "expected"),
    [
        ("{kind: Service, name: web}", "shop", WEB),
        ("{group: core, kind: Service, name: web}", "shop", WEB),
        (f"{{group: {GROUP}, kind: Gateway, name: way}}", "shop", ("Gateway", "shop", "way")),
        (f"{{group: {GROUP}, kind: GatewayClass, name: c}}", "shop", None),
        (
            f"{{group: {GROUP}, kind: GatewayClass, name: c}}",
            "istio-system",
            ("GatewayClass", "istio-system", "c"),
        ),
        ("{kind: Gateway, name: way}", "shop", None),
        ("{group: networking.istio.io, kind: ServiceEntry, name: x}", "shop", None),
        ("{kind: Service, name: web, namespace: other}", "shop", None),
    ],
)
def test_targets(target: str, namespace: str, expected: tuple[str, str, str] | None) -> None:
    (value,) = objects(
        policy(f"{{targetRefs: [{target}]}}", namespace=namespace)
    ).authorization_policies
    found = TargetedPolicies(Settings())
    assert found.put(value.meta.key, value) == (set() if expected is None else {expected})
    if expected is not None:
        assert [each.name for each in found.of([expected], Layer.HTTP)] == [f"{namespace}/p"]
    found.put(value.meta.key, None)
    assert list(found.keys()) == []


def test_the_old_form_with_one_target() -> None:
    assert put(policy("{targetRef: {kind: Service, name: web}}")).of([WEB], Layer.TCP)


def test_policies_with_a_selector_are_for_layer_4() -> None:
    assert (
        put(policy("{selector: {matchLabels: {app: web}}}"), policy("{}", name="q")).of(
            [WEB], Layer.HTTP
        )
        == ()
    )


def test_a_policy_with_two_matching_targets_counts_once_in_one_order() -> None:
    way = f"{{group: {GROUP}, kind: Gateway, name: w}}"
    both = f"{{targetRefs: [{{kind: Service, name: web}}, {way}]}}"
    found = put(policy(both, name="b"), policy(both, name="a"))
    names = [each.name for each in found.of([WEB, ("Gateway", "shop", "w")], Layer.HTTP)]
    assert names == ["shop/a", "shop/b"]


def test_too_many_policies_close_the_front() -> None:
    text = [
        policy("{targetRefs: [{kind: Service, name: web}], rules: [{}]}", name=f"p{at}")
        for at in range(POLICIES_MAX + 1)
    ]
    assert len(put(*text[1:]).of([WEB], Layer.HTTP)) == POLICIES_MAX
    assert put(*text).of([WEB], Layer.HTTP) == (TOO_MANY,)
