"""Notes on routes and policies that do less than they say."""

from __future__ import annotations

from control.server.compile.mesh import KnownCaptures, Mesh
from control.server.compile.settings import Settings
from control.server.gateway.gateways import Gateways
from tests.support.gateways import gateway, namespace, route, service
from tests.support.manifests import objects

POLICY = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  action: ALLOW
  rules: [{to: [{operation: {methods: [GET]}}]}]
"""
SPEC = "rules: [{backendRefs: [{name: absent, port: 80}]}]"


def notes(*texts: str) -> list[tuple[str, str, str]]:
    changed = objects("".join(texts)).by_key()
    mesh, gateways = Mesh(Settings(), KnownCaptures(frozenset())), Gateways(Settings())
    gateways.apply(changed, mesh.apply(changed))
    return [(each.object, each.reason, each.message) for each in gateways.notes]


def test_a_policy_for_a_service_without_a_waypoint_says_that_nobody_enforces_it() -> None:
    ((name, reason, said),) = notes(namespace(), service("web"), POLICY)
    assert (name, reason) == ("AuthorizationPolicy shop/readers", "Unmatched")
    assert said == "no waypoint enforces it for Service shop/web"
    label = "istio.io/use-waypoint: way"
    assert notes(namespace(), gateway(), service("web", labels=label), POLICY) == []


def test_a_route_says_where_it_is_not_taken_and_what_it_lacks() -> None:
    label = "istio.io/use-waypoint: way"
    web = service("web", labels=label)
    found = notes(namespace(), gateway(), web, route(SPEC))
    assert [(name, reason) for name, reason, _ in found] == [
        ("HTTPRoute shop/route", "BackendNotFound")
    ]
    assert "at Service shop/web" in found[0][2]
    assert notes(namespace(), gateway(), web, service("absent"), route(SPEC)) == []
