"""Policies that leave pods to their waypoints: there as long as some pod has them."""

from __future__ import annotations

from control.model.policy import Policy
from control.model.route import WaypointKey
from control.server.compile.enclosures import Enclosures
from control.server.compile.settings import Settings
from control.server.compile.table import ResourceTable
from control.server.sources.objects import Key

A, B = Key("Pod", "shop", "a"), Key("Pod", "shop", "b")
WAY, GATE = WaypointKey("shop", "way"), WaypointKey("infra", "gate")


def test_a_policy_goes_with_the_last_pod_that_has_it() -> None:
    policies: ResourceTable[Policy] = ResourceTable()
    found = Enclosures(Settings(), policies)
    name = found.put(A, [WAY])
    assert name == found.put(B, [WAY]) == "istio-system/only_by_waypoint_shop_way"
    assert list(policies.current) == [name]
    found.put(A, [])
    assert list(policies.current) == [name]
    assert found.put(B, []) == ""
    assert policies.current == {}


def test_several_waypoints_make_one_policy_in_whatever_order() -> None:
    policies: ResourceTable[Policy] = ResourceTable()
    found = Enclosures(Settings(), policies)
    name = found.put(A, [WAY, GATE])
    assert found.put(B, [GATE, WAY, WAY]) == name
    (match,) = policies.current[name].rules[0].clauses[0].matches_any
    assert [each.value for each in match.not_principals] == [
        "cluster.local/ns/infra/sa/gate",
        "cluster.local/ns/shop/sa/way",
    ]
    found.put(A, [WAY])
    assert len(policies.current) == 2
