"""References across namespaces."""

from __future__ import annotations

import pytest

from control.server.gateway.grants import Grants
from control.server.sources.objects import Key
from control.server.sources.route_specs import GATEWAY_GROUP, TargetRef
from tests.support.gateways import grant
from tests.support.manifests import objects

ROUTE = Key("HTTPRoute", "shop", "a")
DB = TargetRef("", "Service", "mine", "db")


def grants(text: str) -> Grants:
    found = Grants()
    for each in objects(text).reference_grants:
        found.put(each.meta.key, each)
    return found


@pytest.mark.parametrize(
    ("text", "is_allowed"),
    [
        ("", False),
        (grant("mine", "shop"), True),
        (grant("mine", "shop", "db"), True),
        (grant("mine", "shop", "web"), False),
        (grant("mine", "other"), False),
        (grant("shop", "shop"), False),
        (grant("mine", "shop", kind="GRPCRoute"), False),
        (grant("mine", "shop").replace("kind: Service", "kind: Secret"), False),
        (grant("mine", "shop").replace("group: ''", "group: x.io"), False),
        (grant("mine", "shop").replace("group: gateway.networking.k8s.io", "group: ''"), False),
    ],
)
def test_the_target_says_who_may_name_it(text: str, is_allowed: bool) -> None:
    assert grants(text).allow(ROUTE, GATEWAY_GROUP, DB) == is_allowed


def test_nobody_needs_a_grant_at_home() -> None:
    assert Grants().allow(ROUTE, GATEWAY_GROUP, TargetRef("", "Service", "shop", "db"))


def test_a_grant_that_goes_grants_no_more() -> None:
    found = grants(grant("mine", "shop"))
    (key,) = found.keys()
    found.put(key, None)
    assert not found.allow(ROUTE, GATEWAY_GROUP, DB)
    assert found.keys() == []
